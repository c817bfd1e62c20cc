// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/bench/stats"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for name, tc := range map[string]struct {
		values []float64
		q      float64
		want   float64
	}{
		"of nothing is zero":                       {nil, 0.99, 0},
		"of one value is that":                     {[]float64{7}, 0.99, 7},
		"median of an odd number":                  {[]float64{9, 1, 5}, 0.5, 5},
		"median of an even number is the mean":     {[]float64{4, 1, 2, 3}, 0.5, 2.5},
		"p99 of few is the greatest":               {[]float64{3, 1, 2}, 0.99, 3},
		"p99 of a hundred leaves one out":          {hundred, 0.99, 99},
		"the lowest quantile is the smallest":      {hundred, 0, 1},
		"the highest quantile is the greatest one": {hundred, 1, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := slices.Clone(tc.values)
			if got := stats.Quantile(tc.values, tc.q); got != tc.want {
				t.Errorf("Quantile(%v, %v) = %v, want %v", tc.values, tc.q, got, tc.want)
			}
			if diff := cmp.Diff(before, tc.values); diff != "" {
				t.Errorf("the values were reordered (-before +after):\n%s", diff)
			}
		})
	}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	got := stats.Summarize([]time.Duration{3 * time.Millisecond, time.Millisecond, 1500 * time.Microsecond})
	if diff := cmp.Diff(stats.Summary{N: 3, Median: 1.5, P99: 3}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(stats.Summary{}, stats.Summarize(nil)); diff != "" {
		t.Errorf("of nothing (-want +got):\n%s", diff)
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(stats.Spread{N: 5, Median: 3, Low: 2, High: 4}, stats.SpreadOf([]float64{5, 1, 4, 2, 3})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(stats.Spread{}, stats.SpreadOf(nil)); diff != "" {
		t.Errorf("of nothing (-want +got):\n%s", diff)
	}
}

func TestRatio(t *testing.T) {
	t.Parallel()
	if got := stats.Ratio(3, 2); got != 1.5 {
		t.Errorf("Ratio(3, 2) = %v", got)
	}
	if got := stats.Ratio(3, 0); got != 0 {
		t.Errorf("Ratio(3, 0) = %v, want 0 for no comparison", got)
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	growing := make([]float64, 100)
	for i := range growing {
		growing[i] = float64(i)
	}
	if first, last := stats.Drift(growing); first >= last {
		t.Errorf("a growing series: %v, %v", first, last)
	}
	warmUp := append(slices.Repeat([]float64{90}, 10), slices.Repeat([]float64{10}, 90)...)
	if first, last := stats.Drift(warmUp); first != 10 || last != 10 {
		t.Errorf("the warm-up counts: %v, %v", first, last)
	}
	for _, few := range [][]float64{nil, {1}, {1, 1}} {
		if first, last := stats.Drift(few); first != last {
			t.Errorf("Drift(%v) = %v, %v", few, first, last)
		}
	}
}
