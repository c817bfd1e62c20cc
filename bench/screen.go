// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"
)

// screen shows how far the run is: on a terminal in one line that changes, else a line for each thing that is measured.
type screen struct {
	out      *os.File
	terminal bool
	start    time.Time
	what     string
	shown    time.Time
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	return &screen{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb", start: time.Now()}
}

// often is how often the line changes.
const often = 100 * time.Millisecond

func (s *screen) progress(what string, done, total int) {
	changed := what != s.what
	s.what = what
	elapsed := time.Since(s.start).Round(time.Second)
	switch {
	case s.terminal && (changed || time.Since(s.shown) > often):
		s.shown = time.Now()
		fmt.Fprintf(s.out, "\r\x1b[K%6s  %3d %%  %s", elapsed, 100*done/max(total, 1), what)
	case !s.terminal && changed:
		fmt.Fprintf(s.out, "%6s  %s\n", elapsed, what)
	}
}

// clear takes the line away, for what comes after.
func (s *screen) clear() {
	if s.terminal {
		fmt.Fprint(s.out, "\r\x1b[K")
	}
}
