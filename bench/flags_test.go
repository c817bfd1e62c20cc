// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/measure"
)

func TestFlags(t *testing.T) {
	t.Parallel()
	get := func(t *testing.T, args ...string) *options {
		t.Helper()
		o, err := parseFlags(args, &bytes.Buffer{})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	t.Run("none is the quick run", func(t *testing.T) {
		t.Parallel()
		o := get(t)
		if diff := cmp.Diff(presets()["quick"], o.plan); diff != "" || o.preset != "quick" || o.plan.Soak != 0 {
			t.Errorf("preset %s (-want +got):\n%s", o.preset, diff)
		}
		if o.node.Bin != "bin" || o.node.Plugins != "bin/cni" {
			t.Errorf("programs in %s and %s", o.node.Bin, o.node.Plugins)
		}
	})
	t.Run("full soaks ten thousand times, or as often as is said", func(t *testing.T) {
		t.Parallel()
		if o := get(t, "-full"); o.preset != "full" || o.plan.Soak != 10000 {
			t.Errorf("%s, %d", o.preset, o.plan.Soak)
		}
		if o := get(t, "-full", "-soak", "0"); o.plan.Soak != 0 {
			t.Errorf("soak of %d", o.plan.Soak)
		}
		if o := get(t, "-soak", "7"); o.plan.Soak != 7 {
			t.Errorf("soak of %d", o.plan.Soak)
		}
	})
	t.Run("only leaves the rest out", func(t *testing.T) {
		t.Parallel()
		quick := presets()["quick"]
		want := measure.Plan{Settle: quick.Settle, Starts: quick.Starts, Scales: quick.Scales, ScaleRounds: quick.ScaleRounds}
		if diff := cmp.Diff(want, get(t, "-only", "starts, scale").plan); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("contenders of the user", func(t *testing.T) {
		t.Parallel()
		o := get(t, "-contender", "name=a,conf=f,bin=/b", "-contender", "name=c,conf=g,bin=/d,daemon=e", "-api-latency", "5ms")
		want := []host.Custom{{Name: "a", Conf: "f", Bin: "/b"}, {Name: "c", Conf: "g", Bin: "/d", Daemon: "e"}}
		if diff := cmp.Diff(want, o.node.Customs); diff != "" || o.node.APILatency != 5*time.Millisecond {
			t.Errorf("latency %v, contenders (-want +got):\n%s", o.node.APILatency, diff)
		}
	})
}

func TestFlagsThatAreWrongSayWhatToDo(t *testing.T) {
	t.Parallel()
	for line, says := range map[string]string{
		"extra":                               "no arguments",
		"-full -quick":                        "choose one",
		"-preset huge":                        "use quick or full",
		"-only everything":                    "use starts",
		"-api-latency 1h":                     "use 0 to 1s",
		"-contender name=a,conf=f":            "bin are needed",
		"-contender name=direct,conf=f,bin=b": "built in",
		"-contender name=a/b,conf=f,bin=b":    "one word",
		"-contender nonsense":                 "use name=",
		"-contender name=a,colour=red":        "use name=",
	} {
		if _, err := parseFlags(strings.Fields(line), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", line, err, says)
		}
	}
}

func TestHelpListsTheFlags(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if _, err := parseFlags([]string{"-help"}, &out); !errors.Is(err, flag.ErrHelp) || !strings.Contains(out.String(), "-contender") {
		t.Errorf("%v, said:\n%s", err, out.String())
	}
}

func TestPresetsMeasureOnlyNetworksThatThereAre(t *testing.T) {
	t.Parallel()
	for name, p := range presets() {
		for _, c := range p.Cells {
			if c.Networks > host.MaxNetworks || c.AtOnce < 1 || c.Rounds < 1 {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
}

func FuzzContender(f *testing.F) {
	f.Add("name=a,conf=f,bin=/b")
	f.Add("name=c,conf=g,bin=/d,daemon=e")
	f.Add("name=,=,")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCustom(text)
		if err == nil && (c.Name == "" || c.Conf == "" || c.Bin == "" || strings.Contains(c.Name, "/")) {
			t.Errorf("%q was accepted as %+v", text, c)
		}
	})
}

func TestPublishedFiguresHaveEnoughRounds(t *testing.T) {
	t.Parallel()
	const contenders = 4 // without the user's
	for _, c := range presets()["full"].Cells {
		if c.Rounds%contenders != 0 {
			t.Errorf("%d rounds of %+v: not each contender is first as often as the others", c.Rounds, c)
		}
		if c.Networks == 2 && c.Rounds < 10 {
			t.Errorf("%d rounds of %+v, which figures are about", c.Rounds, c)
		}
	}
}
