// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"sync/atomic"

	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
)

// Watched is an API that answers from a watch: the daemon's.
type Watched struct {
	*kube.Client

	Cache  *kube.Cache
	Slices *kube.Slices
}

var (
	_ API    = Watched{}
	_ Claims = Watched{}
)

// Pod implements [API].
func (w Watched) Pod(ctx context.Context, ref pod.Ref) (kube.Pod, error) {
	return w.Cache.Pod(ctx, ref)
}

// KnownPod implements [API].
func (w Watched) KnownPod(_ context.Context, ref pod.Ref) (kube.Pod, bool) { return w.Cache.Known(ref) }

// There reports whether the pod with ref's UID is there. The watch can be a moment behind the plugin, so the API server confirms that it is
// not.
func (w Watched) There(ctx context.Context, ref pod.Ref) bool {
	if _, known := w.Cache.Known(ref); known {
		return true
	}
	p, err := w.Client.Pod(ctx, ref)
	return err == nil && p.Ref.UID == ref.UID
}

// KnownDefinition implements [API].
func (w Watched) KnownDefinition(ref nad.Ref) (*nad.Definition, error) {
	return w.Cache.KnownDefinition(ref)
}

// SliceDevices implements [Claims]. The slices of this node are watched, and the pod's node is this one.
func (w Watched) SliceDevices(ctx context.Context, _ string, claimed []pod.ClaimedDevice) ([]pod.Device, error) {
	return w.Slices.Devices(ctx, claimed)
}

// Ready implements [API].
func (w Watched) Ready(context.Context) error { return w.Cache.Synced() }

// Direct is an API that asks the API server: that of a one-shot child, which serves one call for one pod.
type Direct struct {
	*kube.Client

	// found is the pod of the lookup, which the report needs again.
	found atomic.Pointer[kube.Pod]
}

var (
	_ API    = (*Direct)(nil)
	_ Claims = (*Direct)(nil)
)

// Pod implements [API].
func (d *Direct) Pod(ctx context.Context, ref pod.Ref) (kube.Pod, error) {
	p, err := d.Client.Pod(ctx, ref)
	if err == nil {
		d.found.Store(&p)
	}
	return p, err
}

// KnownPod implements [API].
func (d *Direct) KnownPod(ctx context.Context, ref pod.Ref) (kube.Pod, bool) {
	if p := d.found.Load(); p != nil && p.Ref.Namespace == ref.Namespace && p.Ref.Name == ref.Name {
		return *p, true
	}
	p, err := d.Pod(ctx, ref)
	return p, err == nil
}

// KnownDefinition implements [API]: nothing is watched.
func (d *Direct) KnownDefinition(nad.Ref) (*nad.Definition, error) { return nil, kube.ErrUnavailable }

// Ready implements [API].
func (d *Direct) Ready(ctx context.Context) error { return d.Ping(ctx) }
