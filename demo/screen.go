// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
)

// screen is where the show is seen.
type screen struct {
	out    *os.File
	colour bool
	// sections counts the headings.
	sections int
}

// newScreen uses colours on a terminal only, and not against the wish of https://no-color.org.
func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	return &screen{out: out, colour: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (s *screen) title(text string) { s.plain(s.paint("1", text)) }

func (s *screen) section(text string) {
	s.sections++
	s.plain("")
	s.plain(s.paint("1;36", fmt.Sprintf("%d. %s", s.sections, text)))
}

func (s *screen) done(format string, args ...any) {
	s.plain(s.paint("32", "✓") + " " + fmt.Sprintf(format, args...))
}

func (s *screen) note(format string, args ...any) {
	s.plain(s.paint("2", "  "+fmt.Sprintf(format, args...)))
}

func (s *screen) command(words []string) {
	s.plain(s.paint("2", "$ "+strings.Join(words, " ")))
}

func (s *screen) plain(line string) { fmt.Fprintln(s.out, line) }

func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
