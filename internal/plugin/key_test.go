// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"testing"

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
