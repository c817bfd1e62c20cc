// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSweepRemovesWhatKilledProcessesLeft(t *testing.T) {
	t.Parallel()
	s := Open[map[string]int](t.TempDir())
	if err := s.Save("kept", &map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	held, err := s.Lock(t.Context(), "held")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dead.lock", ".dead.tmp", ".held.tmp", ".killed.tmp"} {
		if err = os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err = s.Sweep(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{".held.tmp", "held.lock", "kept.json"}, names); diff != "" {
		t.Errorf("files after Sweep (-want +got):\n%s", diff)
	}
	if err := held.Unlock(); err != nil {
		t.Errorf("the lock that was held: %v", err)
	}
}

func TestSweepOfAFolderThatIsNotThere(t *testing.T) {
	t.Parallel()
	if err := Open[int](filepath.Join(t.TempDir(), "none")).Sweep(); err != nil {
		t.Error(err)
	}
}
