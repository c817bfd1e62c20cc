// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

func TestHoldersAreTheProcessesThatInheritedTheLock(t *testing.T) {
	t.Parallel()
	s := Open[int](t.TempDir())
	if pids, err := s.Holders("k"); err != nil || len(pids) != 0 {
		t.Errorf("Holders of a lock that nobody has = %v, %v", pids, err)
	}
	lock, err := s.Lock(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), "cat")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.ExtraFiles = []*os.File{lock.File()}
	if err = child.Start(); err != nil {
		t.Fatal(err)
	}
	pids, err := s.Holders("k")
	// A child that another test forks at this moment has the file open until its exec: it may be listed too.
	if err != nil || !slices.Contains(pids, child.Process.Pid) || slices.Contains(pids, os.Getpid()) {
		t.Errorf("Holders = %v, %v, want the child %d and not the caller", pids, err, child.Process.Pid)
	}
	if err = stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err = child.Wait(); err != nil {
		t.Fatal(err)
	}
	if pids, err = s.Holders("k"); err != nil || slices.Contains(pids, child.Process.Pid) {
		t.Errorf("Holders after the child has ended = %v, %v", pids, err)
	}
	if err = lock.Unlock(); err != nil {
		t.Error(err)
	}
}
