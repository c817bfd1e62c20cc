// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/testenv/shown"
)

// TestDocumentedCommandsAreOnes checks commands and flags of all that the documentation shows of plexusctl.
func TestDocumentedCommandsAreOnes(t *testing.T) {
	t.Parallel()
	commands, err := shown.Commands(filepath.Join("..", ".."), "plexusctl")
	if err != nil {
		t.Fatal(err)
	}
	if len(commands) < 25 {
		t.Fatalf("only %d commands found", len(commands))
	}
	for _, c := range commands {
		if err := c.Accept(Command(Environment{})); err != nil {
			t.Errorf("%s: plexusctl %s: %v", c.Where, strings.Join(c.Args, " "), err)
		}
	}
}

// accepts does all that precedes the run of a command.
func accepts(root *cobra.Command, args []string) error { return shown.Accept(root, args) }
