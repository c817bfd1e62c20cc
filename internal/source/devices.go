// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/nad"
)

// Devices finds the devices that the node gave a pod, in an order that is the same at each try: container by container as the pod has
// them. It may stop looking once needs are met (see [Distribute]). Its error matches [ErrTryAgain], or is final.
//
// It is called at most once for a pod, and not at all for one whose networks consume no device.
type Devices func(p Pod, needs []Need) ([]pod.Device, error)

// Need is what one attachment asks of the pod's devices.
type Need struct {
	// Network is who asks.
	Network nad.Ref
	// Resource is the resource of which it consumes one, "" for none.
	Resource string
	// Claim is the request of a ResourceClaim that it is bound to; zero for none. It goes before Resource.
	Claim nad.ClaimRequest
	// Required is set where the network cannot do without a device. A Resource may steer the scheduler alone, like those of
	// bridge-marker: then nobody has a device of it, and nobody needs one.
	Required bool
	// ID is the one that the pod's element chooses among the devices that the pod was given, "" for none in particular.
	ID string
}

// needOf reads what a definition asks for.
func needOf(def *nad.Definition, id string) (Need, error) {
	n := Need{Network: def.Ref, Resource: def.ResourceName, ID: id}
	if def.ClaimRequest == "" {
		n.Required = n.Resource != "" && takesDevice(def)
		return n, nil
	}
	claim, err := nad.ParseClaimRequest(def.ClaimRequest)
	if err != nil {
		return Need{}, fmt.Errorf("network %s: annotation %s: %w", def.Ref, annotations.ClaimRequestKey, err)
	}
	n.Claim, n.Required = claim, true
	return n, nil
}

// takesDevice reports whether a definition's plugins need a device. Of a configuration that is a file of the node, or unusable, that is not
// known here: the plugin finds out.
func takesDevice(def *nad.Definition) bool {
	if def.Config == "" {
		return false
	}
	list, err := nad.Normalize([]byte(def.Config), nad.Defaults{Name: def.Ref.Name, CNIVersion: "1.0.0"})
	return err == nil && list.TakesDevice()
}

// consumes reports whether the network gets a device that the node gave, if there is one.
func (n Need) consumes() bool { return n.Resource != "" || !n.Claim.IsZero() }

// fits reports whether a device is of the kind that is asked for.
func (n Need) fits(d pod.Device) bool {
	if n.Claim.IsZero() {
		return n.Resource != "" && n.Resource == d.Resource
	}
	return d.Claimed != nil && n.Claim.Covers(d.Claimed.PodClaim, d.Claimed.Request)
}

// Distribute gives each need one of the devices that the node gave the pod, in order, each device once; nil stands for a need that
// consumes none, and for one whose resource the node has no device of and that can do without. The same arguments always have the same
// answer. The error is an [ErrNoDevice].
//
// Who has less choice chooses first, so that nobody goes without for the order alone: a need that names a device, then one that is
// bound to a claim's request, then one of a resource. A device that was not given is given to nobody, whoever names it: the pod's author
// chooses, and grants nothing.
func Distribute(needs []Need, given []pod.Device) ([]*pod.Device, error) {
	got := make([]*pod.Device, len(needs))
	used := map[string]bool{}
	take := func(i int, choose func(pod.Device) bool) {
		for j := range given {
			if d := given[j]; !used[identity(d)] && choose(d) {
				used[identity(d)] = true
				got[i] = &d
				return
			}
		}
	}
	for i, n := range needs {
		if n.ID == "" {
			continue
		}
		take(i, func(d pod.Device) bool { return d.ID == n.ID && (!n.consumes() || n.fits(d)) })
		if !n.consumes() {
			got[i] = nil // spared for who names it; its plugins are told of it only by what the network's author lets the pod ask for
		}
	}
	for _, bound := range []bool{true, false} {
		for i, n := range needs {
			if got[i] == nil && n.consumes() && n.Claim.IsZero() != bound {
				take(i, n.fits)
			}
		}
	}
	for i, n := range needs {
		if n.consumes() && got[i] == nil && (n.Required || slices.ContainsFunc(given, n.fits)) {
			return nil, n.exhausted(needs, given)
		}
		if d := got[i]; d != nil && n.Resource != "" && d.Resource != "" && n.Resource != d.Resource {
			return nil, fmt.Errorf("%w: network %s consumes one of resource %q (annotation %s), but the device %s that its annotation %s binds it to is one of %q: correct one of the annotations",
				ErrNoDevice, n.Network, n.Resource, annotations.ResourceNameKey, d.ID, annotations.ClaimRequestKey, d.Resource)
		}
	}
	return got, nil
}

// Met reports whether the devices are all that is asked for, so that nobody has to be asked for more.
func Met(needs []Need, given []pod.Device) bool {
	got, err := Distribute(needs, given)
	if err != nil {
		return false
	}
	for i, n := range needs {
		if n.consumes() && got[i] == nil {
			return false
		}
	}
	return true
}

// exhausted says why a need cannot be met: what is wanted, what was given, and how to fix it.
func (n Need) exhausted(needs []Need, given []pod.Device) error {
	wanted := 0
	for _, other := range needs {
		if other.consumes() && other.Claim == n.Claim && (other.Resource == n.Resource || !n.Claim.IsZero()) {
			wanted++
		}
	}
	var fitting, others []string
	for _, d := range given {
		switch {
		case !n.fits(d):
			others = append(others, d.Resource)
		case !slices.Contains(fitting, d.ID):
			fitting = append(fitting, d.ID)
		}
	}
	had := fmt.Sprintf("the node gave the pod %d%s", len(fitting), listed(" (", fitting, ")"))
	slices.Sort(others)
	if others = slices.DeleteFunc(slices.Compact(others), func(s string) bool { return s == "" }); len(fitting) == 0 {
		had += listed(", only devices of ", others, "")
	}
	if !n.Claim.IsZero() {
		return fmt.Errorf("%w: network %s is bound to request %q of the pod's claim %q (annotation %s): the pod's networks want %d devices of it and %s: let the request ask for more (count) of devices with a k8s.cni.cncf.io/deviceID, or select fewer networks",
			ErrNoDevice, n.Network, n.Claim.Request, n.Claim.Claim, annotations.ClaimRequestKey, wanted, had)
	}
	return fmt.Errorf("%w: network %s consumes one of resource %q: the pod's networks want %d of it and %s: request %d in the resources of the pod's containers or in a ResourceClaim, or select fewer networks",
		ErrNoDevice, n.Network, n.Resource, wanted, had, wanted)
}

// listed is a list for a message, with a bound; "" for an empty one.
func listed(before string, items []string, after string) string {
	const most = 8
	switch {
	case len(items) == 0:
		return ""
	case len(items) > most:
		return before + strings.Join(items[:most], ", ") + ", …" + after
	}
	return before + strings.Join(items, ", ") + after
}

// identity is what a device is used once by. A PCI address names one function of the host whoever hands it out; any other ID is unique
// in its resource only. The shares of a device are devices.
func identity(d pod.Device) string {
	share := ""
	if d.Claimed != nil {
		share = d.Claimed.Share
	}
	if address, err := sysfs.ParseAddress(d.ID); err == nil {
		return "pci " + string(address) + " " + share
	}
	return d.Resource + " " + d.ID + " " + share
}
