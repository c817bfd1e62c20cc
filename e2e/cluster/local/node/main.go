// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main is the first process of a node. It returns when the conversation with the process that booted it has ended.
func Main(args []string) error {
	if len(args) != 2 || os.Getpid() != 1 {
		return errors.New("this is the first process of a node, and only Boot starts it")
	}
	var layout Layout
	if err := json.Unmarshal([]byte(args[1]), &layout); err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	if err := layout.mount(); err != nil {
		return fmt.Errorf("lay out the node's file system: %w", err)
	}
	if err := os.Setenv("PATH", layout.Search); err != nil {
		return err
	}
	inherited := os.NewFile(connection, "conversation")
	conn, err := net.FileConn(inherited)
	if err != nil {
		return err
	}
	if err := inherited.Close(); err != nil {
		return err
	}
	s := newServer()
	server := rpc.NewServer()
	if err := server.RegisterName("server", s); err != nil {
		return err
	}
	ended := make(chan os.Signal, 1) // One is enough: it stands for all that ended before it is read.
	signal.Notify(ended, syscall.SIGCHLD)
	go s.reap(ended)
	server.ServeConn(conn)
	if layout.Stay {
		select {}
	}
	return nil
}

// mount gives the node its own folders, /proc, /sys and an empty /run.
func (l Layout) mount() error {
	// Nothing of this may show on the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range l.Dirs {
		if err := bindDir(filepath.Join(l.Root, dir), dir); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := mountSysfs(filepath.Join(l.Root, "sys-fs-cgroup")); err != nil {
		return err
	}
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"/run/netns", "/run/lock"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for path, content := range l.Files {
		if err := bindFile(filepath.Join(l.Root, path), path, content); err != nil {
			return err
		}
	}
	for _, forward := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile(forward, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) { // A kernel without IPv6.
			return err
		}
	}
	// As systemd leaves it, and as mountPropagation of pods needs it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

// mountSysfs mounts the /sys of the node's own network namespace and carries over the cgroup file systems, which are below it.
func mountSysfs(aside string) error {
	const cgroup = "/sys/fs/cgroup"
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(cgroup, aside, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("carry over %s: %w", cgroup, err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount(aside, cgroup, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("carry over %s: %w", cgroup, err)
	}
	return unix.Unmount(aside, unix.MNT_DETACH)
}

func bindDir(from, to string) error {
	if err := errors.Join(os.MkdirAll(from, 0o755), os.MkdirAll(to, 0o755)); err != nil {
		return err
	}
	return bind(from, to)
}

func bindFile(from, to, content string) error {
	if err := os.MkdirAll(filepath.Dir(from), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(from, []byte(content), 0o644); err != nil {
		return err
	}
	return bind(from, to)
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}
