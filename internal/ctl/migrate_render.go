// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/migrate"
)

func renderReport(w io.Writer, format string, r *migrate.Report, p paint) error {
	if format == formatJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		shown := *r
		shown.Read, shown.Keys, shown.Changes, shown.Findings, shown.Steps = present(r.Read), present(r.Keys), present(r.Changes), present(r.Findings), present(r.Steps)
		return enc.Encode(shown)
	}
	var out bytes.Buffer // which takes all that is written
	line := func(format string, args ...any) { out.WriteString(fmt.Sprintf(format, args...) + "\n") }

	line("%s", p.bold("read "+printable(strings.Join(r.Read, ", "))))
	line("")
	if err := writeConfiguration(&out, r, p); err != nil {
		return err
	}
	line("")
	line("%s", p.bold("keys"))
	if err := keyTable(r.Keys).write(&out, p); err != nil {
		return err
	}
	if len(r.Changes) > 0 {
		line("")
		line("%s", p.bold("what behaves otherwise"))
		for _, c := range r.Changes {
			line("  %s", printable(c.Topic))
			line("    Multus: %s", printable(c.Multus))
			line("    Plexus: %s", printable(c.Plexus))
		}
	}
	line("")
	if c := r.Examined; c != nil {
		line("%s", p.bold("pods and networks"))
		line("  %s, %d refused", finding.Numbered(c.Networks, "network"), c.NetworksRefused)
		line("  %s, %d with networks of their own, %d refused; %d have the node's network or have ended", finding.Numbered(c.Pods, "pod"), c.PodsWithRequests, c.PodsRefused, c.PodsSkipped)
		line("")
	}
	line("%s", p.bold("state of Multus in "+printable(r.State.Dir)))
	line("  %s with %s for Plexus to detach, %d unreadable", finding.Numbered(r.State.Sandboxes, "sandbox"), finding.Numbered(r.State.Attachments, "attachment"), len(r.State.Unreadable))
	line("")
	line("%s", p.bold("findings"))
	if err := finding.WriteText(&out, r.Findings, p.on); err != nil {
		return err
	}
	line("")
	line("%s", p.bold("steps"))
	for i, s := range r.Steps {
		line("  %d. %s", i+1, printable(s))
	}
	_, err := w.Write(out.Bytes())
	return err
}

func writeConfiguration(out *bytes.Buffer, r *migrate.Report, p paint) error {
	title := "key " + pluginKey + " of ConfigMap plexus in plexus-system"
	if r.Target == migrate.Plain {
		title = "configuration list"
	}
	if r.Configuration == nil {
		out.WriteString(p.bold("no "+title+": the configuration of Multus has no equivalent") + "\n")
		return nil
	}
	out.WriteString(p.bold(title) + "\n")
	var text bytes.Buffer
	if err := json.Indent(&text, r.Configuration, "", "  "); err != nil {
		return err
	}
	for line := range strings.SplitSeq(text.String(), "\n") {
		out.WriteString(printable(line) + "\n")
	}
	return nil
}

func keyTable(keys []migrate.Key) table {
	t := table{head: []string{"KEY", "BECAME", "IN PLEXUS", "WHY"}}
	for _, k := range keys {
		to := k.To
		if k.Became == migrate.Kept && len(k.Value) > 0 {
			to = cmp.Or(to, k.Key)
		}
		if v := string(k.Value); v != "" {
			to += " " + shortened(v)
		}
		r := row{{k.Key}, {string(k.Became)}, {to}, {k.Why}}
		for i, cell := range r {
			r[i] = clean(cell)
		}
		t.rows = append(t.rows, r)
	}
	return t
}

// shortened keeps a table readable; the configuration above it has the value.
func shortened(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
