// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/plexus-cni/plexus/bench/host"
)

//go:embed performance.md.tmpl
var frame string

// Markdown writes the document: what is always true of the benchmark, around the tables of this run. chart is the file name of the
// drawing, "" for none.
func Markdown(r *Report, chart string) ([]byte, error) {
	all, _ := tables(r)
	t, err := template.New("performance.md").Funcs(template.FuncMap{
		"table": func(name string) string {
			if t, ok := all[name]; ok {
				return t.markdown()
			}
			return "*not measured in this run*\n"
		},
		"title":  func(name string) string { return all[name].title },
		"number": number,
	}).Parse(frame)
	if err != nil {
		return nil, fmt.Errorf("frame of the document: %w", err)
	}
	var text bytes.Buffer
	err = t.Execute(&text, map[string]any{
		"Report": r, "Machine": r.Machine, "Chart": chart, "Multus": strings.ReplaceAll(strings.TrimSpace(host.MultusConf), "\n", "\n    "),
	})
	return text.Bytes(), err
}
