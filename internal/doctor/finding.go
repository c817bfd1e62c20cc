// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

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
		cmp.Compare(rank(a.Code), rank(b.Code)), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Mend, b.Mend), cmp.Compare(a.Text, b.Text),
	)
}

// grouped makes one of findings of a kind about one object: a pod that was tried often left a record each time, a network of two families has
// two pools. They are sorted.
func grouped(found []Finding) []Finding {
	var groups [][]Finding
	for _, f := range found {
		if n := len(groups); n > 0 {
			if last := groups[n-1][0]; last.Code == f.Code && last.Object == f.Object && last.Mend == f.Mend && last.Severity == f.Severity {
				groups[n-1] = append(groups[n-1], f)
				continue
			}
		}
		groups = append(groups, []Finding{f})
	}
	var all []Finding
	for _, g := range groups {
		one := g[0]
		one.Text = texts(g)
		all = append(all, one)
	}
	return all
}

// texts are those of findings, each once with how often it is there; of many the first ones.
func texts(group []Finding) string {
	const most = 4
	var parts []string
	left := 0
	for i := 0; i < len(group); {
		same := i
		for same < len(group) && group[same].Text == group[i].Text {
			same++
		}
		text := group[i].Text
		if n := same - i; n > 1 {
			text += fmt.Sprintf(" (%d times)", n)
		}
		if len(parts) < most {
			parts = append(parts, text)
		} else {
			left += same - i
		}
		i = same
	}
	if left > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", left))
	}
	return strings.Join(parts, "; ")
}

// rank is the place of a code among all: causes stand before what follows from them.
func rank(code string) int {
	return slices.IndexFunc(Codes(), func(c Code) bool { return c.Code == code })
}
