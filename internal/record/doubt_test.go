// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// patience is far more than a notice of the kernel takes.
const patience = 30 * time.Second

// A holder is killed after a while: it must be one, and not a backup, a scanner, or a person with an editor.
func TestWhoHasTheLockFileOpenIsNoHolder(t *testing.T) {
	t.Parallel()
	s := Open[int](t.TempDir())
	lock, err := s.Lock(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Unlock() }()
	open, err := os.Open(lock.File().Name())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	reader := exec.CommandContext(t.Context(), "cat")
	stdin, err := reader.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.ExtraFiles = []*os.File{open}
	if err = reader.Start(); err != nil {
		t.Fatal(err)
	}
	pids, err := s.Holders("k")
	if err != nil || slices.Contains(pids, reader.Process.Pid) {
		t.Errorf("Holders = %v, %v, with the process %d, which only has the file open", pids, err, reader.Process.Pid)
	}
	if err = errors.Join(stdin.Close(), reader.Wait()); err != nil {
		t.Error(err)
	}
}

// The Go runtime has system calls restarted by the kernel, but network file systems end them all the same.
func TestASystemCallThatASignalInterruptsIsMadeAgain(t *testing.T) {
	t.Parallel()
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls := 0
	err = uninterrupted("flock", f, func() error {
		if calls++; calls < 3 {
			return syscall.EINTR
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("%d calls: %v", calls, err)
	}
}

// Of those who wait for a slot, one has the turn to take it: the others wait for that, and not for a slot, or the youngest could be the first.
func TestOneWaiterAtATimeHasTheTurn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	slots := OpenSlots(dir, 1)
	taken, err := slots.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next := make(chan error, 1)
	go func() {
		slot, err := slots.Take(ctx)
		if err == nil {
			err = slot.Unlock()
		}
		next <- err
	}()
	// try reports whether the lock of the turn is to be had now.
	try := func(exclusive bool) bool {
		short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
		defer stop()
		lock, err := Open[struct{}](dir).LockAll(short, exclusive)
		if err == nil {
			err = lock.Unlock()
		}
		return err == nil
	}
	for try(true) && ctx.Err() == nil { // until the waiter has it
		continue
	}
	if try(false) {
		t.Error("two can wait for a slot at a time")
	}
	if err := taken.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-next; err != nil {
		t.Error(err)
	}
}

// The slot of a plugin that has ended is taken at once, and not when the next look is due.
func TestTheKernelTellsOfASlotThatComesFree(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "slots")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	closed := watchClosed(ctx, file)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-ctx.Done():
		t.Error("it tells nothing")
	}
}
