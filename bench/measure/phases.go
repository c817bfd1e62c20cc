// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/bench/stats"
)

// Phases of a call, in the order in which they are shown. The first is what the log of the plugin can not know: from the runtime's
// decision to start it to its first line, and from its last to its end.
const (
	phaseStart     = "start and end"
	phaseLookup    = "lookup"
	phaseRecord    = "record"
	phaseDelegates = "delegates"
	phaseReport    = "report"
	phaseRest      = "rest"
)

func allPhases() []string {
	return []string{phaseStart, phaseLookup, phaseRecord, phaseDelegates, phaseReport, phaseRest}
}

// phaseOf is the phase that a step of the plugin's trace belongs to.
func phaseOf(step string) string {
	word, _, _ := strings.Cut(step, " ")
	switch word {
	case "lookup":
		return phaseLookup
	case "record", "complete", "forget":
		return phaseRecord
	case "attach", "detach":
		return phaseDelegates
	case "report":
		return phaseReport
	}
	return phaseRest
}

// phases measures where Plexus' time goes, by its own trace.
func (m *runner) phases(ctx context.Context, c *host.Cluster) error {
	if m.plan.Phases == 0 {
		return nil
	}
	w := usual(host.Real)
	sandboxes, err := c.Sandboxes(w, 1)
	if err != nil {
		return err
	}
	for _, contender := range c.Contenders {
		if !contender.BuiltIn || contender.Name == host.Direct {
			continue
		}
		file := filepath.Join(m.node.Dir(), "trace-"+contender.Name+".log")
		traced, err := contender.Logging(host.Log{File: file, Level: "debug", MaxSizeMB: 100, MaxBackups: 1})
		if err != nil {
			return err
		}
		byVerb := map[string]map[string][]float64{"ADD": {}, "DEL": {}}
		for i := range m.plan.Phases + 1 {
			m.progress("phases of "+contender.Name, i, m.plan.Phases+1)
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			add, del, err := addAndDel(ctx, traced, renew(c, sandboxes))
			if err != nil {
				return err
			}
			if i == 0 {
				continue
			}
			traces, err := readTraces(file)
			if err != nil {
				return err
			}
			for verb, whole := range map[string]time.Duration{"ADD": add.whole, "DEL": del.whole} {
				noteTrace(byVerb[verb], traces[verb], whole)
			}
		}
		for _, verb := range []string{"ADD", "DEL"} {
			p := report.Phases{Workload: w, Contender: contender.Name, Verb: verb}
			for _, name := range allPhases() {
				p.Phases = append(p.Phases, report.Phase{Name: name, Millis: stats.Median(byVerb[verb][name])})
			}
			m.report.Phases = append(m.report.Phases, p)
		}
	}
	return nil
}

// noteTrace adds the phases of one call that took whole.
func noteTrace(phases map[string][]float64, steps map[string]time.Duration, whole time.Duration) {
	sums := map[string]time.Duration{phaseStart: whole}
	for step, took := range steps {
		sums[phaseOf(step)] += took
		sums[phaseStart] -= took
	}
	for _, name := range allPhases() {
		phases[name] = append(phases[name], stats.Millis(sums[name]))
	}
}

// readTraces reads the steps of each verb from a log of one call each.
func readTraces(file string) (map[string]map[string]time.Duration, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	traces := map[string]map[string]time.Duration{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		verb, steps, err := parseTrace(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if steps != nil {
			traces[verb] = steps
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	for _, verb := range []string{"ADD", "DEL"} {
		if traces[verb] == nil {
			return nil, fmt.Errorf("%s has no trace of %s", file, verb)
		}
	}
	return traces, nil
}

// stepPrefix is what the plugin's log calls the group of its steps.
const stepPrefix = "steps."

// parseTrace reads a line of the plugin's log: a text of package slog. It returns nil for a line that is no trace.
func parseTrace(line string) (string, map[string]time.Duration, error) {
	verb := ""
	var steps map[string]time.Duration
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		var key, value string
		var err error
		if key, line, err = word(line, "="); err != nil {
			return "", nil, err
		}
		if value, line, err = word(strings.TrimPrefix(line, "="), " "); err != nil {
			return "", nil, err
		}
		if key == "verb" {
			verb = value
		}
		step, ok := strings.CutPrefix(key, stepPrefix)
		if !ok {
			continue
		}
		took, err := time.ParseDuration(value)
		if err != nil {
			return "", nil, fmt.Errorf("step %q: %w", step, err)
		}
		if steps == nil {
			steps = map[string]time.Duration{}
		}
		steps[step] += took
	}
	return verb, steps, nil
}

// word cuts a word, quoted if it has to be, off a line: up to the end mark.
func word(line, end string) (string, string, error) {
	if !strings.HasPrefix(line, `"`) {
		i := strings.Index(line, end)
		if i < 0 {
			i = len(line)
		}
		return line[:i], line[i:], nil
	}
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return "", "", fmt.Errorf("line of a log %.100q: %w", line, err)
	}
	text, err := strconv.Unquote(quoted)
	return text, line[len(quoted):], err
}
