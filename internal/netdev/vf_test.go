// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"encoding/binary"
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

func TestFindVF(t *testing.T) {
	t.Parallel()
	silent := attr(nl.IFLA_VF_INFO, vfMAC(1), attr(nl.IFLA_VF_SPOOFCHK, words(1, ^uint32(0))), attr(nl.IFLA_VF_TRUST, words(1, ^uint32(0))), attr(nl.IFLA_VF_LINK_STATE, words(1, 1)))
	full := VF{ID: 7, MAC: "02:00:00:00:00:07", VLAN: VLAN{ID: 100, QoS: 3, Proto: VLANProto8021AD}, MinTxMbps: 10, MaxTxMbps: 1000, SpoofCheck: true, Trust: true, LinkState: LinkStateDisable}
	none := VF{ID: 1, MAC: "00:00:00:00:00:00", VLAN: VLAN{Proto: VLANProto8021Q}, LinkState: LinkStateEnable}
	for name, tc := range map[string]struct {
		message []byte
		id      int
		want    VF
		found   bool
		err     string
	}{
		"by its number, in a list with holes":                {linkMessage(silent, fullVF(7)), 7, full, true, ""},
		"not by its place in the list":                       {linkMessage(fullVF(3), fullVF(7)), 1, VF{}, false, ""},
		"what the driver can not tell is off":                {linkMessage(silent), 1, none, true, ""},
		"no VFs":                                             {linkMessage(), 0, VF{}, false, ""},
		"no list":                                            {make([]byte, unix.SizeofIfInfomsg), 0, VF{}, false, ""},
		"a message that is cut short":                        {[]byte{1, 2, 3}, 0, VF{}, false, "too short"},
		"an attribute that is cut short":                     {linkMessage(attr(nl.IFLA_VF_INFO, attr(nl.IFLA_VF_MAC, words(0)))), 0, VF{}, false, "too short"},
		"a VLAN that is cut short":                           {linkMessage(attr(nl.IFLA_VF_INFO, vfMAC(0), attr(nl.IFLA_VF_VLAN_LIST, attr(nl.IFLA_VF_VLAN_INFO, words(0))))), 0, VF{}, false, "too short"},
		"a VF without number":                                {linkMessage(attr(nl.IFLA_VF_INFO, attr(nl.IFLA_VF_TRUST, words(0, 1)))), 0, VF{}, false, "without its number"},
		"what is no VF in the list":                          {linkMessage(attr(77, words(1)), fullVF(7)), 7, full, true, ""},
		"an attribute that is longer than what it is within": {append(linkMessage(), 0xff, 0xff, 1, 0), 0, VF{}, false, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, found, err := findVF(tc.message, tc.id)
			if diff := cmp.Diff(tc.want, got); diff != "" || found != tc.found {
				t.Errorf("found=%t, -want +got:\n%s", found, diff)
			}
			if (err == nil) != (tc.err == "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
}

// FuzzFindVF never panics, and finds only what it was asked for, in words that can be set again.
func FuzzFindVF(f *testing.F) {
	f.Add(linkMessage(fullVF(7), fullVF(0)), 7)
	f.Add(linkMessage(attr(nl.IFLA_VF_INFO, vfMAC(1))), 1)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, message []byte, id int) {
		vf, found, err := findVF(message, id)
		if !found {
			if vf != (VF{}) {
				t.Errorf("not found, and yet %+v", vf)
			}
			return
		}
		if err != nil || vf.ID != id {
			t.Errorf("asked for VF %d, got %+v, %v", id, vf, err)
		}
		if _, err := net.ParseMAC(vf.MAC); err != nil {
			t.Errorf("MAC: %v", err)
		}
		if !slices.Contains([]string{LinkStateAuto, LinkStateEnable, LinkStateDisable}, vf.LinkState) || !slices.Contains([]string{VLANProto8021Q, VLANProto8021AD}, vf.VLAN.Proto) {
			t.Errorf("%+v", vf)
		}
	})
}
