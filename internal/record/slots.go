// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Slots is a counting semaphore over processes. Its state is the locks of n bytes of a file, which the kernel gives up for whoever
// dies with one.
type Slots struct {
	in Dir
	n  int
}

// Slot is one that was taken.
type Slot struct {
	file *os.File
	i    int64
}

// OpenSlots returns the n slots of dir, at least one. It touches nothing. Those who share a directory should agree about n: who asks
// for fewer uses the first ones, and keeps the others waiting for its turn to end.
func OpenSlots(dir string, n int) Slots { return Slots{in: OpenDir(dir), n: max(n, 1)} }

// Take takes a slot and waits for one until ctx is done; then the error matches ctx.Err(). The slot is free again after Unlock, or
// when the process ends; children do not inherit it.
//
// One waiter at a time, whose turn is the lock of the directory, waits for whichever slot comes free first: the kernel tells by
// inotify(7) that a holder has closed the file.
func (s Slots) Take(ctx context.Context) (*Slot, error) {
	turn, err := s.in.LockAll(ctx, true)
	if err != nil {
		return nil, err
	}
	slot, err := s.take(ctx)
	if err = errors.Join(err, turn.Unlock()); err != nil && slot != nil {
		return nil, errors.Join(err, slot.Unlock())
	}
	return slot, err
}

func (s Slots) take(ctx context.Context) (*Slot, error) {
	f, err := os.OpenFile(filepath.Join(s.in.dir, "slots"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take a slot: %w", withMend(s.in.dir, err))
	}
	slot, err := s.tryAll(f)
	if slot == nil && err == nil {
		slot, err = s.wait(ctx, f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take a slot of %s: %w", f.Name(), err), f.Close())
	}
	return slot, nil
}

// tryAll locks the first byte that is free, from anywhere on; nil for none.
func (s Slots) tryAll(f *os.File) (*Slot, error) {
	first := rand.IntN(s.n) //nolint:gosec // which is tried first is no secret; the first ones are the most likely to be taken
	for i := range s.n {
		slot := &Slot{file: f, i: int64((first + i) % s.n)}
		switch err := slot.lock(syscall.F_WRLCK); {
		case err == nil:
			return slot, nil
		case !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EACCES):
			return nil, err
		}
	}
	return nil, nil //nolint:nilnil // none is an answer, not a failure
}

// lookAgain is how soon slots are tried again of whose end nothing was heard: the kernel tells of a killed holder's file before it gives up
// the lock, and of nothing to who may have no inotify.
const lookAgain = 100 * time.Millisecond

// wait locks whichever byte comes free first.
func (s Slots) wait(ctx context.Context, f *os.File) (*Slot, error) {
	watch, stop := context.WithCancel(ctx)
	defer stop()
	closed := watchClosed(watch, f.Name())
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		if slot, err := s.tryAll(f); slot != nil || err != nil {
			return slot, err
		}
		// Only a hint: who closed the file may not have had a slot, or another has it already.
		select {
		case <-closed:
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// watchClosed tells when somebody may have closed the file, until ctx ends. It never does where there is no inotify to be had.
func watchClosed(ctx context.Context, path string) <-chan struct{} {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil // too many of this user
	}
	events := os.NewFile(uintptr(fd), "inotify")
	_, _ = syscall.InotifyAddWatch(fd, path, syscall.IN_CLOSE_WRITE) // there may be too many watches
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

// Unlock gives the slot back. A second call does nothing. First the lock, and then the file: whoever waits is told of the latter.
func (s *Slot) Unlock() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.lock(syscall.F_UNLCK), s.file.Close())
	s.file = nil
	return err
}

// setLock is F_OFD_SETLK of fcntl(2), which locks for an open file, as flock(2) does, and not for a process.
const setLock = 37

func (s *Slot) lock(how int16) error {
	return uninterrupted("lock a byte of", s.file, func() error {
		return syscall.FcntlFlock(s.file.Fd(), setLock, &syscall.Flock_t{Type: how, Whence: io.SeekStart, Start: s.i, Len: 1})
	})
}
