// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CreateNetNS makes a network namespace that lives as long as its mount on path, with lo up. Missing folders above path are made.
// The error matches [fs.ErrExist] when something is at path, which is then left alone. Like `ip netns add`, for any path.
func (l *Linux) CreateNetNS(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // as readable as `ip netns add` makes /run/netns
		return fmt.Errorf("create network namespace: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o440) // under the mount, whose mode is the namespace's
	if err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	if err = f.Close(); err == nil {
		err = onThrowawayThread(func() error { return mountNewNetNS(path) })
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create network namespace %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// DeleteNetNS takes a namespace's mount away from path, and with it, unless a process or descriptor still holds it, the namespace. It
// succeeds when nothing is at path, and refuses what is neither a namespace nor the empty file that a crash leaves of one. Like
// `ip netns delete`, for any path.
func (l *Linux) DeleteNetNS(path string) error {
	is, err := l.IsNetNS(path)
	if err != nil {
		return fmt.Errorf("delete network namespace: %w", err)
	}
	if is {
		// Detached, so that a descriptor which somebody has open cannot keep the mount.
		if err = unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("delete network namespace: unmount %s: %w", path, err)
		}
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("delete network namespace: %w", err)
	case !info.Mode().IsRegular() || info.Size() > 0:
		return fmt.Errorf("delete network namespace: %w: %s", errNotNetNS, path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("delete network namespace: %w", err)
	}
	return nil
}

// mountNewNetNS moves the current thread to a new network namespace and mounts that on path.
func mountNewNetNS(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	// A handle is opened in the namespace of the thread.
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	if err := h.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}); err != nil { // lo has index 1 (Linux 2.6.24)
		return fmt.Errorf("set lo up: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount it: %w", err)
	}
	return nil
}

// onThrowawayThread runs f on an operating system thread that ends with it, whatever f did to the thread. It is never the
// process's main thread: that one cannot end, and /proc/self would show its namespaces from then on.
func onThrowawayThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked after f: this is what ends the thread with the goroutine
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
