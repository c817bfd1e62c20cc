// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command e2e prepares a machine for the end-to-end tests and cleans up after them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/plexus-cni/plexus/e2e/cluster/local"
	"github.com/plexus-cni/plexus/e2e/components"
)

const usage = `usage, in the folder of the module e2e:
  e2e deps   install the Debian packages and build the components that a local cluster takes
  e2e down   remove the cluster that a run of the suite with -keep has left`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New(usage)
	}
	cache, err := components.CacheDir(os.Getenv("PLEXUS_E2E_CACHE"))
	if err != nil {
		return err
	}
	switch args[0] {
	case "deps":
		if err := components.InstallPackages(ctx, os.Stderr); err != nil {
			return err
		}
		module, err := filepath.Abs(".")
		if err != nil {
			return err
		}
		_, err = components.Builder{Module: module, Cache: cache, Log: os.Stderr}.Build(ctx)
		return err
	case "down":
		return local.Remove(ctx, local.SuiteOptions(cache))
	}
	return errors.New(usage)
}
