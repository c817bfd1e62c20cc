// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs_test

import (
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/plexus-cni/plexus/internal/sysfs"
)

// tree is a sysfs in memory, some files of which cannot be read.
type tree struct {
	fstest.MapFS
	unreadable map[string]error
}

// Open fails as the kernel does: when it is read.
func (t tree) Open(name string) (fs.File, error) {
	f, err := t.MapFS.Open(name)
	if cause := t.unreadable[name]; err == nil && cause != nil {
		return unreadable{f, &fs.PathError{Op: "read", Path: name, Err: cause}}, nil
	}
	return f, err
}

// ReadLink fails where a link is gone since its folder was listed.
func (t tree) ReadLink(name string) (string, error) {
	if cause := t.unreadable[name]; cause != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: cause}
	}
	return t.MapFS.ReadLink(name)
}

type unreadable struct {
	fs.File
	err error
}

func (u unreadable) Read([]byte) (int, error) { return 0, u.err }

var _ io.Reader = unreadable{}

// machine reads a tree from testdata.
func machine(t *testing.T, file string) *sysfs.FS {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file+".tree"))
	if err != nil {
		t.Fatal(err)
	}
	return grow(t, string(text))
}

var (
	busDevice = regexp.MustCompile(`(?:^|/)([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]|\w+\.\w+\.\d+)$`)
	netDev    = regexp.MustCompile(`^(.*)/net/[^/]+$`)
)

// grow makes a sysfs of a text. A line is a folder, a file, one that cannot be read, or a symbolic link; two blanks more than the line
// above are below that, the folder:
//
//	devices/pci0000:00/0000:03:00.0
//	  sriov_totalvfs = 8
//	  virtfn0 -> ../0000:03:02.0
//	  net/eth0
//	    phys_switch_id ! EOPNOTSUPP
//
// As the kernel does, it links devices into bus/, interfaces into class/net, and interfaces to the device that they are of.
func grow(t *testing.T, text string) *sysfs.FS {
	t.Helper()
	g := tree{fstest.MapFS{}, map[string]error{}}
	var above []string
	for line := range strings.Lines(text) {
		entry := strings.TrimLeft(strings.TrimSuffix(line, "\n"), " ")
		if entry == "" || strings.HasPrefix(entry, "#") {
			continue
		}
		depth := (len(line) - len(strings.TrimLeft(line, " "))) / 2
		if depth > len(above) {
			t.Fatalf("nothing is above %q", line)
		}
		parent := path.Join(above[:depth]...)
		name, content, isFile := strings.Cut(entry, " = ")
		name, errno, isUnreadable := strings.Cut(name, " ! ")
		name, target, isLink := strings.Cut(name, " -> ")
		at := path.Join(parent, name)
		switch {
		case isFile:
			g.MapFS[at] = &fstest.MapFile{Data: []byte(content + "\n")}
		case isUnreadable:
			g.MapFS[at] = &fstest.MapFile{}
			g.unreadable[at] = map[string]error{"EOPNOTSUPP": syscall.EOPNOTSUPP, "EINVAL": syscall.EINVAL, "EIO": syscall.EIO, "ENOENT": syscall.ENOENT}[errno]
		case isLink:
			g.link(at, target)
		default:
			g.MapFS[at] = &fstest.MapFile{Mode: fs.ModeDir}
			above = append(above[:depth], name)
			g.register(at)
		}
	}
	return sysfs.From(g)
}

func (t tree) link(at, target string) {
	t.MapFS[at] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)}
}

func (t tree) register(dir string) {
	if m := busDevice.FindStringSubmatch(dir); m != nil && strings.HasPrefix(dir, "devices/") {
		bus := "auxiliary"
		if strings.Contains(m[1], ":") {
			bus = "pci"
		}
		t.link("bus/"+bus+"/devices/"+m[1], "../../../"+dir)
	}
	if m := netDev.FindStringSubmatch(dir); m != nil && strings.HasPrefix(dir, "devices/") {
		t.link("class/net/"+path.Base(dir), "../../"+dir)
		if m[1] != "devices/virtual" {
			t.link(dir+"/device", "../../../"+path.Base(m[1]))
		}
	}
}
