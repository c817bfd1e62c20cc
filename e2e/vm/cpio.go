// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/e2e/image"
)

// Modes of a file in a cpio archive, as of inode(7).
const (
	modeDir     = 0o040755
	modeFile    = 0o100644
	modeProgram = 0o100755
	modeLink    = 0o120777
	modeConsole = 0o020600

	cpioTrailer = "TRAILER!!!"
)

// writeInitramfs writes a spec as an archive of the format newc, which the kernel unpacks into its first file system.
// See Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
func writeInitramfs(w io.Writer, spec image.Spec) error {
	// The first process has its standard files from the console, which must be there before /dev is mounted.
	entries := map[string]cpioEntry{"dev/console": {mode: modeConsole, major: 5, minor: 1}}
	for _, dir := range spec.Dirs {
		entries[clean(dir)] = cpioEntry{mode: modeDir}
	}
	for name, target := range spec.Links {
		entries[clean(name)] = cpioEntry{mode: modeLink, body: []byte(target)}
	}
	for name, content := range spec.Content {
		entries[clean(name)] = cpioEntry{mode: modeFile, body: []byte(content)}
	}
	for name, file := range spec.Files {
		entry, err := readEntry(file)
		if err != nil {
			return err
		}
		entries[clean(name)] = entry
	}
	delete(entries, "") // The root is there.
	for _, name := range slices.Collect(maps.Keys(entries)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if above, ok := entries[dir]; !ok {
				entries[dir] = cpioEntry{mode: modeDir}
			} else if above.mode != modeDir {
				return fmt.Errorf("initramfs: %s is in %s, which is no folder", name, dir)
			}
		}
	}
	archive := cpioWriter{w: w}
	// Sorted, a folder comes before what is in it.
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		archive.add(name, entries[name])
	}
	archive.add(cpioTrailer, cpioEntry{})
	return archive.err
}

func clean(name string) string { return strings.Trim(path.Clean("/"+name), "/") }

func readEntry(file string) (cpioEntry, error) {
	info, err := os.Stat(file)
	if err != nil {
		return cpioEntry{}, err
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return cpioEntry{}, err
	}
	if info.Mode()&0o111 != 0 {
		return cpioEntry{mode: modeProgram, body: body}, nil
	}
	return cpioEntry{mode: modeFile, body: body}, nil
}

type cpioEntry struct {
	mode         uint32
	major, minor uint32 // Of a device.
	body         []byte
}

// cpioWriter writes entries until the first error, which it keeps.
type cpioWriter struct {
	w     io.Writer
	inode uint32
	err   error
}

func (c *cpioWriter) add(name string, e cpioEntry) {
	c.inode++
	links := 1
	if e.mode == modeDir {
		links = 2
	}
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, e.mode, 0, 0, links, 0, len(e.body), 0, 0, e.major, e.minor, len(name)+1, 0)
	c.write([]byte(header + name + "\x00"))
	c.write(e.body)
}

// write writes one part of an entry, padded to four bytes.
func (c *cpioWriter) write(part []byte) {
	if c.err != nil {
		return
	}
	_, err := c.w.Write(part)
	_, errPad := c.w.Write(make([]byte, -len(part)&3))
	c.err = errors.Join(err, errPad)
}
