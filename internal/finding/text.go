// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// WriteText writes findings for people, in the order of the list, and what they come to. With colour it has escape sequences of
// terminals.
func WriteText(w io.Writer, l List, colour bool) error {
	var b strings.Builder
	last := ""
	for i, f := range l {
		if i > 0 && f.File != last {
			b.WriteByte('\n')
		}
		f.text(&b, colour)
		last = f.File
	}
	b.WriteString(style(colour, "1", l.Summary()) + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// text is what, where, what it means, and the fix.
func (f Finding) text(b *strings.Builder, colour bool) {
	fmt.Fprintf(b, "%s  %s  %s\n", f.Severity.styled(colour), style(colour, "1", Printable(f.Code)), Printable(f.Object))
	if place := f.place(); place != "" {
		b.WriteString("    at " + Printable(place))
		if f.Field != "" {
			b.WriteString(", " + Printable(f.Field))
		}
		b.WriteByte('\n')
	} else if f.Field != "" {
		b.WriteString("    in " + Printable(f.Field) + "\n")
	}
	b.WriteString("    " + Printable(f.Text) + "\n")
	if f.Mend != "" {
		b.WriteString("    fix: " + Printable(f.Mend) + "\n")
	}
}

// styled is coloured as operators are used to, and of one width.
func (s Severity) styled(colour bool) string {
	text := fmt.Sprintf("%-7s", s)
	switch s {
	case Error:
		return style(colour, "1;31", text)
	case Warning:
		return style(colour, "33", text)
	}
	return style(colour, "2", text)
}

func style(colour bool, code, s string) string {
	if !colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Printable replaces what could steer a terminal: findings repeat what strangers wrote.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// WriteJSON writes findings as a JSON array.
func WriteJSON(w io.Writer, l List) error {
	if l == nil {
		l = List{} // no findings are a list, too
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(l)
}
