// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package stats sums up measurements: medians and high quantiles, which a few slow runs can not bend as they bend an average.
package stats

import (
	"math"
	"slices"
	"time"
)

// Summary is what is told of a number of measurements. Durations are in milliseconds.
type Summary struct {
	N      int     `json:"n"`
	Median float64 `json:"medianMillis"`
	// P99 is the 99th percentile; of less than a hundred measurements it is the slowest.
	P99 float64 `json:"p99Millis"`
}

// Summarize sums up durations, in whatever order they are. Of none it is zero.
func Summarize(durations []time.Duration) Summary {
	values := make([]float64, len(durations))
	for i, d := range durations {
		values[i] = Millis(d)
	}
	return Summary{N: len(values), Median: Quantile(values, 0.5), P99: Quantile(values, 0.99)}
}

// Millis is a duration in milliseconds.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Median is the middle of the values, or the mean of the two in the middle; 0 of none.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Spread is a figure that each round of an experiment has: the middle one, and between which two the middle half of all rounds is.
type Spread struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// SpreadOf sums up the values of all rounds, in whatever order they are. Of none it is zero.
func SpreadOf(values []float64) Spread {
	return Spread{N: len(values), Median: Median(values), Low: Quantile(values, 0.25), High: Quantile(values, 0.75)}
}

// Quantile is the smallest value that a share q of all values does not exceed (nearest rank); the median is the mean of the two
// in the middle when their number is even. It is 0 of none, and leaves the values in their order.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); q == 0.5 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Ratio is a to b; 0 when there is no b to compare with.
func Ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Drift compares the beginning of a series with its end: the medians of its first and its last quarter, the first tenth left out as
// the time to warm up.
func Drift(series []float64) (float64, float64) {
	series = series[len(series)/10:]
	quarter := max(len(series)/4, min(len(series), 1))
	return Median(series[:quarter]), Median(series[len(series)-quarter:])
}
