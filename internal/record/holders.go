// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Holders lists the other processes that have the lock file of a key open: they hold the lock, wait for it, or inherited it. What
// ends meanwhile, or may not be looked at, is left out.
func (s *Store[T]) Holders(key string) ([]int, error) {
	path, err := s.path(key, suffixLock)
	if err != nil {
		return nil, fmt.Errorf("holders of the lock: %w", err)
	}
	lock, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("holders of the lock: %w", err)
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("holders of the lock: %w", err)
	}
	var pids []int
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err == nil && pid != os.Getpid() && hasOpen(pid, lock) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// hasOpen reports whether a process has a file open.
func hasOpen(pid int, file os.FileInfo) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	descriptors, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	for _, d := range descriptors {
		// Follows the link to the open file itself, whatever its name is by now.
		if open, err := os.Stat(filepath.Join(dir, d.Name())); err == nil && os.SameFile(open, file) {
			return true
		}
	}
	return false
}
