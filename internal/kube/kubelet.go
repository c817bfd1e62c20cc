// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/plexus-cni/plexus/internal/pause"
	"github.com/plexus-cni/plexus/internal/pod"
)

const (
	// DefaultPodResourcesSocket is where the kubelet serves podresources, unless its root directory was moved.
	DefaultPodResourcesSocket = "/var/lib/kubelet/pod-resources/kubelet.sock"
	// maxPodResourcesBytes bounds an answer, as the kubelet's own clients do.
	maxPodResourcesBytes = 16 << 20
	// podResourcesTimeout bounds one call. It is answered from the kubelet's memory.
	podResourcesTimeout = 5 * time.Second
	// kubeletPatience is how long a kubelet that is restarting, or has too much to do, is asked again. Its next try of the pod comes
	// by itself.
	kubeletPatience = 3 * time.Second
	// The pause before the kubelet is asked again doubles from the first to the last. It answers 100 calls a second of all its
	// clients, and ten at once; it refuses what is more.
	firstKubeletPause = 20 * time.Millisecond
	lastKubeletPause  = 320 * time.Millisecond
)

// Names of what a Kubelet asks, for who counts it.
const (
	callGet        = "Get"
	callList       = "List"
	callCheckpoint = "checkpoint"
)

// Given is what the kubelet gave a pod: container by container in the order of the pod. Within one the kubelet has no order, so
// they are sorted, for the sake of the next try.
type Given struct {
	// Devices are those of device plugins.
	Devices []pod.Device
	// Claimed are those of ResourceClaims that its containers use. What they are the kubelet does not tell.
	Claimed []pod.ClaimedDevice
}

// KubeletOptions say where the kubelet of this node is.
type KubeletOptions struct {
	// Socket is the path of its podresources socket.
	Socket string
	// Checkpoint is the path of its device manager's checkpoint, which is read when the socket is of no use; "" for none.
	Checkpoint string
	// Count is told of each call (Get, List, checkpoint) and its outcome, a name of gRPC's codes; nil for nobody.
	Count func(call, outcome string)
}

// Kubelet asks the kubelet of this node what it gave to its pods (podresources v1). It has one connection, which is opened when it is
// first needed, and again when the kubelet was restarted.
type Kubelet struct {
	options KubeletOptions
	conn    *grpc.ClientConn
	client  podresources.PodResourcesListerClient
}

// NewKubelet returns a Kubelet that is not connected yet. Who has it closes it.
func NewKubelet(o KubeletOptions) (*Kubelet, error) {
	if !strings.HasPrefix(o.Socket, "/") {
		return nil, fmt.Errorf("podresources socket %q: give an absolute path", o.Socket)
	}
	k := &Kubelet{options: o}
	conn, err := grpc.NewClient("unix://"+o.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the file's permissions say who may serve there
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxPodResourcesBytes)),
		// A kubelet that is restarted is back in seconds; gRPC would wait for up to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstKubeletPause, Multiplier: 2, Jitter: 0.2, MaxDelay: lastKubeletPause},
			MinConnectTimeout: podResourcesTimeout,
		}),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("podresources socket %s: %w", o.Socket, err)
	}
	k.conn, k.client = conn, podresources.NewPodResourcesListerClient(conn)
	return k, nil
}

// Close closes the connection.
func (k *Kubelet) Close() error { return k.conn.Close() }

// Given asks what the kubelet gave a pod: by Get, and by List where the kubelet has no Get, which is off before Kubernetes 1.34. If it
// does not say, its checkpoint is read, which knows of device plugins only. The error is an ErrUnavailable.
func (k *Kubelet) Given(ctx context.Context, ref pod.Ref) (Given, error) {
	resources, err := k.patiently(ctx, ref)
	if err == nil {
		return givenBy(resources), nil
	}
	if k.options.Checkpoint == "" || ref.UID == "" || ctx.Err() != nil {
		return Given{}, k.unavailable(err)
	}
	devices, checkpointErr := readCheckpoint(k.options.Checkpoint, ref.UID)
	if errors.Is(checkpointErr, fs.ErrNotExist) {
		return Given{}, k.unavailable(err) // a node without device plugins has none
	}
	k.count(callCheckpoint, checkpointErr)
	if checkpointErr != nil {
		return Given{}, k.unavailable(fmt.Errorf("%w; and the kubelet's checkpoint is of no use: %w", err, checkpointErr))
	}
	return Given{Devices: devices}, nil
}

func (k *Kubelet) unavailable(err error) error {
	return fmt.Errorf("%w: the kubelet does not say at %s which devices it gave the pod: %w: see that it runs and that its folder pod-resources is mounted (--pod-resources-socket)", ErrUnavailable, k.options.Socket, err)
}

// patiently asks again for a while if that may help.
func (k *Kubelet) patiently(ctx context.Context, ref pod.Ref) (*podresources.PodResources, error) {
	ctx, cancel := context.WithTimeout(ctx, kubeletPatience)
	defer cancel()
	for wait := firstKubeletPause; ; wait = min(2*wait, lastKubeletPause) {
		resources, err := k.ask(ctx, ref)
		if err == nil || !slices.Contains([]codes.Code{codes.Unavailable, codes.ResourceExhausted}, status.Code(err)) {
			return resources, err
		}
		if _, statErr := os.Stat(k.options.Socket); statErr != nil {
			return nil, statErr // nobody who could be waited for
		}
		if !pause.For(ctx, wait) {
			return nil, err
		}
	}
}

// ask asks for the pod, or for all of the node where the kubelet has no other way.
func (k *Kubelet) ask(ctx context.Context, ref pod.Ref) (*podresources.PodResources, error) {
	resources, err := k.get(ctx, ref)
	switch status.Code(err) {
	case codes.OK:
		return resources, nil
	case codes.Unimplemented, codes.Unknown: // Unknown: it is switched off, or there is no such pod
	default:
		return nil, err
	}
	resources, listErr := k.list(ctx, ref)
	if listErr == nil {
		return resources, nil
	}
	return nil, fmt.Errorf("%w (and of Get: %s)", listErr, status.Convert(err).Message())
}

func (k *Kubelet) get(ctx context.Context, ref pod.Ref) (*podresources.PodResources, error) {
	ctx, cancel := context.WithTimeout(ctx, podResourcesTimeout)
	defer cancel()
	answer, err := k.client.Get(ctx, &podresources.GetPodResourcesRequest{PodName: ref.Name, PodNamespace: ref.Namespace})
	k.count(callGet, err)
	return answer.GetPodResources(), err
}

func (k *Kubelet) list(ctx context.Context, ref pod.Ref) (*podresources.PodResources, error) {
	ctx, cancel := context.WithTimeout(ctx, podResourcesTimeout)
	defer cancel()
	answer, err := k.client.List(ctx, &podresources.ListPodResourcesRequest{})
	k.count(callList, err)
	if err != nil {
		return nil, err
	}
	for _, p := range answer.GetPodResources() {
		if p.GetNamespace() == ref.Namespace && p.GetName() == ref.Name {
			return p, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "the kubelet has no pod %s (yet)", ref)
}

func (k *Kubelet) count(call string, err error) {
	if k.options.Count == nil {
		return
	}
	k.options.Count(call, status.Code(err).String())
}

// givenBy reads an answer. A device that is near several NUMA nodes is in it once for each, and one that several containers have once
// for each of them.
func givenBy(r *podresources.PodResources) Given {
	var g Given
	for _, c := range r.GetContainers() {
		var devices []pod.Device
		for _, d := range c.GetDevices() {
			for _, id := range d.GetDeviceIds() {
				devices = append(devices, pod.Device{Resource: d.GetResourceName(), ID: id})
			}
		}
		g.Devices = append(g.Devices, sortedDevices(devices)...)
		for _, dynamic := range c.GetDynamicResources() {
			g.Claimed = append(g.Claimed, claimedBy(dynamic)...)
		}
	}
	g.Devices = distinct(g.Devices, func(d pod.Device) [2]string { return [2]string{d.Resource, d.ID} })
	g.Claimed = distinct(g.Claimed, pod.ClaimedDevice.Allocation)
	return g
}

func claimedBy(d *podresources.DynamicResource) []pod.ClaimedDevice {
	var claimed []pod.ClaimedDevice
	for _, r := range d.GetClaimResources() {
		if r.GetDeviceName() == "" {
			continue // a resource that is no device
		}
		claimed = append(claimed, pod.ClaimedDevice{
			Claim: d.GetClaimName(), Driver: r.GetDriverName(), Pool: r.GetPoolName(), Device: r.GetDeviceName(), Share: r.GetShareId(),
		})
	}
	slices.SortFunc(claimed, func(a, b pod.ClaimedDevice) int {
		x, y := a.Allocation(), b.Allocation()
		return slices.Compare(x[:], y[:])
	})
	return claimed
}

// sortedDevices puts the devices of one container in an order that the next try has too.
func sortedDevices(devices []pod.Device) []pod.Device {
	slices.SortFunc(devices, func(a, b pod.Device) int {
		return cmp.Or(strings.Compare(a.Resource, b.Resource), strings.Compare(a.ID, b.ID))
	})
	return devices
}

// distinct keeps the first of those with the same key.
func distinct[T any, K comparable](items []T, key func(T) K) []T {
	seen := map[K]bool{}
	return slices.DeleteFunc(items, func(item T) bool {
		k := key(item)
		defer func() { seen[k] = true }()
		return seen[k]
	})
}
