// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package chart draws a report: an SVG without script or font of its own, readable in light and dark surroundings.
package chart

import (
	"fmt"
	"slices"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
)

// Sizes, in pixels of the drawing's own.
const (
	width       = 960
	panelWidth  = 440
	panelHeight = 250
	gap         = 40
	top         = 60 // for the legend of contenders
	labels      = 44 // left of a panel, for its axis
)

// usual is how many networks beside the default one figures are about.
const usual = 2

// panel is a place to draw in.
type panel struct {
	*svg

	x, y float64 // of the plot's upper left corner
	w, h float64
}

// Draw draws what a report has; what it does not have is left out.
func Draw(r *report.Report) []byte {
	var draws []func(panel, *report.Report)
	if len(r.Latencies) > 0 {
		draws = append(draws, drawLatencies, drawThroughput)
	}
	if len(r.Phases) > 0 {
		draws = append(draws, drawPhases)
	}
	if len(r.Scales) > 0 {
		draws = append(draws, drawScales)
	}
	rows := (len(draws) + 1) / 2
	s := newSVG(width, top+rows*(panelHeight+gap), "What Plexus costs beside the delegates that it runs")
	x := float64(labels)
	for i, name := range r.Contenders {
		s.rect(series(i), x, 18, 12, 12, name)
		s.words("", "start", x+18, 28, name)
		x += 40 + 8*float64(len(name))
	}
	for i, draw := range draws {
		p := panel{
			svg: s, w: panelWidth - labels, h: panelHeight - gap - 30,
			x: float64(labels + i%2*(panelWidth+gap)), y: float64(top + i/2*(panelHeight+gap) + 30),
		}
		draw(p, r)
	}
	return s.bytes()
}

// series is the class of a contender. There are six colours.
func series(i int) string { return fmt.Sprintf("s%d", i%6) }

// frame draws the title, the axis and its grid.
func (p panel) frame(title string, a axis) {
	p.words("title", "start", p.x-labels+8, p.y-14, title)
	for _, tick := range a.ticks {
		y := p.y + p.h*(1-a.at(tick))
		p.line("grid", p.x, y, p.x+p.w, y)
		p.words("small", "end", p.x-6, y+4, short(tick))
	}
}

// group is a category with a bar for each series; a series without a value has none.
type group struct {
	name string
	bars map[int]bar
}

type bar struct {
	value float64
	mark  float64 // p99, 0 for none
	tip   string
}

// bars draws groups of bars.
func (p panel) bars(title string, groups []group) {
	most, count := 0.0, 1
	for _, g := range groups {
		for i, b := range g.bars {
			most, count = max(most, b.value), max(count, i+1)
		}
	}
	a := linear(most * 1.05)
	p.frame(title, a)
	slot := p.w / float64(max(len(groups), 1))
	wide := min(slot*0.8/float64(count), 30)
	for n, g := range groups {
		middle := p.x + slot*(float64(n)+0.5)
		left := middle - wide*float64(count)/2
		for i := range count {
			b, ok := g.bars[i]
			if !ok {
				continue
			}
			height := p.h * a.at(b.value)
			x := left + wide*float64(i)
			p.rect(series(i), x, p.y+p.h-height, wide-1.5, height, b.tip)
			if b.mark > 0 && b.mark <= a.ticks[len(a.ticks)-1] { // a mark beyond the axis would lie about it
				y := p.y + p.h*(1-a.at(b.mark))
				p.line("mark", x, y, x+wide-1.5, y)
			}
		}
		p.words("small", "middle", middle, p.y+p.h+16, g.name)
	}
}

// drawLatencies shows ADD by number of networks, one pod at a time.
func drawLatencies(p panel, r *report.Report) {
	var groups []group
	for networks := range host.MaxNetworks + 1 {
		g := group{name: fmt.Sprintf("default + %d", networks), bars: map[int]bar{}}
		for _, l := range r.Latencies {
			if l.Workload == (host.Workload{Kind: host.Real, Networks: networks}) && l.AtOnce == leastAtOnce(r) {
				g.bars[slices.Index(r.Contenders, l.Contender)] = bar{
					l.Add.Median, l.Add.P99, fmt.Sprintf("%s: median %.1f ms, p99 %.1f ms", l.Contender, l.Add.Median, l.Add.P99),
				}
			}
		}
		if len(g.bars) > 0 {
			groups = append(groups, g)
		}
	}
	p.bars(fmt.Sprintf("ADD, %d at a time: median and p99 in ms", leastAtOnce(r)), groups)
}

// leastAtOnce is the smallest number of pods at once that was measured with real delegates.
func leastAtOnce(r *report.Report) int {
	least := 0
	for _, l := range r.Latencies {
		if l.Kind == host.Real && (least == 0 || l.AtOnce < least) {
			least = l.AtOnce
		}
	}
	return least
}

// drawThroughput shows pods a second by how many are attached at once.
func drawThroughput(p panel, r *report.Report) {
	var groups []group
	for _, l := range r.Latencies {
		if l.Workload != (host.Workload{Kind: host.Real, Networks: usual}) {
			continue
		}
		name := fmt.Sprintf("%d at once", l.AtOnce)
		i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
		if i < 0 {
			i = len(groups)
			groups = append(groups, group{name: name, bars: map[int]bar{}})
		}
		groups[i].bars[slices.Index(r.Contenders, l.Contender)] = bar{value: l.Add.PerSecond.Median, tip: fmt.Sprintf("%s: %.1f pods per second", l.Contender, l.Add.PerSecond.Median)}
	}
	p.bars("Pods attached per second, default + 2", groups)
}

// drawPhases shows where the time of each call goes.
func drawPhases(p panel, r *report.Report) {
	most := 0.0
	for _, c := range r.Phases {
		most = max(most, sum(c.Phases))
	}
	a := linear(most)
	p.words("title", "start", p.x-labels+8, p.y-14, "Where the time goes, in ms, default + 2")
	left := p.x + 60
	wide := p.w - 60
	for _, tick := range a.ticks {
		x := left + wide*a.at(tick)
		p.line("grid", x, p.y, x, p.y+p.h)
		p.words("small", "middle", x, p.y+p.h+16, short(tick))
	}
	slot := p.h / float64(len(r.Phases))
	for n, c := range r.Phases {
		y := p.y + slot*float64(n)
		p.words("small", "end", left-6, y+slot/2+4, c.Contender+" "+c.Verb)
		x := left
		for i, phase := range c.Phases {
			w := wide * a.at(phase.Millis)
			p.rect(phaseClass(i), x, y+slot*0.15, w, slot*0.7, fmt.Sprintf("%s: %.2f ms", phase.Name, phase.Millis))
			x += w
		}
	}
	x := p.x - labels + 8
	for i, phase := range r.Phases[0].Phases {
		p.rect(phaseClass(i), x, p.y+p.h+26, 10, 10, phase.Name)
		p.words("small", "start", x+14, p.y+p.h+35, phase.Name)
		x += 26 + 6.2*float64(len(phase.Name))
	}
}

func sum(phases []report.Phase) float64 {
	total := 0.0
	for _, p := range phases {
		total += p.Millis
	}
	return total
}

func phaseClass(i int) string { return fmt.Sprintf("p%d", i%6) }

// drawScales shows the cost of ADD by the size of the cluster.
func drawScales(p panel, r *report.Report) {
	var sizes []host.Scale
	least, most := 0.0, 0.0
	for _, c := range r.Scales {
		if !slices.Contains(sizes, c.Scale) {
			sizes = append(sizes, c.Scale)
		}
		most = max(most, c.Add.Median)
		if least == 0 || c.Add.Median < least {
			least = c.Add.Median
		}
	}
	a := logarithmic(least, most)
	p.frame("ADD by size of the cluster, in ms, no-op delegates", a)
	slot := p.w / float64(len(sizes))
	for n, size := range sizes {
		x := p.x + slot*(float64(n)+0.5)
		p.words("small", "middle", x, p.y+p.h+16, fmt.Sprintf("%d pods", size.Pods))
		p.words("small", "middle", x, p.y+p.h+30, fmt.Sprintf("%d NADs", size.Definitions))
	}
	for i, name := range r.Contenders {
		var points [][2]float64
		var tips []string
		for _, c := range r.Scales {
			if c.Contender != name {
				continue
			}
			n := slices.Index(sizes, c.Scale)
			points = append(points, [2]float64{p.x + slot*(float64(n)+0.5), p.y + p.h*(1-a.at(c.Add.Median))})
			tips = append(tips, fmt.Sprintf("%s, %d pods, %d NetworkAttachmentDefinitions: %.1f ms", name, c.Pods, c.Definitions, c.Add.Median))
		}
		p.polyline(series(i), points)
		for n, point := range points {
			p.circle(series(i), point[0], point[1], tips[n])
		}
	}
}
