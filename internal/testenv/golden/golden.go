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

// Table fails the test if the Markdown table of a page that has this header has other rows. With -update it writes them before.
func Table(t *testing.T, page, header string, rows []string) {
	t.Helper()
	Section(t, page, header+"\n|"+strings.Repeat("---|", strings.Count(header, "|")-1)+"\n", "\n", strings.Join(rows, "\n")+"\n")
}

// Section fails the test if what stands in a page between begin, the first that it has, and the next line that is end is not what the test got. With
// -update it writes that before.
func Section(t *testing.T, page, begin, end, got string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	if !ok {
		t.Fatalf("%s has no section that begins with %q", page, begin)
	}
	want, after := rest, "" // the last line may be the page's
	if at := strings.Index("\n"+rest, "\n"+end); at >= 0 {
		want, after = rest[:at], rest[at:]
	}
	if Update() && want != got {
		if err := os.WriteFile(page, []byte(before+begin+got+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-page +got; -update writes it):\n%s", page, diff)
	}
}
