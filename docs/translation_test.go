// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheChineseREADMESaysTheSame compares what both languages have in common: blocks but for their comments, headings, tables, what is
// set as code, and links.
func TestTheChineseREADMESaysTheSame(t *testing.T) {
	t.Parallel()
	all := pages(t)
	english, chinese := all["../README.md"], all["../README.zh-CN.md"]
	for name, of := range map[string]func(string) []string{
		"blocks":   code,
		"headings": levels,
		"tables":   rows,
		"words set as code": func(page string) []string {
			return sorted(page, "`([^`\n]+)`")
		},
		"links": func(page string) []string {
			return slices.DeleteFunc(sorted(page, `\]\(([^)\s]+)\)`), func(to string) bool { return strings.HasPrefix(to, "README") })
		},
	} {
		if diff := cmp.Diff(of(english), of(chinese)); diff != "" {
			t.Errorf("%s of README.md and README.zh-CN.md (-English +Chinese):\n%s", name, diff)
		}
	}
	for page, other := range map[string]string{english: "(README.zh-CN.md)", chinese: "(README.md)"} {
		if first, _, _ := strings.Cut(page, "\n## "); !strings.Contains(first, other) {
			t.Errorf("no link to %s at the top", other)
		}
	}
}

// code are the blocks of a page, without comments.
func code(page string) []string {
	comment := regexp.MustCompile(`(?m)\s*#.*$`)
	var found []string
	for _, b := range blocks(page) {
		found = append(found, b.kind+"\n"+comment.ReplaceAllString(b.text, ""))
	}
	return found
}

func levels(page string) []string {
	var found []string
	for _, h := range headings(page) {
		level, _, _ := strings.Cut(h, " ")
		found = append(found, level)
	}
	return found
}

// rows have the number of cells of each line of a table.
func rows(page string) []string {
	var found []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "|") {
			found = append(found, strings.Repeat("|", strings.Count(line, "|")))
		}
	}
	return found
}

// sorted is what a pattern finds outside of blocks, each once: languages have an order of their own.
func sorted(page, pattern string) []string {
	page = regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(page, "")
	set := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(page, -1) {
		set[m[1]] = true
	}
	return slices.Sorted(maps.Keys(set))
}
