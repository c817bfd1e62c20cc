// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"encoding/binary"
	"errors"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rtaNexthopID is RTA_NH_ID of linux/rtnetlink.h.
const rtaNexthopID = 30

// routeMessage is what the kernel says of a default route: what tells it from others, and what the netlink library (v1.3.1) does not know.
type routeMessage struct {
	whole    []byte
	protocol uint8
	priority uint32
	gateway  net.IP
	nexthop  uint32
}

// routeMessages lists the default routes of the main table.
func (s sandbox) routeMessages(f Family) ([]routeMessage, error) {
	return dump(func() ([]routeMessage, error) {
		req := s.request(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(rtFamily(f))}}) //nolint:gosec // AF_INET or AF_INET6
		messages, interrupted := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
		if interrupted != nil && !errors.Is(interrupted, netlink.ErrDumpInterrupted) {
			return nil, interrupted
		}
		var found []routeMessage
		for _, m := range messages {
			if len(m) < unix.SizeofRtMsg {
				return nil, errShortMessage
			}
			head := nl.DeserializeRtMsg(m)
			r := routeMessage{whole: m, protocol: head.Protocol}
			table := uint32(head.Table)
			for kind, value := range attributes(m[unix.SizeofRtMsg:]).all() {
				switch {
				case kind == unix.RTA_GATEWAY:
					r.gateway = net.IP(value)
				case len(value) < 4: //nolint:mnd // the rest are numbers of 32 bits
				case kind == unix.RTA_TABLE:
					table = binary.NativeEndian.Uint32(value)
				case kind == unix.RTA_PRIORITY:
					r.priority = binary.NativeEndian.Uint32(value)
				case kind == rtaNexthopID:
					r.nexthop = binary.NativeEndian.Uint32(value)
				}
			}
			if head.Dst_len == 0 && table == unix.RT_TABLE_MAIN && head.Flags&unix.RTM_F_CLONED == 0 {
				found = append(found, r)
			}
		}
		return found, interrupted
	})
}

// removeRoute removes a listed route.
func (s sandbox) removeRoute(r defaultRoute) error {
	if r.nexthop == 0 {
		return s.RouteDel(selector(r.Route))
	}
	// The kernel finds none when next hops are named besides.
	req := s.request(unix.RTM_DELROUTE, unix.NLM_F_ACK)
	req.AddData(nl.DeserializeRtMsg(r.message))
	req.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(r.Priority)))) //nolint:gosec // the kernel's own 32 bits
	req.AddData(nl.NewRtAttr(rtaNexthopID, nl.Uint32Attr(r.nexthop)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// putBack adds a route as it was listed, by the kernel's own message: with its nexthop object, and one that the kernel had learned from a
// router's advertisement with what is left of its lifetime.
func (s sandbox) putBack(r defaultRoute) error {
	req := s.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK)
	head := *nl.DeserializeRtMsg(r.message)
	head.Flags &= unix.RTNH_F_ONLINK // the others report a state, and are refused
	req.AddData(&head)
	for kind, value := range attributes(r.message[unix.SizeofRtMsg:]).all() {
		switch kind {
		case unix.RTA_GATEWAY, unix.RTA_OIF, unix.RTA_MULTIPATH, unix.RTA_VIA, unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE:
			if r.nexthop == 0 { // else they are the object's
				req.AddData(nl.NewRtAttr(int(kind), withoutState(kind, value)))
			}
		case unix.RTA_CACHEINFO:
			if seconds := lifetime(value); seconds > 0 {
				req.AddData(nl.NewRtAttr(unix.RTA_EXPIRES, nl.Uint32Attr(seconds)))
			}
		default:
			req.AddData(nl.NewRtAttr(int(kind), value))
		}
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// withoutState takes the flags that report a state off the next hops of a multipath route.
func withoutState(kind uint16, value []byte) []byte {
	if kind != unix.RTA_MULTIPATH {
		return value
	}
	const flags = 2 // where they are in struct rtnexthop, behind its length
	value = append([]byte{}, value...)
	for hop := value; len(hop) >= unix.SizeofRtNexthop; {
		hop[flags] &= unix.RTNH_F_ONLINK
		length := (int(binary.NativeEndian.Uint16(hop)) + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
		if length < unix.SizeofRtNexthop || length > len(hop) {
			break
		}
		hop = hop[length:]
	}
	return value
}

// lifetime is how long a route lasts by its struct rta_cacheinfo, in seconds; 0 is for ever.
func lifetime(cacheInfo []byte) uint32 {
	const (
		expires = 8   // where it is, in bytes
		userHz  = 100 // it is in these parts of a second
	)
	if len(cacheInfo) < expires+4 {
		return 0
	}
	ticks := int32(binary.NativeEndian.Uint32(cacheInfo[expires:])) //nolint:gosec // it is signed
	if ticks <= 0 {
		return 0
	}
	return (uint32(ticks) + userHz - 1) / userHz
}
