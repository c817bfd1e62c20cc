// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Lock is a lock that is held. See [Dir.Lock].
type Lock struct {
	file *os.File
	// temporary: the lock file goes with the lock.
	temporary bool
}

// Lock takes the lock of one key, and waits for it until ctx is done; then the error matches ctx.Err().
//
// The kernel releases it when every process that has the lock's file open is gone, so that it can not outlive a crash. A child
// that inherits [Lock.File] keeps the lock when its parent is killed.
func (d Dir) Lock(ctx context.Context, key string) (*Lock, error) {
	path, err := d.path(key, suffixLock)
	if err != nil {
		return nil, fmt.Errorf("lock record: %w", err)
	}
	return d.acquire(ctx, path, syscall.LOCK_EX, true)
}

// LockAll takes the lock of the directory, and waits for it like [Dir.Lock]. Any number of calls may hold it shared, but
// exclusive holds it alone. It is independent of the locks of keys; whoever needs both takes this one first. The kernel does not
// queue, so that an endless stream of shared ones can keep an exclusive one waiting until its ctx is done.
func (d Dir) LockAll(ctx context.Context, exclusive bool) (*Lock, error) {
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	// Its file stays: removing it under other shared holders would let an exclusive one in beside them.
	return d.acquire(ctx, filepath.Join(d.dir, suffixLock), how, false)
}

// TryLockAll takes the lock of the directory alone, and does not wait for it: nil when somebody has it.
func (d Dir) TryLockAll() (*Lock, error) {
	path := filepath.Join(d.dir, suffixLock)
	err := makeDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, withMend(d.dir, err))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, withMend(d.dir, err))
	}
	switch err = flock(f, syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, f.Close()
	case err != nil:
		return nil, errors.Join(err, f.Close())
	}
	return &Lock{file: f}, nil
}

// File is the open lock file, for a child process to inherit (os/exec's Cmd.ExtraFiles). It must not be closed.
func (l *Lock) File() *os.File { return l.file }

// Unlock releases the lock, also for children that inherited it and still run. A second call does nothing.
func (l *Lock) Unlock() error {
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	if err := release(f, l.temporary); err != nil {
		return fmt.Errorf("unlock %s: %w", f.Name(), err)
	}
	return nil
}

// acquire locks the file at path, made if missing.
func (d Dir) acquire(ctx context.Context, path string, how int, temporary bool) (*Lock, error) {
	if err := makeDir(d.dir); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, withMend(d.dir, err))
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if temporary && errors.Is(err, syscall.ENOSPC) && linkLock(path) {
			f, err = os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, withMend(d.dir, err))
		}
		if err := wait(ctx, f, how, temporary); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, withMend(d.dir, err))
		}
		// The holder before us may have removed the file while we waited: then we have the lock of a file that nobody else
		// will ever find, and must try the one that took its place.
		if isAt(f, path) {
			return &Lock{file: f, temporary: temporary}, nil
		}
		_ = f.Close()
	}
}

// linkLock makes the lock file of a key another name of the key's document, which takes no inode: a disk without any would otherwise
// keep what is on it from being undone, and so from going. Whoever replaces the document leaves this file as it is.
func linkLock(path string) bool {
	document := strings.TrimSuffix(path, suffixLock) + suffixDocument
	err := os.Link(document, path)
	return err == nil || errors.Is(err, fs.ErrExist)
}

// wait locks f, and closes it if that fails. flock(2) can not be interrupted, so it has a goroutine, which is told by ctx that
// nobody waits for it any more; it then gives the lock back as soon as it gets it.
func wait(ctx context.Context, f *os.File, how int, temporary bool) error {
	switch err := flock(f, how|syscall.LOCK_NB); {
	case err == nil:
		return nil
	case !errors.Is(err, syscall.EWOULDBLOCK):
		return errors.Join(err, f.Close())
	}
	result := make(chan error)
	go func() {
		err := flock(f, how)
		select {
		case result <- err:
		case <-ctx.Done():
			// Nobody is left to tell. Closing alone gives back a lock that we got; one that we did not get is not ours to remove.
			_ = release(f, temporary && err == nil)
		}
	}()
	select {
	case err := <-result:
		if err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another call or a plugin that it started still holds the lock: %w", ctx.Err())
	}
}

// release gives a lock up, removing its file first if it is temporary: only the holder may do that, and whoever waits for this
// file looks again afterwards. The explicit LOCK_UN releases the lock for processes that inherited it, too.
func release(f *os.File, temporary bool) error {
	var errs []error
	if temporary && isAt(f, f.Name()) {
		errs = append(errs, os.Remove(f.Name()))
	}
	errs = append(errs, flock(f, syscall.LOCK_UN), f.Close())
	return errors.Join(errs...)
}

// isAt reports whether f is still the file at path.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(open, there)
}

// flock is flock(2).
func flock(f *os.File, how int) error {
	return uninterrupted("flock", f, func() error { return syscall.Flock(int(f.Fd()), how) })
}

// uninterrupted makes a system call about a file again when a signal interrupts it. Its error names the file.
func uninterrupted(op string, f *os.File, call func() error) error {
	for {
		err := call()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EINTR):
			return &fs.PathError{Op: op, Path: f.Name(), Err: err}
		}
	}
}
