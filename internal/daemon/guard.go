// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"

	"github.com/plexus-cni/plexus/internal/source"
)

// Limit bounds how many lookups and reports src works on at a time. The others wait in the order in which they came, each
// until its own deadline.
func Limit(src source.Source, atOnce int) source.Source {
	return &limited{Source: src, slots: make(chan struct{}, atOnce)}
}

type limited struct {
	source.Source

	// slots are taken by sending: the runtime serves the senders that wait for a full channel first in, first out.
	slots chan struct{}
}

func (l *limited) enter(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: the daemon is busy with %d other calls: %w", source.ErrTryAgain, cap(l.slots), ctx.Err())
	}
}

func (l *limited) leave() { <-l.slots }

func (l *limited) Lookup(ctx context.Context, q source.Query) (*source.Selection, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.leave()
	return l.Source.Lookup(ctx, q)
}

func (l *limited) Report(ctx context.Context, r source.Report) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.leave()
	return l.Source.Report(ctx, r)
}
