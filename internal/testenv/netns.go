// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NetNS makes a network namespace with lo up and returns its path, as a container runtime would. It ends with the test. The
// calling goroutine's own namespace never changes: the new one is made on a thread that is thrown away.
//
// Like `ip netns add`, but not under /run/netns: parallel tests and the host's own namespaces can not meet.
func NetNS(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := onThrowawayThread(func() error { return makeNetNS(path) }); err != nil {
		tb.Fatalf("make network namespace: %v (without privilege? see testenv.InUserNS and RequireRoot)", err)
	}
	tb.Cleanup(func() {
		// Detached, so that a descriptor which a failed test left open can not keep the directory busy.
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			tb.Errorf("unmount %s: %v", path, err)
		}
	})
	return path
}

// onThrowawayThread runs f on an operating system thread that ends with it, whatever f did to the thread. It is never the
// process's main thread: that one can not end, and /proc/self would show its namespaces from then on.
func onThrowawayThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // Not unlocked after f: this is what ends the thread with the goroutine.
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		// This goroutine occupies the main thread meanwhile, so the next one gets another.
		err := onThrowawayThread(f)
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// makeNetNS moves the current thread to a new network namespace and mounts that on path.
func makeNetNS(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind mount %s: %w", path, err)
	}
	return nil
}

// Do runs f inside the namespace at path, on a thread of its own. Processes that f starts are inside too, goroutines are not. Sockets and files under /proc/sys/net belong to where they are opened.
func Do(tb testing.TB, path string, f func() error) {
	tb.Helper()
	err := onThrowawayThread(func() error {
		ns, err := netns.GetFromPath(path)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		defer func() { _ = ns.Close() }()
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter %s: %w", path, err)
		}
		return f()
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// Handle opens the kernel's routing socket in the namespace at path, until the test ends.
func Handle(tb testing.TB, path string) *netlink.Handle {
	tb.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		tb.Fatalf("open %s: %v", path, err)
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		tb.Fatalf("open netlink in %s: %v", path, err)
	}
	tb.Cleanup(h.Close)
	return h
}

// End is one end of a veth pair.
type End struct {
	NetNS string
	Name  string
	// Addrs are in CIDR form. IPv6 ones are usable at once, without duplicate address detection.
	Addrs []string
}

// Veth makes a veth pair between two namespaces, both ends up. It goes with either namespace.
func Veth(tb testing.TB, a, b End) {
	tb.Helper()
	peer, err := netns.GetFromPath(b.NetNS)
	if err != nil {
		tb.Fatalf("open %s: %v", b.NetNS, err)
	}
	defer func() { _ = peer.Close() }()
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: b.Name, PeerNamespace: netlink.NsFd(peer)}
	pair.Name = a.Name
	if err := Handle(tb, a.NetNS).LinkAdd(pair); err != nil {
		tb.Fatalf("make veth %s: %v", a.Name, err)
	}
	for _, end := range []End{a, b} {
		configure(tb, end)
	}
}

func configure(tb testing.TB, end End) {
	tb.Helper()
	h := Handle(tb, end.NetNS)
	link, err := h.LinkByName(end.Name)
	if err != nil {
		tb.Fatalf("find %s: %v", end.Name, err)
	}
	for _, cidr := range end.Addrs {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			tb.Fatal(err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, addr); err != nil {
			tb.Fatalf("add %s to %s: %v", cidr, end.Name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		tb.Fatalf("set %s up: %v", end.Name, err)
	}
}
