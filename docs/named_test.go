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

// TestTargetsOfMakeAreThere holds each `make X` to the Makefile.
func TestTargetsOfMakeAreThere(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	named := regexp.MustCompile("(?m)(?:^|`|sudo )make((?: [a-z0-9-]+\\b)+)(?:`|[ \\t]*$|[ \\t]+#| [A-Z]+=)")
	checked := 0
	for path, page := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(page, -1) {
			for target := range strings.FieldsSeq(m[1]) {
				checked++
				if !targets[target] {
					t.Errorf("%s: the Makefile has no target %s", path, target)
				}
			}
		}
	}
	if checked < 15 {
		t.Errorf("only %d targets were found", checked)
	}
}

// TestNamedFilesAreThere looks for what the pages name under the folders that people use; links are looked at elsewhere.
func TestNamedFilesAreThere(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile("(>)?(?:^|[\\s`(\"'=])((?:\\.ci|bench|cmd|conformance|delegate|demo|deploy|docs|e2e|examples|integration|internal|nad|sriov|tools)/[\\w./-]*\\w/?)(…)?")
	checked := 0
	for path, page := range pages(t) {
		for i, line := range strings.Split(page, "\n") {
			for _, m := range named.FindAllStringSubmatch(line, -1) {
				if m[1] != "" || m[3] != "" || m[2] == "delegate/clusterNetwork" {
					continue // it is about to be written; it is a part of a name; two keys, in an error
				}
				checked++
				_, err := os.Stat(filepath.Join("..", m[2]))
				if err != nil {
					_, err = os.Stat(filepath.Join(filepath.Dir(path), m[2])) // pages beside the code
				}
				if err != nil {
					t.Errorf("%s:%d: there is no %s", path, i+1, m[2])
				}
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d files were found", checked)
	}
}

// TestKustomizationsAreThere holds `kubectl apply -k` and the like to folders that have a kustomization, or get one in the same block.
func TestKustomizationsAreThere(t *testing.T) {
	t.Parallel()
	run := regexp.MustCompile(`kubectl (?:\w+ )*-k ([\w./-]+)`)
	checked := 0
	for path, page := range pages(t) {
		written := func(dir string) bool { return strings.Contains(page, "> "+dir+"/kustomization.yaml") }
		for _, m := range run.FindAllStringSubmatch(page, -1) {
			checked++
			dir := strings.TrimSuffix(m[1], "/")
			if _, err := os.Stat(filepath.Join("..", dir, "kustomization.yaml")); err != nil && !written(dir) {
				t.Errorf("%s: kubectl -k %s: %v", path, dir, err)
			}
		}
	}
	if checked < 4 {
		t.Errorf("only %d runs were found", checked)
	}
}
