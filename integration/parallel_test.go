// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// together makes a call for each pod, all at once.
func together(pods []*pod, verb string) {
	var calls []*process
	for _, p := range pods {
		calls = append(calls, p.start(verb))
	}
	for _, c := range calls {
		if _, err := c.wait(); err != nil {
			c.t.Errorf("%s of pod %s: %v", verb, c.name, err)
		}
	}
}

func TestT9TwentyPodsAtOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	var pods []*pod
	for i := range 20 {
		pods = append(pods, h.pod(fmt.Sprintf("web-%d", i), businessAndMgmt))
	}
	before := h.state(pods...)
	together(pods, "ADD")
	owners := map[string]string{} // of addresses and MACs
	for _, p := range pods {
		p.assertStatus()
		for name, i := range p.ifaces() {
			if len(i.IPs) != 2 {
				t.Errorf("%s of pod %s has the addresses %q, want two", name, p.name, i.IPs)
			}
			for _, a := range append(i.IPs, i.MAC) {
				if other, taken := owners[a]; taken {
					t.Errorf("%s is given to pod %s and to pod %s", a, other, p.name)
				}
				owners[a] = p.name
			}
		}
	}
	if want := 20 * 3 * 3; len(owners) != want {
		t.Errorf("%d addresses and MACs, want %d", len(owners), want)
	}
	if leases := h.leases(); len(leases) != 20*3*2 {
		t.Errorf("%d leases, want %d", len(leases), 20*3*2)
	}
	together(pods, "DEL")
	h.assertState(before, pods...)
}

func TestTwoADDsOfOneSandboxAtOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	p := h.pod("web", businessAndMgmt)
	before := h.state(p)
	together([]*pod{p, p}, "ADD") // one after the other: the second one undoes the first
	p.assertStatus()
	p.must("CHECK")
	if got := p.ifaces(); len(got) != 3 {
		t.Errorf("interfaces %v, want three", got)
	}
	if leases := h.leases(); len(leases) != 3*2 {
		t.Errorf("leases %q, want one of each family for each network", leases)
	}
	p.must("DEL")
	h.assertState(before, p)
}

func TestADELWhileItsADDIsRunning(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	p := h.pod("web", businessAndMgmt)
	before := h.state(p)

	// Whoever holds the lock of host-local's leases makes the ADD wait in its last network.
	lease := h.path("leases/mgmt-net")
	if err := os.MkdirAll(lease, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(lease, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	add := p.start("ADD")
	eventually(t, "the plugin host-local of mgmt-net waits for its lock", func() bool {
		return slices.ContainsFunc(p.links(), func(l netdev.Link) bool { return l.Name == "net2" }) && waitsFor(t, lock)
	})
	del := p.start("DEL")
	eventually(t, "DEL has the lock file of its sandbox open", func() bool { return opened(del, "records/id-of-web-eth0") })
	if err = lock.Close(); err != nil {
		t.Fatal(err)
	}
	add.mustSucceed()
	del.mustSucceed()
	h.assertState(before, p)
}

// waitsFor reports whether a process waits for the lock of a file.
func waitsFor(t *testing.T, f *os.File) bool {
	t.Helper()
	return len(waitingFor(t, f)) > 0
}

// waitingFor are those who wait for the lock of a file, as /proc/locks tells: "1: -> FLOCK  ADVISORY  WRITE 77 fe:00:42 0 EOF".
func waitingFor(t *testing.T, f *os.File) []string {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	inode := fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino)
	var all []string
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, "->") && strings.Contains(line, inode) {
			all = append(all, line)
		}
	}
	return all
}

// opened reports whether a call's process has a file open whose path contains part.
func opened(c *process, part string) bool {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	return slices.ContainsFunc(links, func(l string) bool {
		target, err := os.Readlink(l)
		return err == nil && strings.Contains(target, part)
	})
}
