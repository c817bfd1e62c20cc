// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// drawing is what a picture of pods and their networks shows: three columns of boxes, and what joins them.
type drawing struct {
	pods      []podBox
	networks  []string
	hostLinks []string
	// joined are the pairs of a network and a link of the host, by index.
	joined [][2]int
}

type podBox struct {
	title  string
	bad    bool
	ports  []port
	footer string
}

// port is an interface in the box of its pod.
type port struct {
	name  string
	lines []string
	bad   bool
	// network is an index, -1 for none.
	network int
}

// newDrawing lays out what there is to show. Names that could break a file's syntax, or a terminal, are made printable here.
func newDrawing(pods []Pod) *drawing {
	d := &drawing{}
	for i := range pods {
		p := &pods[i]
		box := podBox{title: printable(p.Ref()), bad: p.State == Failed || p.State == Gone}
		if p.State != Attached {
			box.footer = string(p.State)
		}
		for j := range p.Interfaces {
			box.ports = append(box.ports, d.port(&p.Interfaces[j]))
		}
		d.pods = append(d.pods, box)
	}
	return d
}

func (d *drawing) port(i *Interface) port {
	q := port{name: printable(i.Name), bad: i.State == Failed, network: -1}
	if i.State != Attached {
		q.lines = append(q.lines, string(i.State))
	}
	for _, a := range i.Addresses() {
		q.lines = append(q.lines, a.String())
	}
	if i.Device != "" {
		q.lines = append(q.lines, printable(strings.TrimSpace(i.Device+" "+i.Driver)))
	}
	if i.Network == "" {
		return q
	}
	q.network = place(&d.networks, printable(i.Network))
	if i.HostLink != "" {
		pair := [2]int{q.network, place(&d.hostLinks, printable(i.HostLink))}
		if !slices.Contains(d.joined, pair) {
			d.joined = append(d.joined, pair)
		}
	}
	return q
}

// place finds a name in a list, which it is added to if it is not there.
func place(list *[]string, name string) int {
	if i := slices.Index(*list, name); i >= 0 {
		return i
	}
	*list = append(*list, name)
	return len(*list) - 1
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// DOT draws pods, their interfaces, networks and the host's links in the language of Graphviz.
func DOT(pods []Pod) []byte {
	d := newDrawing(pods)
	var b strings.Builder
	b.WriteString("graph plexus {\n\trankdir=LR;\n\tnode [shape=box, style=rounded, fontname=\"sans-serif\"];\n\tgraph [fontname=\"sans-serif\", style=rounded];\n")
	for i, p := range d.pods {
		title := p.title
		if p.footer != "" {
			title += "\n" + p.footer
		}
		fmt.Fprintf(&b, "\tsubgraph cluster_%d {\n\t\tlabel=%s;%s\n", i, dotString(title), dotColour(p.bad, " color=red;"))
		for j, q := range p.ports {
			fmt.Fprintf(&b, "\t\tpod%d_%d [label=%s%s];\n", i, j, dotString(strings.Join(append([]string{q.name}, q.lines...), "\n")), dotColour(q.bad, ", color=red"))
		}
		b.WriteString("\t}\n")
	}
	for i, name := range d.networks {
		fmt.Fprintf(&b, "\tnet%d [shape=ellipse, label=%s];\n", i, dotString(name))
	}
	for i, name := range d.hostLinks {
		fmt.Fprintf(&b, "\thost%d [shape=component, label=%s];\n", i, dotString(name))
	}
	for i, p := range d.pods {
		for j, q := range p.ports {
			if q.network >= 0 {
				fmt.Fprintf(&b, "\tpod%d_%d -- net%d%s;\n", i, j, q.network, dotColour(q.bad, " [color=red, style=dashed]"))
			}
		}
	}
	for _, pair := range d.joined {
		fmt.Fprintf(&b, "\tnet%d -- host%d;\n", pair[0], pair[1])
	}
	b.WriteString("}\n")
	return []byte(b.String())
}

func dotColour(bad bool, text string) string {
	if bad {
		return text
	}
	return ""
}

// dotString quotes a text; a newline in it starts a new line of a label.
func dotString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
