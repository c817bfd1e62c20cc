// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command kubectl-plexus is `kubectl plexus`: it finds the node of a pod, and runs plexusctl there by kubectl, with the user's own rights.
// Commands that are not about a node run where it runs itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/plexus-cni/plexus/internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := newCommand(ctl.Environment{Version: version()}, &kubectl{program: "kubectl", stderr: os.Stderr}).ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		// kubectl, or plexusctl on the node, has said what there is to say.
		os.Exit(max(exit.ExitCode(), 1))
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(os.Stderr, "kubectl plexus:", strings.TrimRight(line, "\n"))
	}
	os.Exit(1)
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(unknown version)"
}
