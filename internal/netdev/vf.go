// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrNoVF says that a PF does not tell about a VF: it has none of that number, or its driver tells nothing.
var ErrNoVF = errors.New("no such VF")

// ErrNoLink says that a network interface is not where it was looked for.
var ErrNoLink = errors.New("no such network interface")

var errShortMessage = errors.New("netlink message is too short")

// VF is a virtual function as its PF knows it: what the NIC enforces, whatever the VF's user does. Like a line of `ip link show PF`.
type VF struct {
	// ID is the number of the VF on its PF, from 0.
	ID int `json:"id"`
	// MAC is the administrative MAC, lower-case. All zero leaves the choice to the VF's driver. Empty where the driver tells none.
	MAC  string `json:"mac,omitempty"`
	VLAN VLAN   `json:"vlan"`
	// MinTxMbps and MaxTxMbps bound what the VF sends, in Mbit/s; 0 is no bound.
	MinTxMbps  int  `json:"minTxMbps"`
	MaxTxMbps  int  `json:"maxTxMbps"`
	SpoofCheck bool `json:"spoofCheck"`
	Trust      bool `json:"trust"`
	// LinkState is auto, enable or disable.
	LinkState string `json:"linkState"`
}

// VLAN is the tag that a PF puts on a VF's frames.
type VLAN struct {
	// ID is 1 to 4094, or 0 for no tag.
	ID int `json:"id"`
	// QoS is the priority (PCP), 0 to 7.
	QoS int `json:"qos"`
	// Proto is 802.1q or 802.1ad.
	Proto string `json:"proto"`
}

// The protocols of a VLAN tag.
const (
	VLANProto8021Q  = "802.1q"
	VLANProto8021AD = "802.1ad"
)

// The link states of a VF.
const (
	LinkStateAuto    = "auto"
	LinkStateEnable  = "enable"
	LinkStateDisable = "disable"
)

// VFSetting is a part of a VF that its PF sets at once. Its text is the option's name in the network configuration.
type VFSetting string

// The settings of a VF.
const (
	VFTrust      VFSetting = "trust"
	VFVLAN       VFSetting = "vlan"
	VFMAC        VFSetting = "mac"
	VFRate       VFSetting = "rate" // both rates are one call
	VFSpoofCheck VFSetting = "spoofchk"
	VFLinkState  VFSetting = "link_state"
)

// Same reports whether v and other agree in a setting.
func (v VF) Same(s VFSetting, other VF) bool {
	return v.Value(s) == other.Value(s)
}

// Value is a setting as people write it.
func (v VF) Value(s VFSetting) string {
	onOff := map[bool]string{true: "on", false: "off"}
	switch s {
	case VFTrust:
		return onOff[v.Trust]
	case VFVLAN:
		return fmt.Sprintf("%d, QoS %d, %s", v.VLAN.ID, v.VLAN.QoS, v.VLAN.Proto)
	case VFMAC:
		return v.MAC
	case VFRate:
		return fmt.Sprintf("min %d max %d Mbit/s", v.MinTxMbps, v.MaxTxMbps)
	case VFSpoofCheck:
		return onOff[v.SpoofCheck]
	case VFLinkState:
		return v.LinkState
	}
	return ""
}

// vfs is what a user of VFs asks of a kernel, real or fake.
type vfs interface {
	VF(pf string, id int) (VF, error)
	SetVF(pf string, s VFSetting, to VF) error
}

var (
	_ vfs = (*Linux)(nil)
	_ vfs = (*Fake)(nil)
)

// VF asks the PF, an interface of the host, about one of its VFs. The error matches [ErrNoLink] or [ErrNoVF]. Like `ip link show PF`.
func (l *Linux) VF(pf string, id int) (VF, error) {
	vf, err := vfOf(pf, id)
	if err != nil {
		return VF{}, fmt.Errorf("VF %d of PF %s: %w", id, pf, err)
	}
	return vf, nil
}

// vfOf does not use the netlink library's list of VFs: its VfInfo.ID is the place in the list (v1.3.1), and the kernel leaves out a VF
// that the driver can not tell about. Each entry has its number inside.
func vfOf(pf string, id int) (VF, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	index, err := indexOf(pf)
	if err != nil {
		return VF{}, err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = index
	req.AddData(msg)
	// Without statistics, 64 KiB of an attribute hold some hundred VFs more. Linux 4.6.
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(nl.RTEXT_FILTER_VF|rtextFilterSkipStats)))
	replies, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return VF{}, err
	}
	for _, reply := range replies {
		vf, found, err := findVF(reply, id)
		if err != nil || found {
			return vf, err
		}
	}
	return VF{}, fmt.Errorf("%w: the PF's driver tells nothing of it", ErrNoVF)
}

// rtextFilterSkipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const rtextFilterSkipStats = 1 << 3

// findVF looks for a VF in a link message.
func findVF(message []byte, id int) (VF, bool, error) {
	if len(message) < unix.SizeofIfInfomsg {
		return VF{}, false, errShortMessage
	}
	attrs, err := parseAttrs(message[unix.SizeofIfInfomsg:])
	if err != nil {
		return VF{}, false, err
	}
	for _, list := range attrs {
		if list.Attr.Type != unix.IFLA_VFINFO_LIST {
			continue
		}
		entries, err := parseAttrs(list.Value)
		if err != nil {
			return VF{}, false, err
		}
		for _, entry := range entries {
			if entry.Attr.Type != nl.IFLA_VF_INFO {
				continue
			}
			vf, err := parseVF(entry.Value)
			if err != nil || vf.ID == id {
				return vf, err == nil, err
			}
		}
	}
	return VF{}, false, nil
}

// parseAttrs splits attributes. The library relies on it that the last one is padded, and a list of so many VFs that its length does not
// fit into 16 bits is cut anywhere.
func parseAttrs(b []byte) ([]syscall.NetlinkRouteAttr, error) {
	return nl.ParseRouteAttr(append(slices.Clip(b), make([]byte, -len(b)&(unix.RTA_ALIGNTO-1))...))
}

// parseVF reads one IFLA_VF_INFO.
func parseVF(entry []byte) (VF, error) {
	attrs, err := parseAttrs(entry)
	if err != nil {
		return VF{}, err
	}
	vf := VF{ID: -1, VLAN: VLAN{Proto: VLANProto8021Q}, LinkState: LinkStateAuto}
	for _, a := range attrs {
		if err := vf.parse(a); err != nil {
			return VF{}, err
		}
	}
	if vf.ID < 0 {
		return VF{}, errors.New("the kernel tells of a VF without its number")
	}
	return vf, nil
}

func (v *VF) parse(a syscall.NetlinkRouteAttr) error {
	value := a.Value
	sizes := map[uint16]int{
		nl.IFLA_VF_MAC: nl.SizeofVfMac, nl.IFLA_VF_VLAN: nl.SizeofVfVlan, nl.IFLA_VF_RATE: nl.SizeofVfRate,
		nl.IFLA_VF_SPOOFCHK: nl.SizeofVfSpoofchk, nl.IFLA_VF_LINK_STATE: nl.SizeofVfLinkState, nl.IFLA_VF_TRUST: nl.SizeofVfTrust,
	}
	if len(value) < sizes[a.Attr.Type] {
		return errShortMessage
	}
	switch a.Attr.Type {
	case nl.IFLA_VF_MAC:
		mac := nl.DeserializeVfMac(value)
		v.ID = int(mac.Vf)
		v.MAC = net.HardwareAddr(mac.Mac[:6]).String()
	case nl.IFLA_VF_VLAN:
		vlan := nl.DeserializeVfVlan(value)
		v.VLAN.ID, v.VLAN.QoS = int(vlan.Vlan), int(vlan.Qos)
	case nl.IFLA_VF_VLAN_LIST:
		return v.parseVLANs(value)
	case nl.IFLA_VF_RATE:
		rate := nl.DeserializeVfRate(value)
		v.MinTxMbps, v.MaxTxMbps = int(rate.MinTxRate), int(rate.MaxTxRate)
	// What a driver can not tell has all bits set.
	case nl.IFLA_VF_SPOOFCHK:
		setting := nl.DeserializeVfSpoofchk(value).Setting
		v.SpoofCheck = setting != 0 && setting != ^uint32(0)
	case nl.IFLA_VF_TRUST:
		setting := nl.DeserializeVfTrust(value).Setting
		v.Trust = setting != 0 && setting != ^uint32(0)
	case nl.IFLA_VF_LINK_STATE:
		switch nl.DeserializeVfLinkState(value).LinkState {
		case netlink.VF_LINK_STATE_ENABLE:
			v.LinkState = LinkStateEnable
		case netlink.VF_LINK_STATE_DISABLE:
			v.LinkState = LinkStateDisable
		}
	}
	return nil
}

// parseVLANs reads the protocol of the VF's first tag. The kernel has one tag a VF so far.
func (v *VF) parseVLANs(list []byte) error {
	attrs, err := parseAttrs(list)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if a.Attr.Type != nl.IFLA_VF_VLAN_INFO {
			continue
		}
		if len(a.Value) < nl.SizeofVfVlanInfo {
			return errShortMessage
		}
		if nl.DeserializeVfVlanInfo(a.Value).VlanProto == unix.ETH_P_8021AD {
			v.VLAN.Proto = VLANProto8021AD
		}
		return nil
	}
	return nil
}

// SetVF makes the PF set one part of a VF, that of number to.ID, to what it is in to. The kernel's error is among what the error
// matches: EOPNOTSUPP and the like tell what the driver can not do. Like `ip link set PF vf ID ...`.
func (l *Linux) SetVF(pf string, s VFSetting, to VF) error {
	if err := setVF(pf, s, to); err != nil {
		return fmt.Errorf("set %s of VF %d of PF %s to %s: %w", s, to.ID, pf, to.Value(s), err)
	}
	return nil
}

func setVF(pf string, s VFSetting, to VF) error {
	index, err := indexOf(pf)
	if err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: int(index)}}
	switch s {
	case VFTrust:
		return h.LinkSetVfTrust(link, to.ID, to.Trust)
	case VFVLAN:
		return setVLAN(h, link, to)
	case VFMAC:
		mac, err := net.ParseMAC(to.MAC)
		if err != nil {
			return err
		}
		return h.LinkSetVfHardwareAddr(link, to.ID, mac)
	case VFRate:
		return h.LinkSetVfRate(link, to.ID, to.MinTxMbps, to.MaxTxMbps)
	case VFSpoofCheck:
		return h.LinkSetVfSpoofchk(link, to.ID, to.SpoofCheck)
	case VFLinkState:
		state, ok := map[string]uint32{LinkStateAuto: netlink.VF_LINK_STATE_AUTO, LinkStateEnable: netlink.VF_LINK_STATE_ENABLE, LinkStateDisable: netlink.VF_LINK_STATE_DISABLE}[to.LinkState]
		if !ok {
			return fmt.Errorf("no link state %q", to.LinkState)
		}
		return h.LinkSetVfState(link, to.ID, state)
	}
	return fmt.Errorf("no setting %q", s)
}

// setVLAN names the protocol only where it has to: drivers of old know the call without it.
func setVLAN(h *netlink.Handle, link netlink.Link, to VF) error {
	if to.VLAN.Proto == VLANProto8021AD {
		return h.LinkSetVfVlanQosProto(link, to.ID, to.VLAN.ID, to.VLAN.QoS, unix.ETH_P_8021AD)
	}
	return h.LinkSetVfVlanQos(link, to.ID, to.VLAN.ID, to.VLAN.QoS)
}

// indexOf finds an interface of the host.
func indexOf(name string) (int32, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", ErrNoLink, name)
	}
	return int32(link.Index), nil //nolint:gosec // an ifindex has 31 bits
}

// IsZeroMAC reports whether a MAC is empty or all zero: none that was chosen.
func IsZeroMAC(mac string) bool {
	hw, err := net.ParseMAC(mac)
	return err != nil || len(bytes.Trim(hw, "\x00")) == 0
}
