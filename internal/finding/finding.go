// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package finding is the common form of what the checks of Plexus find, whatever they look at: a node, a manifest, a configuration. A
// finding says what is wrong, where, and how to fix it; it is shown to people, and to the programs that they use.
package finding

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // it does not work: pods do not get their network, or lose it
	Warning Severity = "warning" // it works, but not as it was meant, or not everywhere
	Info    Severity = "info"    // good to know
)

// rank orders severities, the worst highest. What is none of them is below all.
func (s Severity) rank() int { return slices.Index([]Severity{Info, Warning, Error}, s) }

// AtLeast reports whether s is as bad as other, or worse.
func (s Severity) AtLeast(other Severity) bool { return s.rank() >= other.rank() }

// Finding is something that was found. Its JSON is stable.
type Finding struct {
	// Code is the kind of the finding, a word that never changes its meaning.
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	// Object is what it is about: "pod default/web", "network storage".
	Object string `json:"object"`
	// File is where it stands, "" if it is in none; Line and Column are from 1, 0 where they are not known. Columns count
	// characters.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// Field is the part of the object, such as spec.config.plugins[1].mtu.
	Field string `json:"field,omitempty"`
	Text  string `json:"text"`
	// Mend is the fix, "" where Text says it.
	Mend string `json:"mend,omitempty"`
}

// Kind is what findings of one code have in common.
type Kind struct {
	Code string
	// Severity is the usual one.
	Severity Severity
	// Meaning and Mend are Markdown, a sentence or two each.
	Meaning, Mend string
}

// List is what was found.
type List []Finding

// Count is how many findings have the severity.
func (l List) Count(s Severity) int {
	n := 0
	for _, f := range l {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Fails reports whether a finding is as bad as the threshold, or worse. A command whose findings fail at [Error] ends with exit status 1,
// otherwise with 0: warnings fail only who asks for that.
func (l List) Fails(threshold Severity) bool {
	return slices.ContainsFunc(l, func(f Finding) bool { return f.Severity.AtLeast(threshold) })
}

// Summary counts errors and warnings in words.
func (l List) Summary() string {
	var parts []string
	for _, s := range []Severity{Error, Warning} {
		if n := l.Count(s); n > 0 {
			parts = append(parts, Numbered(n, string(s)))
		}
	}
	if len(parts) == 0 {
		return "nothing is wrong"
	}
	return strings.Join(parts, ", ")
}

// Numbered counts things: "0 pods", "1 pod", "2 pods".
func Numbered(n int, thing string) string {
	switch {
	case n == 1:
		return "1 " + thing
	case strings.HasSuffix(thing, "x"):
		return fmt.Sprintf("%d %ses", n, thing)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// SortByPlace puts the findings in the order in which they stand in their files.
func (l List) SortByPlace() {
	slices.SortStableFunc(l, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(b.Severity.rank(), a.Severity.rank()), cmp.Compare(a.Code, b.Code))
	})
}

// place is file:line:column as far as they are known, "" for no file.
func (f Finding) place() string {
	place := f.File
	if f.File != "" && f.Line > 0 {
		place += fmt.Sprintf(":%d", f.Line)
		if f.Column > 0 {
			place += fmt.Sprintf(":%d", f.Column)
		}
	}
	return place
}
