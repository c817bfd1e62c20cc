// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// WriteGitHub writes findings as workflow commands of GitHub Actions, which shows them beside the lines that they are about.
func WriteGitHub(w io.Writer, l List) error {
	var b strings.Builder
	for _, f := range l {
		command := map[Severity]string{Error: "error", Warning: "warning"}[f.Severity]
		b.WriteString("::" + cmp.Or(command, "notice") + " ")
		if f.File != "" {
			fmt.Fprintf(&b, "file=%s,", property(filepath.ToSlash(f.File)))
		}
		if f.Line > 0 {
			fmt.Fprintf(&b, "line=%d,", f.Line)
		}
		if f.Column > 0 {
			fmt.Fprintf(&b, "col=%d,", f.Column)
		}
		b.WriteString("title=" + property(f.Code) + "::" + data(f.sentence()) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// sentence is the whole finding but for its place, for readers that show one text.
func (f Finding) sentence() string {
	text := f.Object
	if f.Field != "" {
		text += ", " + f.Field
	}
	text += ": " + f.Text
	if f.Mend != "" {
		text += ". Fix: " + f.Mend
	}
	return text
}

// data escapes what would end a workflow command, or begin another one, and replaces what could steer the terminal of a log.
func data(s string) string {
	return Printable(strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s))
}

func property(s string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(data(s))
}
