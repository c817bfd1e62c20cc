// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command plexusctl attaches pods to their networks without a cluster: it does what a container runtime does, with a folder of
// manifests in the place of an API server.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/plexus-cni/plexus/internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx)
	stop()
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(os.Stderr, "plexusctl:", strings.TrimRight(line, "\n"))
	}
	os.Exit(1)
}

func run(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the folder of plexusctl: %w", err)
	}
	env := ctl.Environment{Version: version(), BinDir: filepath.Dir(self), Colour: colour()}
	return ctl.Command(env).ExecuteContext(ctx) //nolint:contextcheck // cobra hands ctx to the commands.
}

// colour follows https://no-color.org and looks whether a terminal shows the output.
func colour() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(unknown version)"
}
