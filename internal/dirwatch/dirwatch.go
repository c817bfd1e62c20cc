// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dirwatch waits for changes in folders, woken by the kernel (inotify, Linux 2.6.13), so that nothing has to poll.
package dirwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// events are those after which a folder can hold something else: a file made, written to its end, renamed, removed, or with other
// permissions; the folder itself gone.
const events = syscall.IN_CREATE | syscall.IN_CLOSE_WRITE | syscall.IN_MOVED_TO | syscall.IN_MOVED_FROM | syscall.IN_DELETE |
	syscall.IN_ATTRIB | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF

// Watch is a watch on folders.
type Watch struct {
	dirs  []string
	queue *os.File
	wds   map[int]bool
}

// New watches dirs, or, as long as one of them does not exist, the nearest folder above it. A change after New is never missed: look
// at the folders after New, and again after each Wait. The error names the limit of the kernel that has to be raised, if it is one.
func New(dirs ...string) (*Watch, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if errors.Is(err, syscall.EMFILE) {
		return nil, fmt.Errorf("inotify: %w: raise the sysctl fs.inotify.max_user_instances of the node", err)
	}
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &Watch{dirs: dirs, queue: os.NewFile(uintptr(fd), "inotify")}
	if err := w.attach(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// attach puts the watches on the folders that are nearest now.
func (w *Watch) attach() error {
	conn, err := w.queue.SyscallConn()
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	var watchErr error
	err = conn.Control(func(fd uintptr) { watchErr = w.attachTo(int(fd)) })
	return errors.Join(err, watchErr)
}

func (w *Watch) attachTo(fd int) error {
	nearest, passed := map[int]bool{}, w.wds
	if passed == nil {
		passed = map[int]bool{}
	}
	for _, dir := range w.dirs {
		wd, err := watchNearest(fd, filepath.Clean(dir), passed)
		if err != nil {
			return err
		}
		nearest[wd] = true
	}
	for wd := range passed {
		if !nearest[wd] {
			// It fails when its folder is gone, and the watch with it.
			_, _ = syscall.InotifyRmWatch(fd, uint32(wd)) //nolint:gosec // not negative
		}
	}
	w.wds = nearest
	return nil
}

// watchNearest watches dir or what is nearest above it, and notes all that it came to watch on its way.
func watchNearest(fd int, dir string, passed map[int]bool) (int, error) {
	for at, missing := dir, ""; ; {
		wd, err := syscall.InotifyAddWatch(fd, at, events|syscall.IN_ONLYDIR)
		switch {
		case err == nil:
			passed[wd] = true
			if missing == "" || !exists(missing) {
				return wd, nil
			}
			at, missing = dir, "" // it was made before its parent was watched, which nobody will tell
		case errors.Is(err, syscall.ENOENT) && at != filepath.Dir(at):
			at, missing = filepath.Dir(at), at
		case errors.Is(err, syscall.ENOSPC):
			return 0, fmt.Errorf("inotify: watch %s: %w: raise the sysctl fs.inotify.max_user_watches of the node", at, err)
		default:
			return 0, fmt.Errorf("inotify: watch %s: %w", at, err)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Wait returns when something has changed since New or the last Wait, or with the error of ctx. Changes that come
// together are one.
func (w *Watch) Wait(ctx context.Context) error {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = w.queue.SetReadDeadline(time.Unix(1, 0)) // a closed watch needs no waking
	})
	_, err := w.queue.Read(make([]byte, 16<<10))
	if !stop() {
		<-woken
		_ = w.queue.SetReadDeadline(time.Time{}) // for the next Wait
	}
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("wait for a change in %s: %w", strings.Join(w.dirs, ", "), ctx.Err())
		}
		return fmt.Errorf("wait for a change in %s: %w", strings.Join(w.dirs, ", "), err)
	}
	return w.attach()
}

// Close ends the watch.
func (w *Watch) Close() { _ = w.queue.Close() } // nothing was written
