// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/plexus-cni/plexus/internal/dirwatch"
	"github.com/plexus-cni/plexus/internal/source"
)

const (
	// readinessTimeout bounds the wait for the default network's readiness file. kubelet tries a sandbox again by itself.
	readinessTimeout = 30 * time.Second
	// lookAgain is how soon the file is looked for without an event: a file system that is mounted over its folder, or that is on the
	// network, makes none, and a node may have no inotify instance left.
	lookAgain = time.Second
)

// waitForFile waits until a file exists; "" is there.
func waitForFile(ctx context.Context, path string) error {
	if path == "" || fileExists(path) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readinessTimeout)
	defer cancel()
	w, err := dirwatch.New(filepath.Dir(path))
	if err == nil {
		defer w.Close()
	}
	for !fileExists(path) {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: the default network is not ready: its readinessindicatorfile %s does not exist (waited up to %v): %w", source.ErrTryAgain, path, readinessTimeout, ctx.Err())
		}
		look, stop := context.WithTimeout(ctx, lookAgain)
		if w == nil || w.Wait(look) != nil {
			<-look.Done() // the watch does not work, or has nothing to tell
		}
		stop()
	}
	return nil
}

// fileExists reports whether something is at path.
func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
