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
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus"
	"github.com/plexus-cni/plexus/internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := report(newCommand(ctl.Environment{Version: plexus.Version()}, &kubectl{program: "kubectl", stderr: os.Stderr}).ExecuteContextC(ctx))
	stop()
	os.Exit(code)
}

// report prints an error and returns the exit status: the highest, where several nodes were asked.
func report(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	// Only what is joined at the top: below it stands which node an error is of.
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		code := 0
		for _, each := range joined.Unwrap() {
			code = max(code, report(cmd, each))
		}
		return code
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		// kubectl, or plexusctl on the node, has said what there is to say.
		return max(exit.ExitCode(), 1)
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(os.Stderr, "kubectl plexus:", strings.TrimRight(line, "\n"))
	}
	return ctl.ExitCode(cmd, err)
}
