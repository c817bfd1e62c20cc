// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

var (
	// ErrNoVF says that a PF tells of its VFs, but not of the one that was asked for. It may have none of that number; or its driver cannot tell
	// of it at the moment: the kernel leaves out a VF whatever the driver's error is, as EBUSY while the VF is reset (ice).
	ErrNoVF = errors.New("the PF does not list this VF")
	// ErrVFsUntold says that a PF's driver tells nothing of any VF, and never will (virtio-net).
	ErrVFsUntold = errors.New("the PF's driver tells nothing of its VFs")
)

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

// VF asks the PF, an interface of the host, about one of its VFs. The error matches [ErrNoLink], [ErrNoVF] or
// [ErrVFsUntold]. Like `ip link show PF`.
func (l *Linux) VF(pf string, id int) (VF, error) {
	vf, err := vfOf(pf, id)
	if err != nil {
		return VF{}, fmt.Errorf("VF %d of PF %s: %w", id, pf, err)
	}
	return vf, nil
}

// vfOf does not use the netlink library's list of VFs: its VfInfo.ID is the place in the list (v1.3.1), and the kernel leaves out a VF
// that the driver cannot tell about. Each entry has its number inside.
func vfOf(pf string, id int) (VF, error) {
	message, err := askVFs(pf, nl.RTEXT_FILTER_VF|rtextFilterSkipStats)
	if err != nil {
		return VF{}, err
	}
	entry, err := findVF(message, id)
	if err != nil {
		return VF{}, err
	}
	return parseVF(entry)
}

// SetVF makes the PF set one part of a VF, that of number to.ID, to what it is in to. The kernel's error is among what the error
// matches: EOPNOTSUPP and the like tell what the driver cannot do. Like `ip link set PF vf ID ...`.
func (l *Linux) SetVF(pf string, s VFSetting, to VF) error {
	if err := setVF(pf, s, to); err != nil {
		return fmt.Errorf("set %s of VF %d of PF %s to %s: %w", s, to.ID, pf, to.Value(s), err)
	}
	return nil
}

func setVF(pf string, s VFSetting, to VF) error {
	setting, err := vfAttr(s, to)
	if err != nil {
		return err
	}
	host, err := openSandbox(Host)
	if err != nil {
		return err
	}
	defer host.Close()
	link, err := host.linkByName(pf)
	if err != nil {
		return err
	}
	list := nl.NewRtAttr(unix.IFLA_VFINFO_LIST, nil)
	list.AddRtAttr(nl.IFLA_VF_INFO, nil).AddChild(setting)
	_, err = host.linkRequest(unix.RTM_SETLINK, link.Attrs().Index, list).Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// indexOf finds an interface of the host.
func indexOf(name string) (int, error) {
	host, err := openSandbox(Host)
	if err != nil {
		return 0, err
	}
	defer host.Close()
	link, err := host.linkByName(name)
	if err != nil {
		return 0, err
	}
	return link.Attrs().Index, nil
}

// IsZeroMAC reports whether a MAC is empty or all zero: none that was chosen.
func IsZeroMAC(mac string) bool {
	hw, err := net.ParseMAC(mac)
	return err != nil || len(bytes.Trim(hw, "\x00")) == 0
}
