// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package daemon is the node's daemon: it answers the plugin's lookups from what it knows of the cluster, and tells the cluster what
// pods were given. It touches neither network namespaces nor interfaces, and keeps nothing of a call: it can be restarted at any time.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

// API is what the daemon asks of the cluster.
type API interface {
	// Pod finds a pod, and waits for one that may come; see [kube.Cache.Pod].
	Pod(ctx context.Context, ref pod.Ref) (kube.Pod, error)
	// KnownPod is a pod that can be had without waiting for it.
	KnownPod(ctx context.Context, ref pod.Ref) (kube.Pod, bool)
	// KnownDefinition is a NetworkAttachmentDefinition that can be had from memory; see [kube.Cache.KnownDefinition].
	KnownDefinition(ref nad.Ref) (*nad.Definition, error)
	// Definition asks the API server for a NetworkAttachmentDefinition; see [kube.Client.Definition].
	Definition(ctx context.Context, ref nad.Ref) (*nad.Definition, error)
	// PatchAnnotations sets annotations of a pod; see [kube.Client.PatchAnnotations].
	PatchAnnotations(ctx context.Context, ref pod.Ref, values map[string]string) error
	// Ready reports whether the other calls can be answered now.
	Ready(ctx context.Context) error
}

// Cluster is the [source.Source] of a Kubernetes cluster.
type Cluster struct {
	API API
	// Devices finds devices of pods; nil where none are known.
	Devices *Devices
	// Publish tells what became of devices of ResourceClaims, without waiting for it; nil for nobody.
	Publish func(pod.Ref, []source.Interface)
	// Emit tells an event about a pod, without waiting for it.
	Emit func(pod.Ref, kube.Event)
	Log  *slog.Logger
	// InFlight has a slot for each lookup and report that is worked on at a time.
	InFlight Slots
	// Large has a slot for each lookup at a time that takes much memory: of definitions that the API server is asked for, or that are long.
	Large Slots
	// StatusForAll writes a network status, and events, also for pods that select no network.
	StatusForAll bool
	// LegacyStatus writes the status under its name of NPWG v1.0 too.
	LegacyStatus bool
}

var _ source.Source = (*Cluster)(nil)

// Lookup implements [source.Source].
func (c *Cluster) Lookup(ctx context.Context, q source.Query) (*source.Selection, error) {
	if q.Pod.IsZero() {
		return c.selectNetworks(ctx, q, source.Pod{})
	}
	// Before there is a slot: pods that nobody knows are waited for, and those that are known do not wait behind them.
	p, err := c.API.Pod(ctx, q.Pod)
	if errors.Is(err, kube.ErrPodGone) && q.PodOptional {
		return c.selectNetworks(ctx, q, source.Pod{})
	}
	if err != nil {
		return nil, retriable(err)
	}
	release, err := c.InFlight.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	selection, err := c.selectNetworks(ctx, q, source.Pod{Ref: p.Ref, Annotations: p.Annotations})
	if err != nil {
		c.emitFailure(p.Ref, err)
		return nil, err
	}
	if len(selection.Warnings) > 0 {
		c.Emit(p.Ref, kube.Event{Warning: true, Reason: "NetworkSelectionUnclear", Text: strings.Join(selection.Warnings, "; ")})
	}
	return selection, nil
}

func (c *Cluster) selectNetworks(ctx context.Context, q source.Query, p source.Pod) (*source.Selection, error) {
	return source.Select(q, p, c.definitions(ctx, q), c.devicesOf(ctx, q.Pod))
}

const (
	// maxConfigBytes bounds the configurations of one pod's networks together. A definition has up to 1 MiB, and an annotation of a few
	// hundred bytes can name it 256 times; all real networks of a pod together have some KiB.
	maxConfigBytes = 2 << 20
	// largeConfigBytes is what a lookup may hold without a slot of Cluster.Large: the limit of Cluster.InFlight times this, and the same
	// again for encoding it, fits into the daemon's memory.
	largeConfigBytes = 128 << 10
)

// definitions finds the definitions for one lookup: each once, and no more of them than fit into its response.
func (c *Cluster) definitions(ctx context.Context, q source.Query) source.Definitions {
	found := map[nad.Ref]*nad.Definition{}
	sum := 0
	large := sync.OnceValue(func() error { return c.Large.holdUntilDone(ctx) })
	return func(ref nad.Ref) (*nad.Definition, error) {
		d, ok := found[ref]
		if !ok {
			var err error
			if d, err = c.definition(ctx, q, ref, large); err != nil {
				return nil, retriable(err)
			}
			found[ref] = d
		}
		if sum += len(d.Config); sum > maxConfigBytes {
			return nil, fmt.Errorf("%w: up to network %s the configurations of the pod's networks have %d bytes together, at most %d are accepted: select fewer networks, or shorten their spec.config", annotations.ErrInvalid, ref, sum, maxConfigBytes)
		}
		if sum > largeConfigBytes {
			return d, large()
		}
		return d, nil
	}
}

// definition finds one definition in memory or, at the cost of a large slot, at the API server: if it is not known here, or before a pod is
// refused for one that it selects, which may have been created just before the pod. A network that the configuration names may be a file
// of the node, so nobody is asked for it again at each ADD.
func (c *Cluster) definition(ctx context.Context, q source.Query, ref nad.Ref, large func() error) (*nad.Definition, error) {
	d, err := c.API.KnownDefinition(ref)
	if err == nil || errors.Is(err, nad.ErrNotFound) && configures(q, ref) {
		return d, err
	}
	if err = large(); err != nil {
		return nil, err
	}
	return c.API.Definition(ctx, ref)
}

// configures reports whether the plugin's configuration names a network by reference.
func configures(q source.Query, ref nad.Ref) bool {
	return slices.ContainsFunc(append([]string{q.ClusterNetwork}, q.DefaultNetworks...), func(name string) bool {
		named, err := nad.ParseRef(name, q.NetworksNamespace)
		return err == nil && named == ref
	})
}

// devicesOf is how the devices of a pod are found. They are asked for when all definitions are there, so once.
func (c *Cluster) devicesOf(ctx context.Context, asked pod.Ref) source.Devices {
	if c.Devices == nil {
		return nil
	}
	return func(p source.Pod, needs []source.Need) ([]pod.Device, error) {
		given, err := c.Devices.Of(ctx, asked, p.Ref, needs)
		return given, retriable(err)
	}
}

// retriable marks what a later try can get.
func retriable(err error) error {
	if errors.Is(err, kube.ErrUnavailable) || errors.Is(err, kube.ErrPodGone) {
		return fmt.Errorf("%w: %w", source.ErrTryAgain, err)
	}
	return err
}

// emitFailure tells the pod's owner what to fix. What a later try gets is not theirs to fix.
func (c *Cluster) emitFailure(ref pod.Ref, err error) {
	if errors.Is(err, source.ErrTryAgain) {
		return
	}
	reason := "NetworkSelectionFailed"
	switch {
	case errors.Is(err, nad.ErrNotFound):
		reason = "NoNetworkFound"
	case errors.Is(err, nad.ErrForbidden):
		reason = "NetworkForbidden"
	case errors.Is(err, source.ErrNoDevice):
		reason = "NoDevice"
	case errors.Is(err, annotations.ErrInvalid):
		reason = "InvalidNetworkSelection"
	}
	c.Emit(ref, kube.Event{Warning: true, Reason: reason, Text: err.Error()})
}

// Report implements [source.Source]: one patch of the pod's network-status annotation, and an event for each interface. A pod that
// is gone meanwhile is none of the plugin's business: its DEL is on the way.
func (c *Cluster) Report(ctx context.Context, r source.Report) error {
	release, err := c.InFlight.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	ref := r.Pod
	p, known := c.API.KnownPod(ctx, ref)
	if known {
		if ref.UID == "" || annotations.IsMirror(p.Annotations, ref.UID) {
			ref = p.Ref
		}
	}
	// A status that the pod came with is nobody's word: it is replaced, also by none.
	_, has := p.Annotations[annotations.NetworkStatusKey]
	_, hasLegacy := p.Annotations[annotations.LegacyNetworkStatusKey]
	told := c.StatusForAll || !known || selectsNetworks(p)
	if !has && !hasLegacy && (!told || len(r.Status)+len(r.Interfaces) == 0) {
		c.publish(ref, r.Interfaces)
		return nil
	}
	err = c.patchStatus(ctx, ref, r.Status, c.LegacyStatus || hasLegacy)
	if errors.Is(err, kube.ErrPodGone) {
		c.Log.Warn("no network status: the pod was deleted or replaced while it was attached", "pod", ref.String(), "error", err)
		return nil
	}
	if err != nil {
		return retriable(err)
	}
	c.publish(ref, r.Interfaces)
	if told {
		for _, i := range r.Interfaces {
			c.Emit(ref, kube.Event{Reason: "AddedInterface", Text: added(i)})
		}
	}
	return nil
}

func (c *Cluster) publish(ref pod.Ref, interfaces []source.Interface) {
	if c.Publish != nil {
		c.Publish(ref, interfaces)
	}
}

func selectsNetworks(p kube.Pod) bool {
	return p.Annotations[annotations.NetworksKey] != "" || p.Annotations[annotations.DefaultNetworkKey] != ""
}

func (c *Cluster) patchStatus(ctx context.Context, ref pod.Ref, status []annotations.Status, legacy bool) error {
	text, err := annotations.FormatStatus(status)
	if err != nil {
		return fmt.Errorf("network status of pod %s: %w", ref, err)
	}
	patch := map[string]string{annotations.NetworkStatusKey: text}
	if legacy {
		patch[annotations.LegacyNetworkStatusKey] = text
	}
	return c.API.PatchAnnotations(ctx, ref, patch)
}

// added words an interface as users of the other meta-plugins know it: Add net1 [10.1.0.2/24] from default/a.
func added(i source.Interface) string {
	addresses := make([]string, 0, len(i.Addresses))
	for _, a := range i.Addresses {
		addresses = append(addresses, a.String())
	}
	return fmt.Sprintf("Add %s [%s] from %s", i.Name, strings.Join(addresses, " "), i.Network)
}

// Ready implements [source.Source].
func (c *Cluster) Ready(ctx context.Context) error { return retriable(c.API.Ready(ctx)) }
