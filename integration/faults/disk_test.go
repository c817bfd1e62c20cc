// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ballast is the file that fills a disk.
const ballast = "ballast"

// Texts by which errors of the disk say what to do.
const (
	freeSpace = "free space or inodes on the file system of"
	mountRW   = "read-write"
	checkDisk = "check the disk that holds"
)

// Codes of errors (CNI 1.1.0 §5, with those of libcni's package types).
const (
	codeIO           = 5
	codeUndecodable  = 6
	codeConfig       = 7
	codeTryAgain     = 11
	codeNotAvailable = 50
	codeInternal     = 999
)

func diskFaults() []fault {
	io := func(says string) answer { return answer{codeIO, says} }
	unavailable := func(says string) answer { return answer{codeNotAvailable, says} }
	return []fault{
		{
			what: "No space is left", where: "a full tmpfs (`size=`)",
			prepare: tmpfs("state", "size=256k"),
			breaks:  func(n *node) func() { return n.fill("state") },
			add:     io(freeSpace),
			status:  unavailable(freeSpace),
			mends:   "space. Nothing has been attached without a record; what is attached can go",
		},
		{
			what: "No space is left, and a network can not be undone", where: "a full tmpfs (`size=`), a plugin that fails on DEL",
			prepare: tmpfs("state", "size=256k"),
			begin:   attached,
			breaks: func(n *node) func() {
				n.script(`[ $CNI_COMMAND = DEL ] && { echo no >&2; exit 1; }; real`)
				empty := n.fill("state")
				return func() {
					empty()
					n.install()
				}
			},
			add: answer{codeIO, freeSpace}, addLeaves: "addresses, cache, links, record",
			del: answer{codeIO, freeSpace}, delLeaves: "addresses, cache, links, record",
			gc: answer{codeIO, freeSpace}, status: unavailable(freeSpace),
			mends: "the plugin, and space. The record of before is whole, and the next DEL undoes all of it",
		},
		{
			what: "No inodes are left", where: "seccomp, on each file and folder there that would be new: ENOSPC",
			breaks: func(n *node) func() {
				n.decide = func(e event) syscall.Errno {
					if e.name != "openat" && e.name != "mkdirat" || !strings.HasPrefix(e.about, n.path("state")+"/") {
						return 0
					}
					if _, err := os.Lstat(e.about); err == nil {
						return 0
					}
					return syscall.ENOSPC
				}
				return func() { n.decide = nil }
			},
			add:   io(freeSpace),
			mends: "inodes. What is attached can go: a lock is another name of its record then",
		},
		{
			what: "No inodes are left, and names take some", where: "a full tmpfs (`nr_inodes=`)",
			prepare: tmpfs("state", "nr_inodes=64"),
			breaks:  func(n *node) func() { return n.fillInodes("state") },
			add:     io(freeSpace),
			del:     io(freeSpace), delLeaves: "addresses, cache, links, record",
			check: io(freeSpace), gc: io(freeSpace), status: unavailable(freeSpace),
			mends: "inodes; then DEL, which the runtime tries again by itself",
		},
		{
			what: "It is read-only", where: "a mount that is made read-only",
			prepare: tmpfs("state", ""),
			breaks: func(n *node) func() {
				n.remount("state", unix.MS_RDONLY)
				return func() { n.remount("state", 0) }
			},
			add: io(mountRW), del: io(mountRW), delLeaves: "addresses, cache, links, record", check: io(mountRW), gc: io(mountRW), status: unavailable(mountRW),
			mends: "a mount that can be written; then DEL, which the runtime tries again by itself",
		},
		{
			what: "It is lost, with all that is in it", where: "the folder is removed",
			breaks: func(n *node) func() {
				n.remove("state")
				return n.endSandbox
			},
			delLeaves: "addresses, links",
			check:     answer{3, "no attachment is on record for container c1, interface eth0"},
			mends:     "the end of the sandbox takes its links; GC its addresses, on each network that a pod with a record has. The folder is made again by the next ADD",
		},
		{
			what: "It is not a folder", where: "a file in its place",
			breaks: func(n *node) func() {
				n.rename("state", "away")
				n.write("state", "")
				return func() {
					n.remove("state")
					n.rename("away", "state")
				}
			},
			add: io("not a directory"), addLeaves: fileInPlace, del: io("not a directory"), delLeaves: "addresses, links, " + fileInPlace, check: io("not a directory"), gc: io("not a directory"), status: unavailable("not a directory"),
			mends: "the folder in its place",
		},
		{
			what: "Nobody may use it", where: "mode 0000, on it and on all that is in it",
			breaks: func(n *node) func() {
				n.chmodAll("state", 0, 0)
				return func() { n.chmodAll("state", 0o700, 0o600) }
			},
			mends: "nothing has to be: Plexus runs as root",
		},
		{
			what: "read: I/O error", where: "seccomp, on every read of a file there",
			breaks: failing("read", syscall.EIO),
			del:    io(checkDisk), delLeaves: "addresses, cache, links, record",
			check: io(checkDisk), gc: io(checkDisk),
			mends: "the disk; then DEL, which the runtime tries again by itself. What can not be read is not taken for damaged",
		},
		{
			what: "write: I/O error", where: "seccomp, on every write to a file there",
			breaks: failing("write", syscall.EIO), begin: attachedButForADD,
			add:   io(checkDisk),
			mends: "the disk. DEL and GC only remove, which works on",
		},
		{
			what: "fsync: I/O error", where: "seccomp, on every fsync of a file there",
			breaks: failing("fsync", syscall.EIO),
			add:    io(checkDisk),
			mends:  "the disk. DEL and GC only remove, which works on",
		},
		{
			what: "rename: I/O error", where: "seccomp, on every rename there",
			breaks: failing("renameat", syscall.EIO),
			add:    io(checkDisk),
			mends:  "the disk. DEL and GC only remove, which works on",
		},
		{
			what: "unlink: I/O error", where: "seccomp, on every removal there",
			breaks: failing("unlinkat", syscall.EIO),
			del:    io(checkDisk), delLeaves: "cache, lock file, record",
			gc:    io(checkDisk),
			mends: "the disk; then DEL, which finds that the networks are undone, and forgets them",
		},
		{
			what: "No locks are left", where: "seccomp, `flock`: ENOLCK, as of some network file systems",
			breaks: failing("flock", syscall.ENOLCK),
			add:    io("has no locks"), del: io("has no locks"), delLeaves: "addresses, cache, links, record",
			check: io("has no locks"), gc: io("has no locks"),
			mends: "a local file system for `cniDir`",
		},
	}
}

// tmpfs gives a folder of the node a file system of its own.
func tmpfs(name, options string) func(*node) {
	return func(n *node) {
		n.t.Helper()
		if err := unix.Mount("tmpfs", n.path(name), "tmpfs", 0, options); err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() {
			if err := unix.Unmount(n.path(name), unix.MNT_DETACH); err != nil {
				n.t.Error(err)
			}
		})
	}
}

func (n *node) remount(name string, flags uintptr) {
	n.t.Helper()
	if err := unix.Mount("", n.path(name), "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		n.t.Fatal(err)
	}
}

// fill fills the file system of a folder, and returns what empties it.
func (n *node) fill(dir string) func() {
	n.t.Helper()
	f, err := os.Create(n.path(dir + "/" + ballast))
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		n.t.Fatal(err)
	}
	return func() { n.remove(dir + "/" + ballast) }
}

// fillInodes takes all inodes of the file system of a folder, and returns what frees them.
func (n *node) fillInodes(dir string) func() {
	n.t.Helper()
	n.mkdir(dir + "/full")
	var err error
	for i := 0; err == nil; i++ {
		err = os.MkdirAll(n.path(fmt.Sprint(dir, "/full/", i)), 0o700)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		n.t.Fatal(err)
	}
	return func() { n.remove(dir + "/full") }
}

// endSandbox is what the end of a network namespace does to its links, and then GC, on a node that has another pod.
func (n *node) endSandbox() {
	n.t.Helper()
	for _, link := range n.files("fabric/links") {
		n.remove(link)
	}
	neighbour := n.as("c2")
	neighbour.alive = []string{"c2"}
	neighbour.must("ADD")
	neighbour.must("GC")
	neighbour.must("DEL")
}

// chmodAll sets the modes of a folder and of all that is in it.
func (n *node) chmodAll(dir string, folders, files os.FileMode) {
	n.t.Helper()
	err := filepath.WalkDir(n.path(dir), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, folders)
		}
		return os.Chmod(path, files)
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// failing fails a system call on each file of the state folder.
func failing(call string, errno syscall.Errno) func(*node) func() {
	return func(n *node) func() {
		n.decide = func(e event) syscall.Errno {
			if e.own && strings.HasPrefix(e.name, call) && strings.HasPrefix(e.about, n.path("state")+"/") {
				return errno
			}
			return 0
		}
		return func() { n.decide = nil }
	}
}
