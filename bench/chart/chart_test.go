// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/bench/stats"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func TestDraw(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "report", "testdata", "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err = json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	got := Draw(&r)
	wellFormed(t, got)
	golden.Compare(t, "chart.svg", string(got))
}

func TestOddReportsAreDrawnAllTheSame(t *testing.T) {
	t.Parallel()
	contenders := []string{"direct", "<mine> & \"yours\"", "c", "d", "e", "f", "g", "h"}
	for name, r := range map[string]report.Report{
		"nothing":         {},
		"zeros":           {Contenders: contenders, Latencies: []report.Latency{{Workload: host.Workload{Kind: host.Real}, Contender: "direct", AtOnce: 1}}},
		"no-op only":      {Contenders: contenders, Latencies: []report.Latency{{Workload: host.Workload{Kind: host.Noop}, Contender: "direct", AtOnce: 1}}},
		"names of a kind": {Contenders: contenders, Scales: []report.ScaleCost{{Contender: contenders[1], Add: stats.Summary{Median: 1}}}},
		"phases of none":  {Phases: []report.Phases{{Contender: "<a>", Verb: "ADD"}}},
		"not a number":    {Contenders: contenders, Scales: []report.ScaleCost{{Contender: "direct", Add: stats.Summary{Median: math.NaN()}}, {Contender: "c", Add: stats.Summary{Median: math.Inf(1)}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wellFormed(t, Draw(&r))
		})
	}
}

// wellFormed reads a drawing as XML, to its end.
func wellFormed(t *testing.T, text []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
	}
}

func TestAxes(t *testing.T) {
	t.Parallel()
	for most, want := range map[float64][]float64{
		0: {0, 0.2, 0.4, 0.6, 0.8, 1}, 4: {0, 1, 2, 3, 4}, 6: {0, 2, 4, 6}, 17: {0, 5, 10, 15, 20}, 100: {0, 20, 40, 60, 80, 100}, 430: {0, 100, 200, 300, 400, 500},
	} {
		got := linear(most).ticks
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })); diff != "" {
			t.Errorf("ticks up to %v (-want +got):\n%s", most, diff)
		}
	}
	if diff := cmp.Diff([]float64{1, 10, 100}, logarithmic(3, 100).ticks); diff != "" {
		t.Errorf("logarithmic ticks (-want +got):\n%s", diff)
	}
	a := logarithmic(1, 100)
	for v, want := range map[float64]float64{0: 0, 1: 0, 10: 0.5, 100: 1, 1000: 1} {
		if got := a.at(v); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v is at %v, want %v", v, got, want)
		}
	}
}
