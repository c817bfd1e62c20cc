// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cluster is what the end-to-end tests know of a Kubernetes cluster, whoever provides it.
package cluster

import (
	"context"
	"syscall"
)

// Cluster is a running Kubernetes cluster that pods can be created in, with a default network, reference CNI plugins on each
// node, and without Plexus.
type Cluster interface {
	// Kubeconfig is the path of an administrator's kubeconfig.
	Kubeconfig() string
	// Nodes are the names of the nodes that run pods.
	Nodes() []string
	// Exec runs a program in the file system, network and processes of a node, and returns its standard output.
	Exec(ctx context.Context, node string, argv ...string) ([]byte, error)
	// LoadImage puts an image archive on every node.
	LoadImage(ctx context.Context, archive string) error
	// Stop ends a component by a signal, on every node that has it, and returns when it has ended. errors.ErrUnsupported if the
	// provider can not.
	Stop(ctx context.Context, component Component, signal syscall.Signal) error
	// Start starts a component that was stopped, and returns when it answers.
	Start(ctx context.Context, component Component) error
	// Reboot ends everything on a node at once and starts it again: network namespaces and what is in /run are gone, the disk stays.
	// It returns when the node is ready again.
	Reboot(ctx context.Context, node string) error
	// Logs copies what helps to understand a failure into a folder.
	Logs(ctx context.Context, dir string) error
	// Down removes the cluster and all its traces.
	Down(ctx context.Context) error
}

// Component is a part of a cluster that can be stopped on its own, by the name of its program.
type Component string

// The components.
const (
	Etcd              Component = "etcd"
	APIServer         Component = "kube-apiserver"
	ControllerManager Component = "kube-controller-manager"
	Scheduler         Component = "kube-scheduler"
	Kubelet           Component = "kubelet"
	Containerd        Component = "containerd"
)
