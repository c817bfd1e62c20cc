// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEachThreatHasItsTest looks for the tests that the table of threats names.
func TestEachThreatHasItsTest(t *testing.T) {
	t.Parallel()
	_, threats, _ := strings.Cut(pages(t)["security.md"], "## Threats")
	named := regexp.MustCompile("`([a-z0-9/]+)` `(\\w+)`")
	rows := 0
	for line := range strings.Lines(threats) {
		cells := strings.Split(line, " | ")
		if len(cells) < 4 || strings.HasPrefix(line, "| asset") || strings.HasPrefix(line, "|---") {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(tests) == 0 {
			t.Errorf("no test is named for %q", cells[1])
		}
		for _, m := range tests {
			if !hasFunction(t, m[1], m[2]) {
				t.Errorf("package %s has no test %s", m[1], m[2])
			}
		}
	}
	if rows < 15 {
		t.Errorf("only %d threats", rows)
	}
}

// hasFunction reports whether a package's tests have a function.
func hasFunction(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T") || strings.Contains(string(text), "\nfunc "+name+"(f *testing.F") {
			return true
		}
	}
	return false
}
