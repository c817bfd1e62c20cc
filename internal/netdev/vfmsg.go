// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// rtextFilterSkipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h (Linux 4.6). The statistics of a VF take as much room as all else
	// that is told of it, and many drivers a command to the firmware.
	rtextFilterSkipStats = 1 << 3
	// nlaTypeMask is NLA_TYPE_MASK of linux/netlink.h: an attribute's type without its flags.
	nlaTypeMask = 0x3fff
	// vfTimeout bounds the wait for the kernel's answer, in seconds: it asks the PF's driver about each VF.
	vfTimeout = 60
	// maxLinkMessage bounds a link message, in bytes. A VF takes about 200, and a PF has 65,535 at most.
	maxLinkMessage = 16 << 20
)

// askVFs asks for a PF of the host with all its VFs, and what else a mask of RTEXT_FILTER_ says, and returns the kernel's link message. The netlink
// library would cut it at 64 KiB: that is some 220 VFs with statistics, 330 without.
func askVFs(pf string, mask uint32) ([]byte, error) {
	index, err := indexOf(pf)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: vfTimeout}); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index) //nolint:gosec // an ifindex has 31 bits
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(mask)))
	if err := unix.Sendto(fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	for {
		// The length first: with MSG_TRUNC it is that of the message, however little of it is taken.
		length, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if length > maxLinkMessage {
			return nil, fmt.Errorf("the kernel's answer has %d bytes", length)
		}
		buf := make([]byte, length)
		_, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == nl.PidKernel {
			return linkAnswer(buf)
		}
	}
}

// linkAnswer is what the kernel says to a question for one link.
func linkAnswer(b []byte) ([]byte, error) {
	if len(b) < unix.SizeofNlMsghdr {
		return nil, errShortMessage
	}
	length, kind := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint16(b[4:])
	if int64(length) > int64(len(b)) || length < unix.SizeofNlMsghdr {
		return nil, errShortMessage
	}
	body := b[unix.SizeofNlMsghdr:length]
	switch {
	case kind == unix.RTM_NEWLINK:
		return body, nil
	case kind == unix.NLMSG_ERROR && len(body) >= 4: //nolint:mnd // an errno
		return nil, syscall.Errno(-int32(binary.NativeEndian.Uint32(body))) //nolint:gosec // it is negative
	}
	return nil, fmt.Errorf("the kernel answers by a message of type %d", kind)
}

// attributes are netlink attributes, one behind the other.
type attributes []byte

// next splits the first one off. It is false at the end, and before one that does not fit in, of which only the kind counts.
func (a attributes) next() (kind uint16, value, rest attributes, ok bool) { //nolint:nonamedreturns // two of one type
	if len(a) < unix.SizeofRtAttr {
		return 0, nil, nil, false
	}
	length := int(binary.NativeEndian.Uint16(a))
	kind = binary.NativeEndian.Uint16(a[2:]) & nlaTypeMask
	if length < unix.SizeofRtAttr || length > len(a) {
		return kind, nil, nil, false
	}
	next := min((length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(a))
	return kind, a[unix.SizeofRtAttr:length], a[next:], true
}

// all visits them, by kind.
func (a attributes) all() iter.Seq2[uint16, attributes] {
	return func(yield func(uint16, attributes) bool) {
		for {
			kind, value, rest, ok := a.next()
			if !ok || !yield(kind, value) {
				return
			}
			a = rest
		}
	}
}

// findVF looks for what a link message tells of a VF. The list of VFs is read until the VF is found, or what follows is none, or the message ends:
// the list's own length has 16 bits, and is wrong with many VFs (Linux 6.18, nla_nest_end).
func findVF(message []byte, id int) (attributes, error) {
	if len(message) < unix.SizeofIfInfomsg {
		return nil, errShortMessage
	}
	list := attributes(message[unix.SizeofIfInfomsg:])
	for {
		kind, _, rest, ok := list.next()
		if kind == unix.IFLA_VFINFO_LIST {
			break
		}
		if !ok {
			return nil, ErrVFsUntold
		}
		list = rest
	}
	for kind, entry := range list[unix.SizeofRtAttr:].all() {
		if kind != nl.IFLA_VF_INFO {
			break
		}
		number, err := entry.vfNumber()
		if err != nil || number == id {
			return entry, err
		}
	}
	return nil, ErrNoVF
}

// vfNumber is that of the VF which the attributes are of.
func (a attributes) vfNumber() (int, error) {
	for kind, value := range a.all() {
		if kind == nl.IFLA_VF_MAC && len(value) < nl.SizeofVfMac {
			return 0, errShortMessage
		}
		if kind == nl.IFLA_VF_MAC {
			return int(binary.NativeEndian.Uint32(value)), nil
		}
	}
	return 0, errors.New("the kernel tells of a VF without its number")
}

// parseVF reads one IFLA_VF_INFO.
func parseVF(entry attributes) (VF, error) {
	vf := VF{VLAN: VLAN{Proto: VLANProto8021Q}, LinkState: LinkStateAuto}
	for kind, value := range entry.all() {
		if err := vf.parse(kind, value); err != nil {
			return VF{}, err
		}
	}
	return vf, nil
}

// parse reads an attribute of a VF: numbers of 32 bits, of which the first is the VF's.
func (v *VF) parse(kind uint16, value attributes) error {
	size, known := map[uint16]int{
		nl.IFLA_VF_MAC: nl.SizeofVfMac, nl.IFLA_VF_VLAN: nl.SizeofVfVlan, nl.IFLA_VF_RATE: nl.SizeofVfRate,
		nl.IFLA_VF_SPOOFCHK: nl.SizeofVfSpoofchk, nl.IFLA_VF_LINK_STATE: nl.SizeofVfLinkState, nl.IFLA_VF_TRUST: nl.SizeofVfTrust,
	}[kind]
	if kind == nl.IFLA_VF_VLAN_LIST {
		return v.parseVLANs(value)
	}
	if !known {
		return nil
	}
	if len(value) < size {
		return errShortMessage
	}
	word := func(i int) int { return int(binary.NativeEndian.Uint32(value[4*i:])) }
	// What a driver cannot tell has all bits set.
	isOn := func(setting int) bool { return setting != 0 && setting != int(^uint32(0)) }
	switch kind {
	case nl.IFLA_VF_MAC:
		v.ID, v.MAC = word(0), net.HardwareAddr(value[4:10]).String()
	case nl.IFLA_VF_VLAN:
		v.VLAN.ID, v.VLAN.QoS = word(1), word(2)
	case nl.IFLA_VF_RATE:
		v.MinTxMbps, v.MaxTxMbps = word(1), word(2)
	case nl.IFLA_VF_SPOOFCHK:
		v.SpoofCheck = isOn(word(1))
	case nl.IFLA_VF_TRUST:
		v.Trust = isOn(word(1))
	case nl.IFLA_VF_LINK_STATE:
		switch uint32(word(1)) { //nolint:gosec // from as many bits
		case netlink.VF_LINK_STATE_ENABLE:
			v.LinkState = LinkStateEnable
		case netlink.VF_LINK_STATE_DISABLE:
			v.LinkState = LinkStateDisable
		}
	}
	return nil
}

// parseVLANs reads the protocol of the VF's first tag. The kernel has one tag a VF so far.
func (v *VF) parseVLANs(tags attributes) error {
	for kind, value := range tags.all() {
		if kind != nl.IFLA_VF_VLAN_INFO {
			continue
		}
		if len(value) < nl.SizeofVfVlanInfo {
			return errShortMessage
		}
		if binary.BigEndian.Uint16(value[12:]) == unix.ETH_P_8021AD {
			v.VLAN.Proto = VLANProto8021AD
		}
		return nil
	}
	return nil
}

// vfAttr is a setting as the kernel takes it, in the form in which it tells it too: numbers of 32 bits, of which the first is the VF's.
func vfAttr(s VFSetting, to VF) (*nl.RtAttr, error) {
	words := func(kind int, values ...uint32) (*nl.RtAttr, error) {
		b := binary.NativeEndian.AppendUint32(nil, uint32(to.ID)) //nolint:gosec // a PF has 65,535 at most
		for _, v := range values {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		return nl.NewRtAttr(kind, b), nil
	}
	onOff := map[bool]uint32{true: 1, false: 0}
	switch s {
	case VFTrust:
		return words(nl.IFLA_VF_TRUST, onOff[to.Trust])
	case VFVLAN:
		id, qos := uint32(to.VLAN.ID), uint32(to.VLAN.QoS) //nolint:gosec // the kernel checks both
		if to.VLAN.Proto != VLANProto8021AD {
			return words(nl.IFLA_VF_VLAN, id, qos) // without the protocol, as drivers of old know the call
		}
		proto := binary.NativeEndian.Uint32([]byte{unix.ETH_P_8021AD >> 8, unix.ETH_P_8021AD & 0xff, 0, 0}) // 16 bits, big-endian, and padding
		tag, err := words(nl.IFLA_VF_VLAN_INFO, id, qos, proto)
		list := nl.NewRtAttr(nl.IFLA_VF_VLAN_LIST, nil)
		list.AddChild(tag)
		return list, err
	case VFMAC:
		mac, err := net.ParseMAC(to.MAC)
		if err != nil {
			return nil, err
		}
		attr, err := words(nl.IFLA_VF_MAC)
		attr.Data = append(append(attr.Data, mac...), make([]byte, nl.SizeofVfMac-len(attr.Data)-len(mac))...)
		return attr, err
	case VFRate:
		return words(nl.IFLA_VF_RATE, uint32(to.MinTxMbps), uint32(to.MaxTxMbps)) //nolint:gosec // they were checked where they came in
	case VFSpoofCheck:
		return words(nl.IFLA_VF_SPOOFCHK, onOff[to.SpoofCheck])
	case VFLinkState:
		state, ok := map[string]uint32{LinkStateAuto: netlink.VF_LINK_STATE_AUTO, LinkStateEnable: netlink.VF_LINK_STATE_ENABLE, LinkStateDisable: netlink.VF_LINK_STATE_DISABLE}[to.LinkState]
		if !ok {
			return nil, fmt.Errorf("no link state %q", to.LinkState)
		}
		return words(nl.IFLA_VF_LINK_STATE, state)
	}
	return nil, fmt.Errorf("no setting %q", s)
}
