// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestIDs keeps README.md's table and the names of the tests together.
func TestIDs(t *testing.T) {
	t.Parallel()
	find := func(pattern string, files ...string) []string {
		t.Helper()
		ids := map[string]bool{}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
				ids[match[1]] = true
			}
		}
		return slices.Sorted(maps.Keys(ids))
	}
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := find(`(?m)^\| ([A-Z]\d+) \|`, "README.md")
	tested := find(`"([PRICSDVXGT]\d+) [^"]+"`, tests...)
	if diff := cmp.Diff(listed, tested); diff != "" {
		t.Errorf("ids in README.md and in names of tests (-listed +tested):\n%s", diff)
	}
}
