// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
	nadv1 "github.com/plexus-cni/plexus/nad/v1"
)

const (
	// maxKeptBytes is the longest configuration that is kept in memory. Real ones are shorter.
	maxKeptBytes = 16 << 10
	// maxKeptSum bounds the configurations that are kept, of all definitions in the cluster. What is beyond is asked for when a pod
	// needs it.
	maxKeptSum = 16 << 20
	// notKept marks a definition whose configuration is not kept, in the place of labels, of which none is kept. It can be no label.
	notKept = "configuration not kept"
	// staleAfter is how long definitions are answered from memory without a watch. After that the API server is asked: access that was
	// taken away by deleting a definition does not come back by way of a broken watch.
	staleAfter = 5 * time.Minute
)

// mirrorPatience is how long a pod is waited for that the API server says it has not. The kubelet makes sandboxes of pods that it
// has from there, but for static ones: their mirror can come a moment later.
const mirrorPatience = 5 * time.Second

// Cache is what a watch knows of the pods of one node, and of all NetworkAttachmentDefinitions. It answers from memory, also
// while the API server is away.
type Cache struct {
	client *Client
	node   string
	log    *slog.Logger
	pods   cache.SharedIndexInformer
	nads   cache.SharedIndexInformer

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when a pod has changed
	kept    keptSizes
}

// keptSizes are the lengths of the configurations that are kept, by the UID of their definition.
type keptSizes struct {
	of  map[types.UID]int
	sum int
}

// set notes how much is kept of a definition, and reports whether that much may be. It notes 0 if not.
func (k *keptSizes) set(uid types.UID, size int) bool {
	k.sum -= k.of[uid]
	delete(k.of, uid)
	if k.sum+size > maxKeptSum {
		return false
	}
	if size > 0 {
		k.of[uid] = size
		k.sum += size
	}
	return true
}

// NewCache returns a Cache that is empty until Run.
func NewCache(client *Client, node string, log *slog.Logger) (*Cache, error) {
	c := &Cache{client: client, node: node, log: log, changed: make(chan struct{}), kept: keptSizes{of: map[types.UID]int{}}}
	c.pods = cache.NewSharedIndexInformer(c.podWatch(), &metav1.PartialObjectMetadata{}, 0, nil)
	c.nads = cache.NewSharedIndexInformer(c.nadWatch(), &nadv1.NetworkAttachmentDefinition{}, 0, nil)
	_, handlerErr := c.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.wake() },
		UpdateFunc: func(any, any) { c.wake() },
	})
	_, nadHandlerErr := c.nads.AddEventHandler(onGone(func(d *nadv1.NetworkAttachmentDefinition) { c.forget(d.UID) }))
	err := errors.Join(
		handlerErr, nadHandlerErr,
		c.pods.SetTransform(transform(trimPod)),
		c.nads.SetTransform(transform(c.trimDefinition)),
		c.pods.SetWatchErrorHandlerWithContext(c.watchFailed("pods of this node")),
		c.nads.SetWatchErrorHandlerWithContext(c.watchFailed("NetworkAttachmentDefinitions")),
	)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	return c, nil
}

// OnGone lets f know of each pod that is gone, also when another one has taken its name. It is called before Run; f does not wait.
func (c *Cache) OnGone(f func(pod.Ref)) error {
	if _, err := c.pods.AddEventHandler(onGone(func(m *metav1.PartialObjectMetadata) { f(podOf(m).Ref) })); err != nil {
		return fmt.Errorf("watch pods of this node: %w", err)
	}
	return nil
}

// onGone lets f know of each object that is gone, also when another one has taken its name.
func onGone[T metav1.Object](f func(T)) cache.ResourceEventHandlerFuncs {
	return cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, now any) {
			b, ok := before.(T)
			if n, same := now.(T); ok && (!same || n.GetUID() != b.GetUID()) {
				f(b)
			}
		},
		DeleteFunc: func(obj any) {
			if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = last.Obj
			}
			if o, ok := obj.(T); ok {
				f(o)
			}
		},
	}
}

func (c *Cache) podWatch() cache.ListerWatcher {
	// Without those that have ended: nothing is attached to them any more, and there can be thousands.
	selector := fields.AndSelectors(
		fields.OneTermEqualSelector("spec.nodeName", c.node),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
	).String()
	ofNode := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = selector
		return o
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o = ofNode(o)
			list := &metav1.PartialObjectMetadataList{}
			var err error
			list.Items, list.ListMeta, err = listTrimmed(ctx, c.client.core.Get().Resource(podResource).VersionedParams(&o, metav1.ParameterCodec).
				SetHeader("Accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"), trimPod)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.client.pods.Watch(ctx, ofNode(o))
		},
	}
}

func (c *Cache) nadWatch() cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &nadv1.NetworkAttachmentDefinitionList{}
			var err error
			list.Items, list.ListMeta, err = listTrimmed(ctx, c.client.nads.Get().Resource(nadResource).VersionedParams(&o, metav1.ParameterCodec), c.trimDefinition)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			return c.client.nads.Get().Resource(nadResource).VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
		},
	}
}

// transform is trim as informers take it. Objects of other types are let through.
func transform[T any](trim func(*T)) cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, ok := obj.(*T); ok {
			trim(o)
		}
		return obj, nil
	}
}

// trimPod keeps what Plexus reads: a node has few pods, but their metadata has up to 256 KiB of annotations each.
func trimPod(m *metav1.PartialObjectMetadata) {
	kept := pick(m.Annotations, annotations.NetworksKey, annotations.DefaultNetworkKey, annotations.MirrorKey)
	// Of these that they are there is all that is asked.
	for _, key := range annotations.NoticedKeys(m.Annotations) {
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = ""
	}
	*m = metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Annotations: kept,
	}}
}

// pick is what is there of some keys; nil for nothing.
func pick(from map[string]string, keys ...string) map[string]string {
	var kept map[string]string
	for _, key := range keys {
		if value, ok := from[key]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = value
		}
	}
	return kept
}

// trimDefinition keeps what Plexus reads, of a configuration only one that is short, and not more of them together than memory is for.
func (c *Cache) trimDefinition(d *nadv1.NetworkAttachmentDefinition) {
	_, before := d.Labels[notKept]
	*d = nadv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name, UID: d.UID, ResourceVersion: d.ResourceVersion,
			Annotations: pick(d.Annotations, annotations.DefinitionKeys()...),
		},
		Spec: d.Spec,
	}
	size := len(d.Spec.Config)
	if before || size > maxKeptBytes {
		size = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if fits := c.kept.set(d.UID, size); !fits || size < len(d.Spec.Config) || before {
		d.Labels = map[string]string{notKept: ""}
		d.Spec.Config = ""
	}
}

// forget is for a definition that was deleted.
func (c *Cache) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.set(uid, 0)
}

// watchFailed says what the operator can do about a watch that does not work. The informer goes on trying by itself.
func (c *Cache) watchFailed(what string) cache.WatchErrorHandlerWithContext {
	return func(ctx context.Context, _ *cache.Reflector, err error) {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || ctx.Err() != nil {
			return // the list that follows mends it, or nobody waits for it
		}
		fix := "see that the API server can be reached; what is known is served meanwhile"
		switch {
		case apierrors.IsNotFound(err):
			fix = "install the CustomResourceDefinition of Plexus' manifests"
		case apierrors.IsForbidden(err):
			fix = "grant list and watch, as the ClusterRole of Plexus' manifests does"
		case apierrors.IsUnauthorized(err):
			fix = "see that the service account exists and that the clocks of node and API server agree"
		}
		c.log.Error("watch "+what, "error", err, "fix", fix)
	}
}

// Run watches until ctx ends.
func (c *Cache) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { c.pods.RunWithContext(ctx) })
	all.Go(func() { c.nads.RunWithContext(ctx) })
	all.Wait()
}

// WaitSynced waits until all that exists has been seen once. The error is an ErrUnavailable.
func (c *Cache) WaitSynced(ctx context.Context) error {
	for _, i := range []cache.SharedIndexInformer{c.pods, c.nads} {
		select {
		case <-i.HasSyncedChecker().Done():
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", c.Synced(), ctx.Err())
		}
	}
	return nil
}

// Synced is an ErrUnavailable until all that exists has been seen once, and nil from then on.
func (c *Cache) Synced() error {
	switch {
	case !c.pods.HasSynced():
		return fmt.Errorf("%w: the pods of node %s have not been listed yet", ErrUnavailable, c.node)
	case !c.nads.HasSynced():
		return fmt.Errorf("%w: the NetworkAttachmentDefinitions have not been listed yet", ErrUnavailable)
	}
	return nil
}

func (c *Cache) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Cache) change() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Pod finds a pod. One that the watch has not delivered yet is waited for, and asked for once meanwhile. If the API server says
// that another pod has taken the name, it is that one that is returned. The error is an ErrPodGone, an ErrUnavailable, or final.
func (c *Cache) Pod(ctx context.Context, ref pod.Ref) (Pod, error) {
	if p, ok := c.Known(ref); ok {
		return p, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		pod Pod
		err error
	}
	direct := make(chan answer, 1)
	go func() {
		p, err := c.client.Pod(ctx, ref)
		direct <- answer{p, err}
	}()
	err := fmt.Errorf("%w: pod %s is not known yet", ErrUnavailable, ref)
	for {
		change := c.change() // before the look, so that none is missed
		if p, ok := c.Known(ref); ok {
			return p, nil
		}
		select {
		case <-change:
		case a := <-direct:
			switch {
			case a.err == nil:
				return a.pod, nil
			case errors.Is(a.err, ErrPodGone):
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, mirrorPatience)
				defer stop()
			case !errors.Is(a.err, ErrUnavailable):
				return Pod{}, a.err
			}
			err = a.err
		case <-ctx.Done():
			return Pod{}, err
		}
	}
}

// Known finds the pod with ref's UID among those that the watch has delivered; a static pod by the UID that the kubelet gave it.
func (c *Cache) Known(ref pod.Ref) (Pod, bool) {
	obj, ok, err := c.pods.GetStore().GetByKey(ref.Namespace + "/" + ref.Name)
	m, isMeta := obj.(*metav1.PartialObjectMetadata)
	if err != nil || !ok || !isMeta {
		return Pod{}, false
	}
	p := podOf(m)
	return p, ref.UID == "" || p.Ref.UID == ref.UID || annotations.IsMirror(p.Annotations, ref.UID)
}

// KnownDefinition finds a NetworkAttachmentDefinition in memory. The error is a [nad.ErrNotFound] if there is none, and an ErrUnavailable
// if that is not known here: before all have been listed, when the watch has been away for long, and of one whose configuration is not kept.
// [Client.Definition] knows it then.
func (c *Cache) KnownDefinition(ref nad.Ref) (*nad.Definition, error) {
	synced := c.nads.HasSynced() // before the look: then nothing that was listed is missed
	if w := c.client.observer.watch(nadResource); synced && !w.Open && time.Since(w.Since) > staleAfter {
		return nil, fmt.Errorf("%w: NetworkAttachmentDefinitions have not been watched since %s", ErrUnavailable, w.Since.Format(time.RFC3339))
	}
	obj, _, err := c.nads.GetStore().GetByKey(ref.String())
	d, ok := obj.(*nadv1.NetworkAttachmentDefinition)
	switch {
	case (err != nil || !ok) && synced:
		return nil, noDefinition(ref)
	case err != nil || !ok:
		return nil, c.Synced()
	}
	if _, large := d.Labels[notKept]; large {
		return nil, fmt.Errorf("%w: the configuration of %s is too long to be kept", ErrUnavailable, ref)
	}
	return definitionOf(d), nil
}

// Watches is the state of the watches, by resource.
func (c *Cache) Watches() map[string]WatchState {
	return map[string]WatchState{podResource: c.client.observer.watch(podResource), nadResource: c.client.observer.watch(nadResource)}
}
