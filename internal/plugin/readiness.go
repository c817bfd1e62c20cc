// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/internal/source"
)

// readinessTimeout bounds the wait for the default network's readiness file. kubelet tries a sandbox again by itself.
const readinessTimeout = 30 * time.Second

// waitForFile waits until a file exists, woken by the kernel (inotify, Linux 2.6.13); "" is there.
func waitForFile(ctx context.Context, path string) error {
	if path == "" || fileExists(path) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readinessTimeout)
	defer cancel()
	for !fileExists(path) {
		if err := waitForChange(ctx, path); err != nil {
			return fmt.Errorf("%w: the default network is not ready: its readinessindicatorfile %s does not exist (waited up to %v): %w", source.ErrTryAgain, path, readinessTimeout, err)
		}
	}
	return nil
}

// waitForChange returns when something was made in the nearest folder above path that exists.
func waitForChange(ctx context.Context, path string) error {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close() // nothing was written
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		_, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_CREATE|syscall.IN_MOVED_TO|syscall.IN_DELETE_SELF)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ENOENT) || dir == filepath.Dir(dir) {
			return fmt.Errorf("inotify: watch %s: %w", dir, err)
		}
	}
	if fileExists(path) {
		return nil // made before the watch was in place
	}
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := events.Read(make([]byte, 4096)); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}
