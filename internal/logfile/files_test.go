// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilesListsTheOldestFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "plexus.log")
	for _, name := range []string{
		"plexus.log", "plexus.log.lock", "plexus-20260102T000000Z.log", "plexus-20260102T000000Z-1.log", "plexus-20260101T000000Z.log.gz",
		"plexus-20260103T000000Z.log", "plexus-20260103T000000Z.log.gz", // compressed by a process that was killed before it removed the former
		"plexus-notes.log", "other.log",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"plexus-20260101T000000Z.log.gz", "plexus-20260102T000000Z.log", "plexus-20260102T000000Z-1.log", "plexus-20260103T000000Z.log", "plexus.log",
	}
	list := func() []string {
		files, err := Files(path)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range files {
			names = append(names, filepath.Base(f))
		}
		return names
	}
	if diff := cmp.Diff(want, list()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want[:4], list()); diff != "" {
		t.Errorf("without the file itself (-want +got):\n%s", diff)
	}
	if files, err := Files(filepath.Join(dir, "absent", "plexus.log")); err != nil || files != nil {
		t.Errorf("Files in a folder that is not there = %v, %v; want none", files, err)
	}
}
