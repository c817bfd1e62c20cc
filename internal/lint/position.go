// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// lines are those of a file, without their breaks.
type lines [][]byte

func splitLines(data []byte) lines {
	data = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	return bytes.Split(data, []byte("\n"))
}

// place is a line and a column, both from 1, 0 for unknown. Columns count characters.
type place struct{ line, column int }

// config is the value of spec.config, and where it stands.
type config struct {
	text string
	// at is where its key stands: the answer where the way back from the value is not clear.
	at place
	// starts are the places of its lines, if it is a literal block ("|"), the style in which a line of the value is a line of the
	// file; nil for the other styles.
	starts []place
}

// newConfig finds the lines of the value in the file. offset is how many lines stand before the document that key and value are of.
func newConfig(file lines, offset int, key, value *yaml.Node) config {
	c := config{text: value.Value, at: place{offset + key.Line, key.Column}}
	if value.Style&yaml.LiteralStyle == 0 {
		return c
	}
	number := offset + value.Line // of the block's header; its text begins on the next line
	for line := range strings.Lines(value.Value) {
		bare := []byte(strings.TrimSuffix(line, "\n"))
		// A file whose lines YAML counts otherwise (it knows more breaks than these) does not fit.
		if number >= len(file) || !bytes.HasSuffix(file[number], bare) {
			c.starts = nil
			return c
		}
		indent := file[number][:len(file[number])-len(bare)]
		c.starts = append(c.starts, place{number + 1, utf8.RuneCount(indent) + 1})
		number++
	}
	return c
}

// place is where a byte of the value stands in the file.
func (c config) place(offset int) place {
	line, column := c.within(offset)
	switch {
	case len(c.starts) == 0:
		return c.at
	case line > len(c.starts): // behind the last line: the end of the value
		return c.starts[len(c.starts)-1]
	}
	start := c.starts[line-1]
	return place{start.line, start.column + column - 1}
}

// within is the line and column of a byte in the value itself, from 1.
func (c config) within(offset int) (int, int) {
	before := c.text[:max(0, min(offset, len(c.text)))]
	start := strings.LastIndexByte(before, '\n') + 1
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[start:]) + 1
}
