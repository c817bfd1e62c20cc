// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nodeEnv marks the process that has namespaces of its own already.
const nodeEnv = "PLEXUS_BENCH_NODE"

// Isolate runs this program again as its child in network and mount namespaces of its own: the node of the benchmark, which ends with
// it, whatever happens. Without the privilege the child is root of a user namespace. It returns false and the child's exit code when
// that has run, and true in the child.
func Isolate(ctx context.Context) (bool, int, error) {
	if os.Getenv(nodeEnv) != "" {
		return true, 0, prepareNode()
	}
	self, err := os.Executable()
	if err != nil {
		return false, 1, fmt.Errorf("find the benchmark's program: %w", err)
	}
	// Pdeathsig is sent when the thread that started the child ends, which must not be before this process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = runIn(ctx, self, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL})
	if errors.Is(err, syscall.EPERM) {
		err = runIn(ctx, self, &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		})
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return false, max(exit.ExitCode(), 1), nil // a death by signal has code -1
	}
	if err != nil {
		return false, 1, fmt.Errorf("make namespaces for the node of the benchmark: %w: run it as root, or allow user namespaces to this user "+
			"(sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns)", err)
	}
	return false, 0, nil
}

func runIn(ctx context.Context, self string, attr *syscall.SysProcAttr) error {
	// The terminal's ctrl-C reaches the child by itself: it cleans up, so it is only waited for.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT)
	defer signal.Stop(signals)
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), nodeEnv+"=1")
	cmd.SysProcAttr = attr
	return cmd.Run()
}

// prepareNode makes the new namespaces look like a host's: loopback up, and a /run of its own, where plugins keep lock files.
func prepareNode() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return setUp("lo")
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// parent is the node's interface that macvlan networks are on.
const parent = "parent0"

// addParent makes the node's NIC, one end of a veth pair.
func addParent() error {
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "parent1"}
	pair.Name = parent
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make %s: %w", parent, err)
	}
	return errors.Join(setUp(parent), setUp("parent1"))
}

// newNetNS makes a network namespace with lo up, mounted on path.
func newNetNS(path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	err := onThrowawayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := setUp("lo"); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return fmt.Errorf("make network namespace %s: %w", path, err)
	}
	return nil
}

// linksIn are the names of the interfaces in a network namespace, but for lo and what modules of the kernel put into each.
func linksIn(path string) ([]string, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", path, err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links in %s: %w", path, err)
	}
	var names []string
	for _, l := range links {
		if l.Type() == "veth" || l.Type() == "macvlan" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// onThrowawayThread runs f on an operating system thread that ends with it, whatever f did to it. It is never the process's main
// thread: that one can not end.
func onThrowawayThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked after f: this is what ends the thread with the goroutine
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		err := onThrowawayThread(f) // this goroutine has the main thread meanwhile
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// leftovers are the files below a folder that hold something of a pod: all but those that stay by their nature.
func leftovers(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := d.Name()
		if name == "lock" || name == ".lock" || name == "boot-id" || name == "source-seen" || name == "slots" || strings.HasPrefix(name, "last_reserved_ip") {
			return nil
		}
		found = append(found, path)
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return found, err
}

func unmount(path string) error { return unix.Unmount(path, unix.MNT_DETACH) }

// CheckInterfaces makes sure that a sandbox has all interfaces of its workload.
func CheckInterfaces(s Sandbox) error {
	names, err := linksIn(s.NetNS)
	if err != nil {
		return err
	}
	if len(names) != s.Networks+1 {
		return fmt.Errorf("pod %s has the interfaces %v and should have %d: the contender does not attach it to all its networks", s.Pod, names, s.Networks+1)
	}
	return nil
}
