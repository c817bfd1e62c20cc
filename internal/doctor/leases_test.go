// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// lease leaves one of an hour ago.
func (n *testNode) lease(t *testing.T, file, container string) {
	t.Helper()
	n.write(t, file, container+"\r\neth0")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(n.path(file), old, old); err != nil {
		t.Fatal(err)
	}
}

func TestLeasesOfWhatMayBeAliveAreNotLeaked(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	entry := func(netns string) string {
		return fmt.Sprintf(`{"kind":"cniCacheV1","containerId":"%%s","netns":%q}`, netns)
	}
	// The container runtime has it.
	n.lease(t, "leases/cluster/10.201.0.10", "aaaa")
	n.write(t, "sandboxes/aaaa/.keep", "")
	// libcni's cache does, and its namespace lives.
	n.lease(t, "leases/cluster/10.201.0.11", "bbbb")
	n.write(t, "results/cluster-bbbb-eth0", fmt.Sprintf(entry(testenv.NetNS(t)), "bbbb"))
	// Its ADD is at work.
	n.write(t, "leases/cluster/10.201.0.12", "cccc\r\neth0")
	// Its record cannot be read: it may hold the lease still.
	n.lease(t, "leases/cluster/10.201.0.13", "dddd")
	n.write(t, "state/records/dddd-eth0.json", "{")
	// host-local's own.
	n.write(t, "leases/cluster/last_reserved_ip.0", "10.201.0.13")
	wantOnly(t, n.examine(t), RecordCorrupt)
	// And two that are gone, one of a network that nobody knows.
	n.lease(t, "leases/cluster/10.201.0.14", "eeee")
	n.write(t, "results/cluster-eeee-eth0", fmt.Sprintf(entry("/nonexistent"), "eeee"))
	n.lease(t, "leases/former/10.9.0.1", "../../x")
	// host-local was killed before it had written whose it is.
	n.write(t, "leases/cluster/10.201.0.15", "")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(n.path("leases/cluster/10.201.0.15"), old, old); err != nil {
		t.Fatal(err)
	}
	found := n.examine(t)
	if got := bad(found); !slices.Equal(got, []string{RecordCorrupt, PoolLeak, PoolLeak}) || !strings.Contains(show(found), "10.201.0.15 (no container: the file is empty)") {
		t.Errorf("found %s", show(found))
	}
}

func TestPoolsOfFlannel(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	n.write(t, "subnet.env", "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/28\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
	n.write(t, "manifests/nads.yaml", nadYAML("cbr0", `{"cniVersion":"1.0.0","name":"cbr0","type":"flannel"}`)+n.bridge("b", "", `"subnet":"10.244.9.0/24"`))
	n.script(t, "flannel", "")
	for i := range 12 { // of 13: without network, gateway and broadcast
		n.write(t, fmt.Sprintf("leases/cbr0/10.244.7.%d", i+2), "aaaa")
	}
	found := n.examine(t)
	if got := bad(found); !slices.Equal(got, []string{PoolNearlyExhausted, PoolOverlap, PoolOverlap}) || found[0].Text != "10.244.7.1-10.244.7.14: 12 of 13 addresses are in use, 1 are free" {
		t.Errorf("found %s", show(found))
	}
}

func TestNamespacesOfProcessesAreInhabited(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	path := n.path("netns", "cni-01234567-89ab-cdef-0123-456789abcdef")
	if err := netdev.NewLinux().CreateNetNS(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netdev.NewLinux().DeleteNetNS(path); err != nil {
			t.Error(err)
		}
	})
	n.write(t, "proc/1234/ns/.keep", "")
	if err := os.Symlink(path, n.path("proc/1234/ns/net")); err != nil {
		t.Fatal(err)
	}
	n.Now = func() time.Time { return time.Now().Add(time.Hour) }
	if found := n.examine(t); len(bad(found)) > 0 {
		t.Errorf("found %s", show(found))
	}
	if err := os.RemoveAll(filepath.Join(n.path("proc"), "1234")); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, n.examine(t), NamespaceOrphan)
}
