// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/stats"
)

// table is a part of the report, for people.
type table struct {
	title string
	head  []string
	rows  [][]string
}

// tables shows all that a report has, by the names under which the document refers to them, and the order of the names.
func tables(r *Report) (map[string]table, []string) {
	all := map[string]table{}
	var order []string
	add := func(name string, t table) {
		if len(t.rows) > 0 {
			all[name] = t
			order = append(order, name)
		}
	}
	add("own", ownTable(r))
	for _, atOnce := range concurrencies(r) {
		add(fmt.Sprintf("latency-%d", atOnce), latencyTable(r, atOnce))
	}
	add("throughput", throughputTable(r))
	add("cpu", cpuTable(r))
	add("phases", phaseTable(r))
	add("start", startTable(r))
	add("requests", requestTable(r))
	add("memory", memoryTable(r))
	add("scale", scaleTable(r))
	add("soak", soakTable(r))
	add("figures", figureTable(r))
	return all, order
}

// concurrencies are the numbers of pods at once that were measured with real delegates.
func concurrencies(r *Report) []int {
	var all []int
	for _, l := range r.Latencies {
		if l.Kind == host.Real && !slices.Contains(all, l.AtOnce) {
			all = append(all, l.AtOnce)
		}
	}
	return all
}

// find returns the latency of one contender in one cell.
func (r *Report) find(w host.Workload, atOnce int, contender string) (Latency, bool) {
	i := slices.IndexFunc(r.Latencies, func(l Latency) bool { return l.Workload == w && l.AtOnce == atOnce && l.Contender == contender })
	if i < 0 {
		return Latency{}, false
	}
	return r.Latencies[i], true
}

// verbs names the verbs that latencies have.
func (l Latency) verbs() []namedVerb { return []namedVerb{{"ADD", l.Add}, {"DEL", l.Del}} }

type namedVerb struct {
	name string
	verb Verb
}

// latencyTable has a row for each verb and number of networks, and a column for each contender.
func latencyTable(r *Report, atOnce int) table {
	t := table{title: fmt.Sprintf("ADD and DEL, %s at once: median, ratio to %s, (p99)", count(atOnce, "pod"), floorName(r)), head: append([]string{"verb", "networks", "rounds"}, r.Contenders...)}
	for v := range 2 {
		for networks := range host.MaxNetworks + 1 {
			w := host.Workload{Kind: host.Real, Networks: networks}
			var row []string
			for i, contender := range r.Contenders {
				l, ok := r.find(w, atOnce, contender)
				if !ok {
					break
				}
				n := l.verbs()[v]
				if i == 0 {
					row = []string{n.name, fmt.Sprintf("default + %d", networks), fmt.Sprint(n.verb.PerSecond.N), fmt.Sprintf("%s (%s)", millis(n.verb.Median), number(n.verb.P99))}
					continue
				}
				row = append(row, fmt.Sprintf("%s ×%.2f (%s)", millis(n.verb.Median), n.verb.Ratio, number(n.verb.P99)))
			}
			if row != nil {
				t.rows = append(t.rows, row)
			}
		}
	}
	return t
}

func floorName(r *Report) string {
	if len(r.Contenders) == 0 {
		return host.Direct
	}
	return r.Contenders[0]
}

// ownTable shows what contenders take for themselves, with delegates that do nothing.
func ownTable(r *Report) table {
	t := table{title: "Own share: with delegates that do nothing, more than " + floorName(r), head: []string{"contender", "networks", "rounds", "ADD", "(p99)", "own share", "to VERSION of bridge", "DEL", "(p99)", "own share", "to VERSION of bridge"}}
	for _, l := range r.Latencies {
		if l.Kind != host.Noop || l.AtOnce != 1 {
			continue
		}
		t.rows = append(t.rows, []string{
			l.Contender, fmt.Sprintf("default + %d", l.Networks), fmt.Sprint(l.Add.Own.N),
			millis(l.Add.Median), "(" + number(l.Add.P99) + ")", "+" + spread(l.Add.Own) + " ms", "×" + spread(l.Add.OwnStarts),
			millis(l.Del.Median), "(" + number(l.Del.P99) + ")", "+" + spread(l.Del.Own) + " ms", "×" + spread(l.Del.OwnStarts),
		})
	}
	return t
}

// throughputTable shows how many pods a second are attached, with two networks beside the default.
func throughputTable(r *Report) table {
	t := table{title: "Pods attached and detached in a second (default + 2), ratio to " + floorName(r), head: append([]string{"verb", "at once", "rounds"}, r.Contenders...)}
	w := host.Workload{Kind: host.Real, Networks: 2}
	for v := range 2 {
		for _, atOnce := range concurrencies(r) {
			var row []string
			var floor float64
			for i, contender := range r.Contenders {
				l, ok := r.find(w, atOnce, contender)
				if !ok {
					break
				}
				n := l.verbs()[v]
				if i == 0 {
					floor = n.verb.PerSecond.Median
					row = []string{n.name, fmt.Sprint(atOnce), fmt.Sprint(n.verb.PerSecond.N), spread(n.verb.PerSecond)}
					continue
				}
				row = append(row, fmt.Sprintf("%s %.0f %%", spread(n.verb.PerSecond), 100*stats.Ratio(n.verb.PerSecond.Median, floor)))
			}
			if row != nil {
				t.rows = append(t.rows, row)
			}
		}
	}
	return t
}

// cpuTable shows what a pod takes of the processors when most of them start at once: nothing of the processors is idle then, and their time
// decides how many pods a second there can be.
func cpuTable(r *Report) table {
	all := concurrencies(r)
	if len(all) == 0 {
		return table{}
	}
	atOnce := slices.Max(all)
	t := table{
		title: fmt.Sprintf("Processors' time for a pod (default + 2), %s at once, and what that leaves of the throughput of %s", count(atOnce, "pod"), floorName(r)),
		head:  []string{"verb", "contender", "plugins", "daemons", "runtime, API server", "rest of the machine", "together", "leaves", "idle beside"},
	}
	for v := range 2 {
		var floor float64
		for i, contender := range r.Contenders {
			l, ok := r.find(host.Workload{Kind: host.Real, Networks: 2}, atOnce, contender)
			if !ok {
				break
			}
			n, leaves := l.verbs()[v], ""
			cpu := n.verb.CPU
			if i == 0 {
				floor = cpu.Busy()
			} else {
				leaves = fmt.Sprintf("%.0f %%", 100*stats.Ratio(floor, cpu.Busy()))
			}
			t.rows = append(t.rows, []string{
				n.name, contender, millis(cpu.Plugins), millis(cpu.Daemon), millis(cpu.Runtime), millis(cpu.Rest), millis(cpu.Busy()), leaves, millis(cpu.Idle),
			})
		}
	}
	return t
}

// phaseTable shows where the time of a call goes.
func phaseTable(r *Report) table {
	t := table{title: "Where the time goes (default + 2, one at a time): medians by the plugin's own log, and shares"}
	for _, p := range r.Phases {
		if t.head == nil {
			t.head = []string{"source", "verb"}
			for _, phase := range p.Phases {
				t.head = append(t.head, phase.Name)
			}
		}
		whole := 0.0
		for _, phase := range p.Phases {
			whole += phase.Millis
		}
		row := []string{p.Contender, p.Verb}
		for _, phase := range p.Phases {
			row = append(row, fmt.Sprintf("%s %.0f %%", millis(phase.Millis), 100*phase.Millis/whole))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func startTable(r *Report) table {
	t := table{title: "Programs: size, and time of a call of VERSION", head: []string{"program", "size", "median", "(p99)", "of that the processors'"}}
	for _, s := range r.Starts {
		t.rows = append(t.rows, []string{s.Program, fmt.Sprintf("%.1f MB", float64(s.Bytes)/1e6), millis(s.Version.Median), "(" + number(s.Version.P99) + ")", millis(s.CPU.Median)})
	}
	return t
}

func requestTable(r *Report) table {
	t := table{title: "Requests to the API server for one call (default + 2)", head: []string{"source", "verb", "requests"}}
	for _, q := range r.Requests {
		var kinds []string
		for _, kind := range slices.Sorted(maps.Keys(q.PerCall)) {
			kinds = append(kinds, fmt.Sprintf("%s %s", number(q.PerCall[kind]), kind))
		}
		if kinds == nil {
			kinds = []string{"none"}
		}
		t.rows = append(t.rows, []string{q.Contender, q.Verb, strings.Join(kinds, ", ")})
	}
	return t
}

func memoryTable(r *Report) table {
	t := table{title: "Memory", head: []string{"what", "RSS", "of that not of files"}}
	m := r.Memory
	if m == nil {
		return t
	}
	t.rows = [][]string{
		{fmt.Sprintf("plexusd, idle with %d pods and %d NetworkAttachmentDefinitions", m.Pods, m.Definitions), mib(m.Idle.RSS), mib(m.Idle.Anon)},
		{fmt.Sprintf("plexusd, the most in a burst of %s", count(m.BurstPods, "pod")), mib(m.PeakKiB), ""},
		{"plexusd, after it", mib(m.AfterBurst.RSS), mib(m.AfterBurst.Anon)},
	}
	for _, p := range m.Plugins {
		t.rows = append(t.rows, []string{"plugin, the most in an ADD, " + p.Contender, mib(p.PeakKiB), ""})
	}
	return t
}

func scaleTable(r *Report) table {
	t := table{title: "Size of the cluster: ADD with delegates that do nothing (default + 2), median", head: append(append([]string{"pods", "definitions"}, r.Contenders...), "plexusd")}
	rows := map[host.Scale]int{}
	for _, c := range r.Scales {
		i, ok := rows[c.Scale]
		if !ok {
			i = len(t.rows)
			rows[c.Scale] = i
			t.rows = append(t.rows, make([]string, len(t.head)))
			t.rows[i][0], t.rows[i][1] = fmt.Sprint(c.Pods), fmt.Sprint(c.Definitions)
		}
		if column := slices.Index(t.head, c.Contender); column >= 0 {
			t.rows[i][column] = millis(c.Add.Median)
		}
		if c.Daemon.RSS > 0 {
			t.rows[i][len(t.head)-1] = mib(c.Daemon.RSS)
		}
	}
	return t
}

func soakTable(r *Report) table {
	s := r.Soak
	if s == nil {
		return table{}
	}
	t := table{
		title: fmt.Sprintf("Soak: %d ADD and DEL through one daemon in %.0f s, medians of the first and the last quarter", s.Cycles, s.Seconds),
		head:  []string{"of plexusd", "first", "last"},
		rows: [][]string{
			{"descriptors", number(s.Descriptors.First), number(s.Descriptors.Last)},
			{"goroutines", number(s.Goroutines.First), number(s.Goroutines.Last)},
			{"RSS", mib(int64(s.RSSKiB.First)), mib(int64(s.RSSKiB.Last))},
			{"log of the plugin: written, and on disk in the end", fmt.Sprintf("%.1f MiB", float64(s.LogWritten)/(1<<20)), fmt.Sprintf("%.1f MiB in %s", float64(s.LogBytes)/(1<<20), count(s.LogFiles, "file"))},
		},
	}
	for _, f := range s.Faults {
		t.rows = append(t.rows, []string{"FAULT", f, ""})
	}
	return t
}

// count is a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// number has three digits that count, as far as they do.
func number(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// spread is a figure with the bounds of its middle half.
func spread(s stats.Spread) string {
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Low), number(s.High))
}

func millis(v float64) string { return number(v) + " ms" }

func mib(kib int64) string { return fmt.Sprintf("%.1f MiB", float64(kib)/1024) }

// WriteText shows a report for a terminal.
func WriteText(w io.Writer, r *Report) error {
	all, order := tables(r)
	for i, name := range order {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		t := all[name]
		if _, err := io.WriteString(w, t.title+"\n"+aligned(append([][]string{t.head}, t.rows...), "  ", "")); err != nil {
			return err
		}
	}
	return nil
}

// markdown shows a table for a document. Its title is the document's business.
func (t table) markdown() string {
	rule := make([]string, len(t.head))
	for i := range rule {
		rule[i] = "---"
	}
	return aligned(append([][]string{t.head, rule}, t.rows...), " | ", "|")
}

// aligned puts cells into columns, with a separator between and an edge around.
func aligned(rows [][]string, separator, edge string) string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var text strings.Builder
	for _, row := range rows {
		var cells []string
		for i, cell := range row {
			cells = append(cells, cell+strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
		}
		line := strings.Join(cells, separator)
		if edge != "" {
			line = edge + " " + line + " " + edge
		}
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return text.String()
}
