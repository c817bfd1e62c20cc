// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package suite has the end-to-end tests. They share one cluster.
package suite

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/plexus-cni/plexus/e2e/cluster"
	"github.com/plexus-cni/plexus/e2e/cluster/kind"
	"github.com/plexus-cni/plexus/e2e/cluster/local"
	"github.com/plexus-cni/plexus/e2e/components"
	"github.com/plexus-cni/plexus/e2e/image"
)

const (
	// testImage is what the pods run.
	testImage = "e2e.plexus.local/busybox:1"
	// stepLimit is for one thing to come about: a pod to be ready, an object to go. On an idle machine each takes about a second.
	stepLimit = 90 * time.Second
)

// environment is what all tests share.
type environment struct {
	cluster cluster.Cluster
	config  *rest.Config
	client  kubernetes.Interface
	cache   string
	options
}

// options are how the tests use the cluster.
type options struct {
	install   string // How Plexus is installed: installByKustomize or installByHelm.
	namespace string // Where its daemon is.
	from      string // The commit that is upgraded from.
}

const (
	installByKustomize = "kustomize"
	installByHelm      = "helm"
)

var env environment

func TestMain(m *testing.M) {
	provider := flag.String("provider", "local", "who provides the cluster: local or kind")
	keep := flag.Bool("keep", false, "leave the cluster running at the end")
	logs := flag.String("logs", "", "folder for the cluster's logs when a test fails; empty for one in the cache folder")
	var o options
	flag.StringVar(&o.install, "install", installByKustomize, "how Plexus is installed: "+installByKustomize+" or "+installByHelm+", which is the chart")
	flag.StringVar(&o.namespace, "namespace", "plexus-system", "namespace that Plexus is installed in")
	flag.StringVar(&o.from, "from", formerRelease, "commit of Plexus that is upgraded from, and gone back to")
	flag.Parse()
	if o.install != installByKustomize && o.install != installByHelm {
		fmt.Fprintf(os.Stderr, "e2e: -install %q: must be %s or %s\n", o.install, installByKustomize, installByHelm)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, m, *provider, *keep, *logs, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M, provider string, keep bool, logs string, o options) (int, error) {
	cache, err := components.CacheDir(os.Getenv("PLEXUS_E2E_CACHE"))
	if err != nil {
		return 0, err
	}
	if logs == "" {
		logs = filepath.Join(cache, "logs")
	}
	if err := os.RemoveAll(logs); err != nil {
		return 0, err
	}
	start := time.Now()
	up, err := bringUp(ctx, provider, cache, keep)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "cluster up after %.1f s: export KUBECONFIG=%s\n", time.Since(start).Seconds(), up.Kubeconfig())

	// Tests do not see the interrupt, and would go on.
	stopped := context.AfterFunc(ctx, func() {
		fmt.Fprintln(os.Stderr, "interrupted: removing the cluster")
		_ = up.Down(context.WithoutCancel(ctx)) // The next run removes what is left.
		os.Exit(1)
	})
	defer stopped()

	code := 1
	if err = join(ctx, up, cache, o); err == nil {
		code = m.Run()
	}
	if code != 0 {
		err = errors.Join(err, up.Logs(context.WithoutCancel(ctx), logs))
		fmt.Fprintf(os.Stderr, "logs of the cluster are in %s\n", logs)
	}
	if keep {
		fmt.Fprintln(os.Stderr, "the cluster stays: `make e2e-down` removes it")
		return code, err
	}
	return code, errors.Join(err, up.Down(context.WithoutCancel(ctx)))
}

// bringUp makes the cluster.
func bringUp(ctx context.Context, provider, cache string, keep bool) (cluster.Cluster, error) {
	module, err := filepath.Abs("..")
	if err != nil {
		return nil, err
	}
	builder := components.Builder{Module: module, Cache: cache, Log: os.Stderr}
	switch provider {
	case "local":
		binaries, err := builder.Find()
		if err != nil {
			return nil, err
		}
		options := local.SuiteOptions(cache)
		options.Stay, options.Builder, options.Components = keep, builder, binaries
		return local.Up(ctx, options)
	case "kind":
		return kind.Up(ctx, kind.Options{Name: "plexus-e2e", Dir: filepath.Join(cache, "cluster-kind"), Builder: builder})
	}
	return nil, fmt.Errorf("provider %q: must be local or kind", provider)
}

// join makes the environment of the tests from a cluster.
func join(ctx context.Context, up cluster.Cluster, cache string, o options) error {
	config, err := clientcmd.BuildConfigFromFlags("", up.Kubeconfig())
	if err != nil {
		return err
	}
	config.QPS = -1 // No limit.
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	spec, err := image.Busybox(ctx, testImage)
	if err != nil {
		return err
	}
	archive := filepath.Join(cache, "busybox.tar")
	if err := image.Write(archive, spec); err != nil {
		return err
	}
	if err := up.LoadImage(ctx, archive); err != nil {
		return err
	}
	env = environment{cluster: up, config: config, client: client, cache: cache, options: o}
	return nil
}
