// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command plexusctl shows what Plexus did for the pods of a node and what is wrong with it, checks network definitions, and attaches pods
// without a cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus"
	"github.com/plexus-cni/plexus/internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx)
	stop()
	os.Exit(code)
}

// run returns the exit status.
func run(ctx context.Context) int {
	self, err := os.Executable()
	if err != nil {
		return report(nil, fmt.Errorf("find the folder of plexusctl: %w", err))
	}
	env := ctl.Environment{Version: plexus.Version(), BinDir: filepath.Dir(self), Colour: colour()}
	return report(ctl.Command(env).ExecuteContextC(ctx)) //nolint:contextcheck // cobra hands ctx to the commands.
}

// report prints an error, one line for each thing that it names, and returns the exit status.
func report(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(os.Stderr, "plexusctl:", strings.TrimRight(line, "\n"))
	}
	return ctl.ExitCode(cmd, err)
}

// colour follows https://no-color.org and looks whether a terminal shows the output.
func colour() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
