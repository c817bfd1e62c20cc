// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/stats"
)

// Figure is something that Plexus has to reach, beside what it reached.
type Figure struct {
	What, Target, Reached string
	OK                    bool
}

// The figures to reach. Sizes are in KiB, times in milliseconds.
const (
	targetAddOwn     = 5.0
	targetAddShare   = 0.10
	targetDelOwn     = 3.0
	targetAddStarts  = 2.5
	targetDelStarts  = 1.5
	targetBinary     = 8_000_000 // bytes
	targetStart      = 2.0
	targetIdle       = 30 << 10
	targetBurst      = 10 << 10
	targetThroughput = 0.95
	burst            = 250
)

// Figures are those that the run says something about.
func Figures(r *Report) []Figure {
	return slices.Concat(ownFigures(r), programFigures(r), requestFigures(r), memoryFigures(r), burstFigures(r), soakFigures(r))
}

func figureTable(r *Report) table {
	t := table{title: "Figures to reach (source: the daemon)", head: []string{"what", "target", "reached", ""}}
	for _, f := range Figures(r) {
		verdict := "no"
		if f.OK {
			verdict = "yes"
		}
		t.rows = append(t.rows, []string{f.What, f.Target, f.Reached, verdict})
	}
	return t
}

func ownFigures(r *Report) []Figure {
	noop, ok := r.find(host.Workload{Kind: host.Noop, Networks: 2}, 1, host.Daemon)
	if !ok {
		return nil
	}
	all := []Figure{
		{"own share of an ADD, default + 2 networks, to VERSION of bridge", "≤ 2.5", "×" + spread(noop.Add.OwnStarts), noop.Add.OwnStarts.Median <= targetAddStarts},
		{"own share of a DEL, default + 2 networks, to VERSION of bridge", "≤ 1.5", "×" + spread(noop.Del.OwnStarts), noop.Del.OwnStarts.Median <= targetDelStarts},
		{"own share of an ADD, default + 2 networks", "≤ 5 ms", spread(noop.Add.Own) + " ms", noop.Add.Own.Median <= targetAddOwn},
		{"own share of a DEL, default + 2 networks", "≤ 3 ms", spread(noop.Del.Own) + " ms", noop.Del.Own.Median <= targetDelOwn},
	}
	if whole, ok := r.find(host.Workload{Kind: host.Real, Networks: 2}, 1, host.Daemon); ok {
		share := stats.Ratio(noop.Add.Own.Median, whole.Add.Median)
		all = append(all, Figure{
			"that of ADD, of the whole with bridge, macvlan and host-local", "≤ 10 %",
			fmt.Sprintf("%.0f %% of %s", 100*share, millis(whole.Add.Median)), share <= targetAddShare,
		})
	}
	return all
}

func programFigures(r *Report) []Figure {
	for _, s := range r.Starts {
		if s.Program == "plexus" {
			return []Figure{
				{"size of the plugin", "≤ 8 MB", fmt.Sprintf("%.1f MB", float64(s.Bytes)/1e6), s.Bytes <= targetBinary},
				{"start of the plugin (VERSION), median", "≤ 2 ms", millis(s.Version.Median), s.Version.Median <= targetStart},
			}
		}
	}
	return nil
}

// requestFigures allow an ADD one patch, and an event for each attachment; nothing else costs the API server anything.
func requestFigures(r *Report) []Figure {
	var all []Figure
	for _, q := range r.Requests {
		if q.Contender != host.Daemon {
			continue
		}
		allowed, target := map[string]float64{}, "none"
		if q.Verb == "ADD" {
			allowed = map[string]float64{"patch pods/status": 1, "create events": float64(q.Networks + 1)}
			target = fmt.Sprintf("1 patch, ≤ %d events", q.Networks+1)
		}
		ok := true
		var reached []string
		for _, kind := range slices.Sorted(maps.Keys(q.PerCall)) {
			ok = ok && q.PerCall[kind] <= allowed[kind]
			reached = append(reached, fmt.Sprintf("%s %s", number(q.PerCall[kind]), kind))
		}
		if reached == nil {
			reached = []string{"none"}
		}
		all = append(all, Figure{"requests to the API server for " + q.Verb, target, strings.Join(reached, ", "), ok})
	}
	return all
}

func memoryFigures(r *Report) []Figure {
	m := r.Memory
	if m == nil {
		return nil
	}
	grown := m.PeakKiB - m.Idle.RSS
	return []Figure{
		{fmt.Sprintf("RSS of plexusd, idle with %d pods and %d definitions", m.Pods, m.Definitions), "≤ 30 MiB", mib(m.Idle.RSS), m.Idle.RSS <= targetIdle},
		{fmt.Sprintf("RSS of plexusd through a burst of %d ADDs", m.BurstPods), "≤ +10 MiB", "+" + mib(grown), grown <= targetBurst},
	}
}

func burstFigures(r *Report) []Figure {
	w := host.Workload{Kind: host.Real, Networks: 2}
	floor, ok := r.find(w, burst, floorName(r))
	if !ok {
		return nil
	}
	l, ok := r.find(w, burst, host.Daemon)
	if !ok {
		return nil
	}
	share := stats.Ratio(l.Add.PerSecond.Median, floor.Add.PerSecond.Median)
	return []Figure{
		{"burst of 250 pods at once: all succeed, left behind", "0", fmt.Sprint(l.Left), l.Left == 0},
		{"burst of 250 pods at once: throughput of direct delegates", "≥ 95 %", fmt.Sprintf("%.0f %%", 100*share), share >= targetThroughput},
	}
}

func soakFigures(r *Report) []Figure {
	s := r.Soak
	if s == nil {
		return nil
	}
	reached := "flat"
	if len(s.Faults) > 0 {
		reached = strings.Join(s.Faults, "; ")
	}
	return []Figure{{fmt.Sprintf("%d ADD and DEL: descriptors, goroutines, RSS of plexusd, log files", s.Cycles), "flat", reached, len(s.Faults) == 0}}
}
