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

// readinessTimeout bounds the wait for the default network's readiness file. kubelet tries a sandbox again by itself.
const readinessTimeout = 30 * time.Second

// waitForFile waits until a file exists; "" is there.
func waitForFile(ctx context.Context, path string) error {
	if path == "" || fileExists(path) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readinessTimeout)
	defer cancel()
	w, err := dirwatch.New(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer w.Close()
	for !fileExists(path) {
		if err := w.Wait(ctx); err != nil {
			return fmt.Errorf("%w: the default network is not ready: its readinessindicatorfile %s does not exist (waited up to %v): %w", source.ErrTryAgain, path, readinessTimeout, err)
		}
	}
	return nil
}

// fileExists reports whether something is at path.
func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
