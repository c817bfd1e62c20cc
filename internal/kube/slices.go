// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/plexus-cni/plexus/internal/pod"
)

// Attributes of devices in ResourceSlices (strings).
const (
	// attributeDeviceID and attributeResourceName are those by which DRA drivers of network devices speak with meta-plugins.
	attributeDeviceID     resourcev1.QualifiedName = "k8s.cni.cncf.io/deviceID"
	attributeResourceName resourcev1.QualifiedName = "k8s.cni.cncf.io/resourceName"
	// attributePCIBusID is Kubernetes' own; a PCI address is what most network plugins take for an ID.
	attributePCIBusID resourcev1.QualifiedName = "resource.kubernetes.io/pciBusID"
)

const (
	sliceResource = "resourceslices"
	poolIndex     = "pool"
)

// Slices knows what the devices of ResourceSlices are. Those of this node are watched, from the first time that a device is looked for: a
// cluster without DRA pays nothing. The few that are not one node's are asked for when a device is none of this node's.
type Slices struct {
	client *Client
	node   string
	log    *slog.Logger

	informer cache.SharedIndexInformer
	needed   chan struct{} // closed when the first device is looked for
	need     func()

	mu      sync.Mutex
	refused error         // why the watch does not work
	failed  chan struct{} // closed, and replaced, when that is known
}

// NewSlices returns Slices that watch nothing before Run, and before they are needed.
func NewSlices(client *Client, node string, log *slog.Logger) (*Slices, error) {
	s := &Slices{client: client, node: node, log: log, needed: make(chan struct{}), failed: make(chan struct{})}
	s.need = sync.OnceFunc(func() { close(s.needed) })
	s.informer = cache.NewSharedIndexInformer(s.watch(), &resourcev1.ResourceSlice{}, 0, cache.Indexers{poolIndex: poolsOf})
	err := errors.Join(s.informer.SetTransform(trimSlice), s.informer.SetWatchErrorHandlerWithContext(s.watchFailed))
	if err != nil {
		return nil, fmt.Errorf("watch ResourceSlices: %w", err)
	}
	return s, nil
}

// Run watches, once that is needed, until ctx ends.
func (s *Slices) Run(ctx context.Context) {
	select {
	case <-s.needed:
		s.log.Info("watch the ResourceSlices of this node: a pod has a network with a device of a ResourceClaim")
		s.informer.RunWithContext(ctx)
	case <-ctx.Done():
	}
}

func (s *Slices) watch() cache.ListerWatcher {
	ofNode := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = fields.OneTermEqualSelector(resourcev1.ResourceSliceSelectorNodeName, s.node).String()
		return o
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return s.client.listSlices(ctx, ofNode(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o = ofNode(o)
			o.Watch = true
			return s.client.claims.Get().Resource(sliceResource).VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
		},
	}
}

func (c *Client) listSlices(ctx context.Context, o metav1.ListOptions) (*resourcev1.ResourceSliceList, error) {
	list := &resourcev1.ResourceSliceList{}
	err := c.claims.Get().Resource(sliceResource).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Into(list)
	return list, err
}

// watchFailed lets those who wait for the first list know that there will be none soon.
func (s *Slices) watchFailed(ctx context.Context, _ *cache.Reflector, err error) {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || ctx.Err() != nil {
		return
	}
	err = fmt.Errorf("watch ResourceSlices: %w", classifyDRA(err))
	s.log.Error("devices of ResourceClaims are not known", "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = err
	close(s.failed)
	s.failed = make(chan struct{})
}

// synced waits until the slices of this node have been seen once. The error is an ErrUnavailable, or final.
func (s *Slices) synced(ctx context.Context) error {
	s.need()
	s.mu.Lock()
	refused, failed := s.refused, s.failed
	s.mu.Unlock()
	if s.informer.HasSynced() {
		return nil
	}
	if refused != nil {
		return refused // the watch goes on trying, and so does the pod
	}
	select {
	case <-s.informer.HasSyncedChecker().Done():
		return nil
	case <-failed:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.refused
	case <-ctx.Done():
		return fmt.Errorf("%w: the ResourceSlices of node %s have not been listed yet: %w", ErrUnavailable, s.node, ctx.Err())
	}
}

// Devices says what devices are that were allocated for claims. Those that are no network device, that is to say have no ID, are left
// out. The error is an ErrUnavailable, or final.
func (s *Slices) Devices(ctx context.Context, claimed []pod.ClaimedDevice) ([]pod.Device, error) {
	if len(claimed) == 0 {
		return nil, nil
	}
	if err := s.synced(ctx); err != nil {
		return nil, err
	}
	known := func(c pod.ClaimedDevice) ([]*resourcev1.ResourceSlice, error) {
		objects, err := s.informer.GetIndexer().ByIndex(poolIndex, poolKey(c.Driver, c.Pool))
		if err != nil {
			return nil, fmt.Errorf("ResourceSlices: %w", err)
		}
		var pool []*resourcev1.ResourceSlice
		for _, o := range objects {
			if slice, ok := o.(*resourcev1.ResourceSlice); ok {
				pool = append(pool, slice)
			}
		}
		return pool, nil
	}
	return devicesIn(claimed, known, s.client.lister(ctx, ""))
}

// SliceDevices does what [Slices.Devices] does without a watch, for a pod of node. Without node, no device is found.
func (c *Client) SliceDevices(ctx context.Context, node string, claimed []pod.ClaimedDevice) ([]pod.Device, error) {
	if node == "" {
		return nil, nil
	}
	return devicesIn(claimed, c.lister(ctx, node), c.lister(ctx, ""))
}

// pools finds the slices of the pool that a device is in.
type pools func(pod.ClaimedDevice) ([]*resourcev1.ResourceSlice, error)

// lister asks the API server for the slices of a node, or with node "" for those that are not one node's, once for each driver.
func (c *Client) lister(ctx context.Context, node string) pools {
	drivers := map[string][]*resourcev1.ResourceSlice{}
	return func(d pod.ClaimedDevice) ([]*resourcev1.ResourceSlice, error) {
		if _, ok := drivers[d.Driver]; !ok {
			selector := fields.Set{resourcev1.ResourceSliceSelectorNodeName: node, resourcev1.ResourceSliceSelectorDriver: d.Driver}
			list, err := c.listSlices(ctx, metav1.ListOptions{FieldSelector: selector.String()})
			if err != nil {
				return nil, fmt.Errorf("list ResourceSlices of driver %s: %w", d.Driver, classifyDRA(err))
			}
			drivers[d.Driver] = []*resourcev1.ResourceSlice{}
			for i := range list.Items {
				drivers[d.Driver] = append(drivers[d.Driver], &list.Items[i])
			}
		}
		return slices.DeleteFunc(slices.Clone(drivers[d.Driver]), func(s *resourcev1.ResourceSlice) bool { return s.Spec.Pool.Name != d.Pool }), nil
	}
}

// devicesIn finds each device in the first of the places that has it.
func devicesIn(claimed []pod.ClaimedDevice, places ...pools) ([]pod.Device, error) {
	var devices []pod.Device
	for _, c := range claimed {
		found, err := find(c, places)
		if err != nil {
			return nil, err
		}
		id := cmp.Or(text(found, attributeDeviceID), text(found, attributePCIBusID))
		if id == "" {
			continue
		}
		devices = append(devices, pod.Device{ID: id, Resource: text(found, attributeResourceName), Claimed: &c})
	}
	return devices, nil
}

func find(c pod.ClaimedDevice, places []pools) (*resourcev1.Device, error) {
	published := "no ResourceSlice has it"
	for _, place := range places {
		pool, err := place(c)
		if err != nil {
			return nil, err
		}
		device, complete := inPool(pool, c.Device)
		if device != nil {
			return device, nil
		}
		if !complete {
			published = "its driver has published a part of the pool only"
		}
	}
	return nil, fmt.Errorf("%w: it is not known what device %s of ResourceClaim %s is, as %s: see that its driver runs", ErrUnavailable, c, c.Claim, published)
}

// inPool finds a device in its pool: in the newest generation, the older ones are on their way out. A device is not believed to be gone
// before all slices of that generation are there.
func inPool(pool []*resourcev1.ResourceSlice, name string) (*resourcev1.Device, bool) {
	var newest, count, want int64
	for _, s := range pool {
		if g := s.Spec.Pool.Generation; g > newest || count == 0 {
			newest, count, want = g, 0, s.Spec.Pool.ResourceSliceCount
		}
		if s.Spec.Pool.Generation == newest {
			count++
		}
	}
	for _, s := range pool {
		if s.Spec.Pool.Generation != newest {
			continue
		}
		if i := slices.IndexFunc(s.Spec.Devices, func(d resourcev1.Device) bool { return d.Name == name }); i >= 0 {
			return &s.Spec.Devices[i], count >= want
		}
	}
	return nil, count >= want
}

func text(d *resourcev1.Device, attribute resourcev1.QualifiedName) string {
	value := d.Attributes[attribute].StringValue
	if value == nil {
		return ""
	}
	return *value
}

func poolKey(driver, pool string) string { return driver + "/" + pool }

func poolsOf(obj any) ([]string, error) {
	s, ok := obj.(*resourcev1.ResourceSlice)
	if !ok {
		return nil, nil
	}
	return []string{poolKey(s.Spec.Driver, s.Spec.Pool.Name)}, nil
}

// trimSlice keeps what is read of a slice: drivers of other devices publish a lot.
func trimSlice(obj any) (any, error) {
	s, ok := obj.(*resourcev1.ResourceSlice)
	if !ok {
		return obj, nil
	}
	trimmed := &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion},
		Spec:       resourcev1.ResourceSliceSpec{Driver: s.Spec.Driver, Pool: s.Spec.Pool},
	}
	for _, d := range s.Spec.Devices {
		kept := resourcev1.Device{Name: d.Name}
		for _, name := range []resourcev1.QualifiedName{attributeDeviceID, attributeResourceName, attributePCIBusID} {
			if value, ok := d.Attributes[name]; ok {
				if kept.Attributes == nil {
					kept.Attributes = map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{}
				}
				kept.Attributes[name] = resourcev1.DeviceAttribute{StringValue: value.StringValue}
			}
		}
		trimmed.Spec.Devices = append(trimmed.Spec.Devices, kept)
	}
	return trimmed, nil
}

// classifyDRA is classify for requests that the base manifests do not allow.
func classifyDRA(err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w: add deploy/components/dra to the manifests, which grants it", err)
	}
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: the API server has to serve resource.k8s.io/v1 (Kubernetes 1.34)", err)
	}
	return classify(err)
}
