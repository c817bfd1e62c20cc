// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	// legacy is set when the state is another meta-plugin's.
	legacy bool
	// unreadable are entries of libcni's cache that may hold more of the sandbox.
	unreadable []string
}

// loadState finds what is known of a sandbox: our record; else the state of the meta-plugin that was here before; else, when a record
// is lost or can not be read, what libcni's cache tells. It returns nil when nothing is known.
func (c *call) loadState(s delegate.Sandbox) (*state, error) {
	plan, err := c.loadRecord(key(s))
	switch {
	case err == nil:
		plan.Sandbox.NetNS = s.NetNS
		return &state{plan: plan, dir: c.cfg.CNIDir}, nil
	case errors.Is(err, record.ErrCorrupt):
		c.log.Error("a record can not be read: it is set aside, and libcni's cache asked instead", "error", err)
		if err = c.records.Quarantine(key(s)); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if plan, err = legacy.Load(c.cfg.LegacyCNIDir, s); err != nil {
		return nil, err
	}
	if plan != nil {
		plan.Sandbox.NetNS = s.NetNS
		return &state{plan: plan, dir: c.cfg.LegacyCNIDir, legacy: true}, nil
	}
	plan, unreadable, err := legacy.FromCache(c.cfg.CNIDir, s)
	if err != nil || (plan == nil && len(unreadable) == 0) {
		return nil, err
	}
	return &state{plan: cmp.Or(plan, &delegate.Plan{Sandbox: s}), dir: c.cfg.CNIDir, unreadable: unreadable}, nil
}

// loadRecord reads and checks a record. One of a newer Plexus is not taken for a broken one, which would be thrown away.
func (c *call) loadRecord(k string) (*delegate.Plan, error) {
	plan, err := c.records.Load(k)
	if err != nil {
		return nil, err
	}
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

// undo gives back everything that a state holds, and forgets it; what could not be undone stays on record, for the next try.
func (c *call) undo(ctx context.Context, s *state) error {
	c.must = true
	undone := c.executor(s.dir).Del(ctx, s.plan)
	c.must = false
	if f, ok := errors.AsType[*delegate.Failure](undone); ok {
		c.trace.fail("detach " + f.IfName)
	}
	c.trace.begin("forget")
	if undone != nil {
		c.own(s.plan)
		if err := c.records.Save(key(s.plan.Sandbox), s.plan); err != nil {
			return errors.Join(undone, fmt.Errorf("record what is left: %w", err))
		}
	} else if err := c.records.Delete(key(s.plan.Sandbox)); err != nil {
		return err
	}
	if s.legacy {
		undone = errors.Join(undone, legacy.Remove(s.dir, s.plan.Sandbox.ContainerID))
	}
	for _, file := range s.unreadable {
		undone = errors.Join(undone, setAside(file))
	}
	return undone
}

// own completes a plan that was not made by an ADD of ours, so that GC and a reboot know whose it is.
func (c *call) own(p *delegate.Plan) {
	p.Version = delegate.PlanVersion
	p.Config = cmp.Or(p.Config, c.cfg.Name)
	if p.BootID == "" {
		p.BootID, _ = c.Kernel.BootID() // without one a reboot leaves it to DEL and GC
	}
}

// setAside takes an entry of libcni's cache that can not be read out of the way, and tells so: once, rather than for ever or never.
func setAside(file string) error {
	const suffix = ".corrupt"
	if err := os.Rename(file, file+suffix); err != nil {
		return fmt.Errorf("set libcni's cache entry aside: %w", err)
	}
	return fmt.Errorf("%w: libcni's cache entry %s can not be read, so that what it stood for could not be undone: it is kept as %s, and the next DEL goes on without it", record.ErrCorrupt, file, filepath.Base(file)+suffix)
}

const (
	// earlierBootsTimeout bounds the time that one ADD spends on what an earlier boot left; a later ADD goes on.
	earlierBootsTimeout = 10 * time.Second
	// earlierBootsPause is how long what could not be undone is left alone: pods that start now should not each wait for it.
	earlierBootsPause = time.Minute
	// busyRecord is how long the record of another sandbox is waited for.
	busyRecord = 100 * time.Millisecond
)

// undoEarlierBoots gives back what sandboxes of an earlier boot hold: their namespaces are gone by definition, their addresses
// and devices are not. It runs once after a boot; what it can not do is logged and tried again by the next ADD, and never fails
// this one, whose pod has no part in it.
func (c *call) undoEarlierBoots(ctx context.Context, bootID string) {
	marker := filepath.Join(c.cfg.CNIDir, "boot-id")
	if !earlierBootsDue(marker, bootID) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, earlierBootsTimeout)
	defer cancel()
	keys, err := c.records.Keys()
	for _, k := range keys {
		if k == key(c.sandbox) {
			continue // this call holds its lock, and undoes it next
		}
		if e := c.undoEarlierBoot(ctx, k, bootID); e != nil {
			err = errors.Join(err, e)
		}
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
			break
		}
	}
	if e := c.records.Sweep(); e != nil {
		err = errors.Join(err, e)
	}
	c.trace.failed = "" // that is no failure of this call
	text := bootID
	if err != nil {
		c.log.Warn("give back what an earlier boot left; a later ADD goes on with it", "error", err)
		text = retryMark + bootID
	}
	if err := os.WriteFile(marker, []byte(text), 0o600); err != nil {
		c.log.Warn("mark the boot as seen", "error", err)
	}
}

// retryMark stands before the boot id in the marker when something of an earlier boot is left.
const retryMark = "retry "

// earlierBootsDue reports whether records of earlier boots have to be looked for: once after a boot, and again a while after that
// failed.
func earlierBootsDue(marker, bootID string) bool {
	seen, err := os.ReadFile(marker)
	switch {
	case err != nil:
		return true
	case string(seen) == bootID:
		return false
	case string(seen) != retryMark+bootID:
		return true
	}
	info, err := os.Stat(marker)
	return err != nil || time.Since(info.ModTime()).Abs() > earlierBootsPause // a clock that jumps delays it by that at most
}

func (c *call) undoEarlierBoot(ctx context.Context, k, bootID string) error {
	short, cancel := context.WithTimeout(ctx, busyRecord)
	defer cancel()
	lock, err := c.records.Lock(short, k)
	if err != nil {
		return err // its own ADD or DEL is at work on it, which undoes it too
	}
	defer c.unlock(lock)
	defer c.inherit(lock)()
	plan, err := c.loadRecord(k)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // another call was faster
	case errors.Is(err, record.ErrCorrupt):
		c.log.Error("a record can not be read: it is left to the DEL of its container", "error", err)
		return nil
	case err != nil:
		return err
	case plan.BootID == "" || plan.BootID == bootID:
		return nil
	}
	plan.Sandbox.NetNS = ""
	c.log.Info("undo what an earlier boot left", "pod", plan.Pod.String(), "containerID", plan.Sandbox.ContainerID)
	return c.undo(ctx, &state{plan: plan, dir: c.cfg.CNIDir})
}

// liveNetNS returns the recorded namespace of a sandbox if it can only be that: a path under /proc may name another process's by now.
func (c *call) liveNetNS(path string) string {
	if path == "" || strings.HasPrefix(path, "/proc/") {
		return ""
	}
	if ok, err := c.Kernel.IsNetNS(path); err != nil || !ok {
		return ""
	}
	return path
}
