// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// LinkStats are the counters of one link, since it was made.
type LinkStats struct {
	Name string
	// Index tells a link from a later one of the same name, whose counters begin anew.
	Index    int
	Rx, Tx   Counters
	RxMissed uint64 // packets that the device dropped before the kernel saw them
}

// Counters count what a link received or sent.
type Counters struct {
	Bytes, Packets uint64
	// Errors are packets that were bad or could not be sent.
	Errors uint64
	// Dropped are packets that were good and found no room, or nobody who wanted them.
	Dropped uint64
}

// LinkStats lists the counters of the sandbox's interfaces, lo included, by index. Like `ip -n NETNS -s link show`.
func (l *Linux) LinkStats(netnsPath string) ([]LinkStats, error) {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	found, err := s.listLinks()
	if err != nil {
		return nil, fmt.Errorf("list interfaces of sandbox %s: %w", netnsPath, err)
	}
	stats := make([]LinkStats, 0, len(found))
	for _, each := range found {
		stats = append(stats, statsOf(each.Attrs()))
	}
	return stats, nil
}

func statsOf(a *netlink.LinkAttrs) LinkStats {
	stats := LinkStats{Name: a.Name, Index: a.Index}
	if c := a.Statistics; c != nil {
		stats.Rx = Counters{Bytes: c.RxBytes, Packets: c.RxPackets, Errors: c.RxErrors, Dropped: c.RxDropped}
		stats.Tx = Counters{Bytes: c.TxBytes, Packets: c.TxPackets, Errors: c.TxErrors, Dropped: c.TxDropped}
		stats.RxMissed = c.RxMissedErrors
	}
	return stats
}
