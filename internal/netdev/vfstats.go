// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// VFStats asks the PF, an interface of the host, what it counted of one of its VFs: what the VF received and sent, whoever drives it. Bad packets
// are not counted there. A PF whose driver does not count has zeros. The error matches [ErrNoLink] or [ErrNoVF]. Like `ip -s link show PF`;
// Linux 4.2.
func (l *Linux) VFStats(pf string, id int) (LinkStats, error) {
	stats, err := vfStats(pf, id)
	if err != nil {
		return LinkStats{}, fmt.Errorf("counters of VF %d of PF %s: %w", id, pf, err)
	}
	return stats, nil
}

func vfStats(pf string, id int) (LinkStats, error) {
	link, err := net.InterfaceByName(pf)
	if err != nil {
		return LinkStats{}, fmt.Errorf("%w: %s", ErrNoLink, pf)
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Index) //nolint:gosec // an ifindex has 31 bits
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(nl.RTEXT_FILTER_VF)))
	replies, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return LinkStats{}, err
	}
	for _, reply := range replies {
		if stats, ok := findVFStats(reply, id); ok {
			return stats, nil
		}
	}
	return LinkStats{}, fmt.Errorf("%w: the PF's driver tells nothing of it", ErrNoVF)
}

// findVFStats looks for the counters of a VF in a link message. With some 220 VFs the list is longer than the 16 bits of its length say, so its
// entries are read up to the end of the message.
func findVFStats(message []byte, id int) (LinkStats, bool) {
	if len(message) < unix.SizeofIfInfomsg {
		return LinkStats{}, false
	}
	var found LinkStats
	ok := false
	eachAttr(message[unix.SizeofIfInfomsg:], func(kind uint16, _, rest []byte) bool {
		if kind != unix.IFLA_VFINFO_LIST {
			return true
		}
		eachAttr(rest, func(kind uint16, entry, _ []byte) bool {
			if kind != nl.IFLA_VF_INFO {
				return false
			}
			number, stats := -1, LinkStats{}
			eachAttr(entry, func(kind uint16, value, _ []byte) bool {
				switch {
				case kind == nl.IFLA_VF_MAC && len(value) >= 4:
					number = int(binary.NativeEndian.Uint32(value))
				case kind == nl.IFLA_VF_STATS:
					stats = parseVFStats(value)
				}
				return true
			})
			if number == id {
				found, ok = stats, true
			}
			return !ok
		})
		return false
	})
	return found, ok
}

// Of IFLA_VF_STATS_*, as linux/if_link.h has them: netlink v1.3.1 leaves out IFLA_VF_STATS_PAD before them.
const (
	vfStatsRxDropped = 7
	vfStatsTxDropped = 8
)

func parseVFStats(list []byte) LinkStats {
	var s LinkStats
	fields := map[uint16]*uint64{
		nl.IFLA_VF_STATS_RX_PACKETS: &s.Rx.Packets, nl.IFLA_VF_STATS_TX_PACKETS: &s.Tx.Packets, nl.IFLA_VF_STATS_RX_BYTES: &s.Rx.Bytes,
		nl.IFLA_VF_STATS_TX_BYTES: &s.Tx.Bytes, vfStatsRxDropped: &s.Rx.Dropped, vfStatsTxDropped: &s.Tx.Dropped,
	}
	eachAttr(list, func(kind uint16, value, _ []byte) bool {
		if to := fields[kind]; to != nil && len(value) >= 8 {
			*to = binary.NativeEndian.Uint64(value)
		}
		return true
	})
	return s
}

// eachAttr visits netlink attributes until visit has enough: with its value, and with all bytes from the value on. A broken one ends the list.
func eachAttr(b []byte, visit func(kind uint16, value, rest []byte) bool) {
	const header = unix.SizeofRtAttr
	for len(b) >= header {
		size := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if size < header {
			return
		}
		value := b[header:min(size, len(b))]
		if !visit(kind, value, b[header:]) {
			return
		}
		b = b[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
}
