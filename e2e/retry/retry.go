// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package retry repeats what downloads.
package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Limits bound the attempts.
type Limits struct {
	Attempts int
	Pause    time.Duration // Before the second attempt. It doubles with each further one.
}

// Fetch is for downloads: what fails for a reason of the network, or because a mirror is exchanging its files, often goes well a
// little later.
func Fetch() Limits { return Limits{Attempts: 3, Pause: 3 * time.Second} }

// final is an error that no further attempt changes.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// Final keeps Do from trying again.
func Final(err error) error { return final{err} }

// Do calls f until it succeeds or fails with [Final], and says in log that it tries again.
func Do(ctx context.Context, limits Limits, log io.Writer, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if last, ok := errors.AsType[final](err); ok {
			return last.error
		}
		if err == nil || n >= limits.Attempts || ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(log, "trying again in %s: %v\n", limits.Pause, err)
		select {
		case <-time.After(limits.Pause):
			limits.Pause *= 2
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
