// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attr is a netlink attribute, padded.
func attr(kind uint16, content ...[]byte) []byte {
	value := slices.Concat(content...)
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// words are numbers of 32 bits as the kernel has them.
func words(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

func vfMAC(id uint32, mac ...byte) []byte {
	return attr(nl.IFLA_VF_MAC, words(id), mac, make([]byte, 32-len(mac)))
}

// linkMessage is the answer of a PF with these VFs, among other things that it tells.
func linkMessage(vfs ...[]byte) []byte {
	return slices.Concat(make([]byte, unix.SizeofIfInfomsg), attr(unix.IFLA_IFNAME, []byte("eth4\x00")), attr(unix.IFLA_VFINFO_LIST, vfs...))
}

func fullVF(id uint32) []byte {
	const proto = unix.ETH_P_8021AD
	info := append(words(id, 100, 3), byte(proto>>8), byte(proto&0xff), 0, 0)
	return attr(nl.IFLA_VF_INFO,
		vfMAC(id, 2, 0, 0, 0, 0, byte(id)),
		attr(nl.IFLA_VF_VLAN, words(id, 100, 3)), attr(nl.IFLA_VF_VLAN_LIST, attr(nl.IFLA_VF_VLAN_INFO, info)),
		attr(nl.IFLA_VF_RATE, words(id, 10, 1000)), attr(nl.IFLA_VF_SPOOFCHK, words(id, 1)), attr(nl.IFLA_VF_TRUST, words(id, 1)),
		attr(nl.IFLA_VF_LINK_STATE, words(id, 2)),
		attr(999, []byte("of a kernel to come")),
	)
}

// find is what Linux.VF does with the kernel's answer.
func find(message []byte, id int) (VF, error) {
	entry, err := findVF(message, id)
	if err != nil {
		return VF{}, err
	}
	return parseVF(entry)
}

func TestFindVF(t *testing.T) {
	t.Parallel()
	silent := attr(nl.IFLA_VF_INFO, vfMAC(1), attr(nl.IFLA_VF_SPOOFCHK, words(1, ^uint32(0))), attr(nl.IFLA_VF_TRUST, words(1, ^uint32(0))), attr(nl.IFLA_VF_LINK_STATE, words(1, 1)))
	full := VF{ID: 7, MAC: "02:00:00:00:00:07", VLAN: VLAN{ID: 100, QoS: 3, Proto: VLANProto8021AD}, MinTxMbps: 10, MaxTxMbps: 1000, SpoofCheck: true, Trust: true, LinkState: LinkStateDisable}
	none := VF{ID: 1, MAC: "00:00:00:00:00:00", VLAN: VLAN{Proto: VLANProto8021Q}, LinkState: LinkStateEnable}
	for name, tc := range map[string]struct {
		message []byte
		id      int
		want    VF
		err     string
	}{
		"by its number, in a list with holes":                {linkMessage(silent, fullVF(7)), 7, full, ""},
		"not by its place in the list":                       {linkMessage(fullVF(3), fullVF(7)), 1, VF{}, "does not list"},
		"what the driver cannot tell is off":                 {linkMessage(silent), 1, none, ""},
		"no VFs":                                             {linkMessage(), 0, VF{}, "does not list"},
		"no list":                                            {make([]byte, unix.SizeofIfInfomsg), 0, VF{}, "tells nothing"},
		"a message that is cut short":                        {[]byte{1, 2, 3}, 0, VF{}, "too short"},
		"an attribute that is cut short":                     {linkMessage(attr(nl.IFLA_VF_INFO, attr(nl.IFLA_VF_MAC, words(0)))), 0, VF{}, "too short"},
		"a VLAN that is cut short":                           {linkMessage(attr(nl.IFLA_VF_INFO, vfMAC(0), attr(nl.IFLA_VF_VLAN_LIST, attr(nl.IFLA_VF_VLAN_INFO, words(0))))), 0, VF{}, "too short"},
		"a VF without number":                                {linkMessage(attr(nl.IFLA_VF_INFO, attr(nl.IFLA_VF_TRUST, words(0, 1)))), 0, VF{}, "without its number"},
		"what follows the list is none of it":                {append(linkMessage(silent), fullVF(7)...), 7, full, ""},
		"the list ends with what is no VF":                   {append(linkMessage(silent), attr(77, words(1))...), 7, VF{}, "does not list"},
		"an attribute that is longer than what it is within": {append(linkMessage(), 0xff, 0xff, 1, 0), 0, VF{}, "does not list"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := find(tc.message, tc.id)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if (err == nil) != (tc.err == "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
}

// kernelVF is a VF as rtnl_fill_vfinfo of Linux 6.18 tells of it, without statistics: 196 bytes.
func kernelVF(id uint32) []byte {
	return attr(nl.IFLA_VF_INFO,
		vfMAC(id, 2, 0, 0, 0, byte(id>>8), byte(id)), attr(13, // IFLA_VF_BROADCAST
			make([]byte, 32)), attr(nl.IFLA_VF_VLAN, words(id, 0, 0)),
		attr(nl.IFLA_VF_RATE, words(id, 0, 0)), attr(nl.IFLA_VF_TX_RATE, words(id, 0)), attr(nl.IFLA_VF_SPOOFCHK, words(id, 1)),
		attr(nl.IFLA_VF_LINK_STATE, words(id, 0)), attr(nl.IFLA_VF_RSS_QUERY_EN, words(id, 0)), attr(nl.IFLA_VF_TRUST, words(id, 0)),
		attr(nl.IFLA_VF_VLAN_LIST, attr(nl.IFLA_VF_VLAN_INFO, append(words(id, 0, 0), 0x81, 0, 0, 0))),
	)
}

// TestFindVFAmongMany has more VFs than a list can tell its length of, in 16 bits: 334.
func TestFindVFAmongMany(t *testing.T) {
	t.Parallel()
	if size := len(kernelVF(0)); size != 196 {
		t.Fatalf("a VF takes %d bytes, the kernel's 196", size)
	}
	for _, count := range []uint32{1, 64, 256, 333, 334, 335, 336, 512, 669, 4096} {
		var vfs [][]byte
		for id := range count {
			vfs = append(vfs, kernelVF(id))
		}
		// Behind the list come others, as the name of the device.
		message := append(linkMessage(vfs...), attr(unix.IFLA_PARENT_DEV_NAME, []byte("0000:03:00.0\x00"))...)
		for _, id := range []int{0, int(count) / 2, int(count) - 1} {
			if vf, err := find(message, id); err != nil || vf.ID != id || vf.MAC == "" {
				t.Errorf("VF %d of %d: %+v, %v", id, count, vf, err)
			}
		}
		if vf, err := find(message, int(count)); !errors.Is(err, ErrNoVF) {
			t.Errorf("VF %d of %d: %+v, %v, want ErrNoVF", count, count, vf, err)
		}
	}
}

// TestWhatIsSetIsWhatTheKernelTells holds the two directions of a message against each other: they have one form.
func TestWhatIsSetIsWhatTheKernelTells(t *testing.T) {
	t.Parallel()
	for name, to := range map[string]VF{
		"all":    {ID: 7, MAC: "02:00:00:00:00:07", VLAN: VLAN{ID: 100, QoS: 3, Proto: VLANProto8021Q}, MinTxMbps: 10, MaxTxMbps: 1000, SpoofCheck: true, Trust: false, LinkState: LinkStateEnable},
		"other":  {ID: 300, MAC: "02:00:00:00:00:08", VLAN: VLAN{ID: 5, Proto: VLANProto8021AD}, MinTxMbps: 1, MaxTxMbps: 2, SpoofCheck: false, Trust: true, LinkState: LinkStateDisable},
		"zeroes": {MAC: "00:00:00:00:00:00", VLAN: VLAN{Proto: VLANProto8021Q}, LinkState: LinkStateAuto},
	} {
		for _, s := range []VFSetting{VFTrust, VFVLAN, VFMAC, VFRate, VFSpoofCheck, VFLinkState} {
			set, err := vfAttr(s, to)
			if err != nil {
				t.Fatal(err)
			}
			told := slices.Concat(vfMAC(uint32(to.ID)), set.Serialize())
			if s == VFVLAN { // the kernel tells the tag with its protocol and without
				told = append(told, attr(nl.IFLA_VF_VLAN, words(uint32(to.ID), uint32(to.VLAN.ID), uint32(to.VLAN.QoS)))...)
			}
			got, err := parseVF(told)
			if err != nil || got.ID != to.ID || !got.Same(s, to) {
				t.Errorf("%s: %s of VF %d is told as %s of VF %d, want %s: %v", name, s, to.ID, got.Value(s), got.ID, to.Value(s), err)
			}
			for _, unset := range []VFSetting{VFTrust, VFSpoofCheck, VFLinkState, VFRate} {
				if none := (VF{LinkState: LinkStateAuto}); s != unset && !got.Same(unset, none) {
					t.Errorf("%s: %s sets %s too", name, s, unset)
				}
			}
		}
	}
	for _, s := range []VFSetting{VFLinkState, VFMAC, "colour"} {
		if _, err := vfAttr(s, VF{LinkState: "up", MAC: "none"}); err == nil {
			t.Errorf("%s: nonsense was taken", s)
		}
	}
}

// FuzzFindVF never panics, and finds only what it was asked for, in words that can be set again.
func FuzzFindVF(f *testing.F) {
	f.Add(linkMessage(fullVF(7), fullVF(0)), 7)
	f.Add(linkMessage(attr(nl.IFLA_VF_INFO, vfMAC(1))), 1)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, message []byte, id int) {
		vf, err := find(message, id)
		if err != nil {
			if vf != (VF{}) {
				t.Errorf("not found, and yet %+v", vf)
			}
			return
		}
		if vf.ID != id {
			t.Errorf("asked for VF %d, got %+v", id, vf)
		}
		if _, err := net.ParseMAC(vf.MAC); err != nil {
			t.Errorf("MAC: %v", err)
		}
		if !slices.Contains([]string{LinkStateAuto, LinkStateEnable, LinkStateDisable}, vf.LinkState) || !slices.Contains([]string{VLANProto8021Q, VLANProto8021AD}, vf.VLAN.Proto) {
			t.Errorf("%+v", vf)
		}
	})
}
