// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plexus-cni/plexus/internal/pause"
	"github.com/plexus-cni/plexus/internal/pod"
)

const claimResource = "resourceclaims"

// PodClaims are the ResourceClaims of a pod.
type PodClaims struct {
	// Node is where the pod runs.
	Node string
	// Claims are in the order of the pod's spec; that of its extended resources comes last.
	Claims []PodClaim
}

// PodClaim is one ResourceClaim of a pod.
type PodClaim struct {
	// Name is the ResourceClaim's, PodName that by which the pod knows it; "" for that of its extended resources.
	Name, PodName string
	// Extended are the extended resources, by the request that stands for them in the claim.
	Extended map[string]string
}

// PodClaims gets a pod, to find out which claims it has. The error is an ErrPodGone, an ErrUnavailable, or final.
func (c *Client) PodClaims(ctx context.Context, ref pod.Ref) (*PodClaims, error) {
	var p corev1.Pod
	err := c.core.Get().Namespace(ref.Namespace).Resource("pods").Name(ref.Name).Do(ctx).Into(&p)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: the API server knows no pod %s", ErrPodGone, ref)
	}
	if err != nil {
		return nil, fmt.Errorf("get pod %s: %w", ref, classify(err))
	}
	if ref.UID != "" && string(p.UID) != ref.UID {
		return nil, fmt.Errorf("%w: pod %s has UID %s, not %s", ErrPodGone, ref, p.UID, ref.UID)
	}
	return podClaims(&p)
}

func podClaims(p *corev1.Pod) (*PodClaims, error) {
	generated := map[string]*string{}
	for _, s := range p.Status.ResourceClaimStatuses {
		generated[s.Name] = s.ResourceClaimName
	}
	claims := &PodClaims{Node: p.Spec.NodeName}
	for _, spec := range p.Spec.ResourceClaims {
		name := spec.ResourceClaimName
		if name == nil {
			var known bool
			if name, known = generated[spec.Name]; !known {
				return nil, fmt.Errorf("%w: ResourceClaim for %q of the pod has not been created yet", ErrUnavailable, spec.Name)
			}
		}
		if name != nil { // or else none was needed
			claims.Claims = append(claims.Claims, PodClaim{Name: *name, PodName: spec.Name})
		}
	}
	if e := p.Status.ExtendedResourceClaimStatus; e != nil {
		extended := map[string]string{}
		for _, m := range e.RequestMappings {
			extended[m.RequestName] = m.ResourceName
		}
		claims.Claims = append(claims.Claims, PodClaim{Name: e.ResourceClaimName, Extended: extended})
	}
	return claims, nil
}

// ClaimedDevices gets a claim, to find out what was allocated for it. The error is an ErrUnavailable, which a claim that is not
// allocated yet is too, or final.
func (c *Client) ClaimedDevices(ctx context.Context, namespace string, of PodClaim) ([]pod.ClaimedDevice, error) {
	var claim resourcev1.ResourceClaim
	err := c.claims.Get().Namespace(namespace).Resource(claimResource).Name(of.Name).Do(ctx).Into(&claim)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: the API server knows no ResourceClaim %s/%s (yet): %w", ErrUnavailable, namespace, of.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("get ResourceClaim %s/%s: %w", namespace, of.Name, classifyDRA(err))
	}
	if claim.Status.Allocation == nil {
		return nil, fmt.Errorf("%w: ResourceClaim %s/%s is not allocated yet: the scheduler does it once its devices are free", ErrUnavailable, namespace, of.Name)
	}
	return allocated(&claim, of.PodName), nil
}

func allocated(claim *resourcev1.ResourceClaim, podName string) []pod.ClaimedDevice {
	var devices []pod.ClaimedDevice
	for _, r := range claim.Status.Allocation.Devices.Results {
		if r.AdminAccess != nil && *r.AdminAccess {
			continue // to look at, while it is somebody else's
		}
		d := pod.ClaimedDevice{Claim: claim.Name, PodClaim: podName, Request: r.Request, Driver: r.Driver, Pool: r.Pool, Device: r.Device}
		if r.ShareID != nil {
			d.Share = string(*r.ShareID)
		}
		devices = append(devices, d)
	}
	return devices
}

// implicitResource is what the resources begin with that stand for a DeviceClass without a name for pods.
const implicitResource = "deviceclass.resource.kubernetes.io/"

// NameExtended gives those of the devices that are of a claim for extended resources the names by which the pod asked for them. A driver that calls a device
// by another name is an error: whose device it is could not be told by either. The names that Kubernetes makes of a DeviceClass are no
// driver's.
func (of PodClaim) NameExtended(devices []pod.Device) error {
	for i := range devices {
		d := &devices[i]
		if d.Claimed.Claim != of.Name {
			continue
		}
		request, _, _ := strings.Cut(d.Claimed.Request, "/")
		name, ok := of.Extended[request]
		switch {
		case !ok || strings.HasPrefix(name, implicitResource) && d.Resource != "":
		case d.Resource == "":
			d.Resource = name
		case d.Resource != name:
			return fmt.Errorf("device %s was allocated for extended resource %q, and its driver publishes it with %s %q: correct the extendedResourceName of its DeviceClass, or the attribute",
				d.Claimed, name, attributeResourceName, d.Resource)
		}
	}
	return nil
}

// Attached is what a pod's networks made of a device of a ResourceClaim (KEP-4817).
type Attached struct {
	Device    pod.ClaimedDevice
	Network   string
	IfName    string
	Addresses []netip.Prefix
	MAC       string
}

const (
	// maxClaimIPs is what the API server takes for one device.
	maxClaimIPs = 16
	// conditionReady says that a device is configured as it was claimed.
	conditionReady = "Ready"
)

// claimManager is the field manager of what one pod's attachments say of a claim. Several pods can share a claim: what one of them said is
// taken back without a look at what the others did.
func claimManager(uid string) string { return userAgent + "-" + uid }

// ApplyClaimStatus writes into the status of a ResourceClaim what became of its devices in one pod, and nothing else of it; no attached
// takes back what was written for that pod. It tries again, until ctx ends, while the API server is not available. A claim that is gone
// is no error.
func (c *Client) ApplyClaimStatus(ctx context.Context, ref pod.Ref, claim string, attached []Attached) error {
	patch, err := claimPatch(ref.Namespace, claim, attached, time.Now())
	if err != nil {
		return fmt.Errorf("status of ResourceClaim %s/%s: %w", ref.Namespace, claim, err)
	}
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		err := c.claims.Patch(types.ApplyPatchType).Namespace(ref.Namespace).Resource(claimResource).Name(claim).SubResource("status").
			Param("fieldManager", claimManager(ref.UID)).Param("force", "true").Body(patch).Do(ctx).Error()
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if apierrors.IsForbidden(err) || isForbiddenField(err) {
			return fmt.Errorf("status of ResourceClaim %s/%s: %w: name its driver in deploy/components/dra-status", ref.Namespace, claim, err)
		}
		err = fmt.Errorf("status of ResourceClaim %s/%s: %w", ref.Namespace, claim, classify(err))
		if !errors.Is(err, ErrUnavailable) || !pause.For(ctx, retryAfter(err, wait)) {
			return err
		}
	}
}

// isForbiddenField reports whether the API server refuses a field for want of a permission, as it does since 1.36 where a driver is not
// named.
func isForbiddenField(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && status.ErrStatus.Details != nil && slices.ContainsFunc(status.ErrStatus.Details.Causes, func(c metav1.StatusCause) bool {
		return c.Type == metav1.CauseTypeForbidden
	})
}

// claimPatch is a server-side apply of the status.
func claimPatch(namespace, name string, attached []Attached, now time.Time) ([]byte, error) {
	type networkData struct {
		InterfaceName   string   `json:"interfaceName"`
		IPs             []string `json:"ips,omitempty"`
		HardwareAddress string   `json:"hardwareAddress,omitempty"`
	}
	type device struct {
		Driver      string             `json:"driver"`
		Pool        string             `json:"pool"`
		Device      string             `json:"device"`
		ShareID     string             `json:"shareID,omitempty"`
		Conditions  []metav1.Condition `json:"conditions"`
		NetworkData networkData        `json:"networkData"`
	}
	devices := []device{}
	for _, a := range attached {
		var ips []string
		for _, p := range distinct(slices.Clone(a.Addresses), netip.Prefix.String) {
			ips = append(ips, p.String())
		}
		devices = append(devices, device{
			Driver: a.Device.Driver, Pool: a.Device.Pool, Device: a.Device.Device, ShareID: a.Device.Share,
			Conditions: []metav1.Condition{{
				Type: conditionReady, Status: metav1.ConditionTrue, Reason: "NetworkAttached",
				Message: "attached to network " + a.Network + " as " + a.IfName, LastTransitionTime: metav1.NewTime(now),
			}},
			NetworkData: networkData{InterfaceName: a.IfName, IPs: ips[:min(len(ips), maxClaimIPs)], HardwareAddress: a.MAC},
		})
	}
	return json.Marshal(map[string]any{
		"apiVersion": resourcev1.SchemeGroupVersion.String(),
		"kind":       "ResourceClaim",
		"metadata":   map[string]string{"namespace": namespace, "name": name},
		"status":     map[string]any{"devices": devices},
	})
}
