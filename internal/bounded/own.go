// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package bounded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrNotOwn marks a file that somebody else could have put where it is, or who would get what is written to it.
var ErrNotOwn = errors.New("not a file of this user alone")

// OpenOwn opens a file to write to it, and creates it with the mode where it is not there. Whoever may write into one of the folders on the way must
// not choose what root writes to: the file is no link and no FIFO, is the caller's own and has no other name, and links on the way are the caller's or root's, in
// folders that nobody else writes to. What is no regular file but a device, such as /dev/null, is opened too. Errors match [ErrNotOwn], or
// are the system's; they name the file and the fix.
func OpenOwn(path string, flags int, mode fs.FileMode) (*os.File, error) {
	if err := checkWay(path, maxLinks); err != nil {
		return nil, err
	}
	// O_NONBLOCK: a FIFO that nobody reads is an error now, not a wait. It means nothing for a regular file.
	f, err := os.OpenFile(path, flags|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, mode)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a link: name what it leads to, or remove it", ErrNotOwn, path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkOwn(path, info)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

// checkOwn refuses an open file that is not the caller's alone.
func checkOwn(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode()&fs.ModeCharDevice != 0:
		return nil
	case !info.Mode().IsRegular() || !ok:
		return fmt.Errorf("%w: %s is no regular file: name another", ErrNotOwn, path)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to user %d: remove it, or name another file", ErrNotOwn, path, st.Uid)
	case st.Nlink > 1:
		return fmt.Errorf("%w: %s has %d names (hard links): remove it, or name another file", ErrNotOwn, path, st.Nlink)
	}
	return nil
}

// maxLinks is how many links the kernel follows in a path (MAXSYMLINKS).
const maxLinks = 40

// checkWay refuses a path that leads through a link which another user could have made or exchanged, or through more links than given.
func checkWay(path string, most int) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	at := "/"
	for part := range strings.SplitSeq(strings.Trim(filepath.Dir(abs), "/"), "/") {
		folder := at
		at = filepath.Join(at, part)
		info, err := os.Lstat(at)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			continue // what is not there, the caller is told when the file is opened
		}
		in, err := os.Stat(folder)
		if err != nil {
			return err
		}
		open := in.Mode().Perm()&0o022 != 0 && in.Mode()&fs.ModeSticky == 0
		if !isTrusted(info) || !isTrusted(in) || open {
			return fmt.Errorf("%w: %s is a link that another user may have made: name the folder that it leads to", ErrNotOwn, at)
		}
		// What the link leads to has a way of its own.
		target, err := os.Readlink(at)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(folder, target)
		}
		if most == 0 {
			return &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		if err := checkWay(filepath.Join(target, "file"), most-1); err != nil {
			return err
		}
	}
	return nil
}

// isTrusted reports whether something is root's or the caller's own.
func isTrusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}
