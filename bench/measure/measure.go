// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package measure runs the experiments of the benchmark. All of them attach pods with the contenders by turns, so that what else the
// machine does meets all of them alike, and leave the first round out.
package measure

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
)

// Plan says what is measured, and how often.
type Plan struct {
	// Starts is how often each program is started.
	Starts int
	Cells  []Cell
	// Phases is how many calls of each verb are traced.
	Phases int
	// Requests is how many calls of each verb the API server's requests are counted for.
	Requests int
	// MemoryPods is how many pods at once the daemon's memory is watched with.
	MemoryPods int
	// Scales are sizes of clusters, ScaleRounds how often a pod is attached in each.
	Scales      []host.Scale
	ScaleRounds int
	// Settle is how long nothing may have changed before something counts as done: requests that are sent in the background, memory that
	// is given back.
	Settle time.Duration
	// Soak is how many times a pod is attached and detached through one daemon.
	Soak int
}

// Cell is one kind of pod, so many of them at once, measured so many times.
type Cell struct {
	host.Workload

	AtOnce, Rounds int
}

// typical is the cluster that all is measured in, unless it is about the cluster's size.
func typical() host.Scale { return host.Scale{Pods: 110, Definitions: 1000} }

// usual is the pod that figures are about: the default network and two more.
func usual(k host.Kind) host.Workload { return host.Workload{Kind: k, Networks: 2} }

// Progress is told what goes on: what is measured, and how much of it is done.
type Progress func(what string, done, total int)

// Run carries the plan out.
func Run(ctx context.Context, n *host.Node, p Plan, progress Progress) (*report.Report, error) {
	r := &report.Report{}
	m := &runner{node: n, plan: p, progress: progress, report: r}
	start := time.Now()
	for _, experiment := range []func(context.Context) error{m.inOneCluster, m.memory, m.scales, m.soak} {
		if err := experiment(ctx); err != nil {
			return nil, err
		}
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

type runner struct {
	node     *host.Node
	plan     Plan
	progress Progress
	report   *report.Report
}

// inOneCluster measures what needs no cluster of its own.
func (m *runner) inOneCluster(ctx context.Context) error {
	c, err := m.node.StartCluster(ctx, typical())
	if err != nil {
		return err
	}
	defer c.Close()
	for _, contender := range c.Contenders {
		m.report.Contenders = append(m.report.Contenders, contender.Name)
	}
	if err := m.starts(ctx, c); err != nil {
		return err
	}
	for _, cell := range m.plan.Cells {
		if err := m.latencies(ctx, c, cell); err != nil {
			return err
		}
	}
	if err := m.phases(ctx, c); err != nil {
		return err
	}
	return m.requests(ctx, c)
}

// turn puts the contenders into the order of a round: each is first in turn.
func turn(all []*host.Contender, round int) []*host.Contender {
	first := round % len(all)
	return append(append([]*host.Contender{}, all[first:]...), all[:first]...)
}

// times is how long each call of a round took, and all of them together, and the processors' time for all of them, where it was taken.
type times struct {
	calls []time.Duration
	whole time.Duration
	cpu   host.CPU
}

// atOnce calls f for each sandbox, all at the same time.
func atOnce(sandboxes []host.Sandbox, f func(host.Sandbox) error) (times, error) {
	t := times{calls: make([]time.Duration, len(sandboxes))}
	errs := make(chan error, len(sandboxes))
	gate := make(chan struct{})
	for i, s := range sandboxes {
		go func() {
			<-gate
			start := time.Now()
			err := f(s)
			t.calls[i] = time.Since(start)
			errs <- err
		}()
	}
	start := time.Now()
	close(gate)
	var failed error
	for range sandboxes {
		if err := <-errs; err != nil && failed == nil {
			failed = err
		}
	}
	t.whole = time.Since(start)
	return t, failed
}

// renew makes a new sandbox for each pod.
func renew(c *host.Cluster, sandboxes []host.Sandbox) []host.Sandbox {
	fresh := make([]host.Sandbox, len(sandboxes))
	for i, s := range sandboxes {
		fresh[i] = c.Renew(s)
	}
	return fresh
}

// addAndDel attaches and detaches sandboxes with one contender, at once each. A failure leaves nothing.
func addAndDel(ctx context.Context, contender *host.Contender, sandboxes []host.Sandbox) (times, times, error) {
	return addAndDelBy(ctx, atOnce, contender, sandboxes)
}

// caller makes a call for each sandbox, as [atOnce] does.
type caller func([]host.Sandbox, func(host.Sandbox) error) (times, error)

// addAndDelBy is addAndDel with a way to make the calls.
func addAndDelBy(ctx context.Context, calls caller, contender *host.Contender, sandboxes []host.Sandbox) (times, times, error) {
	add, err := calls(sandboxes, func(s host.Sandbox) error { return contender.Add(ctx, s) })
	del, delErr := calls(sandboxes, func(s host.Sandbox) error { return contender.Del(context.WithoutCancel(ctx), s) })
	if err == nil {
		err = delErr
	}
	if err == nil {
		err = ctx.Err()
	}
	return add, del, err
}

// accounted is atOnce with the processors' time.
func accounted(c *host.Cluster) caller {
	return func(sandboxes []host.Sandbox, f func(host.Sandbox) error) (times, error) {
		before, beforeErr := c.CPU()
		t, err := atOnce(sandboxes, f)
		after, afterErr := c.CPU()
		t.cpu = after.Plus(before.Times(-1))
		return t, cmp.Or(err, beforeErr, afterErr)
	}
}

// describe names a cell for people.
func (c Cell) describe() string {
	return fmt.Sprintf("ADD and DEL, default + %d networks (%s), %d at once", c.Networks, c.Kind, c.AtOnce)
}
