// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package golden holds what tests get against files in their folder testdata. Tests alone may import it: it adds the flag -update to them.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// Update reports whether the files are to be written (go test -update).
func Update() bool { return *update }

// Compare fails the test if got is not what the file testdata/<name>.golden has; a blank of the name is "_" there, a comma nothing. With
// -update it writes the file before.
func Compare[T string | []byte](t *testing.T, name string, got T) {
	t.Helper()
	file := filepath.Join("testdata", strings.NewReplacer(" ", "_", ",", "").Replace(name)+".golden")
	if Update() {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", file, diff)
	}
}
