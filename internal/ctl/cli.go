// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/finding"
)

// The exit status of commands that examine something; others end with 1 after any error.
const (
	exitFound  = 1 // it was examined, and something is wrong
	exitFailed = 2 // it could not be examined
)

// examines is the annotation (cobra.Command.Annotations) of commands whose exit status tells what they found from what they could not do.
const examines = "plexus.examines"

// verdictError says that something is wrong with what was examined, which the output tells in full.
type verdictError struct{ text string }

func (e *verdictError) Error() string { return e.text }

// ExitCode is the exit status after a command ended with an error, nil for none.
func ExitCode(cmd *cobra.Command, err error) int {
	_, isVerdict := errors.AsType[*verdictError](err)
	examined := false
	if cmd != nil { // else it did not even begin
		_, examined = cmd.Annotations[examines]
	}
	switch {
	case err == nil:
		return 0
	case isVerdict || !examined:
		return exitFound
	}
	return exitFailed
}

// arguments takes from least to most arguments, any number from least on if most is negative.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		wants := finding.Numbered(least, "argument")
		switch {
		case len(args) >= least && (most < 0 || len(args) <= most):
			return nil
		case most < 0:
			wants = "at least " + wants
		case most == 0:
			wants = "no argument"
		case most != least:
			wants = "at most " + finding.Numbered(most, "argument")
		}
		return fmt.Errorf("%s takes %s, not %d: usage: %s; see `%s --help`", cmd.CommandPath(), wants, len(args), cmd.UseLine(), cmd.CommandPath())
	}
}

// subcommands are the arguments of a command that does nothing by itself.
func subcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "? "
	}
	return fmt.Errorf("unknown command %q for %q: %ssee `%s --help`", args[0], cmd.CommandPath(), hint, cmd.CommandPath())
}

// group makes a command that only has subcommands: it tells of itself, and corrects who misspells one.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = subcommands
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.SuggestionsMinimumDistance = 2
	return cmd
}

// flagError tells what the error of a flag leaves out.
func flagError(cmd *cobra.Command, err error) error {
	// It need not be the flag: it may be one of a command that is misspelt, which is before it.
	if before := cmd.Flags().Args(); cmd.HasSubCommands() && len(before) > 0 {
		return subcommands(cmd, before)
	}
	return fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())
}
