// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kind provides a cluster of Docker containers, for machines that have the programs docker and kind.
package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/plexus-cni/plexus/e2e/cluster"
	"github.com/plexus-cni/plexus/e2e/components"
)

// config makes two nodes that run pods, so that tests see what differs between nodes.
const config = `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
- role: worker
- role: worker
`

// Options say what cluster to make.
type Options struct {
	Name    string
	Dir     string // For the kubeconfig.
	Builder components.Builder
}

// Kind is a cluster of Docker containers. Its default network is kind's own.
type Kind struct {
	options Options
}

var _ cluster.Cluster = (*Kind)(nil)

// Up makes a cluster, after removing one of the same name, and returns when its nodes are ready.
func Up(ctx context.Context, o Options) (*Kind, error) {
	k := &Kind{options: o}
	if err := k.up(ctx); err != nil {
		return nil, fmt.Errorf("bring up kind cluster %s: %w", o.Name, err)
	}
	return k, nil
}

func (k *Kind) up(ctx context.Context) error {
	if err := errors.Join(k.Down(ctx), os.MkdirAll(k.options.Dir, 0o755)); err != nil {
		return err
	}
	file := filepath.Join(k.options.Dir, "kind.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	if err := k.kind(ctx, "create", "cluster", "--config", file, "--kubeconfig", k.Kubeconfig(), "--wait", "5m"); err != nil {
		return err
	}
	plugins, err := k.options.Builder.Plugins(ctx)
	if err != nil {
		return err
	}
	for _, node := range k.Nodes() {
		// Those that kind brings stay: they are known to work with its network.
		for _, argv := range [][]string{
			{"docker", "cp", plugins, node + ":/opt/cni/reference"},
			{"docker", "exec", node, "cp", "--no-clobber", "--recursive", "/opt/cni/reference/.", "/opt/cni/bin/"},
		} {
			if _, err := run(ctx, argv...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Kubeconfig is the path of an administrator's kubeconfig.
func (k *Kind) Kubeconfig() string { return filepath.Join(k.options.Dir, "kubeconfig") }

// Nodes are the two workers.
func (k *Kind) Nodes() []string {
	return []string{k.options.Name + "-worker", k.options.Name + "-worker2"}
}

// Exec runs a program on a node.
func (k *Kind) Exec(ctx context.Context, node string, argv ...string) ([]byte, error) {
	return run(ctx, append([]string{"docker", "exec", node}, argv...)...)
}

// LoadImage loads an image archive on all nodes.
func (k *Kind) LoadImage(ctx context.Context, archive string) error {
	return k.kind(ctx, "load", "image-archive", archive)
}

// Stop ends the kubelet or containerd on all workers; other components run as pods of the control plane.
func (k *Kind) Stop(ctx context.Context, component cluster.Component, signal syscall.Signal) error {
	return k.systemctl(ctx, component,
		[]string{"kill", fmt.Sprintf("--signal=%d", signal), "--kill-whom=main"}, []string{"stop"})
}

// Start starts the kubelet or containerd on all workers.
func (k *Kind) Start(ctx context.Context, component cluster.Component) error {
	return k.systemctl(ctx, component, []string{"start"})
}

func (k *Kind) systemctl(ctx context.Context, component cluster.Component, verbs ...[]string) error {
	if component != cluster.Kubelet && component != cluster.Containerd {
		return fmt.Errorf("%s of a kind cluster: %w", component, errors.ErrUnsupported)
	}
	for _, node := range k.Nodes() {
		for _, verb := range verbs {
			if _, err := k.Exec(ctx, node, append(append([]string{"systemctl"}, verb...), string(component))...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Reboot restarts a node's container.
func (k *Kind) Reboot(ctx context.Context, node string) error {
	if _, err := run(ctx, "docker", "restart", "--time=0", node); err != nil {
		return err
	}
	_, err := run(ctx, "docker", "exec", k.options.Name+"-control-plane", "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf",
		"wait", "--for=condition=Ready", "--timeout=5m", "node/"+node)
	return err
}

// Logs exports the logs of all nodes.
func (k *Kind) Logs(ctx context.Context, dir string) error { return k.kind(ctx, "export", "logs", dir) }

// Down removes the cluster.
func (k *Kind) Down(ctx context.Context) error { return k.kind(ctx, "delete", "cluster") }

func (k *Kind) kind(ctx context.Context, args ...string) error {
	_, err := run(ctx, append(append([]string{"kind"}, args...), "--name", k.options.Name)...)
	return err
}

func run(ctx context.Context, argv ...string) ([]byte, error) {
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, fmt.Errorf("%w: the provider kind takes the programs docker and kind", err)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
