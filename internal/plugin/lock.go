// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/source"
)

// lockTimeout bounds the wait for another call about the same sandbox, or for a GC. It is shorter than kubelet's patience, so that
// the pod's event says what is waited for.
const lockTimeout = 60 * time.Second

// killedTimeout bounds the wait for processes that were killed to be gone.
const killedTimeout = 5 * time.Second

// lock keeps other calls away from the sandbox, and GC from the records. Plugins that the call starts inherit the sandbox's lock.
func (c *call) lock(ctx context.Context) (func(), error) {
	all, err := c.lockAll(ctx, false)
	if err != nil {
		return nil, err
	}
	one, err := c.lockOne(ctx, key(c.sandbox))
	if err != nil {
		c.unlock(all)
		return nil, err
	}
	release := c.inherit(one)
	return func() {
		release()
		c.unlock(one)
		c.unlock(all)
	}, nil
}

// inherit hands a lock to the plugins that are started from now on, until the function that it returns is called.
func (c *call) inherit(l *record.Lock) func() {
	before := c.plugins.Inherit
	c.plugins.Inherit = l.File()
	return func() { c.plugins.Inherit = before }
}

// lockAll takes the lock of all records.
func (c *call) lockAll(ctx context.Context, exclusive bool) (*record.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience())
	defer cancel()
	lock, err := c.records.LockAll(ctx, exclusive)
	if errors.Is(err, context.DeadlineExceeded) {
		holder := "a GC"
		if exclusive {
			holder = "an ADD or DEL"
		}
		return nil, fmt.Errorf("%w: %s is still at work after %v: %w", source.ErrTryAgain, holder, c.patience(), err)
	}
	return lock, err
}

// lockOne takes the lock of one record. A killed call's plugins hold it on until they have ended; those that do not end are
// killed, so that a plugin which hangs for ever keeps no pod from going away.
func (c *call) lockOne(ctx context.Context, k string) (*record.Lock, error) {
	waiting, cancel := context.WithTimeout(ctx, c.patience())
	defer cancel()
	lock, err := c.records.Lock(waiting, k)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return lock, err
	}
	orphans, err := c.orphans(k)
	if err != nil {
		return nil, err
	}
	if len(orphans) == 0 {
		return nil, fmt.Errorf("%w: another call about this sandbox is still at work after %v", source.ErrTryAgain, c.patience())
	}
	for _, pid := range orphans {
		c.log.Warn("kill a plugin that a killed call left behind and that does not end", "pid", pid, "waited", c.patience())
		if err = syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, fmt.Errorf("kill the plugin that a killed call left behind, pid %d: %w", pid, err)
		}
	}
	dying, cancelDying := context.WithTimeout(ctx, killedTimeout)
	defer cancelDying()
	if lock, err = c.records.Lock(dying, k); err != nil {
		return nil, fmt.Errorf("%w: plugins that a killed call left behind (pids %v) can not be killed: %w", source.ErrTryAgain, orphans, err)
	}
	return lock, nil
}

// orphans are the processes that hold the lock of a record while no Plexus does: plugins whose call was killed.
func (c *call) orphans(k string) ([]int, error) {
	pids, err := c.records.Holders(k)
	if err != nil {
		return nil, err
	}
	own, err := program("self")
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if name, err := program(strconv.Itoa(pid)); err == nil && name == own {
			return nil, nil
		}
	}
	return pids, nil
}

// program is the file name of a process's program. By name, because an update puts another file in its place.
func program(pid string) (string, error) {
	path, err := os.Readlink("/proc/" + pid + "/exe")
	if err != nil {
		return "", fmt.Errorf("find a process's program: %w", err)
	}
	return strings.TrimSuffix(filepath.Base(path), " (deleted)"), nil
}

// mustPatience is how long what has to be done in any case waits for a place among the plugins of the node, in all of a call.
const mustPatience = 10 * time.Second

// admit waits until fewer calls than the configuration allows run plugins on this node, and has a place from then on: of a call's plugins
// there runs one at a time. A call waits for a minute, and is refused. What has to be done in any case, to undo and to check, goes on then:
// plugins that hang must not keep pods from going away, nor have healthy ones taken for broken.
func (c *call) admit(ctx context.Context) error {
	if c.place != nil {
		return nil
	}
	waited := &c.waited
	if c.must {
		waited = &c.waitedInUndo
	}
	start := time.Now()
	waiting, cancel := context.WithTimeout(ctx, c.placePatience(ctx))
	defer cancel()
	place, err := record.OpenSlots(filepath.Join(c.cfg.CNIDir, "slots"), c.cfg.MaxParallelDelegates).Take(waiting)
	*waited += time.Since(start)
	switch {
	case err == nil:
		c.place = place
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case c.must:
		c.log.Warn("a plugin is called without waiting for others any longer", "maxParallelDelegates", c.cfg.MaxParallelDelegates, "error", err)
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no place among the %d plugins that may run at a time on this node came free within %v (\"maxParallelDelegates\"): look what they wait for (ps, on the node), or allow more: %w",
			source.ErrTryAgain, c.cfg.MaxParallelDelegates, c.patience(), err)
	}
	return err
}

// leave gives the call's place to others.
func (c *call) leave() {
	if c.place != nil {
		c.unlock(c.place)
		c.place = nil
	}
}

// aLook is how long a place is waited for at least: time to see whether one is free.
const aLook = 10 * time.Millisecond

// placePatience is how much longer this call waits for a place.
func (c *call) placePatience(ctx context.Context) time.Duration {
	left := c.patience() - c.waited
	if c.must {
		left = min(mustPatience, c.patience()) - c.waitedInUndo
		if deadline, ok := ctx.Deadline(); ok {
			left = min(left, time.Until(deadline)/2) // the rest is for the plugin
		}
	}
	return max(left, aLook)
}

func (c *call) patience() time.Duration {
	if c.LockTimeout > 0 {
		return c.LockTimeout
	}
	return lockTimeout
}

func (c *call) unlock(l interface{ Unlock() error }) {
	if err := l.Unlock(); err != nil {
		c.log.Warn("unlock", "error", err)
	}
}
