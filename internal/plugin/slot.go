// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/source"
)

// requiredPatience is how long an undo or a CHECK waits for a slot, in all of a call.
const requiredPatience = 10 * time.Second

// aLook is how long a slot is waited for at least: time to see whether one is free.
const aLook = 10 * time.Millisecond

// limiter holds a call's slot among those of the node that run plugins ("maxParallelDelegates"). A call runs one plugin at a time, and
// keeps its slot from the first to the last.
type limiter struct {
	slots record.Slots
	most  int
	// patience is how long an ADD waits for a slot, in all of a call.
	patience time.Duration
	log      *slog.Logger
	slot     *record.Slot
	// waited is how long the call has waited, waitedRequired for what is required.
	waited, waitedRequired time.Duration
}

// acquire waits until the call has a slot. An ADD is refused after a while. What is required, to undo and to check, goes on without one
// then: plugins that hang must keep neither pods from going away nor have healthy ones taken for broken. So does everything where slots
// do not work, as on a file system without locks.
func (l *limiter) acquire(ctx context.Context, required bool) error {
	if l.slot != nil || l.most == 0 {
		return nil
	}
	waited := &l.waited
	if required {
		waited = &l.waitedRequired
	}
	start := time.Now()
	waiting, cancel := context.WithTimeout(ctx, l.patienceLeft(ctx, required))
	defer cancel()
	slot, err := l.slots.Take(waiting)
	*waited += time.Since(start)
	switch {
	case err == nil:
		l.slot = slot
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !required && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: none of the %d slots for plugins on this node came free within %v (\"maxParallelDelegates\"): see what they wait for (ps, on the node), or allow more: %w",
			source.ErrTryAgain, l.most, l.patience, err)
	}
	l.log.Warn("a plugin is called without a slot", "maxParallelDelegates", l.most, "error", err)
	return nil
}

// patienceLeft is how much longer the call waits for a slot.
func (l *limiter) patienceLeft(ctx context.Context, required bool) time.Duration {
	left := l.patience - l.waited
	if required {
		left = min(requiredPatience, l.patience) - l.waitedRequired
		if deadline, ok := ctx.Deadline(); ok {
			left = min(left, time.Until(deadline)/2) // the rest is for the plugin
		}
	}
	return max(left, aLook)
}

// release gives the slot to others.
func (l *limiter) release() {
	if l.slot == nil {
		return
	}
	if err := l.slot.Unlock(); err != nil {
		l.log.Warn("release the slot", "error", err)
	}
	l.slot = nil
}
