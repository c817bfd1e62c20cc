// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nodeEnv marks the process that has a network namespace of its own already.
const nodeEnv = "PLEXUS_DEMO_NODE"

// becomeNode starts this program anew, as the same process, in a network namespace of its own, which ends with it: like
// `unshare --net`. All its threads and children are in there.
func becomeNode() error {
	if os.Getenv(nodeEnv) != "" {
		return setLoUp()
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the demo's program: %w", err)
	}
	runtime.LockOSThread() // the thread that execs is the one that remains
	if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace for the node: %w: it takes CAP_SYS_ADMIN, which root of a container often lacks", err)
	}
	err = unix.Exec(self, os.Args, append(os.Environ(), nodeEnv+"=1"))
	return fmt.Errorf("start again in the node's network namespace: %w", err)
}

func setLoUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// inNetNS runs f in a network namespace, on a thread that is thrown away. Sockets that f opens stay there.
func inNetNS(path string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked after f: this is what ends the thread with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread can not end; while this goroutine has it, the next one gets another.
			err := inNetNS(path, f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- func() error {
			ns, err := netns.GetFromPath(path)
			if err != nil {
				return fmt.Errorf("open %s: %w", path, err)
			}
			defer func() { _ = ns.Close() }()
			if err := netns.Set(ns); err != nil {
				return fmt.Errorf("enter %s: %w", path, err)
			}
			return f()
		}()
	}()
	return <-done
}
