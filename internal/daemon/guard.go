// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"

	"github.com/plexus-cni/plexus/internal/source"
)

// Slots bound how much is done at a time. Callers wait for one in the order in which they came, each until its own deadline. Nil slots
// bound nothing.
type Slots chan struct{}

// NewSlots returns n slots.
func NewSlots(n int) Slots { return make(Slots, n) }

// acquire waits for a slot. The error matches [source.ErrTryAgain].
func (s Slots) acquire(ctx context.Context) (func(), error) {
	if s == nil {
		return func() {}, nil
	}
	select { // the Go runtime serves the senders that wait for a full channel first in, first out
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the daemon is busy with %d other requests: %w", source.ErrTryAgain, cap(s), ctx.Err())
	}
}

// holdUntilDone waits for a slot and keeps it until ctx ends, as that of a request does when its response has been written.
func (s Slots) holdUntilDone(ctx context.Context) error {
	release, err := s.acquire(ctx)
	if err == nil {
		context.AfterFunc(ctx, release)
	}
	return err
}
