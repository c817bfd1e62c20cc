// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pause waits between two tries.
package pause

import (
	"context"
	"time"
)

// For waits for d, or until ctx ends, and reports whether ctx goes on.
func For(ctx context.Context, d time.Duration) bool {
	short, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-short.Done()
	return ctx.Err() == nil
}
