// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Traits are what the user of a link can change of it beside its addresses, and what a move to another network namespace keeps. Like what
// `ip -d link show` tells.
type Traits struct {
	// Flags are those IFF_ flags of linux/if.h that only a user changes, as NOARP and MULTICAST: see traitFlags.
	Flags uint32 `json:"flags"`
	// TxQueueLen is how many packets may wait to be sent.
	TxQueueLen int `json:"txQueueLen"`
	// Mode is IFLA_LINKMODE: 1 keeps the link dormant when its carrier comes.
	Mode uint8 `json:"mode,omitempty"`
	// Limits of segmentation offload (GSO) and its counterpart (GRO), in bytes and, Segs, in segments; 0 where the kernel tells none.
	GSOMaxSize     uint32 `json:"gsoMaxSize,omitempty"`
	GSOMaxSegs     uint32 `json:"gsoMaxSegs,omitempty"`
	GROMaxSize     uint32 `json:"groMaxSize,omitempty"`
	GSOIPv4MaxSize uint32 `json:"gsoIPv4MaxSize,omitempty"`
	GROIPv4MaxSize uint32 `json:"groIPv4MaxSize,omitempty"`
	// Alias is a text that ifAlias of SNMP tells.
	Alias string `json:"alias,omitempty"`
	// Group is a number that some programs treat interfaces by.
	Group uint32 `json:"group,omitempty"`
}

// traitFlags are the flags that a user sets and nothing else does, but for those which are settings of their own (up, promiscuous).
const traitFlags = unix.IFF_DEBUG | unix.IFF_NOTRAILERS | unix.IFF_NOARP | unix.IFF_MULTICAST | unix.IFF_PORTSEL | unix.IFF_AUTOMEDIA | unix.IFF_DYNAMIC

// foundLink is a link as the kernel tells of it.
type foundLink struct {
	netlink.Link
	mode uint8
}

// listLinks lists the links of the sandbox. The netlink library's own listing asks each PF for all its VFs with their statistics: that takes a
// command to the NIC's firmware for each, and from about 220 VFs on (16 of InfiniBand) fails for the whole sandbox.
func (s sandbox) listLinks() ([]foundLink, error) {
	return dump(func() ([]foundLink, error) {
		req := s.request(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		messages, interrupted := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if interrupted != nil && !errors.Is(interrupted, netlink.ErrDumpInterrupted) {
			return nil, interrupted
		}
		links := make([]foundLink, 0, len(messages))
		for _, m := range messages {
			link, err := parseLink(m)
			if err != nil {
				return nil, err
			}
			links = append(links, link)
		}
		return links, interrupted
	})
}

// linkNames maps the indices of links to their names.
func (s sandbox) linkNames() (map[int]string, error) {
	links, err := s.listLinks()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	return names, nil
}

// linkByName finds a link by its name; alternative names do not count. The error matches [ErrNoLink] when there is none.
func (s sandbox) linkByName(name string) (foundLink, error) {
	if len(name) >= unix.IFNAMSIZ {
		return foundLink{}, fmt.Errorf("%w: %s", ErrNoLink, name)
	}
	link, err := s.getLink(0, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if errors.Is(err, unix.ENODEV) || (err == nil && link.Attrs().Name != name) {
		return foundLink{}, fmt.Errorf("%w: %s", ErrNoLink, name)
	}
	if err != nil {
		return foundLink{}, fmt.Errorf("find interface %s: %w", name, err)
	}
	return link, nil
}

// linkByIndex finds a link by its index. The error matches [ErrNoLink] when there is none.
func (s sandbox) linkByIndex(index int) (foundLink, error) {
	link, err := s.getLink(index)
	if errors.Is(err, unix.ENODEV) {
		return foundLink{}, fmt.Errorf("%w: %d", ErrNoLink, index)
	}
	if err != nil {
		return foundLink{}, fmt.Errorf("find interface %d: %w", index, err)
	}
	return link, nil
}

func (s sandbox) getLink(index int, attrs ...*nl.RtAttr) (foundLink, error) {
	req := s.linkRequest(unix.RTM_GETLINK, index, attrs...)
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return foundLink{}, err
	}
	if len(messages) != 1 {
		return foundLink{}, fmt.Errorf("the kernel told of %d links", len(messages))
	}
	return parseLink(messages[0])
}

// linkRequest is a message about one link.
func (s sandbox) linkRequest(kind, index int, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	req := s.request(kind, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index) //nolint:gosec // an ifindex has 31 bits
	req.AddData(msg)
	for _, a := range attrs {
		req.AddData(a)
	}
	return req
}

// request is a message that goes by the sandbox's own socket.
func (s sandbox) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s.socket}
	return req
}

func parseLink(message []byte) (foundLink, error) {
	if len(message) < unix.SizeofIfInfomsg {
		return foundLink{}, errShortMessage
	}
	link, err := netlink.LinkDeserialize(nil, message)
	if err != nil {
		return foundLink{}, err
	}
	found := foundLink{Link: link}
	for kind, value := range attributes(message[unix.SizeofIfInfomsg:]).all() {
		if kind == unix.IFLA_LINKMODE && len(value) > 0 {
			found.mode = value[0]
		}
	}
	return found, nil
}

// link translates all but the addresses.
func (f foundLink) link() Link {
	a := f.Attrs()
	return Link{
		Name: a.Name, MAC: a.HardwareAddr, MTU: a.MTU, Index: a.Index, AltNames: slices.Clone(a.AltNames), Parent: a.ParentDev, Master: a.MasterIndex,
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Promisc: a.RawFlags&unix.IFF_PROMISC != 0, AllMulticast: a.RawFlags&unix.IFF_ALLMULTI != 0,
		Traits: Traits{
			Flags: a.RawFlags & traitFlags, TxQueueLen: a.TxQLen, Mode: f.mode, Alias: a.Alias, Group: a.Group,
			GSOMaxSize: a.GSOMaxSize, GSOMaxSegs: a.GSOMaxSegs, GROMaxSize: a.GROMaxSize,
			GSOIPv4MaxSize: a.GSOIPv4MaxSize, GROIPv4MaxSize: a.GROIPv4MaxSize,
		},
	}
}

// setTraits sets those that differ.
func (s sandbox) setTraits(index int, want Traits) error {
	found, err := s.linkByIndex(index)
	if err != nil {
		return err
	}
	now := found.link().Traits
	if now == want {
		return nil
	}
	var attrs []*nl.RtAttr
	number := func(kind int, v uint32) { attrs = append(attrs, nl.NewRtAttr(kind, nl.Uint32Attr(v))) }
	if now.TxQueueLen != want.TxQueueLen {
		number(unix.IFLA_TXQLEN, uint32(want.TxQueueLen)) //nolint:gosec // the kernel's own 32 bits
	}
	if now.Group != want.Group {
		number(unix.IFLA_GROUP, want.Group)
	}
	if now.Mode != want.Mode {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_LINKMODE, []byte{want.Mode}))
	}
	if now.Alias != want.Alias {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(want.Alias)))
	}
	for _, limit := range []struct {
		kind      int
		now, want uint32
	}{
		// In the order of the kernel, which sets the limits of IPv4 with the others.
		{unix.IFLA_GSO_MAX_SIZE, now.GSOMaxSize, want.GSOMaxSize},
		{unix.IFLA_GSO_MAX_SEGS, now.GSOMaxSegs, want.GSOMaxSegs},
		{unix.IFLA_GRO_MAX_SIZE, now.GROMaxSize, want.GROMaxSize},
		{unix.IFLA_GSO_IPV4_MAX_SIZE, now.GSOIPv4MaxSize, want.GSOIPv4MaxSize},
		{unix.IFLA_GRO_IPV4_MAX_SIZE, now.GROIPv4MaxSize, want.GROIPv4MaxSize},
	} {
		if limit.now != 0 && limit.want != 0 && now.limits() != want.limits() {
			number(limit.kind, limit.want)
		}
	}
	req := s.request(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(index), want.Flags, now.Flags^want.Flags //nolint:gosec // an ifindex has 31 bits
	req.AddData(msg)
	for _, a := range attrs {
		req.AddData(a)
	}
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func (t Traits) limits() [5]uint32 {
	return [5]uint32{t.GSOMaxSize, t.GSOMaxSegs, t.GROMaxSize, t.GSOIPv4MaxSize, t.GROIPv4MaxSize}
}
