// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/testenv"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// section is a table of docs/faults.md.
type section struct {
	title  string
	faults []fault
}

func sections() []section {
	return []section{
		{"The state folder", diskFaults()},
		{"Records", recordFaults()},
		{"Plugins and processes", processFaults()},
		{"The log file", logFaults()},
		{"The clock", clockFaults()},
	}
}

// fault is a row of a table, and its test.
type fault struct {
	what string
	// where the test makes it.
	where string
	// prepare sets a node up before anything is attached; nil for nothing.
	prepare func(*node)
	// breaks makes the fault, and returns what mends it; nil when nothing has to be.
	breaks func(*node) func()
	// begin is what the sandbox has when the fault is made.
	begin                       begin
	add, del, check, gc, status answer
	// addLeaves and delLeaves are the kinds of files that are there after an ADD that failed, and after a DEL.
	addLeaves, delLeaves string
	// keeps are those that are there for a person even when all has been mended and undone.
	keeps string
	mends string
}

// begin says for which verbs a sandbox is attached when a fault is made.
type begin int

const (
	attachedButForADD begin = iota
	attached
	attachedNever
)

// answer is what a verb answers: nothing when it goes well, or else an error of a code (CNI 1.1.0 §5) with a text in it.
type answer struct {
	code uint
	says string
}

// is what the table says of it.
func (a answer) String() string {
	if a == (answer{}) {
		return "well"
	}
	return fmt.Sprintf("%d: “%s”", a.code, a.says)
}

func (a answer) judge(o outcome) error {
	switch {
	case o.killed, (a == answer{}) != o.ok():
		return fmt.Errorf("%v, want %v", o, a)
	case o.ok():
		return nil
	case o.err.Code != a.code || !strings.Contains(o.err.Msg, a.says):
		return fmt.Errorf("%v, want %v", o, a)
	}
	return nil
}

func TestFaults(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	sandbox := testenv.NetNS(t)
	for _, s := range sections() {
		for _, f := range s.faults {
			t.Run(f.what, func(t *testing.T) {
				t.Parallel()
				f.run(newNode(t, sandbox))
			})
		}
	}
}

// run makes the fault once for each verb. Whatever that answers: when the fault is mended, DEL undoes all, and a sandbox can be attached.
func (f *fault) run(n *node) {
	n.t.Helper()
	if f.prepare != nil {
		f.prepare(n)
	}
	for _, v := range []struct {
		verb string
		want answer
	}{{"ADD", f.add}, {"CHECK", f.check}, {"STATUS", f.status}, {"DEL", f.del}, {"GC", f.gc}} {
		if f.begin == attached || f.begin == attachedButForADD && v.verb != "ADD" {
			n.must("ADD")
		}
		mend := f.breaks(n)
		before := n.held()
		o := n.call(v.verb)
		if err := v.want.judge(o); err != nil {
			n.t.Errorf("%s: %v", v.verb, err)
		}
		switch v.verb {
		case "ADD":
			if !o.ok() {
				n.assertLeft("a failed ADD", f.addLeaves)
			}
		case "DEL":
			n.assertLeft("DEL", f.delLeaves)
		case "CHECK", "STATUS":
			if diff := cmp.Diff(before, n.held()); diff != "" {
				n.t.Errorf("%s changes something:\n%s", v.verb, diff)
			}
		}
		if mend != nil {
			mend()
		}
		n.must("DEL")
		n.assertLeft("all", f.keeps)
		for _, file := range n.all() {
			n.remove(file)
		}
		if n.t.Failed() {
			n.t.Fatalf("stopped after %s", v.verb)
		}
	}
	n.must("ADD")
	n.must("CHECK")
	n.must("DEL")
	n.assertNothing()
}

// all are the files that stand for something.
func (n *node) all() []string { return n.files("state", "fabric/links", "fabric/leases") }

// assertLeft compares the kinds of files that are there.
func (n *node) assertLeft(after, want string) {
	n.t.Helper()
	var kinds []string
	for _, f := range n.all() {
		kinds = append(kinds, kindOf(f))
	}
	slices.Sort(kinds)
	if got := strings.Join(slices.Compact(kinds), ", "); got != want {
		n.t.Errorf("after %s there is left: %q, want %q: %q", after, got, want, n.all())
	}
}

// kindOf says what a file stands for.
func kindOf(file string) string {
	corrupt := strings.HasSuffix(file, ".corrupt")
	switch {
	case strings.HasPrefix(file, "fabric/links/"):
		return "links"
	case strings.HasPrefix(file, "fabric/leases/"):
		return "addresses"
	case strings.HasPrefix(file, "state/results/") && corrupt:
		return "cache entry.corrupt"
	case strings.HasPrefix(file, "state/results/"):
		return "cache"
	case strings.HasPrefix(file, "state/records/") && corrupt:
		return "record.corrupt"
	case strings.HasPrefix(file, "state/records/") && strings.HasSuffix(file, ".json"):
		return "record"
	case strings.HasPrefix(file, "state/records/") && strings.HasSuffix(file, ".lock"):
		return "lock file"
	case strings.HasPrefix(file, "state/records/") && strings.HasSuffix(file, ".tmp"):
		return "temporary file"
	}
	if file == "state" {
		return fileInPlace
	}
	return file
}

// fileInPlace is what a test puts where the state folder has to be.
const fileInPlace = "the file"

// Marks between which the page's tables are.
const (
	pageBegin = "<!-- The tables are of the tests: `go test ./integration/faults -run Page -update` writes them. -->\n"
	pageEnd   = "<!-- End of the tables. -->\n"
)

func TestPageHasTheTableOfTheTests(t *testing.T) {
	t.Parallel()
	file := filepath.Join("..", "..", "docs", "faults.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), pageBegin)
	tables, tail, ok2 := strings.Cut(rest, pageEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q and %q", file, pageBegin, pageEnd)
	}
	want := render(sections())
	if golden.Update() {
		if err := os.WriteFile(file, []byte(head+pageBegin+want+pageEnd+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, tables); diff != "" {
		t.Errorf("%s is not what is tested; -update writes it (-tests +page):\n%s", file, diff)
	}
}

func render(all []section) string {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "\n## %s\n\n| fault | where the test makes it | ADD | DEL | CHECK | GC | STATUS | left until mended | what mends it |\n|---|---|---|---|---|---|---|---|---|\n", s.title)
		for _, f := range s.faults {
			cells := []string{f.what, f.where, f.add.String(), f.del.String(), f.check.String(), f.gc.String(), f.status.String(), f.left(), f.mends}
			fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
		}
	}
	b.WriteString("\n")
	return b.String()
}

// left is the cell about what is left.
func (f *fault) left() string {
	var parts []string
	if f.addLeaves != "" {
		parts = append(parts, "by ADD: "+f.addLeaves)
	}
	if f.delLeaves != "" && f.delLeaves != f.keeps {
		parts = append(parts, "by DEL: "+f.delLeaves)
	}
	if f.keeps != "" {
		parts = append(parts, "for you to look at: "+f.keeps)
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, "; ")
}
