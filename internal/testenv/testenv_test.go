// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

func TestNetNSIsFreshAndLeavesTheCallersAlone(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	before := inode(t, "/proc/self/ns/net")
	a, b := testenv.NetNS(t), testenv.NetNS(t)
	if inode(t, a) == inode(t, b) || inode(t, a) == before {
		t.Errorf("namespaces are not distinct: own %s, %s, %s", before, inode(t, a), inode(t, b))
	}
	if after := inode(t, "/proc/self/ns/net"); after != before {
		t.Errorf("the process moved from %s to %s", before, after)
	}
	links, err := testenv.Handle(t, a).LinkList()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel may add fallback tunnels of loaded modules; lo is the one that counts.
	if len(links) == 0 || links[0].Attrs().Name != "lo" || links[0].Attrs().RawFlags&1 == 0 {
		t.Errorf("lo is not there and up: %+v", links)
	}
}

func TestNetNSEndsWithItsTest(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	var path string
	t.Run("inner", func(t *testing.T) { path = testenv.NetNS(t) })
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

func TestVethConnectsTwoNamespaces(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	a, b := testenv.NetNS(t), testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: a, Name: "eth0", Addrs: []string{"192.0.2.1/24", "2001:db8::1/64"}}, testenv.End{NetNS: b, Name: "eth9"})
	link, err := testenv.Handle(t, b).LinkByName("eth9")
	if err != nil {
		t.Fatal(err)
	}
	if link.Type() != "veth" || link.Attrs().RawFlags&1 == 0 {
		t.Errorf("eth9 is a %s with flags %#x, want a veth that is up", link.Type(), link.Attrs().RawFlags)
	}
}

func TestPluginsAreBuiltOnceAndRun(t *testing.T) {
	t.Parallel()
	dir := testenv.Plugins(t)
	if again := testenv.Plugins(t); again != dir {
		t.Errorf("second call gave %s, first %s", again, dir)
	}
	for _, name := range []string{
		"bandwidth", "bridge", "dummy", "firewall", "host-device", "host-local", "ipvlan", "loopback", "macvlan",
		"portmap", "ptp", "sbr", "static", "tap", "tuning", "vlan", "vrf",
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, name))
		cmd.Env = []string{"CNI_COMMAND=VERSION"}
		if out, err := cmd.Output(); err != nil {
			t.Errorf("%s VERSION: %v\n%s", name, err, out)
		}
	}
}

func inode(t *testing.T, path string) string {
	t.Helper()
	if target, err := os.Readlink(path); err == nil {
		return target
	}
	out, err := exec.CommandContext(t.Context(), "stat", "-c", "net:[%i]", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out[:len(out)-1])
}

func TestBuildGivesARunnableBinaryOncePerProcess(t *testing.T) {
	t.Parallel()
	const pkg = "./internal/testenv/testdata/hello"
	dir := testenv.Build(t, pkg)
	if again := testenv.Build(t, pkg); again != dir {
		t.Errorf("second call gave %s, first %s", again, dir)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "hello")).CombinedOutput()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("hello said %q, %v", out, err)
	}
}
