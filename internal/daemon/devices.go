// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"slices"

	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
)

// Kubelet is what is asked of the kubelet of this node; see [kube.Kubelet].
type Kubelet interface {
	// Given asks what it gave a pod.
	Given(ctx context.Context, ref pod.Ref) (kube.Given, error)
}

// Claims is what is asked of the cluster about devices of ResourceClaims.
type Claims interface {
	// PodClaims finds out which claims a pod has; see [kube.Client.PodClaims].
	PodClaims(ctx context.Context, ref pod.Ref) (*kube.PodClaims, error)
	// ClaimedDevices finds out what was allocated for a claim; see [kube.Client.ClaimedDevices].
	ClaimedDevices(ctx context.Context, namespace string, claim kube.PodClaim) ([]pod.ClaimedDevice, error)
	// SliceDevices says what devices are; see [kube.Slices.Devices]. Where the pod runs is "" when it is not known; who has to know it
	// then knows of no device.
	SliceDevices(ctx context.Context, node string, claimed []pod.ClaimedDevice) ([]pod.Device, error)
}

// Devices finds the devices that a pod was given.
type Devices struct {
	Kubelet Kubelet
	Claims  Claims
}

// Of asks who costs least, until needs are met: the kubelet, by one call that tells of device plugins and of the claims that containers use.
// For these it knows no names, which the watch of the ResourceSlices does. Only a network that is bound to a request of a claim, a claim
// that no container uses, and a driver that does not tell the resource take requests to the API server: one for the pod, and one for
// each of its claims. They are not watched, as a watch of them would be of all in the cluster.
//
// asked is the pod as its sandbox knows it, which is what the kubelet knows it by; ref as the API server does.
func (d *Devices) Of(ctx context.Context, asked, ref pod.Ref, needs []source.Need) ([]pod.Device, error) {
	var given kube.Given
	if slices.ContainsFunc(needs, byResource) {
		var err error
		asked.UID = cmp.Or(asked.UID, ref.UID)
		if given, err = d.Kubelet.Given(ctx, asked); err != nil {
			return nil, err
		}
		if source.Met(needs, given.Devices) {
			return given.Devices, nil
		}
		claimed, err := d.Claims.SliceDevices(ctx, "", given.Claimed)
		if err != nil {
			return nil, err
		}
		if all := slices.Concat(given.Devices, claimed); source.Met(needs, all) {
			return all, nil
		}
	}
	claimed, err := d.ofClaims(ctx, ref)
	if err != nil {
		return nil, err
	}
	return slices.Concat(given.Devices, claimed), nil
}

// byResource reports whether a need is one that the kubelet may know a device for: requests of claims it does not know.
func byResource(n source.Need) bool { return n.Resource != "" && n.Claim.IsZero() }

// ofClaims finds the devices of all claims of a pod.
func (d *Devices) ofClaims(ctx context.Context, ref pod.Ref) ([]pod.Device, error) {
	claims, err := d.Claims.PodClaims(ctx, ref)
	if err != nil {
		return nil, err
	}
	var claimed []pod.ClaimedDevice
	for _, claim := range claims.Claims {
		of, claimErr := d.Claims.ClaimedDevices(ctx, ref.Namespace, claim)
		if claimErr != nil {
			return nil, claimErr
		}
		claimed = append(claimed, of...)
	}
	devices, err := d.Claims.SliceDevices(ctx, claims.Node, claimed)
	if err != nil {
		return nil, err
	}
	for _, claim := range claims.Claims {
		if err = claim.NameExtended(devices); err != nil {
			return nil, err
		}
	}
	return devices, nil
}
