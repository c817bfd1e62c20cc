// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus"
	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/install"
	"github.com/plexus-cni/plexus/internal/kube"
)

// largeAtOnce is how many lookups at a time may take much memory: at most some 20 MiB each, of the 256 MiB that the manifests give.
const largeAtOnce = 4

// serveOptions are the flags of serve.
type serveOptions struct {
	nodeOptions
	kubeletOptions
	httpOptions

	node         string
	kubeconfig   string
	atOnce       int
	statusForAll bool
	legacyStatus bool
	install      bool
	// Others in tests only.
	peer  uint32        // root
	retry time.Duration // retryPause

	publishClaims bool
}

func newServe() *cobra.Command {
	cmd, _ := serveCommand()
	return cmd
}

// serveCommand returns the command, and the options that its flags set.
func serveCommand() (*cobra.Command, *serveOptions) {
	o := &serveOptions{retry: retryPause}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer the plugin's lookups on this node, and keep the plugin installed",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), *o) },
	}
	f := cmd.Flags()
	o.nodeOptions.add(f)
	o.kubeletOptions.add(f)
	f.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"), "name of this node in the cluster (NODE_NAME)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server; empty for the pod's service account")
	o.httpOptions.add(f)
	f.IntVar(&o.atOnce, "max-in-flight", 64, "how many lookups and reports are worked on at a time; more are queued")
	f.BoolVar(&o.statusForAll, "status-for-all", true, "write network-status and events also for pods that select no network")
	f.BoolVar(&o.legacyStatus, "legacy-status", false, "write the status also under its old name, k8s.v1.cni.cncf.io/networks-status")
	f.BoolVar(&o.publishClaims, "publish-claim-status", false, "tell in the status of ResourceClaims what became of their devices: interface, addresses and MAC (deploy/components/dra-status grants it)")
	f.BoolVar(&o.install, "install", false, "install the plugin, and its configuration as it has to be while the primary's changes")
	return cmd, o
}

func serve(ctx context.Context, o serveOptions) error {
	if o.node == "" {
		return errors.New("the name of this node is not known: set NODE_NAME (in a pod from spec.nodeName) or --node-name")
	}
	if o.atOnce < 1 {
		return fmt.Errorf("--max-in-flight %d: use at least 1", o.atOnce)
	}
	log := slog.Default()
	metrics := daemon.NewMetrics(plexus.Version())
	config, err := kube.LoadConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	client, err := kube.NewClient(config, kube.ClientOptions{Log: log, Count: metrics.CountAPI})
	if err != nil {
		return err
	}
	cache, err := kube.NewCache(client, o.node, log)
	if err != nil {
		return err
	}
	resourceSlices, err := kube.NewSlices(client, o.node, log)
	if err != nil {
		return err
	}
	kubelet, err := o.open(metrics.CountKubelet)
	if err != nil {
		return err
	}
	defer func() { _ = kubelet.Close() }() // nothing is asked any more
	events := client.NewEvents(o.node, log, metrics.CountEvent)
	api := daemon.Watched{Client: client, Cache: cache, Slices: resourceSlices}
	cluster := &daemon.Cluster{
		API:          api,
		Devices:      &daemon.Devices{Kubelet: kubelet, Claims: api},
		Emit:         events.Emit,
		Log:          log,
		InFlight:     daemon.NewSlots(o.atOnce),
		Large:        daemon.NewSlots(largeAtOnce),
		StatusForAll: o.statusForAll,
		LegacyStatus: o.legacyStatus,
	}
	tasks := []func(context.Context) error{runs(cache.Run), runs(resourceSlices.Run), runs(events.Run)}
	var publisher *daemon.Publisher
	if o.publishClaims {
		publisher = daemon.NewPublisher(client.ApplyClaimStatus, api.There, metrics.CountClaim, log)
		cluster.Publish = publisher.Publish
		if err = cache.OnGone(publisher.Gone); err != nil {
			return err
		}
		tasks = append(tasks, runs(publisher.Run))
	}

	// The plugin and the socket before the configuration that makes the runtime use them. It is written before the cluster is known:
	// from then on a pod waits for its networks rather than starts without them.
	checks := []daemon.Check{{Name: "cluster", Error: cache.Synced}}
	var node *install.Node
	if o.install {
		node = o.asNode()
		node.Retry = o.retry
		node.InstallPrograms()
		checks = append(checks, daemon.Check{Name: "installation", Error: node.Ready})
		tasks = append(tasks, node.Keep)
	}
	socket, err := daemon.Listen(ctx, o.socketDir)
	if err != nil {
		return err
	}
	server := &daemon.Server{Source: metrics.Measure(cluster), Log: log, Peer: o.peer}
	metrics.Observe(client, cache, publisher, checks...)
	alive := socket.Check
	if node != nil {
		alive = func() error { return errors.Join(socket.Check(), node.Alive()) }
	}
	handler := metrics.Handler(alive, checks...)
	tasks = append(tasks,
		func(ctx context.Context) error { return server.Serve(ctx, socket) },
		func(ctx context.Context) error { return keepHTTP(ctx, o.listen, handler, o.retry, log) },
	)
	log.Info("serving", "node", o.node, "socketDir", o.socketDir, "version", plexus.Version())
	return runAll(ctx, tasks)
}

// runs is a task that does not fail.
func runs(f func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error {
		f(ctx)
		return nil
	}
}

// runAll runs all tasks until ctx ends or one fails, which ends the others.
func runAll(ctx context.Context, tasks []func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(tasks))
	for _, task := range tasks {
		go func() {
			defer cancel()
			errs <- task(ctx)
		}()
	}
	var all []error
	for range tasks {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
