// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/delegate"
)

func TestNoTwoSandboxesShareARecord(t *testing.T) {
	t.Parallel()
	seen := map[string]delegate.Sandbox{}
	for _, s := range []delegate.Sandbox{
		{ContainerID: "c1", IfName: "eth0"},
		{ContainerID: "c1-a", IfName: "eth0"},
		{ContainerID: "c1", IfName: "a-eth0"},
		{ContainerID: "c1-", IfName: "a-eth0"},
		{ContainerID: "c1", IfName: "-a-eth0"},
	} {
		k := key(s)
		if other, taken := seen[k]; taken {
			t.Errorf("%v and %v share the record %q", other, s, k)
		}
		seen[k] = s
		if back, ok := sandboxOf(k); !ok || back != s {
			t.Errorf("sandboxOf(%q) = %v, %v, want %v", k, back, ok, s)
		}
	}
}

func TestWhatHasToBeDoneWaitsForAPlaceHoweverLongTheCallHasWaited(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		call call
		want time.Duration
	}{
		"a new call":                        {call{}, lockTimeout},
		"one that has waited":               {call{waited: 50 * time.Second}, 10 * time.Second},
		"one that has waited too long":      {call{waited: 2 * lockTimeout}, aLook},
		"an undo":                           {call{must: true}, mustPatience},
		"an undo after a call has waited":   {call{must: true, waited: 2 * lockTimeout}, mustPatience},
		"an undo that has waited":           {call{must: true, waitedInUndo: 8 * time.Second}, 2 * time.Second},
		"an undo that has waited too long":  {call{must: true, waitedInUndo: lockTimeout}, aLook},
		"a call after its undo of the past": {call{waitedInUndo: lockTimeout}, lockTimeout},
	} {
		tc.call.Plugin = &Plugin{}
		if got := tc.call.placePatience(t.Context()); got != tc.want {
			t.Errorf("%s waits %v, want %v", name, got, tc.want)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	undo := call{Plugin: &Plugin{}, must: true}
	if got := undo.placePatience(short); got > 2*time.Second || got < aLook {
		t.Errorf("an undo with 4 s to go waits %v, want half of that", got)
	}
}
