// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/measure"
)

// options are what the command line asks for.
type options struct {
	node   host.Options
	preset string
	plan   measure.Plan
	// Files to write, "" for none.
	json, svg, markdown string
}

// presets are the sizes of a run. Of what is published each contender is first in as many rounds as the others, and what figures are about
// has ten rounds at least.
func presets() map[string]measure.Plan {
	return map[string]measure.Plan{
		"quick": {
			Settle: 500 * time.Millisecond,
			Starts: 50, Phases: 10, Requests: 5, MemoryPods: 50, ScaleRounds: 5,
			Scales: []host.Scale{{Pods: 110, Definitions: 100}, {Pods: 110, Definitions: 1000}},
			Cells: slices.Concat(
				cells(host.Noop, 30, 1, 2),
				cells(host.Real, 6, 1, 0, 2, 8),
				cells(host.Real, 2, 8, 2),
			),
		},
		"full": {
			Settle: time.Second,
			Starts: 300, Phases: 60, Requests: 20, MemoryPods: 250, ScaleRounds: 30, Soak: 10000,
			Scales: []host.Scale{
				{Pods: 110, Definitions: 100},
				{Pods: 110, Definitions: 1000},
				{Pods: 110, Definitions: 10000},
				{Pods: 10, Definitions: 1000},
				{Pods: 250, Definitions: 1000},
				{Pods: 500, Definitions: 1000},
			},
			Cells: slices.Concat(
				cells(host.Noop, 200, 1, 2),
				cells(host.Real, 40, 1, 0, 1, 2, 4, 8),
				cells(host.Real, 12, 8, 2),
				cells(host.Real, 4, 8, 0, 1, 4, 8),
				cells(host.Real, 12, 32, 2),
				cells(host.Real, 4, 32, 0, 1, 4, 8),
				cells(host.Real, 12, 250, 2),
			),
		},
		// For the benchmark's own test.
		"tiny": {
			Settle: 50 * time.Millisecond,
			Starts: 1, Phases: 1, Requests: 1, MemoryPods: 2, ScaleRounds: 1, Soak: 8,
			Scales: []host.Scale{{Pods: 1, Definitions: 20}},
			Cells:  slices.Concat(cells(host.Noop, 1, 1, 2), cells(host.Real, 1, 2, 0, 1)),
		},
	}
}

// cells are kinds of pods with these numbers of networks, so many of them at once.
func cells(k host.Kind, rounds, atOnce int, networks ...int) []measure.Cell {
	var all []measure.Cell
	for _, n := range networks {
		all = append(all, measure.Cell{Workload: host.Workload{Kind: k, Networks: n}, AtOnce: atOnce, Rounds: rounds})
	}
	return all
}

const usage = `Usage: bench [flags]

It attaches and detaches pods as a container runtime does, with Plexus and with the same delegates called directly, in network
namespaces of its own. As root, or as any user where user namespaces are allowed. Build the programs before: make build plugins

`

// parseFlags reads the command line; its errors name the flag and the fix. What -help prints goes to out.
func parseFlags(args []string, out io.Writer) (*options, error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	f.Usage = func() {
		fmt.Fprint(out, usage)
		f.PrintDefaults()
	}
	o := &options{}
	full := f.Bool("full", false, "everything, for docs/performance.md: about half an hour")
	quick := f.Bool("quick", false, "the most important in a minute or two (the default)")
	f.StringVar(&o.preset, "preset", "", "the same by name: quick or full")
	only := f.String("only", "", "run only these, a comma-separated list: starts, own, latency, phases, requests, memory, scale, soak")
	soak := f.Int("soak", -1, "attach and detach so many pods through one daemon, and fail if anything grows (full: 10000)")
	f.StringVar(&o.node.Bin, "bin", "bin", "folder with plexus and plexusd")
	f.StringVar(&o.node.Plugins, "plugins", "", "folder with the reference CNI plugins (default the subfolder cni of -bin)")
	f.StringVar(&o.node.Dir, "dir", "/var/tmp", "where to make the folder for all state: its file system is measured too")
	f.DurationVar(&o.node.APILatency, "api-latency", 0, "how long the API server waits before each answer, like 5ms")
	f.StringVar(&o.json, "json", "", "write all results to this file, as JSON")
	f.StringVar(&o.svg, "svg", "", "write a chart to this file")
	f.StringVar(&o.markdown, "markdown", "", "write a report to this file, which names the chart of -svg")
	f.Func("contender", "measure another CNI plugin too: name=NAME,conf=FILE,bin=DIR[,daemon=FILE]; FILE is its configuration, a template (see docs/performance.md); may be repeated", func(text string) error {
		c, err := parseCustom(text)
		o.node.Customs = append(o.node.Customs, c)
		return err
	})
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("%q: there are no arguments besides flags", f.Arg(0))
	case *full && *quick:
		return nil, errors.New("-full and -quick: choose one")
	case *full:
		o.preset = "full"
	case o.preset == "":
		o.preset = "quick"
	}
	plan, ok := presets()[o.preset]
	if !ok {
		return nil, fmt.Errorf("-preset %q: use quick or full", o.preset)
	}
	if *soak >= 0 {
		plan.Soak = *soak
	}
	if o.node.Plugins == "" {
		o.node.Plugins = filepath.Join(o.node.Bin, "cni")
	}
	if o.node.APILatency < 0 || o.node.APILatency > time.Second {
		return nil, fmt.Errorf("-api-latency %v: use 0 to 1s", o.node.APILatency)
	}
	var err error
	o.plan, err = restrict(plan, *only)
	return o, err
}

// restrict leaves of a plan what a list names; "" is all.
func restrict(p measure.Plan, list string) (measure.Plan, error) {
	if list == "" {
		return p, nil
	}
	left := measure.Plan{Settle: p.Settle}
	for name := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(name) {
		case "starts":
			left.Starts = p.Starts
		case "latency":
			left.Cells = p.Cells
		case "own":
			left.Cells = slices.DeleteFunc(slices.Clone(p.Cells), func(c measure.Cell) bool { return c.Kind != host.Noop })
		case "phases":
			left.Phases = p.Phases
		case "requests":
			left.Requests = p.Requests
		case "memory":
			left.MemoryPods = p.MemoryPods
		case "scale":
			left.Scales, left.ScaleRounds = p.Scales, p.ScaleRounds
		case "soak":
			left.Soak = p.Soak
		default:
			return left, fmt.Errorf("-only %q: use starts, own, latency, phases, requests, memory, scale, soak", name)
		}
	}
	return left, nil
}

// parseCustom reads the value of -contender.
func parseCustom(text string) (host.Custom, error) {
	var c host.Custom
	for field := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(field, "=")
		to := map[string]*string{"name": &c.Name, "conf": &c.Conf, "bin": &c.Bin, "daemon": &c.Daemon}[key]
		if !ok || to == nil || value == "" {
			return c, fmt.Errorf("%q: use name=NAME,conf=FILE,bin=DIR[,daemon=FILE]", field)
		}
		*to = value
	}
	switch {
	case c.Name == "" || c.Conf == "" || c.Bin == "":
		return c, errors.New("name, conf and bin are needed")
	case c.Name == host.Direct || c.Name == host.Manifests || c.Name == host.Daemon || c.Name == host.OneShot:
		return c, fmt.Errorf("name=%s is built in: choose another", c.Name)
	case strings.ContainsAny(c.Name, "/ \t\n"):
		return c, fmt.Errorf("name=%s: use one word without /", c.Name)
	}
	return c, nil
}
