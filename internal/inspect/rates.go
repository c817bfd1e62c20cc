// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"slices"
	"time"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// Sample is what the interfaces of a pod have counted up to a moment.
type Sample struct {
	Time  time.Time
	Stats []netdev.LinkStats
}

// Rate is what went through one interface between two samples.
type Rate struct {
	Name   string
	Rx, Tx Flow
}

// Flow is one direction of a [Rate].
type Flow struct {
	// BitsPerSecond and PacketsPerSecond are averages.
	BitsPerSecond, PacketsPerSecond float64
	// Dropped and Errors are packets, between the samples. What a device missed counts as dropped.
	Dropped, Errors uint64
}

// Rates compares two samples: the interfaces of the later one that were in the earlier one too, in its order. One that was made anew
// meanwhile, whose counters began anew, is left out.
func Rates(from, to Sample) []Rate {
	seconds := to.Time.Sub(from.Time).Seconds()
	if seconds <= 0 {
		return nil
	}
	var rates []Rate
	for _, now := range to.Stats {
		at := slices.IndexFunc(from.Stats, func(s netdev.LinkStats) bool { return s.Index == now.Index && s.Name == now.Name })
		if at < 0 {
			continue
		}
		before := from.Stats[at]
		rx, rxOK := flow(before.Rx, now.Rx, seconds)
		tx, txOK := flow(before.Tx, now.Tx, seconds)
		if rxOK && txOK && now.RxMissed >= before.RxMissed {
			rx.Dropped += now.RxMissed - before.RxMissed
			rates = append(rates, Rate{Name: now.Name, Rx: rx, Tx: tx})
		}
	}
	return rates
}

// flow is false when a counter has gone back.
func flow(before, now netdev.Counters, seconds float64) (Flow, bool) {
	if now.Bytes < before.Bytes || now.Packets < before.Packets || now.Errors < before.Errors || now.Dropped < before.Dropped {
		return Flow{}, false
	}
	return Flow{
		BitsPerSecond:    float64(now.Bytes-before.Bytes) * 8 / seconds,
		PacketsPerSecond: float64(now.Packets-before.Packets) / seconds,
		Dropped:          now.Dropped - before.Dropped,
		Errors:           now.Errors - before.Errors,
	}, true
}
