// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/bench/stats"
)

// warmUp is how many pods of a cell the round takes that does not count.
const warmUp = 8

// series is what one contender did in a cell.
type series struct {
	add, del             []time.Duration
	addMedian, delMedian []float64 // of each round, in milliseconds
	addRate, delRate     []float64 // calls a second, of each round
	starts               []float64 // the reference plugin's VERSION in each round, in milliseconds; the floor's
	addCPU, delCPU       host.CPU  // of all rounds
}

// latencies measures one cell.
func (m *runner) latencies(ctx context.Context, c *host.Cluster, cell Cell) error {
	sandboxes, err := c.Sandboxes(cell.Workload, cell.AtOnce)
	if err != nil {
		return err
	}
	for _, contender := range c.Contenders {
		if err = m.tryOut(ctx, c, contender, sandboxes[:min(warmUp, len(sandboxes))]); err != nil {
			return err
		}
	}
	all := make(map[string]*series, len(c.Contenders))
	for _, contender := range c.Contenders {
		all[contender.Name] = &series{}
	}
	floor := all[c.Contenders[0].Name]
	for round := range cell.Rounds {
		if cell.Kind == host.Noop && cell.AtOnce == 1 {
			start, err := referenceStart(ctx, c)
			if err != nil {
				return err
			}
			floor.starts = append(floor.starts, start)
		}
		for i, contender := range turn(c.Contenders, round) {
			m.progress(cell.describe(), round*len(c.Contenders)+i, cell.Rounds*len(c.Contenders))
			add, del, err := addAndDelBy(ctx, accounted(c), contender, renew(c, sandboxes))
			if err != nil {
				return err
			}
			all[contender.Name].note(add, del)
		}
	}
	for _, contender := range c.Contenders {
		l := all[contender.Name].against(floor)
		l.Workload, l.Contender, l.AtOnce = cell.Workload, contender.Name, cell.AtOnce
		left, err := contender.Left(netnsOf(sandboxes)...)
		if err != nil {
			return err
		}
		l.Left = len(left)
		m.report.Latencies = append(m.report.Latencies, l)
	}
	return nil
}

// tryOut is the round that does not count: it shows that the contender makes all interfaces.
func (m *runner) tryOut(ctx context.Context, c *host.Cluster, contender *host.Contender, sandboxes []host.Sandbox) error {
	m.progress("warm up "+contender.Name, 0, 1)
	fresh := renew(c, sandboxes)
	_, err := atOnce(fresh, func(s host.Sandbox) error { return contender.Add(ctx, s) })
	if err == nil && fresh[0].Kind == host.Real {
		err = host.CheckInterfaces(fresh[0])
	}
	_, delErr := atOnce(fresh, func(s host.Sandbox) error { return contender.Del(context.WithoutCancel(ctx), s) })
	if err != nil {
		return fmt.Errorf("contender %s: %w", contender.Name, err)
	}
	return delErr
}

func netnsOf(sandboxes []host.Sandbox) []string {
	var paths []string
	for _, s := range sandboxes {
		paths = append(paths, s.NetNS)
	}
	return paths
}

func (s *series) note(add, del times) {
	s.add, s.del = append(s.add, add.calls...), append(s.del, del.calls...)
	s.addMedian = append(s.addMedian, stats.Summarize(add.calls).Median)
	s.delMedian = append(s.delMedian, stats.Summarize(del.calls).Median)
	s.addRate = append(s.addRate, float64(len(add.calls))/add.whole.Seconds())
	s.delRate = append(s.delRate, float64(len(del.calls))/del.whole.Seconds())
	s.addCPU, s.delCPU = s.addCPU.Plus(add.cpu), s.delCPU.Plus(del.cpu)
}

// against compares a series with that of the floor, round by round: what made a round slow for both plays no part.
func (s *series) against(floor *series) report.Latency {
	verb := func(calls, floorCalls []time.Duration, medians, floorMedians, rates []float64, cpu host.CPU) report.Verb {
		own := make([]float64, len(medians))
		for i := range own {
			own[i] = medians[i] - floorMedians[i]
		}
		ownStarts := make([]float64, len(floor.starts))
		for i := range ownStarts {
			ownStarts[i] = own[i] / floor.starts[i]
		}
		v := report.Verb{
			Summary: stats.Summarize(calls), Own: stats.SpreadOf(own), OwnStarts: stats.SpreadOf(ownStarts),
			PerSecond: stats.SpreadOf(rates), CPU: cpu.Times(1 / float64(len(calls))),
		}
		v.Ratio = stats.Ratio(v.Median, stats.Summarize(floorCalls).Median)
		return v
	}
	return report.Latency{
		Add: verb(s.add, floor.add, s.addMedian, floor.addMedian, s.addRate, s.addCPU),
		Del: verb(s.del, floor.del, s.delMedian, floor.delMedian, s.delRate, s.delCPU),
	}
}

// referenceStarts is how often the reference plugin is started in a round: a single start varies by as much as Plexus takes.
const referenceStarts = 3

// referenceStart is the time of a call of VERSION of the floor's first program, in milliseconds.
func referenceStart(ctx context.Context, c *host.Cluster) (float64, error) {
	program, err := c.Contenders[0].Program()
	if err != nil {
		return 0, err
	}
	var took []time.Duration
	for range referenceStarts {
		whole, _, err := timeStart(ctx, program)
		if err != nil {
			return 0, err
		}
		took = append(took, whole)
	}
	return stats.Summarize(took).Median, nil
}

// starts measures how long programs take to start: the contenders' first ones, and for comparison a reference plugin.
func (m *runner) starts(ctx context.Context, c *host.Cluster) error {
	if m.plan.Starts == 0 {
		return nil
	}
	var programs []string
	seen := map[string]bool{}
	for _, contender := range c.Contenders {
		path, err := contender.Program()
		if err != nil {
			return err
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
		if !seen[path] {
			seen[path] = true
			programs = append(programs, path)
		}
	}
	took, cpu := make([][]time.Duration, len(programs)), make([][]time.Duration, len(programs))
	for round := range m.plan.Starts + 1 {
		m.progress("start of programs", round, m.plan.Starts+1)
		for i, program := range programs {
			whole, busy, err := timeStart(ctx, program)
			if err != nil {
				return err
			}
			if round > 0 {
				took[i], cpu[i] = append(took[i], whole), append(cpu[i], busy)
			}
		}
	}
	for i, program := range programs {
		info, err := os.Stat(program)
		if err != nil {
			return err
		}
		m.report.Starts = append(m.report.Starts, report.Start{Program: filepath.Base(program), Bytes: info.Size(), Version: stats.Summarize(took[i]), CPU: stats.Summarize(cpu[i])})
	}
	return nil
}

// timeStart calls VERSION, and returns how long that took and how much of it the processors were busy with it.
func timeStart(ctx context.Context, program string) (time.Duration, time.Duration, error) {
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = []string{"CNI_COMMAND=VERSION"}
	cmd.Stdin = bytes.NewReader([]byte(`{"cniVersion":"1.0.0"}`))
	start := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("%s VERSION: %w: %s", program, err, out)
	}
	return time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}
