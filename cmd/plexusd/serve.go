// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/install"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
)

// largeAtOnce is how many lookups at a time may take much memory: at most some 20 MiB each, of the 256 MiB that the manifests give.
const largeAtOnce = 4

// serveOptions are the flags of serve.
type serveOptions struct {
	nodeOptions
	kubeletOptions

	node         string
	kubeconfig   string
	listen       string
	atOnce       int
	statusForAll bool
	legacyStatus bool
	install      bool

	publishClaims bool
}

func newServe() *cobra.Command {
	o := serveOptions{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer the plugin's lookups on this node, and keep the plugin installed",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.nodeOptions.add(f)
	o.kubeletOptions.add(f)
	f.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"), "name of this node in the cluster (NODE_NAME)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server; empty for the pod's service account")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9652", "address of /healthz, /readyz and /metrics; empty for none")
	f.IntVar(&o.atOnce, "max-in-flight", 64, "how many lookups and reports are worked on at a time; more are queued")
	f.BoolVar(&o.statusForAll, "status-for-all", true, "write network-status and events also for pods that select no network")
	f.BoolVar(&o.legacyStatus, "legacy-status", false, "write the status also under its old name, k8s.v1.cni.cncf.io/networks-status")
	f.BoolVar(&o.publishClaims, "publish-claim-status", false, "tell in the status of ResourceClaims what became of their devices: interface, addresses and MAC (deploy/components/dra-status grants it)")
	f.BoolVar(&o.install, "install", false, "install the plugin, and its configuration as it has to be while the primary's changes")
	return cmd
}

func serve(ctx context.Context, o serveOptions) error {
	if o.node == "" {
		return errors.New("the name of this node is not known: set NODE_NAME (in a pod from spec.nodeName) or --node-name")
	}
	if o.atOnce < 1 {
		return fmt.Errorf("--max-in-flight %d: use at least 1", o.atOnce)
	}
	log := slog.Default()
	config, err := kube.LoadConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	client, err := kube.NewClient(config, kube.ClientOptions{Log: log})
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
	metrics := daemon.NewMetrics()
	kubelet, err := o.open(metrics.CountKubelet)
	if err != nil {
		return err
	}
	defer func() { _ = kubelet.Close() }() // nothing is asked any more
	api := daemon.Watched{Client: client, Cache: cache, Slices: resourceSlices}
	cluster := &daemon.Cluster{
		API:          api,
		Devices:      &daemon.Devices{Kubelet: kubelet, Claims: api},
		Emit:         client.StartEvents(ctx, o.node),
		Log:          log,
		InFlight:     daemon.NewSlots(o.atOnce),
		Large:        daemon.NewSlots(largeAtOnce),
		StatusForAll: o.statusForAll,
		LegacyStatus: o.legacyStatus,
	}
	source := metrics.Measure(cluster)
	tasks := []func(context.Context) error{
		func(ctx context.Context) error { cache.Run(ctx); return nil },
		func(ctx context.Context) error { resourceSlices.Run(ctx); return nil },
	}
	if o.publishClaims {
		publisher := daemon.NewPublisher(client.ApplyClaimStatus, func(ref pod.Ref) bool { _, known := cache.Known(ref); return known }, log)
		cluster.Publish = publisher.Publish
		if err = cache.OnGone(publisher.Gone); err != nil {
			return err
		}
		tasks = append(tasks, func(ctx context.Context) error { publisher.Run(ctx); return nil })
	}

	// The plugin and the socket before the configuration that makes the runtime use them. It is written before the cluster is known:
	// from then on a pod waits for its networks rather than starts without them.
	var node *install.Node
	if o.install {
		if node, err = o.asNode(); err != nil {
			return err
		}
		if err = node.Programs.Install(); err != nil {
			return err
		}
	}
	socket, err := daemon.Listen(ctx, o.socketDir)
	if err != nil {
		return err
	}
	tasks = append(tasks,
		func(ctx context.Context) error {
			return (&daemon.Server{Source: source, Log: log}).Serve(ctx, socket)
		},
	)
	alive := func(context.Context) error { return socket.Check() }
	ready := cluster.Ready // as it is, for metrics count what the plugin asks
	if node != nil {
		ready = func(ctx context.Context) error { return errors.Join(cluster.Ready(ctx), node.Ready()) }
		tasks = append(tasks, func(ctx context.Context) error { node.Keep(ctx); return nil })
	}
	tasks = append(tasks, func(ctx context.Context) error { return serveHTTP(ctx, o.listen, metrics.Handler(alive, ready)) })
	log.Info("serving", "node", o.node, "socketDir", o.socketDir, "version", version())
	return runAll(ctx, tasks)
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

func serveHTTP(ctx context.Context, address string, h http.Handler) error {
	if address == "" {
		<-ctx.Done()
		return nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--listen %s: %w: choose another address if the port is taken", address, err)
	}
	return daemon.ServeHTTP(ctx, l, h)
}
