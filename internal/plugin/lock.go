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
// the pod's event says what is waited for, and than the minute that containerd has for the DEL of a failed sandbox.
const lockTimeout = 40 * time.Second

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

// firstLook is how soon it is looked who holds a lock that is waited for; further looks come at doubled intervals.
const firstLook = time.Second

// acquireLock takes a lock. A killed call's plugins hold it on until they have ended. Those that take longer than their call would have let
// them are killed, and all of them when the wait is over, so that a plugin which hangs for ever keeps no pod from going away.
func (c *call) acquireLock(ctx context.Context, who string, holders func() ([]int, error), take func(context.Context) (*record.Lock, error)) (*record.Lock, error) {
	end := time.Now().Add(c.patience())
	for look := firstLook; ; look *= 2 {
		waiting, cancel := context.WithTimeout(ctx, min(look, time.Until(end)))
		lock, err := take(waiting)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return lock, err
		}
		over := !time.Now().Before(end)
		orphans, err := orphans(holders)
		switch {
		case err != nil:
			return nil, err
		case len(orphans) == 0 && over:
			return nil, fmt.Errorf("%w: %s is still at work after %v", source.ErrTryAgain, who, c.patience())
		case len(orphans) > 0 && (over || c.overdue(orphans)):
			return c.killOrphans(ctx, orphans, take)
		}
	}
}

// overdue reports whether all processes have had the time of a plugin's call.
func (c *call) overdue(pids []int) bool {
	for _, pid := range pids {
		if age, err := age(pid); err == nil && age <= c.cfg.DelegateTimeout {
			return false
		}
	}
	return true
}

// killOrphans kills plugins that a killed call left behind, and takes their lock.
func (c *call) killOrphans(ctx context.Context, pids []int, take func(context.Context) (*record.Lock, error)) (*record.Lock, error) {
	for _, pid := range pids {
		c.log.Warn("kill a plugin that a killed call left behind and that does not end", "pid", pid)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, fmt.Errorf("kill the plugin that a killed call left behind, pid %d: %w", pid, err)
		}
	}
	dying, cancel := context.WithTimeout(ctx, killedTimeout)
	defer cancel()
	lock, err := take(dying)
	if err != nil {
		return nil, fmt.Errorf("%w: plugins that a killed call left behind (pids %v) cannot be killed: %w", source.ErrTryAgain, pids, err)
	}
	return lock, nil
}

// age is for how long a process has run (proc(5): starttime, in hundredths of a second since the boot).
func age(pid int) (time.Duration, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	var up float64
	if _, err = fmt.Sscan(string(uptime), &up); err != nil {
		return 0, fmt.Errorf("/proc/uptime: %w", err)
	}
	const startTime = 22 - 3 // the fields after the name, which is in brackets and may have anything in it
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) <= startTime {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	started, err := strconv.ParseFloat(fields[startTime], 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return time.Duration((up - started/100) * float64(time.Second)), nil
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
