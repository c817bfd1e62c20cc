// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"slices"

	"github.com/plexus-cni/plexus/internal/finding"
)

// Severity says how bad a finding is.
type Severity = finding.Severity

// The severities.
const (
	Error   = finding.Error   // pods do not get their network, or lose it
	Warning = finding.Warning // it may come to that
	Info    = finding.Info
)

// Finding is something that was found on the node.
type Finding = finding.Finding

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
