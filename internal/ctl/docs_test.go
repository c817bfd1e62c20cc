// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestDocumentedCommandsAreOnes checks commands and flags of each line of the documentation that runs plexusctl.
func TestDocumentedCommandsAreOnes(t *testing.T) {
	t.Parallel()
	var text []byte
	for _, page := range []string{"plexusctl.md", "nad.md"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, data...)
	}
	lines := regexp.MustCompile(`(?m)^[#$] (?:.* -- /usr/bin/|[^|\n]*\| )?plexusctl ([^|>\n]*)`).FindAllStringSubmatch(string(text), -1)
	if len(lines) < 18 {
		t.Fatalf("%d lines found", len(lines))
	}
	for _, line := range lines {
		if err := accepts(Command(Environment{}), strings.Fields(line[1])); err != nil {
			t.Errorf("plexusctl %s: %v", line[1], err)
		}
	}
}

// accepts does all that precedes the run of a command.
func accepts(root *cobra.Command, args []string) error {
	cmd, args, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(args); err != nil {
		return err
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err
	}
	if cmd.PreRunE == nil {
		return nil
	}
	return cmd.PreRunE(cmd, cmd.Flags().Args())
}
