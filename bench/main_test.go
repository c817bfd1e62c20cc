// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

// TestRun runs the whole benchmark, everything once or twice. A contender of the user's own is Plexus under another name.
func TestRun(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	bin := testenv.Build(t, "./bench", "./cmd/plexus", "./cmd/plexusd")
	dir, state := t.TempDir(), t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	conf := `{"cniVersion":"1.0.0","name":"mine","plugins":[{"type":"plexus","manifestDir":"{{.Manifests}}","binDir":"{{.Plugins}}",` +
		`"cniDir":"{{.State}}","legacyCNIDir":"{{.State}}/legacy","delegates":[{{.DefaultNetwork}}]}]}`
	daemon := "#!/bin/sh\ntest -r \"$KUBECONFIG\" && test -d \"$STATE_DIR\" && test -n \"$NODE_NAME\" && exec sleep 1000\n"
	for name, text := range map[string]string{"mine.conflist": conf, "daemon": daemon} {
		if err := os.WriteFile(path(name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "bench"), "-preset", "tiny", "-bin", bin, "-plugins", testenv.Plugins(t), "-dir", state,
		"-contender", fmt.Sprintf("name=mine,conf=%s,bin=%s,daemon=%s", path("mine.conflist"), bin, path("daemon")),
		"-json", path("r.json"), "-svg", path("r.svg"), "-markdown", path("r.md"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r report.Report
	text := read(t, path("r.json"))
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	contenders := []string{host.Direct, host.Manifests, host.Daemon, host.OneShot, "mine"}
	if diff := cmp.Diff(contenders, r.Contenders); diff != "" {
		t.Errorf("contenders (-want +got):\n%s", diff)
	}
	if want := 3 * len(contenders); len(r.Latencies) != want {
		t.Errorf("%d latencies, want %d", len(r.Latencies), want)
	}
	for _, l := range r.Latencies {
		if l.Add.Median <= 0 || l.Del.Median <= 0 || l.Add.PerSecond.Median <= 0 || l.Add.PerSecond.N == 0 || l.Left != 0 {
			t.Errorf("%+v", l)
		}
	}
	if len(r.Starts) == 0 || len(r.Phases) == 0 || len(r.Requests) == 0 || r.Memory == nil || len(r.Scales) == 0 || r.Soak == nil {
		t.Errorf("something was not measured:\n%s", text)
	}
	if _, err := time.Parse(time.DateOnly, r.Date); err != nil {
		t.Errorf("the day of the run: %v", err)
	}
	for _, l := range r.Latencies {
		// Of one round on a busy machine a difference may be below zero.
		if measured := l.Kind == host.Noop && l.Contender != host.Direct; measured && (l.Add.OwnStarts.N == 0 || l.Del.OwnStarts.N == 0) {
			t.Errorf("%s: own share in starts of the reference plugin: ADD %+v, DEL %+v", l.Contender, l.Add.OwnStarts, l.Del.OwnStarts)
		}
	}
	for name, values := range map[string][]float64{"RSS": r.Soak.RSSKiB.All, "descriptors": r.Soak.Descriptors.All, "goroutines": r.Soak.Goroutines.All} {
		if len(values) == 0 || slices.Min(values) <= 0 {
			t.Errorf("%s in the soak: %v", name, values)
		}
	}
	for _, p := range r.Phases {
		for _, phase := range p.Phases {
			if phase.Name == "delegates" && phase.Millis <= 0 {
				t.Errorf("%s %s: %+v", p.Contender, p.Verb, p.Phases)
			}
		}
	}
	for _, f := range report.Figures(&r) {
		// Those that do not depend on the machine.
		if strings.Contains(f.What, "requests") && !f.OK {
			t.Errorf("%+v", f)
		}
	}
	if md := read(t, path("r.md")); !strings.Contains(md, "](r.svg)") || strings.Contains(md, state) {
		t.Errorf("the document does not name its chart, or names a folder of the run:\n%s", md)
	}
	if left, err := os.ReadDir(state); err != nil || len(left) != 0 {
		t.Errorf("left in the folder of all state: %v, %v", left, err)
	}
}

func TestTheRevisionIsThatOfTheMeasuredProgram(t *testing.T) {
	t.Parallel()
	commit, modified := debug.BuildSetting{Key: "vcs.revision", Value: "0123abc"}, debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for want, settings := range map[string][]debug.BuildSetting{
		"":                       {{Key: "CGO_ENABLED", Value: "0"}},
		"0123abc":                {commit},
		"0123abc, changed since": {commit, modified},
	} {
		if got := revisionOf(settings); got != want {
			t.Errorf("revision %q of %v, want %q", got, settings, want)
		}
	}
}

func TestProgramsThatAreNotBuiltAreNamed(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	bin := testenv.Build(t, "./bench", "./cmd/plexus", "./cmd/plexusd")
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "bench"), "-bin", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "make build") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		r    report.Report
		says string // "" for no fault
	}{
		"nothing":                       {},
		"something left by Plexus":      {report.Report{Latencies: []report.Latency{{Contender: host.Daemon, Left: 2}}}, "daemon left 2"},
		"something left by the user's":  {report.Report{Latencies: []report.Latency{{Contender: "mine", Left: 2}}}, ""},
		"something that grew in a soak": {report.Report{Soak: &report.Soak{Faults: []string{"RSS grew"}}}, "soak: RSS grew"},
	} {
		err := faults(&tc.r)
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
