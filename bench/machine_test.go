// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMachineIsDescribedWithoutNamingIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, err := describeMachine(dir, 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if m.CPUs < 1 || m.MemoryMiB < 1 || m.Kernel == "" || m.Go == "" || m.FileSystem == "" || m.FlushMillis <= 0 || m.RemoveMillis <= 0 || m.APILatencyMillis != 5 {
		t.Errorf("%+v", m)
	}
	if name, err := os.Hostname(); err != nil || strings.Contains(m.Kernel, "-"+name) {
		t.Errorf("kernel %s names %s, %v", m.Kernel, name, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if got := fileSystem(0x1234); got != "0x1234" {
		t.Errorf("a file system without a name is %s", got)
	}
}

func TestFieldsOfProcFiles(t *testing.T) {
	t.Parallel()
	text := "processor\t: 0\nmodel name\t: Fast: 3\nmodel name\t: Other\n"
	if got := field(text, "model name", "none"); got != "Fast: 3" {
		t.Errorf("model name %q", got)
	}
	if got := field(text, "bogomips", "none"); got != "none" {
		t.Errorf("bogomips %q", got)
	}
}

func TestScreenOfNoTerminalHasALineForEachThing(t *testing.T) {
	t.Parallel()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s := newScreen(out)
	for i := range 3 {
		s.progress("first", i, 3)
	}
	s.progress("second", 0, 0)
	s.clear()
	if got := strings.Count(read(t, out.Name()), "\n"); got != 2 {
		t.Errorf("%d lines:\n%s", got, read(t, out.Name()))
	}
}
