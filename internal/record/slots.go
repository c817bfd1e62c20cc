// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
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
// for fewer uses the first ones, and keeps the others waiting for its turn to end.
func OpenSlots(dir string, n int) Slots { return Slots{dir: filepath.Clean(dir), n: max(n, 1)} }

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
	if err = errors.Join(err, turn.Unlock()); err != nil && slot != nil {
		return nil, errors.Join(err, slot.Unlock())
	}
	return slot, err
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

// lookAgain is how soon slots are tried again of whose end nothing was heard: the kernel tells of a killed holder's file before it gives up
// the lock, and of nothing to who may have no inotify.
const lookAgain = 100 * time.Millisecond

// waitForAny locks whichever file comes free first, and returns its index.
func waitForAny(ctx context.Context, files []*os.File) (int, error) {
	watch, stop := context.WithCancel(ctx)
	defer stop()
	closed := watchClosed(watch, files)
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		for i, f := range files {
			if free, err := tryLock(f); err != nil || free {
				return i, err
			}
		}
		// Only a hint: whose file was closed may not have had the lock, or not any more.
		select {
		case <-closed:
		case <-again.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// watchClosed tells when one of the files may have been closed, until ctx ends. It never does where there is no inotify to be had.
func watchClosed(ctx context.Context, files []*os.File) <-chan struct{} {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil // too many of this user
	}
	events := os.NewFile(uintptr(fd), "inotify")
	for _, f := range files {
		if _, err := syscall.InotifyAddWatch(fd, f.Name(), syscall.IN_CLOSE_WRITE); err != nil {
			break // too many watches; the others serve
		}
	}
	context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })
	closed := make(chan struct{}, 1)
	go func() {
		// Takes an SRCU grace period, of milliseconds up to hundreds: not while others wait for our turn to end.
		defer events.Close()
		buf := make([]byte, 64*syscall.SizeofInotifyEvent)
		for {
			if _, err := events.Read(buf); err != nil {
				return
			}
			select {
			case closed <- struct{}{}:
			default:
			}
		}
	}()
	return closed
}
