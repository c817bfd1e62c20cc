// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shown finds the commands that the documentation shows, so that the tests of a program can see whether it would take them.
package shown

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// Command is a run of a program that a page shows.
type Command struct {
	// Where is the file and line.
	Where string
	Args  []string
	// InText is set for what stands in a line of text, where a command is often only named.
	InText bool
}

// Accept is an error if the command would not be taken. One that is only named in a text need not have its arguments.
func (c Command) Accept(root *cobra.Command) error {
	if c.InText {
		if _, args, err := root.Find(c.Args); err == nil && len(args) == 0 {
			return nil
		}
	}
	return Accept(root, c.Args)
}

// Pages are the paths of all pages for people, in the module at root.
func Pages(root string) ([]string, error) {
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md", "e2e/*.md", "conformance/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		pages = append(pages, found...)
	}
	return pages, nil
}

// Commands finds the runs of a program, "kubectl plexus" or "plexusctl" for example, in blocks and in lines of text.
func Commands(root, program string) ([]Command, error) {
	pages, err := Pages(root)
	if err != nil {
		return nil, err
	}
	var all []Command
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return nil, err
		}
		all = append(all, inPage(page, string(text), program)...)
	}
	return all, nil
}

func inPage(page, text, program string) []Command {
	var found []Command
	block, inBlock := "", false
	for i, line := range strings.Split(text, "\n") {
		if kind, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "```"); ok {
			block, inBlock = kind, !inBlock
			continue
		}
		var lines []string
		switch {
		case !inBlock:
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
				lines = append(lines, m[1])
			}
		case block == "console":
			if typed, ok := strings.CutPrefix(line, "# "); ok {
				lines = []string{typed}
			} else if typed, ok = strings.CutPrefix(line, "$ "); ok {
				lines = []string{typed}
			}
		default:
			lines = []string{line}
		}
		for _, l := range lines {
			if args, ok := arguments(l, program); ok {
				found = append(found, Command{Where: fmt.Sprintf("%s:%d", page, i+1), Args: args, InText: !inBlock})
			}
		}
	}
	return found
}

// arguments are those that a line of shell runs the program with. A program on its own, which a line of text may name, is no run of it.
func arguments(line, program string) ([]string, bool) {
	run := regexp.MustCompile(`^(?:.* -- )?(?:sudo )?(?:[\w./-]*/)?` + regexp.QuoteMeta(program) + ` ([^|>&;#]+)`).FindStringSubmatch(strings.TrimSpace(line))
	if run == nil || strings.Contains(run[1], "…") {
		return nil, false
	}
	return strings.Fields(run[1]), true
}

// Accept does all that precedes the run of a command: it is an error if the command, its flags or its arguments are not taken.
func Accept(root *cobra.Command, args []string) error {
	cmd, args, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(args); err != nil {
		return err
	}
	if help, err := cmd.Flags().GetBool("help"); err == nil && help {
		return nil
	}
	if cmd.HasSubCommands() {
		return fmt.Errorf("%s is no command of its own: name one of those below it", cmd.CommandPath())
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err
	}
	if cmd.PreRunE == nil {
		return nil
	}
	return cmd.PreRunE(cmd, cmd.Flags().Args())
}
