// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// examples have all that a finding can have, and what strangers could do with it.
func examples() List {
	return List{
		{
			Code: "config-json", Severity: Error, Object: "NetworkAttachmentDefinition default/storage",
			File: "deploy/my nets.yaml", Line: 9, Column: 5, Field: "spec.config", Text: "not JSON: 100% wrong", Mend: "correct it",
		},
		{Code: "key-unknown", Severity: Warning, Object: "NetworkAttachmentDefinition default/storage", File: "deploy/my nets.yaml", Line: 11, Text: "\"ipamm\" is no key of macvlan"},
		{Code: "config-empty", Severity: Info, Object: "file a,b:c.conf", File: "/etc/cni/a,b:c.conf", Text: "two\r\nlines ::error::and a command"},
		{Code: "pool-leak", Severity: Warning, Object: "network x\x1b[2J", Field: "ipam", Text: "no file at all"},
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	tool := Tool{Name: "plexusctl", Version: "v1.2.3", URI: "https://github.com/plexus-cni/plexus", Kinds: []Kind{
		{Code: "config-json", Severity: Error, Meaning: "The configuration is no JSON.", Mend: "Correct it."},
		{Code: "config-empty", Severity: Info, Meaning: "There is none."},
	}}
	for name, tc := range map[string]struct {
		write func(io.Writer, List) error
		list  List
	}{
		"text":        {list: examples(), write: func(w io.Writer, l List) error { return WriteText(w, l, false) }},
		"text-none":   {write: func(w io.Writer, l List) error { return WriteText(w, l, false) }},
		"text-colour": {list: examples(), write: func(w io.Writer, l List) error { return WriteText(w, l, true) }},
		"json":        {list: examples(), write: WriteJSON},
		"json-none":   {write: WriteJSON},
		"github":      {list: examples(), write: WriteGitHub},
		"sarif":       {list: examples(), write: func(w io.Writer, l List) error { return WriteSARIF(w, l, tool) }},
		"sarif-none":  {write: func(w io.Writer, l List) error { return WriteSARIF(w, l, Tool{Name: "plexusctl"}) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := tc.write(&out, tc.list); err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, name, out.Bytes())
		})
	}
}

func TestOnlyWhatIsBadEnoughFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		severities      []Severity
		atError, atWarn bool
		summary         string
		atInfo          bool
	}{
		"nothing":             {summary: "nothing is wrong"},
		"an info":             {severities: []Severity{Info}, summary: "nothing is wrong", atInfo: true},
		"a warning":           {severities: []Severity{Info, Warning}, atWarn: true, atInfo: true, summary: "1 warning"},
		"an error":            {severities: []Severity{Info, Error}, atError: true, atWarn: true, atInfo: true, summary: "1 error"},
		"several of both":     {severities: []Severity{Error, Warning, Error, Warning}, atError: true, atWarn: true, atInfo: true, summary: "2 errors, 2 warnings"},
		"an unknown severity": {severities: []Severity{"bad"}, summary: "nothing is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l List
			for _, s := range tc.severities {
				l = append(l, Finding{Severity: s})
			}
			got := []bool{l.Fails(Error), l.Fails(Warning), l.Fails(Info)}
			if want := []bool{tc.atError, tc.atWarn, tc.atInfo}; !slices.Equal(got, want) {
				t.Errorf("fails at error, warning, info: %v; want %v", got, want)
			}
			if got := l.Summary(); got != tc.summary {
				t.Errorf("Summary = %q; want %q", got, tc.summary)
			}
		})
	}
}

func TestSortByPlace(t *testing.T) {
	t.Parallel()
	l := List{
		{Code: "5", File: "b", Line: 1},
		{Code: "4", File: "a", Line: 2, Column: 3, Severity: Warning},
		{Code: "3", File: "a", Line: 2, Column: 3, Severity: Error},
		{Code: "2", File: "a", Line: 2, Column: 1},
		{Code: "1", File: "a"},
	}
	l.SortByPlace()
	var got strings.Builder
	for _, f := range l {
		got.WriteString(f.Code)
	}
	if got.String() != "12345" {
		t.Errorf("order %s; want 12345", got.String())
	}
}

// FuzzFormats holds every format to what its readers go by, whatever strangers wrote into a finding.
func FuzzFormats(f *testing.F) {
	f.Add("code", "object", "a file.yaml", "field", "text", "mend", 1, 2)
	f.Add("c:,%", "o\n::error::x", "/a:b,\x00%", "", "\x1b[31m\r\n", "", 0, -1)
	f.Fuzz(func(t *testing.T, code, object, file, field, text, mend string, line, column int) {
		l := List{{Code: code, Severity: Error, Object: object, File: file, Field: field, Text: text, Mend: mend, Line: line, Column: column}}
		var out bytes.Buffer
		if err := WriteGitHub(&out, l); err != nil || strings.Count(out.String(), "\n") != 1 || strings.Contains(out.String(), "\r") {
			t.Errorf("%v: no single line: %q", err, out.String())
		}
		out.Reset()
		if err := WriteText(&out, l, false); err != nil || strings.ContainsAny(strings.ReplaceAll(out.String(), "\n", ""), "\x1b\r\x00") {
			t.Errorf("%v: it steers a terminal: %q", err, out.String())
		}
		for _, write := range []func(io.Writer, List) error{WriteJSON, func(w io.Writer, l List) error { return WriteSARIF(w, l, Tool{}) }} {
			out.Reset()
			if err := write(&out, l); err != nil || !json.Valid(out.Bytes()) {
				t.Errorf("%v: no JSON: %q", err, out.String())
			}
		}
	})
}
