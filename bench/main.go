// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench measures what Plexus costs beside the delegates that it runs: ADD and DEL with several networks and many pods at once,
// where the time goes, memory, requests to the API server, and whether anything grows. Any other CNI plugin can be measured beside it.
//
//	make build plugins
//	go run ./bench -quick
//
// The node is a set of namespaces of its own: this machine's links, routes and mounts play no part and are left alone.
package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/bench/chart"
	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/measure"
	"github.com/plexus-cni/plexus/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(ctx context.Context) (int, error) {
	o, err := parseFlags(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 2, err
	}
	inside, code, err := host.Isolate(ctx)
	if !inside || err != nil {
		return code, err
	}
	r, err := measureAll(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return 1, errors.New("interrupted; nothing is left")
		}
		return 1, err
	}
	if err := write(o, r); err != nil {
		return 1, err
	}
	return 0, faults(r)
}

func measureAll(ctx context.Context, o *options) (*report.Report, error) {
	n, err := host.NewNode(o.node)
	if err != nil {
		return nil, err
	}
	screen := newScreen(os.Stderr)
	machine, err := describeMachine(n.Dir(), o.node.APILatency)
	var r *report.Report
	if err == nil {
		r, err = measure.Run(ctx, n, o.plan, screen.progress)
	}
	screen.clear()
	if err = errors.Join(err, n.Close()); err != nil {
		return nil, err
	}
	r.Machine, r.Preset, r.Date = machine, o.preset, time.Now().UTC().Format(time.DateOnly)
	r.Revision, err = revision(filepath.Join(o.node.Bin, "plexus"))
	return r, err
}

// revision is the commit that a program was built from, "" if it does not say.
func revision(program string) (string, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "", err
	}
	return revisionOf(info.Settings), nil
}

func revisionOf(settings []debug.BuildSetting) string {
	values := map[string]string{}
	for _, s := range settings {
		values[s.Key] = s.Value
	}
	commit := values["vcs.revision"]
	if commit != "" && values["vcs.modified"] == "true" {
		commit += ", changed since"
	}
	return commit
}

// write shows the report, and writes the files that were asked for.
func write(o *options, r *report.Report) error {
	if err := report.WriteText(os.Stdout, r); err != nil {
		return err
	}
	files := []struct {
		path string
		text func() ([]byte, error)
	}{
		{o.json, func() ([]byte, error) {
			text, err := json.MarshalIndent(r, "", "  ")
			return append(text, '\n'), err
		}},
		{o.svg, func() ([]byte, error) { return chart.Draw(r), nil }},
		{o.markdown, func() ([]byte, error) { return report.Markdown(r, filepath.Base(o.svg)) }},
	}
	for _, f := range files {
		if f.path == "" {
			continue
		}
		text, err := f.text()
		if err == nil {
			err = os.WriteFile(f.path, text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

// faults are findings that are no figures but mistakes: something is left, or grows. Those of a user's own contender are only shown.
func faults(r *report.Report) error {
	var errs []error
	for _, l := range r.Latencies {
		if l.Left > 0 && isBuiltIn(l.Contender) {
			errs = append(errs, fmt.Errorf("%s left %d interfaces and files after all DELs", l.Contender, l.Left))
		}
	}
	if r.Soak != nil {
		for _, f := range r.Soak.Faults {
			errs = append(errs, fmt.Errorf("soak: %s", f))
		}
	}
	return errors.Join(errs...)
}

func isBuiltIn(name string) bool {
	return name == host.Direct || name == host.Manifests || name == host.Daemon || name == host.OneShot
}
