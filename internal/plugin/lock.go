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

// lockAll takes the lock of all records. GC takes it alone, and hands it on to its plugins.
func (c *call) lockAll(ctx context.Context, exclusive bool) (*record.Lock, error) {
	who := "a GC"
	if exclusive {
		who = "an ADD or DEL"
	}
	return c.acquireLock(ctx, who, c.records.HoldersOfAll, func(ctx context.Context) (*record.Lock, error) {
		return c.records.LockAll(ctx, exclusive)
	})
}

// lockOne takes the lock of one record.
func (c *call) lockOne(ctx context.Context, k string) (*record.Lock, error) {
	holders := func() ([]int, error) { return c.records.Holders(k) }
	return c.acquireLock(ctx, "another call about this sandbox", holders, func(ctx context.Context) (*record.Lock, error) {
		return c.records.Lock(ctx, k)
	})
}

// acquireLock takes a lock. A killed call's plugins hold it on until they have ended; those that do not end are killed, so that a plugin
// which hangs for ever keeps no pod from going away.
func (c *call) acquireLock(ctx context.Context, who string, holders func() ([]int, error), take func(context.Context) (*record.Lock, error)) (*record.Lock, error) {
	waiting, cancel := context.WithTimeout(ctx, c.patience())
	defer cancel()
	lock, err := take(waiting)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return lock, err
	}
	orphans, err := orphans(holders)
	if err != nil {
		return nil, err
	}
	if len(orphans) == 0 {
		return nil, fmt.Errorf("%w: %s is still at work after %v", source.ErrTryAgain, who, c.patience())
	}
	for _, pid := range orphans {
		c.log.Warn("kill a plugin that a killed call left behind and that does not end", "pid", pid, "waited", c.patience())
		if err = syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, fmt.Errorf("kill the plugin that a killed call left behind, pid %d: %w", pid, err)
		}
	}
	dying, cancelDying := context.WithTimeout(ctx, killedTimeout)
	defer cancelDying()
	if lock, err = take(dying); err != nil {
		return nil, fmt.Errorf("%w: plugins that a killed call left behind (pids %v) cannot be killed: %w", source.ErrTryAgain, orphans, err)
	}
	return lock, nil
}

// orphans are the processes that hold a lock while no Plexus does: plugins whose call was killed.
func orphans(holders func() ([]int, error)) ([]int, error) {
	pids, err := holders()
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

// callingRuntime is the program that called Plexus, "" if that cannot be told.
func callingRuntime() string {
	name, _ := program(strconv.Itoa(os.Getppid())) // it may have ended
	return name
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
