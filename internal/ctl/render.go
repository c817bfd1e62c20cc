// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/annotations"
)

// Output formats.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

func checkFormat(format string) error {
	switch format {
	case formatTable, formatJSON, formatYAML:
		return nil
	}
	return fmt.Errorf("--output %q: use %s, %s or %s", format, formatTable, formatJSON, formatYAML)
}

// render writes the status of pods.
func render(w io.Writer, format string, pods []podStatus, colour bool) error {
	switch format {
	case formatJSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(pods)
	case formatYAML:
		text, err := yaml.Marshal(pods)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return renderTables(w, pods, paint{on: colour})
}

func renderTables(w io.Writer, pods []podStatus, p paint) error {
	for i, st := range pods {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		title := p.bold("pod "+printable(st.Namespace+"/"+st.Name)) + "  " + p.dim("netns "+printable(st.NetNS))
		if _, err := fmt.Fprintln(w, title); err != nil {
			return err
		}
		if err := newTable(st.Networks).write(w, p); err != nil {
			return err
		}
	}
	return nil
}

// row is one row of a table: the lines of each cell.
type row [][]string

// table is rows of cells; a cell may have several lines.
type table struct {
	head []string
	rows []row
}

// newTable has a row for each interface, and a line for each of its addresses and gateways.
func newTable(networks []annotations.Status) table {
	t := table{head: []string{"INTERFACE", "NETWORK", "IPS", "MAC", "MTU", "GATEWAY", "DEVICE"}}
	for _, n := range networks {
		mtu := ""
		if n.MTU > 0 {
			mtu = strconv.Itoa(n.MTU)
		}
		t.rows = append(t.rows, row{{n.Interface}, {n.Name}, n.IPs, {n.MAC}, {mtu}, n.Gateway, {device(n.DeviceInfo)}})
	}
	for _, r := range t.rows {
		for i, cell := range r {
			r[i] = clean(cell)
		}
	}
	return t
}

// clean makes a cell fit to be shown; an empty one shows as "-".
func clean(cell []string) []string {
	if len(cell) == 0 {
		return []string{"-"}
	}
	lines := make([]string, len(cell))
	for i, line := range cell {
		lines[i] = cmp.Or(printable(line), "-")
	}
	return lines
}

// device names a device in a word.
func device(d *annotations.DeviceInfo) string {
	switch {
	case d == nil:
		return ""
	case d.PCI != nil:
		return d.PCI.PCIAddress
	case d.VDPA != nil:
		return cmp.Or(d.VDPA.PCIAddress, d.VDPA.Path, d.VDPA.ParentDevice)
	case d.VhostUser != nil:
		return d.VhostUser.Path
	case d.Memif != nil:
		return d.Memif.Path
	}
	return d.Type
}

// write aligns the columns. Escape sequences take no room, so they are put around text that is padded already.
func (t table) write(w io.Writer, p paint) error {
	width := make([]int, len(t.head))
	for i, h := range t.head {
		width[i] = utf8.RuneCountInString(h)
		for _, r := range t.rows {
			for _, line := range r[i] {
				width[i] = max(width[i], utf8.RuneCountInString(line))
			}
		}
	}
	if err := writeLine(w, t.head, width, p.dim); err != nil {
		return err
	}
	for _, r := range t.rows {
		height := 0
		for _, cell := range r {
			height = max(height, len(cell))
		}
		for y := range height {
			line := make([]string, len(r))
			for x, cell := range r {
				if y < len(cell) {
					line[x] = cell[y]
				}
			}
			if err := writeLine(w, line, width, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeLine(w io.Writer, cells []string, width []int, style func(string) string) error {
	var b strings.Builder
	for i, c := range cells {
		b.WriteString("  " + c + strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)))
	}
	line := strings.TrimRight(b.String(), " ")
	if style != nil {
		line = style(line)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// paint puts escape sequences around text, or does not.
type paint struct{ on bool }

func (p paint) bold(s string) string { return p.with("1", s) }
func (p paint) dim(s string) string  { return p.with("2", s) }

func (p paint) with(code, s string) string {
	if !p.on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// printable replaces what could steer a terminal: names and addresses come from plugins and manifests.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
