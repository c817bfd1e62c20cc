// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plexus-cni/plexus/internal/testenv/shown"
)

// TestDocumentedCommandsAreOnes checks commands and flags of all that the documentation shows of plexusd.
func TestDocumentedCommandsAreOnes(t *testing.T) {
	t.Parallel()
	commands, err := shown.Commands(filepath.Join("..", ".."), "plexusd")
	if err != nil {
		t.Fatal(err)
	}
	if len(commands) < 5 {
		t.Fatalf("only %d commands found", len(commands))
	}
	for _, c := range commands {
		if err := c.Accept(newCommand()); err != nil {
			t.Errorf("%s: plexusd %s: %v", c.Where, strings.Join(c.Args, " "), err)
		}
	}
}

// TestTheReferenceHasAllFlags holds docs/configuration.md, which is made from the sources, to what the commands really have.
func TestTheReferenceHasAllFlags(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{} // by flag and command: cells
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if name, ok := strings.CutPrefix(cells[0], "`--"); ok && len(cells) == 4 {
			for command := range strings.SplitSeq(cells[1], ", ") {
				rows[strings.Trim(name, "`")+" of "+command] = cells
			}
		}
	}
	seen := 0
	check := func(cmd *cobra.Command) func(*pflag.Flag) {
		return func(f *pflag.Flag) {
			cells, ok := rows[f.Name+" of "+cmd.Name()]
			if !ok {
				t.Errorf("plexusd %s --%s is not in docs/configuration.md: run `make generate`", cmd.Name(), f.Name)
				return
			}
			seen++
			is := strings.Trim(cells[2], "`-")
			said := strings.ToLower(f.DefValue)
			if of := f.Name; of != "bin-source" && of != "node-name" && is != said { // those two depend on where it runs
				t.Errorf("--%s has the default %q, docs/configuration.md says %q", of, said, is)
			}
			if strings.ReplaceAll(cells[3], "`", "") != f.Usage {
				t.Errorf("--%s means %q, docs/configuration.md says %q", f.Name, f.Usage, cells[3])
			}
		}
	}
	root := newCommand()
	root.PersistentFlags().VisitAll(check(root))
	for _, cmd := range root.Commands() {
		cmd.LocalNonPersistentFlags().VisitAll(check(cmd))
	}
	if seen != len(rows) {
		t.Errorf("docs/configuration.md has %d flags of commands, plexusd %d", len(rows), seen)
	}
}
