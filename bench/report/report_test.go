// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/bench/stats"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// sample is a report that a run has written, cut short.
func sample(t *testing.T) *report.Report {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestText(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	if err := report.WriteText(&text, sample(t)); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "text", text.Bytes())
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	text, err := report.Markdown(sample(t), "performance.svg")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "markdown", text)
}

func TestAReportOfNothingIsNoError(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	if err := report.WriteText(&text, &report.Report{}); err != nil || text.Len() != 0 {
		t.Errorf("%v: %s", err, &text)
	}
	document, err := report.Markdown(&report.Report{}, "")
	if err != nil || !strings.Contains(string(document), "not measured") || strings.Contains(string(document), "![") {
		t.Errorf("%v:\n%s", err, document)
	}
}

func TestFiguresAreMissedAndReached(t *testing.T) {
	t.Parallel()
	build := func(millis float64, bytes, kib int64, perCall map[string]float64, perSecond float64, left int, faults ...string) *report.Report {
		spread := func(v float64) stats.Spread { return stats.Spread{N: 10, Median: v, Low: v - 1, High: v + 1} }
		verb := report.Verb{Summary: stats.Summary{Median: 20 * millis}, Own: spread(millis), OwnStarts: spread(millis - 0.5), PerSecond: spread(perSecond)}
		floor := report.Verb{Summary: stats.Summary{Median: 40}, PerSecond: spread(100)}
		noop, real := host.Workload{Kind: host.Noop, Networks: 2}, host.Workload{Kind: host.Real, Networks: 2}
		return &report.Report{
			Contenders: []string{host.Direct, host.Daemon},
			Starts:     []report.Start{{Program: "plexus", Bytes: bytes, Version: stats.Summary{Median: millis}}},
			Latencies: []report.Latency{
				{Workload: noop, Contender: host.Daemon, AtOnce: 1, Add: verb, Del: verb},
				{Workload: real, Contender: host.Daemon, AtOnce: 1, Add: report.Verb{Summary: stats.Summary{Median: 50}}},
				{Workload: real, Contender: host.Direct, AtOnce: 250, Add: floor},
				{Workload: real, Contender: host.Daemon, AtOnce: 250, Add: verb, Left: left},
			},
			Requests: []report.Requests{{Workload: noop, Contender: host.Daemon, Verb: "ADD", PerCall: perCall}},
			Memory:   &report.Memory{Idle: host.Memory{RSS: kib}, PeakKiB: 2 * kib},
			Soak:     &report.Soak{Faults: faults},
		}
	}
	verdicts := func(r *report.Report) int {
		good := 0
		for _, f := range report.Figures(r) {
			if f.OK {
				good++
			}
		}
		return good
	}
	best := build(2, 8_000_000, 10<<10, map[string]float64{"patch pods/status": 1, "create events": 3}, 95, 0)
	if all := report.Figures(best); len(all) != 13 || verdicts(best) != len(all) {
		t.Errorf("%d of %d figures reached: %+v", verdicts(best), len(all), all)
	}
	worst := build(5.1, 8_000_001, 31<<10, map[string]float64{"get pods": 1}, 94, 1, "RSS grew")
	if all := report.Figures(worst); verdicts(worst) != 0 {
		t.Errorf("%d of %d figures reached: %+v", verdicts(worst), len(all), all)
	}
	if all := report.Figures(&report.Report{}); len(all) != 0 {
		t.Errorf("figures of nothing: %+v", all)
	}
}
