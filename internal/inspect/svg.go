// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Sizes of the drawing, in pixels.
const (
	margin   = 16
	gap      = 16  // between boxes of a column
	corridor = 110 // between columns, for the lines
	padding  = 10
	lineHigh = 17
	charWide = 7.3 // of the monospace font at 12 px, with some room
	minWide  = 90
)

// style suits light and dark surroundings; what does not know the latter shows the former, on its own ground.
const style = `.ground{fill:#ffffff}text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1f2328}.head{font-weight:bold}.dim{fill:#59636e}` +
	`.box{fill:#f6f8fa;stroke:#59636e}.port{fill:#ffffff;stroke:#59636e}.net{fill:#ddf4ff;stroke:#0969da}.host{fill:#fff8c5;stroke:#9a6700}` +
	`.line{fill:none;stroke:#59636e;stroke-width:1.5}.bad{stroke:#d1242f;stroke-width:2}.line.bad{stroke-dasharray:5 4}text.bad{fill:#d1242f;stroke:none}` +
	`@media(prefers-color-scheme:dark){.ground{fill:#0d1117}text{fill:#f0f6fc}.dim{fill:#9198a1}.box{fill:#151b23;stroke:#9198a1}` +
	`.port{fill:#0d1117;stroke:#9198a1}.net{fill:#0c2d6b;stroke:#58a6ff}.host{fill:#3b2300;stroke:#d29922}.line{stroke:#9198a1}` +
	`.bad{stroke:#f85149}text.bad{fill:#f85149}}`

// SVG draws pods, their interfaces, networks and the host's links, from left to right.
func SVG(pods []Pod) []byte {
	d := newDrawing(pods)
	c := &canvas{}
	left := column{x: margin, width: minWide}
	for _, p := range d.pods {
		left.width = max(left.width, p.width())
	}
	middle := column{x: left.right() + corridor, width: widest(d.networks)}
	right := column{x: middle.right() + corridor, width: widest(d.hostLinks)}

	// The lines of each network and each link of the host start at these heights.
	toNetwork := make([][]end, len(d.networks))
	y := margin
	for _, p := range d.pods {
		y = c.pod(p, left, y, toNetwork) + gap
	}
	atNetwork, bottom := c.names(d.networks, "net", middle, averages(toNetwork))
	for i, ends := range toNetwork {
		for _, e := range ends {
			c.line(left.right()-padding, e.y, middle.x, atNetwork[i], e.bad)
		}
	}
	toHost := make([][]end, len(d.hostLinks))
	for _, pair := range d.joined {
		toHost[pair[1]] = append(toHost[pair[1]], end{y: atNetwork[pair[0]]})
	}
	atHost, lowest := c.names(d.hostLinks, "host", right, averages(toHost))
	for i, ends := range toHost {
		for _, e := range ends {
			c.line(middle.right(), e.y, right.x, atHost[i], false)
		}
	}
	width := left.right()
	for i, names := range [][]string{d.networks, d.hostLinks} {
		if len(names) > 0 {
			width = []column{middle, right}[i].right()
		}
	}
	return c.file(width+margin, max(y, bottom, lowest, 2*margin)-gap+margin)
}

// column is where boxes stand one above the other.
type column struct{ x, width int }

func (c column) right() int { return c.x + c.width }

// end is where a line starts.
type end struct {
	y   int
	bad bool
}

func averages(ends [][]end) []int {
	heights := make([]int, len(ends))
	for i, list := range ends {
		for _, e := range list {
			heights[i] += e.y
		}
		heights[i] /= max(len(list), 1)
	}
	return heights
}

func widest(names []string) int {
	width := minWide
	for _, name := range names {
		width = max(width, textWidth(name)+2*padding)
	}
	return width
}

func textWidth(s string) int { return int(float64(utf8.RuneCountInString(s))*charWide) + 1 }

func (p podBox) width() int {
	width := max(textWidth(p.title), textWidth(p.footer))
	for _, q := range p.ports {
		for _, text := range append([]string{q.name}, q.lines...) {
			width = max(width, textWidth(text)+2*padding)
		}
	}
	return width + 2*padding
}

// canvas collects the elements of a drawing.
type canvas struct{ b strings.Builder }

// pod draws the box of a pod at a height, and returns that of its lower edge.
func (c *canvas) pod(p podBox, at column, y int, toNetwork [][]end) int {
	var heads int
	for _, text := range []string{p.title, p.footer} {
		if text != "" {
			heads++
		}
	}
	height := heads*lineHigh + 2*padding
	for _, q := range p.ports {
		height += q.height() + padding/2
	}
	c.box("box", at, y, height, p.bad)
	c.text("head", at.x+padding, y+padding, p.title, false)
	if p.footer != "" {
		c.text("dim", at.x+padding, y+padding+lineHigh, p.footer, p.bad)
	}
	inner := column{x: at.x + padding, width: at.width - 2*padding}
	top := y + padding + heads*lineHigh + padding/2
	for _, q := range p.ports {
		c.box("port", inner, top, q.height(), q.bad)
		c.text("head", inner.x+padding, top+padding/2, q.name, false)
		for i, text := range q.lines {
			c.text("dim", inner.x+padding, top+padding/2+(i+1)*lineHigh, text, q.bad && i == 0)
		}
		if q.network >= 0 {
			toNetwork[q.network] = append(toNetwork[q.network], end{y: top + q.height()/2, bad: q.bad})
		}
		top += q.height() + padding/2
	}
	return y + height
}

func (q port) height() int { return (1+len(q.lines))*lineHigh + padding }

// names draws a column of boxes, each near the height that it would like to have, and returns the heights where they are, and that of the
// lower edge of the lowest and a gap.
func (c *canvas) names(names []string, class string, at column, wish []int) ([]int, int) {
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return wish[a] - wish[b] })
	const height = lineHigh + 2*padding
	centres := make([]int, len(names))
	y := margin
	for _, i := range order {
		y = max(y, wish[i]-height/2)
		c.box(class, at, y, height, false)
		c.text("head", at.x+padding, y+padding, names[i], false)
		centres[i] = y + height/2
		y += height + gap
	}
	return centres, y
}

func (c *canvas) box(class string, at column, y, height int, bad bool) {
	fmt.Fprintf(&c.b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", withBad(class, bad), at.x, y, at.width, height)
}

// text writes a line of text whose box begins at a height.
func (c *canvas) text(class string, x, y int, text string, bad bool) {
	fmt.Fprintf(&c.b, "<text class=\"%s\" x=\"%d\" y=\"%d\">", withBad(class, bad), x, y+lineHigh-4)
	_ = xml.EscapeText(&c.b, []byte(text)) // a strings.Builder takes all
	c.b.WriteString("</text>\n")
}

func (c *canvas) line(x1, y1, x2, y2 int, bad bool) {
	middle := (x1 + x2) / 2
	fmt.Fprintf(&c.b, "<path class=\"%s\" d=\"M%d %dC%d %d %d %d %d %d\"/>\n", withBad("line", bad), x1, y1, middle, y1, middle, y2, x2, y2)
}

func withBad(class string, bad bool) string {
	if bad {
		return class + " bad"
	}
	return class
}

func (c *canvas) file(width, height int) []byte {
	return fmt.Appendf(nil, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"pods and their networks\">\n"+
		"<style>%s</style>\n<rect class=\"ground\" width=\"100%%\" height=\"100%%\"/>\n%s</svg>\n", width, height, width, height, style, c.b.String())
}
