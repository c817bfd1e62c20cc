// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"regexp"
	"strings"
	"testing"
)

// TestEachReasonToSwitchIsShown looks for what the first table of README.md names as shown by: tests, conformance cases, pages, targets of make.
// The last two are held by tests of their own.
func TestEachReasonToSwitchIsShown(t *testing.T) {
	t.Parallel()
	all := pages(t)
	_, reasons, _ := strings.Cut(all["../README.md"], "| what failed you |")
	reasons, _, _ = strings.Cut(reasons, "\n\n")
	test := regexp.MustCompile("`([a-z0-9/]+)` `(\\w+)`")
	id := regexp.MustCompile(`\b[A-Z]\d+\b`)
	elsewhere := regexp.MustCompile("\\]\\(|`make ")
	rows := 0
	for line := range strings.Lines(reasons) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 3 || strings.HasPrefix(line, " what happens") {
			continue
		}
		rows++
		shown := cells[2]
		tests := test.FindAllStringSubmatch(shown, -1)
		for _, m := range tests {
			if !hasFunction(t, m[1], m[2]) {
				t.Errorf("%s: package %s has no test %s", cells[0], m[1], m[2])
			}
		}
		var ids []string
		if strings.HasPrefix(strings.TrimSpace(shown), "`conformance`") {
			ids = id.FindAllString(shown, -1)
		}
		for _, id := range ids {
			if !strings.Contains(all["../conformance/README.md"], "\n| "+id+" |") {
				t.Errorf("%s: conformance has no case %s", cells[0], id)
			}
		}
		if len(tests) == 0 && len(ids) == 0 && !elsewhere.MatchString(shown) {
			t.Errorf("%s: nothing shows it", cells[0])
		}
	}
	if rows < 10 {
		t.Errorf("only %d reasons", rows)
	}
}
