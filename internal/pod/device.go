// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrDevice marks a device that cannot be used as it was told to us.
var ErrDevice = errors.New("unusable device")

// maxDeviceBytes bounds each name of a device: Kubernetes bounds none of them for device plugins, and to less for DRA.
const maxDeviceBytes = 253

// Device is a device that the node gave a pod.
type Device struct {
	// ID is what plugins know it by: mostly a PCI address.
	ID string `json:"id"`
	// Resource is the name that it is asked for by, like intel.com/vf; "" when it has none.
	Resource string `json:"resource,omitempty"`
	// Claimed says where it comes from if that is a ResourceClaim; nil for one of a device plugin.
	Claimed *ClaimedDevice `json:"claimed,omitempty"`
}

// ClaimedDevice is a device that was allocated for a ResourceClaim in the pod's namespace (resource.k8s.io/v1).
type ClaimedDevice struct {
	// Claim is the name of the ResourceClaim.
	Claim string `json:"claim"`
	// PodClaim is the name by which the pod knows the claim (spec.resourceClaims), Request the request that it was allocated for,
	// with "/subrequest" where the claim has alternatives; both "" when they are not known.
	PodClaim string `json:"podClaim,omitempty"`
	Request  string `json:"request,omitempty"`
	// Driver, Pool and Device name the device; Share tells the shares of one that is shared apart, and is "" otherwise.
	Driver string `json:"driver"`
	Pool   string `json:"pool"`
	Device string `json:"device"`
	Share  string `json:"share,omitempty"`
}

// String names the device as DRA does.
func (c ClaimedDevice) String() string {
	s := c.Driver + "/" + c.Pool + "/" + c.Device
	if c.Share != "" {
		s += " (share " + c.Share + ")"
	}
	return s
}

// Allocation is what makes the device: all but how the claim is called.
func (c ClaimedDevice) Allocation() [4]string { return [4]string{c.Driver, c.Pool, c.Device, c.Share} }

// Validate checks what becomes part of configurations, file names and messages. The error is an ErrDevice.
func (d Device) Validate() error {
	if d.ID == "" {
		return fmt.Errorf("%w of resource %.64q: it has no ID: correct its device plugin or driver", ErrDevice, d.Resource)
	}
	for _, s := range []string{d.ID, d.Resource} {
		unfit := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
		if len(s) > maxDeviceBytes || !utf8.ValidString(s) || strings.ContainsFunc(s, unfit) {
			return fmt.Errorf("%w %.64q of resource %.64q: IDs and resources have at most %d printable characters: correct its device plugin or driver", ErrDevice, d.ID, d.Resource, maxDeviceBytes)
		}
	}
	return nil
}
