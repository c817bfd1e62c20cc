// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Remove ends and removes a cluster that was made with the same options, perhaps by another process, if there is one.
func Remove(ctx context.Context, o Options) error {
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	if err := killNode(filepath.Join(o.Dir, "bin", "node")); err != nil {
		return err
	}
	return errors.Join(unlink(ctx, o.Index), groups.remove(cgroupName(o.Name)), os.RemoveAll(o.Dir))
}

// unlink removes the machine's end of its link to the node. The kernel does so too, some time after the node has ended.
func unlink(ctx context.Context, index int) error {
	name := linkName(index)
	if _, err := net.InterfaceByName(name); err != nil {
		return nil // There is none.
	}
	err := ip(ctx, "link", "delete", name)
	if _, gone := net.InterfaceByName(name); gone != nil {
		return nil // By whichever of the two.
	}
	return err
}

// killNode kills the first processes of nodes that run program, and waits for their end.
func killNode(program string) error {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	for _, link := range links {
		// The program may have been removed since.
		target, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(target, " (deleted)") != program {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			return err
		}
		if err := killAndWait(pid); err != nil {
			return fmt.Errorf("kill node with process %d: %w", pid, err)
		}
	}
	return nil
}

func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	const limit = 30_000 // Milliseconds.
	ended, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, limit)
	if err == nil && ended == 0 {
		return errors.New("still there half a minute after SIGKILL")
	}
	return err
}

// newBootID makes what the kernel tells a boot apart by. The node has one of its own, because Reboot does not reboot the kernel.
func newBootID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // RFC 9562: version 4.
	return fmt.Sprintf("%x-%x-%x-%x-%x\n", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}
