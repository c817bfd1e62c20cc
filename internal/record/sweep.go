// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Sweep removes what killed processes left beside the documents: temporary files, and lock files that nobody holds. The caller
// holds the directory's lock exclusively, so that no document is being written.
func (s *Store[T]) Sweep() error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep records: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		switch own := strings.HasPrefix(e.Name(), "."); {
		case own && strings.HasSuffix(e.Name(), suffixTemp):
			errs = append(errs, os.Remove(path))
		case !own && strings.HasSuffix(e.Name(), suffixLock):
			errs = append(errs, removeIdleLock(path))
		}
	}
	return errors.Join(errs...)
}

// removeIdleLock removes a lock file unless somebody holds it.
func removeIdleLock(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0) // a name that was read from the store's own folder
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep records: %w", err)
	}
	switch err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return f.Close()
	case err != nil:
		return errors.Join(err, f.Close())
	}
	return release(f, true)
}
