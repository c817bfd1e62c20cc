// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package logfile is a log file that many short-lived processes append to at the same time, and that is rotated by whichever of
// them fills it. It starts no goroutine and keeps one descriptor per open file, so a long-lived process may hold one for ever.
//
// Beside <name>.log there are its backups, <name>-20060102T150405Z.log and, if asked for, <name>-20060102T150405Z.log.gz, where the
// time is that of the rotation, in UTC; and <name>.log.lock, which is empty and stays.
package logfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/internal/bounded"
)

// Defaults of Options.
const (
	DefaultMaxSizeMB  = 100
	DefaultMaxBackups = 5
)

const (
	dirMode  fs.FileMode = 0o755
	fileMode fs.FileMode = 0o640 // Logs name pods and addresses: not for everyone on the node.
)

// Options bound what a log file and its backups take on disk.
type Options struct {
	// MaxSizeMB is the size in MiB that a file is rotated rather than exceed; 0 means DefaultMaxSizeMB. A single write larger than
	// that is written whole, to a file of its own.
	MaxSizeMB int
	// MaxBackups is how many rotated files are kept, the newest ones; 0 means DefaultMaxBackups.
	MaxBackups int
	// MaxAgeDays is how many days after its rotation a backup is removed, at the next rotation; 0 keeps it whatever its age.
	MaxAgeDays int
	// Compress gzips backups, each at the rotation after its own: until then another process may still append a line to it.
	Compress bool
}

// Open opens the log file at path for appending, and creates it (mode 0640) and its folder (0755) if needed.
//
// Each Write is one write(2) with O_APPEND, so lines of several processes do not mix. A Write that would pass the size limit
// rotates the file first; one that finds the file rotated, or removed, by another process goes on in the new one. If the rotation
// is not possible, the data is written to the file as it is, and Write returns the rotation's error. Links are not followed, and a file of
// another user is not written to ([bounded.ErrNotOwn]). A device such as /dev/null is never rotated. The result is safe for use by several
// goroutines.
func Open(path string, opts Options) (io.WriteCloser, error) {
	return open(path, opts, time.Now)
}

func open(path string, opts Options, now func() time.Time) (*file, error) {
	if opts.MaxSizeMB == 0 {
		opts.MaxSizeMB = DefaultMaxSizeMB
	}
	if opts.MaxBackups == 0 {
		opts.MaxBackups = DefaultMaxBackups
	}
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, fmt.Errorf("create the folder of log file: %w", err)
	}
	f := &file{path: path, opts: opts, now: now, maxBytes: int64(opts.MaxSizeMB) << 20}
	if err := f.reopen(); err != nil {
		return nil, err
	}
	return f, nil
}

type file struct {
	path     string
	opts     Options
	maxBytes int64
	now      func() time.Time

	mu sync.Mutex
	f  *os.File
}

func (l *file) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rotateErr := l.makeRoom(int64(len(p)))
	n, err := l.f.Write(p)
	return n, errors.Join(rotateErr, err)
}

func (l *file) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}

// makeRoom sees to it that l.f is the file at the path and has room for n more bytes.
func (l *file) makeRoom(n int64) error {
	opened, err := l.f.Stat()
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	if !opened.Mode().IsRegular() {
		return nil
	}
	followed, err := l.follow(opened)
	if followed || err != nil {
		return err
	}
	// The size is the kernel's, not a count of our own writes: others append too.
	if size := opened.Size(); size == 0 || size+n <= l.maxBytes {
		return nil
	}
	return l.rotate(opened)
}

// follow reopens, and says so, if the path no longer names the opened file.
func (l *file) follow(opened fs.FileInfo) (bool, error) {
	atPath, err := os.Lstat(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("log file: %w", err)
	}
	if err == nil && os.SameFile(opened, atPath) {
		return false, nil
	}
	return true, l.reopen()
}

// reopen makes l.f the file at the path. On an error l.f stays what it was.
func (l *file) reopen() error {
	f, err := bounded.OpenOwn(l.path, os.O_WRONLY|os.O_APPEND, fileMode)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	if l.f != nil {
		_ = l.f.Close() // The old file: all that was written to it is with the kernel.
	}
	l.f = f
	return nil
}

// rotate renames the opened file to a backup and opens a new one, unless another process did or does so. It never waits for the
// other: logging may not hold up a pod.
func (l *file) rotate(opened fs.FileInfo) error {
	lock, err := bounded.OpenOwn(l.path+".lock", os.O_RDWR, fileMode)
	if err != nil {
		return fmt.Errorf("rotate log file: %w", err)
	}
	defer lock.Close() // This gives up the lock, as does the end of the process.
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rotate log file: lock %s: %w", lock.Name(), err)
	}
	// Again, now that nobody else can rotate: the last one to do so may have been quicker than we at the lock.
	followed, err := l.follow(opened)
	if followed || err != nil {
		return err
	}
	return l.moveAway()
}

// moveAway renames the file to a backup, opens a new one and tidies up among the older backups. The caller has the lock.
func (l *file) moveAway() error {
	old, err := listBackups(l.path)
	if err != nil {
		return err
	}
	if err := os.Rename(l.path, nextBackup(old, l.path, l.now())); err != nil {
		return fmt.Errorf("rotate log file: %w", err)
	}
	if err := l.reopen(); err != nil {
		return err
	}
	// The new backup is the first of the kept ones and none of the compressed ones.
	kept, expired := split(old, l.opts, l.now())
	return errors.Join(remove(expired), l.compress(kept))
}

func (l *file) compress(backups []backup) error {
	if !l.opts.Compress {
		return nil
	}
	var errs []error
	for _, b := range backups {
		if !b.compressed {
			errs = append(errs, compress(b.path))
		}
	}
	return errors.Join(errs...)
}
