// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

// reference is all that the page is made from.
type reference struct {
	Plexus, SRIOV, Annotations []key
	Flags                      []commandFlag
}

//go:embed configuration.md.tmpl
var page string

// render makes the page.
func render(r *reference) ([]byte, error) {
	words := keyWords(slices.Concat(r.Plexus, r.SRIOV))
	t, err := template.New("configuration.md").Funcs(template.FuncMap{
		"text": func(s string) string { return markdown(s, words) },
		"code": code,
		"value": func(s string) string {
			if strings.Contains(s, " ") {
				return escape(s) // words
			}
			return code(s)
		},
		"list": func(s []string) string { return strings.Join(s, ", ") },
	}).Parse(page)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	var b bytes.Buffer
	if err = t.Execute(&b, r); err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	return b.Bytes(), nil
}

// code is for a cell: "" is a dash.
func code(s string) string {
	if s == "" {
		return "-"
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}

// keyWords are the keys that can not be taken for words.
func keyWords(keys []key) *regexp.Regexp {
	var names []string
	for _, k := range keys {
		if k.Name != strings.ToLower(k.Name) && !strings.Contains(k.Name, ".") {
			names = append(names, regexp.QuoteMeta(k.Name))
		}
	}
	// Longer ones first: some begin like others.
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	return regexp.MustCompile(`"[^"]+"|[A-Z]+_[A-Z]+|[a-z0-9.-]+\.(?:io|cncf)/[a-zA-Z-]+|\b(?:` + strings.Join(slices.Compact(names), "|") + `)\b`)
}

// markdown makes a cell of a comment.
func markdown(s string, words *regexp.Regexp) string {
	var b strings.Builder
	for {
		at := words.FindStringIndex(s)
		if at == nil {
			b.WriteString(escape(s))
			return b.String()
		}
		b.WriteString(escape(s[:at[0]]))
		b.WriteString(code(s[at[0]:at[1]]))
		s = s[at[1]:]
	}
}

func escape(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;", "*", `\*`, "...", "…").Replace(s)
}
