// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/record"
)

const (
	// repairTimeout bounds the time that one call spends on what others left, repairOneTimeout on one sandbox of that.
	repairTimeout    = 10 * time.Second
	repairOneTimeout = repairTimeout / 2
	// repairPause is how long what could not be undone is left alone: pods that start now should not each wait for it.
	repairPause = time.Minute
	// repairInterval is how often killed calls are looked for whose sandboxes the runtime has forgotten.
	repairInterval = 10 * time.Minute
	// mostRepairPause bounds the pause for one sandbox, which doubles with each try.
	mostRepairPause = time.Hour
	// busyRecord is how long the record of another sandbox is waited for.
	busyRecord = 100 * time.Millisecond
)

// retryMark stands before the boot id in the marker when something is left to be undone.
const retryMark = "retry "

// repair undoes what nobody will ask for: sandboxes of an earlier boot, whose namespaces are gone by definition and whose addresses and
// devices are not; undos that failed, after which the runtime had its success or has forgotten the sandbox; and ADDs that were killed, once
// their sandbox is gone. Each sandbox has a time of its own, and those that were tried last come last. What it cannot do is logged and
// tried again, and never fails the call, which has no part in it.
func (c *call) repair(ctx context.Context, bootID string) {
	due, booted := repairDue(c.marker(), bootID)
	if !due {
		return
	}
	// One call does it, and not each that starts meanwhile.
	lock, err := record.OpenDir(filepath.Join(c.cfg.CNIDir, "repair")).TryLockAll()
	if err != nil || lock == nil {
		c.warn("undo what earlier calls left", err)
		return
	}
	defer c.unlock(lock)
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	keys, left, err := c.repairs(ctx, bootID, booted)
	for _, k := range keys {
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
			break
		}
		one, cancelOne := context.WithTimeout(ctx, repairOneTimeout)
		err = errors.Join(err, c.repairOne(one, k, bootID))
		cancelOne()
	}
	err = errors.Join(err, c.records.Sweep())
	text := bootID
	if err != nil || left {
		c.log.Warn("something of earlier calls is left to be undone; a later one goes on with it", "error", err)
		text = retryMark + bootID
	}
	c.warn("mark what is to be undone", os.WriteFile(c.marker(), []byte(text), 0o600))
}

// marker is the file that says whether something is to be undone: the boot id, with a mark if so. It is as old as the last look.
func (c *call) marker() string { return filepath.Join(c.cfg.CNIDir, "boot-id") }

// retryLater has a later call try again what is left on record.
func (c *call) retryLater() {
	bootID, err := c.Kernel.BootID()
	// The marker gets no younger by further failures: the next look is not put off by them.
	if seen, _ := os.ReadFile(c.marker()); err == nil && string(seen) != retryMark+bootID {
		err = os.WriteFile(c.marker(), []byte(retryMark+bootID), 0o600)
	}
	c.warn("mark what is to be undone", err)
}

// repairDue reports whether a repair is due, and whether it is the first of this boot.
func repairDue(marker, bootID string) (bool, bool) {
	seen, err := os.ReadFile(marker)
	if err != nil {
		return true, true
	}
	pause := repairInterval
	switch string(seen) {
	case bootID:
	case retryMark + bootID:
		pause = repairPause
	default:
		return true, true
	}
	info, err := os.Stat(marker)
	return err != nil || time.Since(info.ModTime()).Abs() > pause, false // a clock that jumps delays it by that at most
}

// repairs are the keys of records that a repair has to look at now, those that were tried last at the end: after a boot all, later those
// that have rested. The second value reports whether there are others, for later.
func (c *call) repairs(ctx context.Context, bootID string, booted bool) ([]string, bool, error) {
	keys, err := c.records.Keys()
	var due []string
	left := false
	tried := map[string]time.Time{}
	for _, k := range keys {
		if k == key(c.sandbox) {
			continue // this call holds its lock, and sees to it
		}
		if ctx.Err() != nil {
			return due, true, errors.Join(err, ctx.Err())
		}
		plan, e := c.loadRecord(k)
		switch {
		case errors.Is(e, fs.ErrNotExist): // another call was faster
		case errors.Is(e, record.ErrCorrupt):
			c.log.Error("a record cannot be read: it is left to the DEL of its container", "error", e)
		case e != nil:
			err = errors.Join(err, e)
		case !c.needsRepair(plan, bootID):
		case !booted && resting(plan):
			left = true
		default:
			due = append(due, k)
			tried[k] = plan.Tried
		}
	}
	slices.SortStableFunc(due, func(a, b string) int { return tried[a].Compare(tried[b]) })
	return due, left, err
}

// resting reports whether it is too soon to try a record again.
func resting(p *delegate.Plan) bool {
	tries := 0
	for _, a := range slices.Concat(p.Attachments, p.Leftovers) {
		tries = max(tries, a.Tries)
	}
	pause := min(repairPause<<min(tries, 10)/2, mostRepairPause)
	return !p.Tried.IsZero() && time.Since(p.Tried).Abs() < pause-repairPause/2
}

// needsRepair reports whether nobody will ask for an undo that a record needs.
func (c *call) needsRepair(p *delegate.Plan, bootID string) bool {
	switch {
	case p.BootID != "" && p.BootID != bootID:
		return true
	case !p.Tried.IsZero():
		return true
	}
	return !p.Complete && c.recordedNetNS(p) == ""
}

func (c *call) repairOne(ctx context.Context, k, bootID string) error {
	short, cancel := context.WithTimeout(ctx, busyRecord)
	defer cancel()
	take := func(ctx context.Context) (*record.Lock, error) { return c.records.Lock(ctx, k) }
	lock, err := take(short)
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		// Its own ADD or DEL is at work on it, which undoes it too; or the plugins of one that was killed.
		orphans, e := orphans(func() ([]int, error) { return c.records.Holders(k) })
		switch {
		case e != nil || len(orphans) == 0:
			return e
		case !c.overdue(orphans):
			return fmt.Errorf("record %s: plugins of a killed call are at work: %w", k, err)
		}
		lock, err = c.killOrphans(ctx, orphans, take)
	}
	if err != nil {
		return err
	}
	defer c.unlock(lock)
	defer c.inherit(lock)()
	plan, err := c.loadRecord(k)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // another call was faster
	case err != nil:
		return err
	case !c.needsRepair(plan, bootID):
		return nil
	}
	if plan.BootID != "" && plan.BootID != bootID {
		plan.Sandbox.NetNS = "" // whatever is at that path is of this boot
	}
	plan.Sandbox.NetNS = c.recordedNetNS(plan)
	c.log.Info("undo what an earlier call left", "pod", plan.Pod.String(), "containerID", plan.Sandbox.ContainerID, "ifName", plan.Sandbox.IfName)
	return c.undo(ctx, &state{plan: plan, dir: c.cfg.CNIDir})
}
