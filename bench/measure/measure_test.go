// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/bench/fakeapi"
	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/bench/stats"
)

func TestEachContenderIsFirstInTurn(t *testing.T) {
	t.Parallel()
	all := []*host.Contender{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	var got []string
	for round := range 4 {
		order := ""
		for _, c := range turn(all, round) {
			order += c.Name
		}
		got = append(got, order)
	}
	if diff := cmp.Diff([]string{"abc", "bca", "cab", "abc"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if all[0].Name != "a" {
		t.Error("the order of the contenders was changed")
	}
}

func TestAtOnceCallsAllAtTheSameTime(t *testing.T) {
	t.Parallel()
	const n = 5
	var running atomic.Int32
	everybody := make(chan struct{})
	took, err := atOnce(make([]host.Sandbox, n), func(host.Sandbox) error {
		if running.Add(1) == n {
			close(everybody)
		}
		select {
		case <-everybody:
			return nil
		case <-time.After(30 * time.Second):
			return errors.New("the others do not come")
		}
	})
	if err != nil || len(took.calls) != n || took.whole <= 0 {
		t.Errorf("%+v, %v", took, err)
	}
	failure := errors.New("one of them")
	if _, err := atOnce(make([]host.Sandbox, n), func(host.Sandbox) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("atOnce = %v", err)
	}
}

func TestComparisonWithTheFloor(t *testing.T) {
	t.Parallel()
	ms := func(values ...int) []time.Duration {
		var all []time.Duration
		for _, v := range values {
			all = append(all, time.Duration(v)*time.Millisecond)
		}
		return all
	}
	series := func(add, del []time.Duration) *series {
		s := &series{}
		for i := range add {
			s.note(times{calls: add[i : i+1], whole: add[i]}, times{calls: del[i : i+1], whole: del[i]})
		}
		return s
	}
	// A machine that is slow in one round is that for both. The differences are 1, 2, 4, 7 and 11.
	floor := series(ms(10, 100, 10, 20, 30), ms(4, 4, 4, 4, 4))
	floor.starts = []float64{1, 2, 2, 2, 2}
	other := series(ms(21, 101, 12, 24, 37), ms(6, 6, 6, 6, 6))
	got := other.against(floor)
	if diff := cmp.Diff(stats.Spread{N: 5, Median: 4, Low: 2, High: 7}, got.Add.Own); diff != "" {
		t.Errorf("own share of ADD (-want +got):\n%s", diff)
	}
	// 11, 0.5, 1, 2 and 3.5 starts.
	if diff := cmp.Diff(stats.Spread{N: 5, Median: 2, Low: 1, High: 3.5}, got.Add.OwnStarts); diff != "" {
		t.Errorf("own share of ADD in starts (-want +got):\n%s", diff)
	}
	if got.Add.Median != 24 || got.Add.Ratio != 1.2 || got.Del.Ratio != 1.5 || got.Del.Own.Median != 2 || got.Del.PerSecond.Median != 1000.0/6 {
		t.Errorf("%+v", got)
	}
	floor.starts = nil // it is not measured with many pods at once
	if got := floor.against(floor); got.Add.Own.Median != 0 || got.Add.Ratio != 1 || got.Add.OwnStarts.N != 0 {
		t.Errorf("the floor against itself: %+v", got)
	}
}

func TestAStartIsTimedAsAWhole(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 0.1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	whole, busy, err := timeStart(t.Context(), program)
	if err != nil || whole < 100*time.Millisecond || busy >= whole {
		t.Errorf("a start of 100 ms took %v, the processors %v of it: %v", whole, busy, err)
	}
}

func TestMemoryIsTakenWhenItHasSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &runner{plan: Plan{Settle: time.Second}}
		grows := []int64{10, 20, 30, 29, 40}
		start := time.Now()
		got, err := m.settled(t.Context(), func() (host.Memory, error) {
			now := host.Memory{RSS: grows[0]}
			grows = grows[1:]
			return now, nil
		})
		if err != nil || got.RSS != 29 || time.Since(start) != 8*time.Second {
			t.Errorf("%+v after %v, %v; want the first that is no more than the one before, 2 s each", got, time.Since(start), err)
		}
	})
}

func TestRequestsPerCall(t *testing.T) {
	t.Parallel()
	patch, get := fakeapi.Request{Verb: "patch", Resource: "pods"}, fakeapi.Request{Verb: "get", Resource: "pods"}
	got := perCall(map[fakeapi.Request]int{patch: 3, get: 5}, map[fakeapi.Request]int{patch: 13, get: 5}, 5)
	if diff := cmp.Diff(map[string]float64{"patch pods": 2}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTraceIsReadFromTheLog(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})).With("verb", "ADD", "pod", "a b/c=d")
	log.Debug("ADD steps", slog.Group("steps", slog.Duration("lookup", time.Millisecond), slog.Duration("attach eth0", 5*time.Millisecond),
		slog.Duration("attach eth0", 2*time.Millisecond)))
	log.Info("ADD done")
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	verb, steps, err := parseTrace(lines[0])
	want := map[string]time.Duration{"lookup": time.Millisecond, "attach eth0": 7 * time.Millisecond}
	if diff := cmp.Diff(want, steps); diff != "" || verb != "ADD" || err != nil {
		t.Errorf("verb %q, %v, steps (-want +got):\n%s", verb, err, diff)
	}
	if _, steps, err := parseTrace(lines[1]); steps != nil || err != nil {
		t.Errorf("a line without steps: %v, %v", steps, err)
	}
	for _, bad := range []string{`verb="ADD`, `steps.lookup=soon`} {
		if _, _, err := parseTrace(bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readTraces(file); err == nil || !strings.Contains(err.Error(), "no trace of DEL") {
		t.Errorf("a log without DEL: %v", err)
	}
}

func FuzzParseTrace(f *testing.F) {
	f.Add(`time=x level=DEBUG msg="ADD steps" verb=ADD pod=b/p took=1ms steps.prepare=310µs "steps.attach eth0"=2ms`)
	f.Add(`"`)
	f.Add(`=`)
	f.Fuzz(func(t *testing.T, line string) {
		_, steps, err := parseTrace(line)
		if err == nil && steps != nil && !strings.Contains(line, stepPrefix) && !strings.Contains(line, `\`) {
			t.Errorf("steps %v of a line without any", steps)
		}
	})
}

func TestPhasesSumUpToTheWhole(t *testing.T) {
	t.Parallel()
	phases := map[string][]float64{}
	noteTrace(phases, map[string]time.Duration{
		"prepare": 1e6, "lookup": 2e6, "record": 3e6, "attach eth0": 10e6, "attached eth0": 1e6, "attach net1": 20e6, "routes": 1e6,
		"report": 4e6, "complete": 5e6,
	}, 50*time.Millisecond)
	want := map[string][]float64{phaseStart: {3}, phaseLookup: {2}, phaseRecord: {8}, phaseDelegates: {30}, phaseReport: {4}, phaseRest: {3}}
	if diff := cmp.Diff(want, phases); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSoakFindsWhatGrows(t *testing.T) {
	t.Parallel()
	flat, growing := make([]float64, 100), make([]float64, 100)
	for i := range flat {
		flat[i], growing[i] = 100, 100+float64(i)*200
	}
	good := report.Soak{
		Descriptors: report.Series{All: flat}, Goroutines: report.Series{All: flat}, RSSKiB: report.Series{All: flat},
		LogFiles: 3, LogBytes: 2 << 20, LogWritten: 9 << 20,
	}
	for name, tc := range map[string]struct {
		change func(*report.Soak)
		left   []string
		says   string // "" for no fault
	}{
		"nothing":     {change: func(*report.Soak) {}},
		"descriptors": {change: func(s *report.Soak) { s.Descriptors.All = growing }, says: "descriptors grew"},
		"goroutines":  {change: func(s *report.Soak) { s.Goroutines.All = growing }, says: "goroutines grew"},
		"memory":      {change: func(s *report.Soak) { s.RSSKiB.All = growing }, says: "RSS in KiB grew"},
		"log files":   {change: func(s *report.Soak) { s.LogFiles = 4 }, says: "4 files"},
		"log size":    {change: func(s *report.Soak) { s.LogBytes = 9 << 20 }, says: "bytes, at most"},
		"no rotation": {change: func(s *report.Soak) { s.LogFiles = 1 }, says: "not rotated"},
		"leases":      {change: func(*report.Soak) {}, left: []string{"a", "b"}, says: "2 interfaces and files"},
	} {
		s := good
		tc.change(&s)
		judge(&s, tc.left)
		switch {
		case tc.says == "" && len(s.Faults) > 0, tc.says != "" && (len(s.Faults) != 1 || !strings.Contains(s.Faults[0], tc.says)):
			t.Errorf("%s: %q", name, s.Faults)
		}
	}
}

func TestLogWatchFollowsRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := &logWatch{dir: dir}
	write := func(name string, n int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.look(); err != nil {
			t.Fatal(err)
		}
	}
	write("log", 10)
	write("log", 30)
	write("log.lock", 1)
	if err := os.Rename(filepath.Join(dir, "log"), filepath.Join(dir, "log.1")); err != nil {
		t.Fatal(err)
	}
	write("log", 5)
	if w.files != 2 || w.bytes != 35 || w.written != 35 {
		t.Errorf("%d files, %d bytes, %d written; want 2, 35, 35", w.files, w.bytes, w.written)
	}
}
