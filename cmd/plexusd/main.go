// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command plexusd is the node's daemon of Plexus: it tells the plugin which networks pods select, and the cluster what they were
// given; and it puts the plugin onto the node.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/plexus-cni/plexus"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "plexusd:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	var level slog.Level
	root := &cobra.Command{
		Use:           "plexusd",
		Short:         "The node daemon of the CNI meta-plugin Plexus",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       plexus.Version(),
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			slog.SetDefault(log)
			klog.SetSlogLogger(log) // what client-go has to say
			return nil
		},
	}
	root.PersistentFlags().TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	root.AddCommand(newServe(), newLookup(), newInstall(), newUninstall(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "plexusd", plexus.Version()) },
	})
	return root
}

// fromEnvironment sets the flags that are not given by variables: --conf-dir is PLEXUSD_CONF_DIR. Patches of a DaemonSet add variables
// one by one, while arguments are a list that the next patch replaces.
func fromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var all []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "PLEXUSD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := lookup(name); ok && !f.Changed {
			if err := flags.Set(f.Name, value); err != nil {
				all = append(all, fmt.Errorf("environment variable %s: %w", name, err))
			}
		}
	})
	return errors.Join(all...)
}
