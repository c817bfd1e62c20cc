// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Holders lists the other processes that hold the lock of a key, or inherited it: those to whose open file it belongs. What ends
// meanwhile, or may not be looked at, is left out.
func (d Dir) Holders(key string) ([]int, error) {
	path, err := d.path(key, suffixLock)
	if err != nil {
		return nil, fmt.Errorf("holders of the lock: %w", err)
	}
	return holders(path)
}

// HoldersOfAll does the same for the lock of the directory.
func (d Dir) HoldersOfAll() ([]int, error) { return holders(filepath.Join(d.dir, suffixLock)) }

func holders(path string) ([]int, error) {
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
		if err == nil && pid != os.Getpid() && holds(pid, lock) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// holds reports whether a process has the lock of a file (proc(5), fdinfo: the lines "lock:" of an open file are its own).
func holds(pid int, file os.FileInfo) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	descriptors, err := os.ReadDir(filepath.Join(dir, "fdinfo"))
	if err != nil {
		return false // it has ended
	}
	for _, d := range descriptors {
		info, err := os.ReadFile(filepath.Join(dir, "fdinfo", d.Name()))
		if err != nil || !bytes.Contains(info, []byte("\nlock:")) {
			continue // not even looked at: it may be of a file system that does not answer
		}
		// Follows the link to the open file itself, whatever its name is by now.
		if open, err := os.Stat(filepath.Join(dir, "fd", d.Name())); err == nil && os.SameFile(open, file) {
			return true
		}
	}
	return false
}
