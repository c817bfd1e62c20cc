// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/install"
	"github.com/plexus-cni/plexus/internal/pause"
)

// What is in this file is not needed to serve lookups. It fails into the log and /readyz, and is tried again: without lookups no pod of the
// node starts.

// retryPause is the pause before what failed is tried again. The operator has to fix it first.
const retryPause = 10 * time.Second

// installation is what is installed on the node.
type installation struct {
	open  func() (*install.Node, error)
	retry time.Duration
	log   *slog.Logger

	mu   sync.Mutex
	node *install.Node // nil until there is one to keep
	err  error
}

// prepare installs the programs.
func (i *installation) prepare() {
	node, err := i.open()
	if err == nil {
		err = node.Programs.Install()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	before := i.err
	if i.err = err; err == nil {
		i.node = node
		return
	}
	if before != nil && before.Error() == err.Error() {
		return // it has been said
	}
	i.log.Error("not installed; what was there stays, and lookups are served", "error", err, "nextTry", i.retry)
}

func (i *installation) prepared() *install.Node {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.node
}

// keep keeps the node as it has to be until ctx ends.
func (i *installation) keep(ctx context.Context) error {
	for i.prepared() == nil {
		if !pause.For(ctx, i.retry) {
			return nil
		}
		i.prepare()
	}
	i.prepared().Keep(ctx)
	return nil
}

// ready is why the node is not as it has to be.
func (i *installation) ready() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.node == nil {
		return i.err
	}
	return i.node.Ready()
}

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
