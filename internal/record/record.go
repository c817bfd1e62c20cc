// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package record keeps state on disk: one JSON document per key, each in a file of its own.
//
// A document is replaced as a whole or not at all, also when the machine loses power: it is written to a temporary file beside it,
// flushed, renamed, and the directory flushed. Locks are flock(2) locks, so that the kernel releases those of a dead process.
//
// A document that is an object ends with a checksum of what is in front of it, "crc32c": a flipped bit must not send an undo to another
// interface or address than those that were made. Without one, as when a person has edited the file, it is taken as it is.
//
// Files of a directory, by the encoded key k:
//
//	k.json           the document
//	k.json.corrupt   a document that could not be read, kept for a person
//	k.lock           the lock of the key, only while somebody has it (or was killed with it)
//	.k.tmp           a document that is being written (or whose writer was killed): never read
//	.lock            the lock of the directory
//
// [Slots] have a directory of their own: its .lock, and a file "slots" with a byte for each.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// MaxBytes bounds a document, on the way in and on the way out. A pod's record is some kilobytes; a limit keeps a damaged or
// planted file from filling the memory of a process that runs as root.
const MaxBytes = 8 << 20

// ErrCorrupt marks a document that is there but can not be used: undecodable, too large, or not a regular file. Reading it
// again will not help; see [Store.Quarantine].
var ErrCorrupt = errors.New("corrupt record")

// Dir is a directory of files by key, with locks. It has no state but the directory, so that any number of processes may share that.
type Dir struct {
	dir string
}

// OpenDir returns a directory. It touches nothing: the first lock makes it, with mode 0700.
func OpenDir(dir string) Dir { return Dir{dir: filepath.Clean(dir)} }

// Store keeps documents of type T, JSON objects or arrays, in one directory. Whoever loads, changes and saves a document holds its
// [Dir.Lock] meanwhile; two Saves of one key without it would write the same temporary file.
//
// Errors name the file, and what to do where that is known (a full or read-only file system).
type Store[T any] struct {
	Dir
}

// Open returns the store in dir. It touches nothing: the first Save or Lock makes the directory, with mode 0700.
func Open[T any](dir string) *Store[T] {
	return &Store[T]{Dir: OpenDir(dir)}
}

// Save writes the document of a key, with mode 0600. When it returns nil for a key that had none, the document will survive a power
// failure; a document that is replaced is flushed too, but a power failure may leave the one before it, whole. When it returns an error
// the old document, if any, is still there whole (except that after a failing flush of the directory either may be).
func (s *Store[T]) Save(key string, v *T) error {
	path, err := s.path(key, suffixDocument)
	if err != nil {
		return fmt.Errorf("save record: %w", err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	data = append(seal(data), '\n')
	if len(data) > MaxBytes {
		return fmt.Errorf("save %s: document of %d bytes is larger than the limit of %d", path, len(data), MaxBytes)
	}
	if err := s.write(s.temporary(key), path, data); err != nil {
		return fmt.Errorf("save %s: %w", path, withMend(s.dir, err))
	}
	return nil
}

// write puts data at path by way of temporary. One name for all temporary files of a key means that those of killed writers do
// not pile up: the next Save overwrites it.
func (s *Store[T]) write(temporary, path string, data []byte) error {
	if err := makeDir(s.dir); err != nil {
		return err
	}
	_, statErr := os.Lstat(path)
	err := writeFile(temporary, data)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		// On a full file system the half-written file would keep what others need. If it can't go, the next Save has it.
		_ = os.Remove(temporary)
		return err
	}
	if statErr == nil {
		return nil // whatever a power failure leaves under this name is whole: the new document, or the one before
	}
	return syncDir(s.dir)
}

// Load reads the document of a key. The error matches [fs.ErrNotExist] when there is none and [ErrCorrupt] when there is one
// that can not be used; any other is the disk's.
func (s *Store[T]) Load(key string) (*T, error) {
	path, err := s.path(key, suffixDocument)
	if err != nil {
		return nil, fmt.Errorf("load record: %w", err)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, withMend(s.dir, err))
	}
	v, err := decode[T](data)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w: %w", path, ErrCorrupt, err)
	}
	return v, nil
}

// sealFormat is the end of a document with a checksum, by which it is also found again.
const sealFormat = `,"crc32":"%08x"}`

// seal adds the checksum to an object that has any members.
func seal(object []byte) []byte {
	if len(object) < len(`{"":0}`) || object[0] != '{' {
		return object
	}
	return fmt.Appendf(object[:len(object)-1], sealFormat, checksum(object))
}

// checkSeal compares the checksum of a document, if it has one.
func checkSeal(data []byte) error {
	data = bytes.TrimRight(data, "\n")
	start := len(data) - len(fmt.Sprintf(sealFormat, 0))
	if start < 0 {
		return nil
	}
	var want uint32
	end := string(data[start:])
	if _, err := fmt.Sscanf(end, sealFormat, &want); err != nil || fmt.Sprintf(sealFormat, want) != end {
		return nil //nolint:nilerr // It has none.
	}
	if got := checksum(append(data[:start:start], '}')); got != want {
		return fmt.Errorf("its checksum is %08x and not %08x (who edits a record by hand takes out \"crc32\")", got, want)
	}
	return nil
}

// checksum is not Castagnoli's, which is faster, but takes crc32 longer to prepare for than all of a record.
func checksum(data []byte) uint32 { return crc32.ChecksumIEEE(data) }

// decode parses one document. JSON's null is refused: it would decode into a zero T, as if somebody had saved that.
func decode[T any](data []byte) (*T, error) {
	if err := checkSeal(data); err != nil {
		return nil, err
	}
	var v *T
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	if v == nil {
		return nil, errors.New("document is null")
	}
	return v, nil
}

// Delete removes the document of a key. It succeeds when there is none. A quarantined one stays. It costs no flush: after a power failure
// the document may be back, so whatever it stands for has to bear being undone twice.
func (s *Store[T]) Delete(key string) error {
	path, err := s.path(key, suffixDocument)
	if err != nil {
		return fmt.Errorf("delete record: %w", err)
	}
	for _, name := range []string{s.temporary(key), path} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete %s: %w", path, withMend(s.dir, err))
		}
	}
	return nil
}

// Quarantine renames the document of a key to <key>.json.corrupt, in place of an older one there, so that a person can look at
// it and it is no longer in the way. The error matches [fs.ErrNotExist] when there is no document.
func (s *Store[T]) Quarantine(key string) error {
	path, err := s.path(key, suffixDocument)
	if err != nil {
		return fmt.Errorf("quarantine record: %w", err)
	}
	err = os.Rename(path, path+suffixCorrupt)
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("quarantine %s: %w", path, withMend(s.dir, err))
	}
	return nil
}

// Keys lists the keys that have a document, sorted. Other files, and a directory that does not exist, count for nothing.
func (s *Store[T]) Keys() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list records in %s: %w", s.dir, err)
	}
	var keys []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffixDocument)
		if !ok {
			continue
		}
		if key, ok := decodeKey(name); ok {
			keys = append(keys, key)
		}
	}
	// By key, which is not the order of the encoded names.
	slices.Sort(keys)
	return keys, nil
}

// makeDir makes dir and what is missing above it, with mode 0700, and flushes each parent, so that they are still there after a
// power failure.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return fmt.Errorf("make directory %s: %w", dir, fs.ErrNotExist)
	}
	if err := makeDir(parent); err != nil {
		return err
	}
	// Another process may be faster.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// writeFile writes data to a new or emptied file and flushes it. It follows no symbolic link.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// readFile reads a document's bytes. O_NONBLOCK keeps a FIFO in its place from blocking the call for ever.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: a symbolic link", ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", ErrCorrupt)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: larger than the limit of %d bytes", ErrCorrupt, MaxBytes)
	}
	return data, nil
}

// syncDir flushes a directory: without it a rename or removal may be undone by a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// withMend adds to an error of the file system of dir what an operator can do about it.
func withMend(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; free space or inodes on the file system of %s", err, dir)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; mount the file system of %s read-write", err, dir)
	case errors.Is(err, syscall.ENOLCK):
		return fmt.Errorf("%w; the file system of %s has no locks: use a local one", err, dir)
	case errors.Is(err, syscall.EIO):
		return fmt.Errorf("%w; check the disk that holds %s", err, dir)
	default:
		return err
	}
}

// accessible is W_OK|X_OK of access(2).
const accessible = 2 | 1

// Writable reports why no document can be written now, as far as can be told without writing one.
func (s *Store[T]) Writable() error {
	dir := s.dir
	for {
		err := syscall.Access(dir, accessible)
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir) // the first Save makes it
			continue
		}
		if err != nil {
			return fmt.Errorf("records can not be written: %w", withMend(s.dir, &fs.PathError{Op: "access", Path: dir, Err: err}))
		}
		break
	}
	var of syscall.Statfs_t
	if err := syscall.Statfs(dir, &of); err != nil {
		return fmt.Errorf("records can not be written: %w", withMend(s.dir, &fs.PathError{Op: "statfs", Path: dir, Err: err}))
	}
	// File systems that have no fixed number of inodes tell of none at all.
	if of.Bfree == 0 && of.Blocks > 0 || of.Ffree == 0 && of.Files > 0 {
		return fmt.Errorf("records can not be written: %w", withMend(s.dir, &fs.PathError{Op: "statfs", Path: dir, Err: syscall.ENOSPC}))
	}
	return nil
}
