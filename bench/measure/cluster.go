// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/plexus-cni/plexus/bench/fakeapi"
	"github.com/plexus-cni/plexus/bench/host"
	"github.com/plexus-cni/plexus/bench/report"
	"github.com/plexus-cni/plexus/bench/stats"
)

// requests counts what calls cost the API server.
func (m *runner) requests(ctx context.Context, c *host.Cluster) error {
	if m.plan.Requests == 0 {
		return nil
	}
	w := usual(host.Noop)
	// Not the first pod: it has had more events than are told of one.
	sandboxes, err := c.Sandboxes(w, m.plan.Requests+1)
	if err != nil {
		return err
	}
	sandboxes = sandboxes[1:]
	for _, contender := range c.Contenders {
		if contender.Name == host.Direct || contender.Name == host.Manifests {
			continue // they know of no API server
		}
		fresh := renew(c, sandboxes)
		each := func(f func(host.Sandbox) error) func() error {
			return func() error {
				for _, s := range fresh {
					if err := f(s); err != nil {
						return err
					}
				}
				return nil
			}
		}
		verbs := []struct {
			name string
			call func() error
			per  int
		}{
			{"ADD", each(func(s host.Sandbox) error { return contender.Add(ctx, s) }), len(fresh)},
			{"CHECK", each(func(s host.Sandbox) error { return contender.Check(ctx, s) }), len(fresh)},
			{"STATUS", func() error { return contender.Status(ctx, w.Kind) }, 1},
			{"GC", func() error { return contender.GC(ctx, w.Kind, fresh...) }, 1},
			{"DEL", each(func(s host.Sandbox) error { return contender.Del(ctx, s) }), len(fresh)},
		}
		for i, v := range verbs {
			m.progress("requests of "+contender.Name, i, len(verbs))
			if err := m.quiet(ctx, c.API); err != nil {
				return err
			}
			before := c.API.Requests()
			if err := v.call(); err != nil {
				if contender.BuiltIn {
					return err
				}
				continue // not every plugin has every verb
			}
			if err := m.quiet(ctx, c.API); err != nil {
				return err
			}
			m.report.Requests = append(m.report.Requests, report.Requests{
				Workload: w, Contender: contender.Name, Verb: v.name, PerCall: perCall(before, c.API.Requests(), v.per),
			})
		}
	}
	return nil
}

// perCall is how many requests of each kind came in between, for each call.
func perCall(before, after map[fakeapi.Request]int, calls int) map[string]float64 {
	per := map[string]float64{}
	for kind, n := range after {
		if n -= before[kind]; n > 0 {
			per[kind.String()] = float64(n) / float64(calls)
		}
	}
	return per
}

// quiet waits until the API server has not been asked anything for a while.
func (m *runner) quiet(ctx context.Context, api *fakeapi.Server) error {
	for last := api.Requests(); ; {
		if err := pause(ctx, m.plan.Settle); err != nil {
			return err
		}
		now := api.Requests()
		if maps.Equal(last, now) {
			return nil
		}
		last = now
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// memory watches the daemon's memory, idle and through a burst, and the plugin's.
func (m *runner) memory(ctx context.Context) error {
	if m.plan.MemoryPods == 0 {
		return nil
	}
	c, err := m.node.StartCluster(ctx, typical())
	if err != nil {
		return err
	}
	defer c.Close()
	r := &report.Memory{Scale: typical(), BurstPods: m.plan.MemoryPods}
	m.progress("memory of the daemon", 0, 3)
	if r.Idle, err = m.settled(ctx, c.Daemon.Memory); err != nil {
		return err
	}
	sandboxes, err := c.Sandboxes(usual(host.Noop), m.plan.MemoryPods)
	if err != nil {
		return err
	}
	m.progress("memory of the daemon", 1, 3)
	watch := watchMemory(ctx, c.Daemon)
	_, _, err = addAndDel(ctx, c.Contender(host.Daemon), renew(c, sandboxes))
	r.PeakKiB = watch()
	if err != nil {
		return err
	}
	m.progress("memory of the daemon", 2, 3)
	if r.AfterBurst, err = m.settled(ctx, c.Daemon.Memory); err != nil {
		return err
	}
	for _, contender := range c.Contenders {
		if contender.Name == host.Direct {
			continue
		}
		var peak int64
		sampled := contender.Sampling(func(kib int64) { peak = max(peak, kib) })
		for range memoryRounds {
			if _, _, err := addAndDel(ctx, sampled, renew(c, sandboxes[:1])); err != nil {
				return err
			}
		}
		r.Plugins = append(r.Plugins, report.PluginMemory{Contender: contender.Name, PeakKiB: peak})
	}
	m.report.Memory = r
	return nil
}

// memoryRounds is how often a plugin's memory is looked at: the most of it counts.
const memoryRounds = 5

// settled is a process's memory when it has not grown for a while.
func (m *runner) settled(ctx context.Context, memory func() (host.Memory, error)) (host.Memory, error) {
	last := host.Memory{}
	for {
		if err := pause(ctx, 2*m.plan.Settle); err != nil {
			return last, err
		}
		now, err := memory()
		if err != nil {
			return last, err
		}
		if now.RSS <= last.RSS {
			return now, nil
		}
		last = now
	}
}

// watchMemory looks at a process's RSS until the function that it returns is called, which tells the most in KiB.
func watchMemory(ctx context.Context, p *host.Process) func() int64 {
	ctx, cancel := context.WithCancel(ctx)
	var most int64
	var done sync.WaitGroup
	done.Go(func() {
		for {
			if now, err := p.Memory(); err == nil {
				most = max(most, now.RSS)
			}
			if pause(ctx, 5*time.Millisecond) != nil {
				return
			}
		}
	})
	return func() int64 {
		cancel()
		done.Wait()
		return most
	}
}

// scales measures ADD in clusters of several sizes.
func (m *runner) scales(ctx context.Context) error {
	for _, scale := range m.plan.Scales {
		scale.InManifests = true
		if err := m.scale(ctx, scale); err != nil {
			return err
		}
	}
	return nil
}

func (m *runner) scale(ctx context.Context, scale host.Scale) error {
	c, err := m.node.StartCluster(ctx, scale)
	if err != nil {
		return err
	}
	defer c.Close()
	sandboxes, err := c.Sandboxes(usual(host.Noop), 1)
	if err != nil {
		return err
	}
	m.progress(fmt.Sprintf("attach %d pods", scale.Pods), 0, 1)
	if err = c.AttachOthers(ctx); err != nil {
		return err
	}
	took := map[string][]time.Duration{}
	for round := range m.plan.ScaleRounds + 1 {
		m.progress(fmt.Sprintf("%d pods on the node, %d NetworkAttachmentDefinitions", scale.Pods, scale.Definitions), round, m.plan.ScaleRounds+1)
		for _, contender := range turn(c.Contenders, round) {
			var add times
			if add, _, err = addAndDel(ctx, contender, renew(c, sandboxes)); err != nil {
				return err
			}
			if round > 0 {
				took[contender.Name] = append(took[contender.Name], add.calls...)
			}
		}
	}
	memory, err := m.settled(ctx, c.Daemon.Memory)
	if err != nil {
		return err
	}
	for _, contender := range c.Contenders {
		cost := report.ScaleCost{Scale: scale, Contender: contender.Name, Add: stats.Summarize(took[contender.Name])}
		if contender.Name == host.Daemon {
			cost.Daemon = memory
		}
		m.report.Scales = append(m.report.Scales, cost)
	}
	return nil
}
