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

// Sweep removes what killed processes left beside the documents: temporary files, and lock files that nobody holds. What belongs to
// a key whose lock is held stays: whoever writes a document holds its lock.
func (d Dir) Sweep() error {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep records: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name, own := strings.CutPrefix(e.Name(), ".")
		if key, ok := strings.CutSuffix(name, suffixTemp); own && ok {
			errs = append(errs, d.removeIdle(key, filepath.Join(d.dir, e.Name())))
		} else if key, ok := strings.CutSuffix(name, suffixLock); !own && ok {
			errs = append(errs, d.removeIdle(key, ""))
		}
	}
	return errors.Join(errs...)
}

// removeIdle removes the lock file of an encoded key, and the temporary file, unless somebody holds the lock.
func (d Dir) removeIdle(encoded, temporary string) error {
	path := filepath.Join(d.dir, encoded+suffixLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600) // a name that was read from the store's own folder
	if err != nil {
		return fmt.Errorf("sweep records: %w", err)
	}
	switch err = flock(f, syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return f.Close()
	case err != nil:
		return errors.Join(err, f.Close())
	}
	if temporary != "" && isAt(f, path) {
		if err = os.Remove(temporary); errors.Is(err, fs.ErrNotExist) {
			err = nil // its writer ended well in between
		}
	}
	return errors.Join(err, release(f, true))
}
