// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dirwatch waits for changes in a folder, woken by the kernel (inotify, Linux 2.6.13), so that nothing has to poll.
package dirwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// events are those after which a folder can hold something else: a file made, written to its end, renamed, removed, or with other
// permissions; the folder itself gone.
const events = syscall.IN_CREATE | syscall.IN_CLOSE_WRITE | syscall.IN_MOVED_TO | syscall.IN_MOVED_FROM | syscall.IN_DELETE |
	syscall.IN_ATTRIB | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF

// Watch is a watch on one folder.
type Watch struct {
	dir   string
	queue *os.File
	wd    int
}

// New watches dir, or, as long as that does not exist, the nearest folder above it. A change after New is never missed: look
// at the folder after New, and again after each Wait.
func New(dir string) (*Watch, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &Watch{dir: filepath.Clean(dir), queue: os.NewFile(uintptr(fd), "inotify"), wd: -1}
	if err := w.attach(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// attach puts the watch on the folder that is nearest now.
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
	for dir := w.dir; ; dir = filepath.Dir(dir) {
		wd, err := syscall.InotifyAddWatch(fd, dir, events|syscall.IN_ONLYDIR)
		if err == nil {
			if w.wd >= 0 && w.wd != wd {
				// It fails when its folder is gone, and the watch with it.
				_, _ = syscall.InotifyRmWatch(fd, uint32(w.wd)) //nolint:gosec // not negative
			}
			w.wd = wd
			return nil
		}
		if !errors.Is(err, syscall.ENOENT) || dir == filepath.Dir(dir) {
			return fmt.Errorf("inotify: watch %s: %w", dir, err)
		}
	}
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
			return fmt.Errorf("wait for a change in %s: %w", w.dir, ctx.Err())
		}
		return fmt.Errorf("wait for a change in %s: %w", w.dir, err)
	}
	return w.attach()
}

// Close ends the watch.
func (w *Watch) Close() { _ = w.queue.Close() } // nothing was written
