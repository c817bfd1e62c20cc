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

func TestWhatIsRequiredWaitsForASlotHoweverLongTheCallHasWaited(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		limiter  limiter
		required bool
		want     time.Duration
	}{
		"a new call":                        {limiter{}, false, lockTimeout},
		"one that has waited":               {limiter{waited: 30 * time.Second}, false, 10 * time.Second},
		"one that has waited too long":      {limiter{waited: 2 * lockTimeout}, false, aLook},
		"an undo":                           {limiter{}, true, requiredPatience},
		"an undo after a call has waited":   {limiter{waited: 2 * lockTimeout}, true, requiredPatience},
		"an undo that has waited":           {limiter{waitedRequired: 8 * time.Second}, true, 2 * time.Second},
		"an undo that has waited too long":  {limiter{waitedRequired: lockTimeout}, true, aLook},
		"a call after its undo of the past": {limiter{waitedRequired: lockTimeout}, false, lockTimeout},
	} {
		tc.limiter.patience = lockTimeout
		if got := tc.limiter.patienceLeft(t.Context(), tc.required); got != tc.want {
			t.Errorf("%s waits %v, want %v", name, got, tc.want)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	undo := limiter{patience: lockTimeout}
	if got := undo.patienceLeft(short, true); got > 2*time.Second || got < aLook {
		t.Errorf("an undo with 4 s to go waits %v, want half of that", got)
	}
}
