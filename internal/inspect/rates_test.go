// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
)

func TestRates(t *testing.T) {
	t.Parallel()
	before := Sample{Time: now, Stats: []netdev.LinkStats{
		{Name: "eth0", Index: 2, Rx: netdev.Counters{Bytes: 1000, Packets: 10, Errors: 1, Dropped: 2}, Tx: netdev.Counters{Bytes: 500}, RxMissed: 1},
		{Name: "made-anew", Index: 3, Rx: netdev.Counters{Bytes: 10}},
		{Name: "reset", Index: 4, Tx: netdev.Counters{Packets: 10}},
		{Name: "gone", Index: 5},
	}}
	after := Sample{Time: now.Add(2 * time.Second), Stats: []netdev.LinkStats{
		{Name: "eth0", Index: 2, Rx: netdev.Counters{Bytes: 3000, Packets: 30, Errors: 4, Dropped: 4}, Tx: netdev.Counters{Bytes: 500}, RxMissed: 6},
		{Name: "made-anew", Index: 9, Rx: netdev.Counters{Bytes: 20}},
		{Name: "reset", Index: 4, Tx: netdev.Counters{Packets: 1}},
		{Name: "new", Index: 10},
	}}
	want := []Rate{{Name: "eth0", Rx: Flow{BitsPerSecond: 8000, PacketsPerSecond: 10, Dropped: 7, Errors: 3}}}
	if diff := cmp.Diff(want, Rates(before, after)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Rates(after, after); got != nil {
		t.Errorf("rates of no time at all: %v", got)
	}
}
