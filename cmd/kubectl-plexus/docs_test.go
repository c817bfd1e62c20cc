// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/internal/ctl"
	"github.com/plexus-cni/plexus/internal/testenv/shown"
)

// TestDocumentedCommandsAreOnes checks commands and flags of all that the documentation shows of kubectl plexus.
func TestDocumentedCommandsAreOnes(t *testing.T) {
	t.Parallel()
	commands, err := shown.Commands(filepath.Join("..", ".."), "kubectl plexus")
	if err != nil {
		t.Fatal(err)
	}
	if len(commands) < 5 {
		t.Fatalf("only %d commands found", len(commands))
	}
	for _, c := range commands {
		if err := c.Accept(newCommand(ctl.Environment{}, nil)); err != nil {
			t.Errorf("%s: kubectl plexus %s: %v", c.Where, strings.Join(c.Args, " "), err)
		}
	}
}
