// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
)

// VFStats asks the PF, an interface of the host, what it counted of one of its VFs: what the VF received and sent, whoever drives it. Bad packets
// are not counted there. A PF whose driver does not count has zeros. The error matches [ErrNoLink], [ErrNoVF] or
// [ErrVFsUntold]. Like `ip -s link show PF`;
// Linux 4.2.
func (l *Linux) VFStats(pf string, id int) (LinkStats, error) {
	stats, err := vfStats(pf, id)
	if err != nil {
		return LinkStats{}, fmt.Errorf("counters of VF %d of PF %s: %w", id, pf, err)
	}
	return stats, nil
}

func vfStats(pf string, id int) (LinkStats, error) {
	message, err := askVFs(pf, nl.RTEXT_FILTER_VF)
	if err != nil {
		return LinkStats{}, err
	}
	entry, err := findVF(message, id)
	if err != nil {
		return LinkStats{}, err
	}
	return statsOfVF(entry), nil
}

// statsOfVF reads the counters of one IFLA_VF_INFO.
func statsOfVF(entry attributes) LinkStats {
	for kind, value := range entry.all() {
		if kind == nl.IFLA_VF_STATS {
			return parseVFStats(value)
		}
	}
	return LinkStats{}
}

// Of IFLA_VF_STATS_*, as linux/if_link.h has them: netlink v1.3.1 leaves out IFLA_VF_STATS_PAD before them.
const (
	vfStatsRxDropped = 7
	vfStatsTxDropped = 8
)

func parseVFStats(list attributes) LinkStats {
	var s LinkStats
	fields := map[uint16]*uint64{
		nl.IFLA_VF_STATS_RX_PACKETS: &s.Rx.Packets, nl.IFLA_VF_STATS_TX_PACKETS: &s.Tx.Packets, nl.IFLA_VF_STATS_RX_BYTES: &s.Rx.Bytes,
		nl.IFLA_VF_STATS_TX_BYTES: &s.Tx.Bytes, vfStatsRxDropped: &s.Rx.Dropped, vfStatsTxDropped: &s.Tx.Dropped,
	}
	for kind, value := range list.all() {
		if to := fields[kind]; to != nil && len(value) >= 8 {
			*to = binary.NativeEndian.Uint64(value)
		}
	}
	return s
}
