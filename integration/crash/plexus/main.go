// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command plexus is the plugin of cmd/plexus, for schedules that kill it at a step: the environment says at which one. Whoever looks
// at processes finds it under the name of the real one, as it has to be.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/plugin"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/internal/source/remote"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx)
	stop()
	if err != nil {
		_ = err.Print()
		os.Exit(1)
	}
}

func run(ctx context.Context) *types.Error {
	p := &plugin.Plugin{
		Environ:       os.Environ(),
		Source:        openSource,
		Kernel:        netdev.NewLinux(),
		Log:           func(config.Log) *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) },
		DeviceInfoDir: "/var/run/k8s.cni.cncf.io/devinfo",
		LockTimeout:   lockTimeout(),
		Step:          killer(),
	}
	verb := func(f func(context.Context, *skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(a *skel.CmdArgs) error {
			if err := f(ctx, a); err != nil {
				return plugin.Error(err)
			}
			return nil
		}
	}
	return skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: verb(func(ctx context.Context, a *skel.CmdArgs) error {
			result, err := p.Add(ctx, a)
			if err != nil {
				return err
			}
			return result.Print()
		}),
		Del: verb(p.Del), Check: verb(p.Check), GC: verb(p.GC), Status: verb(p.Status),
	}, version.All, "CNI meta-plugin Plexus, for crash schedules")
}

func openSource(c *config.Config) (source.Source, error) {
	switch {
	case c.DaemonSocketDir != "":
		return remote.NewSocket(c.DaemonSocketDir), nil
	case c.ManifestDir != "":
		return manifest.New(c.ManifestDir), nil
	}
	return nil, nil // no source is a choice
}

// lockTimeout is how long other calls are waited for: the product's own time, unless PLEXUS_LOCK_TIMEOUT says another.
func lockTimeout() time.Duration {
	d, err := time.ParseDuration(os.Getenv("PLEXUS_LOCK_TIMEOUT"))
	if err != nil {
		return 0
	}
	return d
}

// killer kills this process at the step whose number, from 0, is in PLEXUS_KILL_STEP; it tells the step's name on stderr.
func killer() func(string) error {
	left, err := strconv.Atoi(os.Getenv("PLEXUS_KILL_STEP"))
	if err != nil {
		return nil
	}
	return func(name string) error {
		if left--; left >= 0 {
			return nil
		}
		fmt.Fprintf(os.Stderr, "killed at step %s\n", name)
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}
