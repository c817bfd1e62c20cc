// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/legacy"
	"github.com/plexus-cni/plexus/internal/record"
)

// state is what is known on disk of one sandbox.
type state struct {
	plan *delegate.Plan
	// dir is the state folder that the attachments were made under: libcni's result cache is there.
	dir string
	// multus is set when the state is Multus' own.
	multus bool
	// recordedNetNS is the namespace that the sandbox had at its ADD, if that is still there.
	recordedNetNS string
	// unreadable are files that may hold more of the sandbox.
	unreadable []string
}

// tolerable reports whether what an undo of the state has left may stay on record while the sandbox goes, or another one of its name comes.
func (s *state) tolerable() bool {
	return len(s.unreadable) == 0 && s.plan.Left() && s.plan.Tolerable(time.Now())
}

// loadState finds what is known of a sandbox: our record; else the state of Multus; else, when a record is lost or cannot be read, what
// libcni's cache tells. It returns nil when nothing is known.
func (c *call) loadState(s delegate.Sandbox) (*state, error) {
	found, err := c.findState(s)
	if err != nil || found == nil {
		return nil, err
	}
	found.recordedNetNS = c.recordedNetNS(found.plan)
	found.plan.Sandbox.NetNS = c.netNS(found.plan, s.NetNS)
	for i := range found.plan.Attachments {
		// The runtime sends the same on every verb, where no cache has what it sent on ADD.
		if a := &found.plan.Attachments[i]; found.multus && a.Args == nil {
			a.Args = c.args.CNIArgs()
			if a.Default && a.CapabilityArgs == nil {
				a.CapabilityArgs = c.cfg.RuntimeConfig
			}
		}
	}
	return found, nil
}

func (c *call) findState(s delegate.Sandbox) (*state, error) {
	plan, err := c.loadRecord(key(s))
	switch {
	case err == nil:
		return &state{plan: plan, dir: c.cfg.CNIDir}, nil
	case errors.Is(err, record.ErrCorrupt):
		c.log.Error("a record cannot be read: it is quarantined, and libcni's cache is read instead", "error", err)
		if err = c.records.Quarantine(key(s)); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	plan, err = legacy.Load(c.cfg.LegacyCNIDir, s)
	if errors.Is(err, record.ErrCorrupt) {
		c.log.Error("Multus' state cannot be read: it is quarantined", "error", err)
		return &state{plan: &delegate.Plan{Sandbox: s}, dir: c.cfg.CNIDir, unreadable: []string{filepath.Join(c.cfg.LegacyCNIDir, s.ContainerID)}}, nil
	}
	if err != nil {
		return nil, err
	}
	if plan != nil {
		return &state{plan: plan, dir: c.cfg.LegacyCNIDir, multus: true}, nil
	}
	plan, unreadable, err := c.fromCache(s)
	if err != nil || (plan == nil && len(unreadable) == 0) {
		return nil, err
	}
	return &state{plan: cmp.Or(plan, &delegate.Plan{Sandbox: s}), dir: c.cfg.CNIDir, unreadable: unreadable}, nil
}

// fromCache is what libcni's cache tells of a sandbox, but for what the records of the container's other sandboxes have.
func (c *call) fromCache(s delegate.Sandbox) (*delegate.Plan, []string, error) {
	var others []*delegate.Plan
	loaded, unknown := false, false
	return legacy.FromCache(c.cfg.CNIDir, s, func(entry string) bool {
		if !loaded {
			loaded = true
			others, unknown = c.siblings(s)
		}
		if unknown {
			return true // a record that cannot be read may have it
		}
		for _, p := range others {
			if slices.ContainsFunc(slices.Concat(p.Attachments, p.Leftovers), func(a delegate.Attachment) bool { return a.CacheName(s.ContainerID) == entry }) {
				return true
			}
		}
		return false
	})
}

// siblings are the records of a container's other sandboxes; the second value reports whether one of them cannot be read.
func (c *call) siblings(s delegate.Sandbox) ([]*delegate.Plan, bool) {
	keys, err := c.records.Keys()
	unknown := err != nil
	var plans []*delegate.Plan
	for _, k := range keys {
		other, ok := sandboxOf(k)
		if !ok || other.ContainerID != s.ContainerID || other.IfName == s.IfName {
			continue
		}
		plan, err := c.loadRecord(k)
		switch {
		case err == nil:
			plans = append(plans, plan)
		case !errors.Is(err, fs.ErrNotExist):
			unknown = true
		}
	}
	return plans, unknown
}

// loadRecord reads and checks a record. One of a newer Plexus is not taken for a broken one, which would be thrown away.
func (c *call) loadRecord(k string) (*delegate.Plan, error) {
	plan, err := c.records.Load(k)
	if err != nil {
		return nil, err
	}
	plan.Recover()
	switch err := plan.Validate(); {
	case errors.Is(err, delegate.ErrVersion):
		return nil, fmt.Errorf("record %s: %w", k, err)
	case err != nil:
		return nil, fmt.Errorf("%w: record %s: %w", record.ErrCorrupt, k, err)
	case key(plan.Sandbox) != k:
		return nil, fmt.Errorf("%w: record %s is of container %q, interface %q", record.ErrCorrupt, k, plan.Sandbox.ContainerID, plan.Sandbox.IfName)
	}
	return plan, nil
}

// netNS is a path if it is the namespace of a recorded sandbox, and none of the host; else "": the sandbox is gone. The file of a namespace
// outlives it where it was only unmounted, and /proc/<pid>/ns/net is another's, or the host's, once another process has the number.
func (c *call) netNS(p *delegate.Plan, path string) string {
	if path == "" {
		return ""
	}
	if is, err := c.Kernel.IsNetNS(path); err != nil || !is {
		return ""
	}
	if own, err := c.Kernel.SameNetNS(path); err != nil || (own && !c.allowOwnNetNS) {
		return ""
	}
	if p.NetNSCookie != 0 {
		if cookie, err := c.Kernel.NetNSCookie(path); err != nil || cookie != p.NetNSCookie {
			return ""
		}
	}
	return path
}

// recordedNetNS is the recorded path of a sandbox's namespace, by the same rule. An older Plexus did not record which namespace it was: one
// under /proc may be another process's by now.
func (c *call) recordedNetNS(p *delegate.Plan) string {
	if p.NetNSCookie == 0 && strings.HasPrefix(p.Sandbox.NetNS, "/proc/") {
		return ""
	}
	return c.netNS(p, p.Sandbox.NetNS)
}

const (
	// undoTimeout bounds one undo, which has several plugins to wait for: runtimes wait two minutes for a DEL, and it is better to say what
	// takes so long than to be killed.
	undoTimeout = 100 * time.Second
	// progressAfter is how long an undo goes on before its progress is written down. A quick one is repeated as a whole if it is killed.
	progressAfter = time.Second
)

// undo gives back everything that a state holds, and forgets it; what could not be undone stays on record, for the next try.
func (c *call) undo(ctx context.Context, s *state) error {
	ctx, cancel := context.WithTimeout(ctx, max(undoTimeout, c.cfg.DelegateTimeout+10*time.Second))
	defer cancel()
	k, plan := key(s.plan.Sandbox), s.plan
	c.adopt(plan)
	if s.multus {
		if err := c.takeOver(k, s); err != nil {
			return err
		}
	}
	begun := c.saveBegun(k, plan)
	executor := c.executor(cmp.Or(plan.StateDir, s.dir))
	saved := time.Now()
	executor.Progress = func(p *delegate.Plan) {
		if time.Since(saved) < progressAfter {
			return
		}
		c.warn("record the progress of an undo", errors.Join(begun(), c.records.Save(k, p)))
		saved = time.Now()
	}
	undone := executor.Del(ctx, plan)
	c.warn("record that an undo has begun", begun())
	if f, ok := errors.AsType[*delegate.Failure](undone); ok {
		undone = &stepError{step: "detach " + f.IfName, err: undone}
	}
	c.trace.begin("forget")
	if undone != nil {
		now := time.Now()
		plan.Tried = now.UTC().Truncate(time.Second)
		for _, a := range plan.GiveUp(now) {
			c.log.Warn("an attachment is given up: its plugins refused the ADD, and refuse the DEL", "attachment", a.String(), "error", a.Error)
		}
	}
	if !plan.Left() {
		undone = c.records.Delete(k)
	} else {
		if err := c.records.Save(k, plan); err != nil {
			undone = errors.Join(undone, fmt.Errorf("record what is left: %w", err))
		}
		c.retryLater()
	}
	for _, file := range s.unreadable {
		undone = errors.Join(undone, quarantine(file))
	}
	return undone
}

// takeOver makes a record of what Multus left, which from then on is the truth: a call that is killed loses nothing, and leaves nothing of
// Multus' behind.
func (c *call) takeOver(k string, s *state) error {
	s.plan.StateDir = s.dir
	s.plan.BeginUndo(time.Now())
	if err := c.records.Save(k, s.plan); err != nil {
		return fmt.Errorf("record what Multus left: %w", err)
	}
	return legacy.Remove(s.dir, s.plan.Sandbox.ContainerID)
}

// saveBegun records that a sandbox is no longer complete, while the first plugin runs. The function that it returns waits for that. The
// snapshot shares the attachments with the plan, of which an undo changes copies alone.
func (c *call) saveBegun(k string, p *delegate.Plan) func() error {
	if !p.Complete {
		return func() error { return nil }
	}
	p.BeginUndo(time.Now())
	snapshot, saved := *p, make(chan error, 1)
	go func() { saved <- c.records.Save(k, &snapshot); close(saved) }()
	return func() error { return <-saved }
}

// adopt completes a plan that was not made by an ADD of ours, so that GC and a reboot know whose it is.
func (c *call) adopt(p *delegate.Plan) {
	p.Version = delegate.PlanVersion
	p.ConfName = cmp.Or(p.ConfName, c.cfg.Name)
	if p.BootID == "" {
		p.BootID, _ = c.Kernel.BootID() // without one a reboot leaves it to DEL and GC
	}
}

// quarantine takes a file that cannot be read out of the way, and tells so: once, rather than for ever or never.
func quarantine(file string) error {
	if err := legacy.Quarantine(file); err != nil {
		return err
	}
	what := "Multus' state"
	if filepath.Base(filepath.Dir(file)) == "results" {
		what = "libcni's cache entry"
	}
	return fmt.Errorf("%w: %s %s cannot be read, so that what it stood for could not be undone: it is kept as %s.corrupt, and the next DEL goes on without it", record.ErrCorrupt, what, file, filepath.Base(file))
}

func (c *call) warn(what string, err error) {
	if err != nil {
		c.log.Warn(what, "error", err)
	}
}
