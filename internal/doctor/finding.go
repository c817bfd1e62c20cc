// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"slices"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // pods do not get their network, or lose it
	Warning Severity = "warning" // it may come to that
	Info    Severity = "info"
)

// Finding is something that was found on the node.
type Finding struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	// Object is what it is about: "pod default/web", "network storage".
	Object string `json:"object"`
	Text   string `json:"text"`
	// Mend says what to do about it.
	Mend string `json:"mend,omitempty"`
}

func newFinding(code, object, text, mend string) Finding {
	f := Finding{Code: code, Object: object, Text: text, Mend: mend, Severity: Error}
	for _, c := range Codes() {
		if c.Code == code {
			f.Severity = c.Severity
		}
	}
	return f
}

// compareFindings puts the worst first, and of those one kind together.
func compareFindings(a, b Finding) int {
	order := []Severity{Error, Warning, Info}
	return cmp.Or(
		cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity)),
		cmp.Compare(rank(a.Code), rank(b.Code)), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Text, b.Text),
	)
}

// rank is the place of a code among all: causes stand before what follows from them.
func rank(code string) int {
	return slices.IndexFunc(Codes(), func(c Code) bool { return c.Code == code })
}
