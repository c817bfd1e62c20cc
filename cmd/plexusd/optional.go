// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/pause"
)

// What is in this file is not needed to serve lookups. It fails into the log and /readyz, and is tried again: without lookups no pod of the
// node starts.

// retryPause is the pause before what failed is tried again. The operator has to fix it first.
const retryPause = 10 * time.Second

// keepHTTP serves probes and metrics until ctx ends; with address "" nothing.
func keepHTTP(ctx context.Context, address string, h http.Handler, retry time.Duration, log *slog.Logger) error {
	said := ""
	for address != "" && ctx.Err() == nil {
		if err := serveHTTP(ctx, address, h); err != nil && err.Error() != said {
			said = err.Error()
			log.Error("no probes and metrics; lookups are served", "error", err, "nextTry", retry)
		}
		pause.For(ctx, retry)
	}
	<-ctx.Done()
	return nil
}

func serveHTTP(ctx context.Context, address string, h http.Handler) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--listen %s: %w: choose another address if the port is taken", address, err)
	}
	return daemon.ServeHTTP(ctx, l, h)
}
