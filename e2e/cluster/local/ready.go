// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// ready waits until the node says that it is ready since this boot, and pods can be created.
func (l *Local) ready(ctx context.Context, bootID string) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	if err := l.await(ctx, "nodes", "", NodeName, &corev1.Node{}, func(o runtime.Object) bool {
		n, ok := o.(*corev1.Node)
		return ok && nodeReady(n, strings.TrimSpace(bootID))
	}); err != nil {
		return fmt.Errorf("node %s is not ready: %w: see %s", NodeName, err, l.path("log", "kubelet.log"))
	}
	if err := l.await(ctx, "serviceaccounts", "default", "default", &corev1.ServiceAccount{}, func(o runtime.Object) bool {
		_, err := meta.Accessor(o)
		return err == nil
	}); err != nil {
		return fmt.Errorf("no service account in namespace default: %w: see %s", err, l.path("log", "kube-controller-manager.log"))
	}
	return nil
}

// nodeReady says whether the node is ready, since the boot of the ID, and takes pods.
func nodeReady(n *corev1.Node, bootID string) bool {
	for _, taint := range n.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable {
			return false
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue && n.Status.NodeInfo.BootID == bootID
		}
	}
	return false
}

// await watches one object until it is as it should be.
func (l *Local) await(ctx context.Context, resource, namespace, name string, kind runtime.Object, is func(runtime.Object) bool) error {
	list := cache.NewListWatchFromClient(l.client.CoreV1().RESTClient(), resource, namespace, fields.OneTermEqualSelector("metadata.name", name))
	_, err := watchtools.UntilWithSync(ctx, list, kind, nil, func(e watch.Event) (bool, error) {
		return e.Type != watch.Deleted && is(e.Object), nil
	})
	return err
}
