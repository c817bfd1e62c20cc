// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sysfs reads what the kernel tells about devices in /sys: PCI functions, which of them are virtual ones (VFs) and of whom (PFs),
// their network interfaces and representors, and scalable functions on the auxiliary bus. It writes nothing.
//
// What it tells of interfaces is what the network namespace has that the sysfs was mounted in.
package sysfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	// maxFileBytes bounds an attribute; the kernel's have a page at most.
	maxFileBytes = 4 << 10
	// maxLinks bounds the symbolic links of one path, as the kernel does.
	maxLinks = 40

	pciDevices       = "bus/pci/devices"
	auxiliaryDevices = "bus/auxiliary/devices"
	netClass         = "class/net"
)

// ErrNotFound says that there is no such device or interface.
var ErrNotFound = errors.New("no such device")

// FS is a sysfs.
type FS struct{ fsys fs.FS }

// New returns the sysfs that is mounted at root, which is /sys.
func New(root string) *FS { return From(os.DirFS(root)) }

// From returns a sysfs that fsys holds. It has to be a [fs.ReadLinkFS], as sysfs is woven of symbolic links; they are relative, and stay
// within it.
func From(fsys fs.FS) *FS { return &FS{fsys: fsys} }

// isAbsent reports whether an error says that a device or a driver does not have an attribute.
func isAbsent(err error) bool {
	// Some drivers say EINVAL for EOPNOTSUPP, and the kernel does of an interface that is about to go.
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL)
}

// attribute reads a text; one that is not there is "".
func (s *FS) attribute(name string) (string, error) {
	text, err := s.read(name)
	if isAbsent(err) {
		return "", nil
	}
	return text, err
}

// number reads a decimal attribute. One that is not there counts as absent, and none is less than that.
func (s *FS) number(name string, absent int) (int, error) {
	text, err := s.read(name)
	if isAbsent(err) {
		return absent, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < absent {
		return 0, fmt.Errorf("%s has %.64q, which is no number from %d", name, text, absent)
	}
	return n, nil
}

// hex reads an attribute like 0x8086; one that is not there is 0.
func (s *FS) hex(name string) (uint32, error) {
	text, err := s.read(name)
	if isAbsent(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%s has %.64q, which is no hexadecimal number of 32 bits", name, text)
	}
	return uint32(n), nil
}

// read returns an attribute without the newline at its end.
func (s *FS) read(name string) (string, error) {
	resolved, err := s.resolve(name)
	if err != nil {
		return "", err
	}
	f, err := s.fsys.Open(resolved)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxFileBytes {
		return "", fmt.Errorf("%s has more than %d bytes", name, maxFileBytes)
	}
	return string(bytes.TrimSpace(data)), nil
}

// list returns the names in a folder, sorted; none when it is not there.
func (s *FS) list(dir string) ([]string, error) {
	resolved, err := s.resolve(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(s.fsys, resolved)
	if errors.Is(err, fs.ErrNotExist) { // it went meanwhile
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// linkBase is the last part of a symbolic link's target; "" when it is not there.
func (s *FS) linkBase(name string) (string, error) {
	dir, err := s.resolve(path.Dir(name))
	if err == nil {
		var target string
		if target, err = fs.ReadLink(s.fsys, path.Join(dir, path.Base(name))); err == nil {
			return path.Base(target), nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return "", err
}

// resolve follows the symbolic links of a path, each relative to where it is, and lets none lead out of the sysfs.
func (s *FS) resolve(name string) (string, error) {
	resolved, rest, links := ".", strings.Split(name, "/"), 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			if resolved == "." {
				return "", fmt.Errorf("%s leads out of the file system", name)
			}
			resolved = path.Dir(resolved)
			continue
		}
		next := path.Join(resolved, part)
		info, err := fs.Lstat(s.fsys, next)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			resolved = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", name, syscall.ELOOP)
		}
		target, err := fs.ReadLink(s.fsys, next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			return "", fmt.Errorf("%s leads out of the file system", name)
		}
		rest = slices.Concat(strings.Split(target, "/"), rest)
	}
	return resolved, nil
}
