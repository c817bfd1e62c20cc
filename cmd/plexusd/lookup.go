// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source/remote"
)

// eventPatience bounds an event of a child: nobody waits for it but the child itself.
const eventPatience = time.Second

func newLookup() *cobra.Command {
	var kubeconfig string
	var ko kubeletOptions
	cmd := &cobra.Command{
		Use:   "lookup",
		Short: "Serve one session with the plugin on stdin and stdout, without a daemon",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return lookup(cmd.Context(), kubeconfig, ko) },
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server; empty for the pod's service account")
	ko.add(cmd.Flags())
	return cmd
}

func lookup(ctx context.Context, kubeconfig string, ko kubeletOptions) error {
	config, err := kube.LoadConfig(kubeconfig)
	if err != nil {
		return err
	}
	client, err := kube.NewClient(config, kube.ClientOptions{})
	if err != nil {
		return err
	}
	// By the node of the token the API server judges whose events these are; the host's name may be another one.
	host := kube.TokenNode(config)
	if host == "" {
		if host, err = os.Hostname(); err != nil {
			return err
		}
	}
	kubelet, err := ko.open(nil)
	if err != nil {
		return err
	}
	defer func() { _ = kubelet.Close() }() // nothing is asked any more
	api := &daemon.Direct{Client: client}
	var events sync.WaitGroup
	defer events.Wait()
	cluster := &daemon.Cluster{
		API:     api,
		Devices: &daemon.Devices{Kubelet: kubelet, Claims: api},
		Emit: func(ref pod.Ref, e kube.Event) {
			events.Go(func() {
				short, cancel := context.WithTimeout(ctx, eventPatience)
				defer cancel()
				if err := client.SendEvent(short, host, ref, e); err != nil {
					slog.Warn("event not sent", "error", err)
				}
			})
		},
		Log:          slog.Default(),
		StatusForAll: true,
	}
	return remote.Serve(ctx, stdio{}, cluster)
}

// stdio is the session's stream.
type stdio struct{}

func (stdio) Read(p []byte) (int, error)  { return os.Stdin.Read(p) }
func (stdio) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (stdio) Close() error                { return errors.Join(os.Stdin.Close(), os.Stdout.Close()) }
