// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// svg is a drawing that grows. Colours are classes, which a style sheet gives for light and dark surroundings.
type svg struct{ text bytes.Buffer }

// style is the only place that knows colours. s0 is the floor, the next ones are contenders, then p0 and so on are phases.
const style = `
  text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; font-size: 12px; fill: #24292f; }
  .title { font-size: 14px; font-weight: 600; }
  .small, .axis text { font-size: 11px; fill: #57606a; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .mark { stroke: #57606a; stroke-width: 1.5; }
  .line { fill: none; stroke-width: 2; }
  .s0 { fill: #8c959f; stroke: #8c959f; } .s1 { fill: #bf8700; stroke: #bf8700; } .s2 { fill: #0969da; stroke: #0969da; }
  .s3 { fill: #8250df; stroke: #8250df; } .s4 { fill: #1a7f37; stroke: #1a7f37; } .s5 { fill: #cf222e; stroke: #cf222e; }
  .p0 { fill: #0969da; } .p1 { fill: #1a7f37; } .p2 { fill: #cf222e; } .p3 { fill: #d0d7de; } .p4 { fill: #8250df; } .p5 { fill: #bf8700; }
  rect { stroke: none; } .line.s0, .line.s1, .line.s2, .line.s3, .line.s4, .line.s5 { fill: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small, .axis text { fill: #9198a1; } .grid { stroke: #3d444d; } .mark { stroke: #9198a1; }
    .s0 { fill: #7d8590; stroke: #7d8590; } .s1 { fill: #d29922; stroke: #d29922; } .s2 { fill: #4493f8; stroke: #4493f8; }
    .s3 { fill: #ab7df8; stroke: #ab7df8; } .s4 { fill: #3fb950; stroke: #3fb950; } .s5 { fill: #f85149; stroke: #f85149; }
    .p0 { fill: #4493f8; } .p1 { fill: #3fb950; } .p2 { fill: #f85149; } .p3 { fill: #3d444d; } .p4 { fill: #ab7df8; } .p5 { fill: #d29922; }
    .line.s0, .line.s1, .line.s2, .line.s3, .line.s4, .line.s5 { fill: none; }
  }
`

func newSVG(width, height int, title string) *svg {
	s := &svg{}
	fmt.Fprintf(&s.text, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n<title>%s</title>\n<style>%s</style>\n",
		width, height, escape(title), style)
	return s
}

func (s *svg) bytes() []byte { return append(bytes.Clone(s.text.Bytes()), "</svg>\n"...) }

func (s *svg) rect(class string, x, y, width, height float64, tip string) {
	fmt.Fprintf(&s.text, "<rect class=%q x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%s</title></rect>\n", class, x, y, width, height, escape(tip))
}

func (s *svg) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&s.text, "<line class=%q x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class, x1, y1, x2, y2)
}

// words writes text; anchor is start, middle or end.
func (s *svg) words(class, anchor string, x, y float64, text string) {
	fmt.Fprintf(&s.text, "<text class=%q text-anchor=%q x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, anchor, x, y, escape(text))
}

func (s *svg) circle(class string, x, y float64, tip string) {
	fmt.Fprintf(&s.text, "<circle class=%q cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%s</title></circle>\n", class, x, y, escape(tip))
}

func (s *svg) polyline(class string, points [][2]float64) {
	var text strings.Builder
	for i, p := range points {
		if i > 0 {
			text.WriteByte(' ')
		}
		fmt.Fprintf(&text, "%.1f,%.1f", p[0], p[1])
	}
	fmt.Fprintf(&s.text, "<polyline class=\"line %s\" points=%q/>\n", class, text.String())
}

func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(text)
}

// axis is a scale of values.
type axis struct {
	ticks       []float64
	logarithmic bool
}

// linear is an axis from 0 to at least most, in steps of 1, 2 or 5 times a power of ten.
func linear(most float64) axis {
	if most <= 0 || math.IsInf(most, 0) || math.IsNaN(most) {
		most = 1
	}
	const about = 5
	step := math.Pow(10, math.Floor(math.Log10(most/about)))
	for _, factor := range []float64{2, 2.5, 2} { // 1, 2, 5, 10
		if most/step <= about {
			break
		}
		step *= factor
	}
	a := axis{}
	for i := 0; ; i++ {
		a.ticks = append(a.ticks, float64(i)*step)
		if float64(i)*step >= most {
			return a
		}
	}
}

// logarithmic is an axis of powers of ten around least and most.
func logarithmic(least, most float64) axis {
	if least <= 0 || most < least || math.IsInf(most, 0) || math.IsNaN(most) {
		least, most = 1, 10
	}
	a := axis{logarithmic: true}
	for v := math.Pow(10, math.Floor(math.Log10(least))); ; v *= 10 {
		a.ticks = append(a.ticks, v)
		if v >= most {
			return a
		}
	}
}

// at is where a value is, from 0 to 1.
func (a axis) at(v float64) float64 {
	first, last := a.ticks[0], a.ticks[len(a.ticks)-1]
	if a.logarithmic {
		if v <= first {
			return 0
		}
		return min((math.Log10(v)-math.Log10(first))/(math.Log10(last)-math.Log10(first)), 1)
	}
	return min(max(v/last, 0), 1)
}

// short writes a value of an axis.
func short(v float64) string { return fmt.Sprintf("%g", math.Round(v*1000)/1000) }
