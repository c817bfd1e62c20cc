// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Slots is a counting semaphore over processes. Its state is the locks of n files in a directory, which the kernel gives up for
// whoever dies with one.
type Slots struct {
	dir string
	n   int
}

// OpenSlots returns the n slots of dir, at least one. It touches nothing. Those who share a directory should agree about n: who asks
// for fewer uses the first ones.
func OpenSlots(dir string, n int) Slots { return Slots{dir: filepath.Clean(dir), n: n} }

// Take takes a slot and waits for one until ctx is done; then the error matches ctx.Err(). The slot is free again after Unlock, or
// when the process ends; children do not inherit it.
//
// One waiter at a time, whose turn is the lock of the directory, waits for whichever slot comes free first: the kernel tells by
// inotify(7) that a holder has closed its file.
func (s Slots) Take(ctx context.Context) (*Lock, error) {
	turn, err := Open[struct{}](s.dir).LockAll(ctx, true)
	if err != nil {
		return nil, err
	}
	slot, err := s.take(ctx)
	return slot, errors.Join(err, turn.Unlock())
}

func (s Slots) take(ctx context.Context) (*Lock, error) {
	files := make([]*os.File, 0, s.n)
	taken := -1
	// Only when its turn is over: closing them looks like slots that come free.
	defer func() {
		for i, f := range files {
			if i != taken {
				_ = f.Close()
			}
		}
	}()
	for i := range s.n {
		f, err := os.OpenFile(filepath.Join(s.dir, "slot-"+strconv.Itoa(i)), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("take a slot: %w", withMend(s.dir, err))
		}
		files = append(files, f)
		if free, err := tryLock(f); err != nil {
			return nil, fmt.Errorf("take %s: %w", f.Name(), err)
		} else if free {
			taken = i
			return &Lock{file: f}, nil
		}
	}
	i, err := waitForAny(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("wait for a slot in %s: %w", s.dir, err)
	}
	taken = i
	return &Lock{file: files[i]}, nil
}

func tryLock(f *os.File) (bool, error) {
	err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// waitForAny locks whichever file its holder closes first, and returns its index.
func waitForAny(ctx context.Context, files []*os.File) (int, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return 0, fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	index := make(map[uint32]int, len(files))
	for i, f := range files {
		wd, err := syscall.InotifyAddWatch(fd, f.Name(), syscall.IN_CLOSE_WRITE)
		if err != nil {
			return 0, fmt.Errorf("inotify: watch %s: %w", f.Name(), err)
		}
		index[uint32(wd)] = i //nolint:gosec // Watch descriptors are positive.
	}
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for event := make([]byte, syscall.SizeofInotifyEvent); ; { // one event, which has no name
		// Those that were closed before they were watched.
		for i, f := range files {
			if free, err := tryLock(f); err != nil || free {
				return i, err
			}
		}
		if _, err := events.Read(event); err != nil {
			return 0, errors.Join(ctx.Err(), err)
		}
		if i, ok := index[binary.NativeEndian.Uint32(event)]; ok {
			// The kernel tells of the end of a file before it gives up its lock.
			return i, wait(ctx, files[i], syscall.LOCK_EX, false)
		}
	}
}
