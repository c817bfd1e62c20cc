// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package source is where cluster knowledge comes from: which networks a pod selects, what they are, which devices it was given;
// and where the outcome goes. The verbs of the plugin see one interface, whatever is behind it.
package source

import (
	"context"
	"errors"
	"net/netip"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
)

// ErrTryAgain marks a failure that a later try can mend: the pod is not known yet, the API server does not answer. The plugin
// answers it with CNI code 11.
var ErrTryAgain = errors.New("try again later")

// ErrNoDevice marks a network that consumes a device where none is known for it.
var ErrNoDevice = errors.New("no device")

// Source answers for one cluster, or for one folder of manifests.
type Source interface {
	// Lookup finds a pod and all networks that it gets by reference. Whatever cannot be resolved fails it as a whole:
	// there is no partial Selection. Errors match [ErrTryAgain], or are final.
	Lookup(ctx context.Context, q Query) (*Selection, error)
	// Report records on the pod what it was given.
	Report(ctx context.Context, r Report) error
	// Ready reports whether a Lookup could be answered now.
	Ready(ctx context.Context) error
}

// Query is what the plugin knows before a lookup: the pod of the call and its own configuration's rules.
type Query struct {
	// The zero Ref asks for what the configuration names alone.
	Pod pod.Ref `json:"pod"`
	// ClusterNetwork is the default network by name, "" when it is inline or a path.
	ClusterNetwork string `json:"clusterNetwork,omitempty"`
	// DefaultNetworks are the further networks of every pod, by name; paths among them are the plugin's business.
	DefaultNetworks []string `json:"defaultNetworks,omitempty"`
	// NetworksNamespace is the namespace of both, and the default one of the default-network annotation.
	NetworksNamespace string `json:"networksNamespace"`
	// Isolation holds for everything that the pod selects itself.
	Isolation nad.Policy `json:"isolation"`
	// PodOptional is set where the caller may know of a pod that the cluster does not: the answer then is what the configuration names.
	PodOptional bool `json:"podOptional,omitempty"`
}

// Network is one network by reference, as the cluster defines it.
type Network struct {
	// Ref names the NetworkAttachmentDefinition.
	Ref nad.Ref `json:"ref"`
	// Missing is set for a network of the configuration (not of the pod) that has no NAD: the plugin looks into its confDir.
	Missing bool `json:"missing,omitempty"`
	// Config is the NAD's spec.config; "" sends the plugin to its confDir.
	Config string `json:"config,omitempty"`
	// Device is the ID of the device that this attachment consumes, "" for none; ResourceName the resource that it is one of, or, without
	// a device, that the network asks for; and Claimed where it comes from if that is a ResourceClaim.
	Device       string             `json:"device,omitempty"`
	ResourceName string             `json:"resourceName,omitempty"`
	Claimed      *pod.ClaimedDevice `json:"claimed,omitempty"`
	// RefuseUnsupported is set where the NAD's author has requests refused that no plugin declares, and AllowedCNIArgs are the keys that
	// cni-args may carry although they stand for a request.
	RefuseUnsupported bool     `json:"refuseUnsupported,omitempty"`
	AllowedCNIArgs    []string `json:"allowedCNIArgs,omitempty"`
	// Element holds the pod's requests; zero for networks that the pod did not select itself.
	Element annotations.Element `json:"element,omitzero"`
}

// Selection is the answer to a Query, in the order of attachment.
type Selection struct {
	// Pod is the pod as the cluster knows it, with its UID where it has one.
	Pod pod.Ref `json:"pod"`
	// Default replaces the configuration's default network (default-network annotation), or is the NAD behind
	// ClusterNetwork; nil when neither applies.
	Default *Network `json:"default,omitempty"`
	// DefaultNetworks answer Query.DefaultNetworks, one each.
	DefaultNetworks []Network `json:"defaultNetworks,omitempty"`
	// Networks are the elements of the networks annotation.
	Networks []Network `json:"networks,omitempty"`
	// Warnings are about what is accepted and has no effect: for the pod's owner, each a line.
	Warnings []string `json:"warnings,omitempty"`
}

// BySelection reports whether the pod selected any of its networks itself.
func (s *Selection) BySelection() bool {
	return len(s.Networks) > 0 || s.Default != nil && s.Default.Element.Name != ""
}

// Report is the outcome of an ADD.
type Report struct {
	Pod pod.Ref `json:"pod"`
	// Status is the whole network-status of the pod.
	Status []annotations.Status `json:"status,omitempty"`
	// Interfaces say, with prefix lengths, what was added.
	Interfaces []Interface `json:"interfaces,omitempty"`
}

// Interface is one interface that an ADD made.
type Interface struct {
	Network   string         `json:"network"`
	Name      string         `json:"name"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	MAC       string         `json:"mac,omitempty"`
	// Claimed is the device that it is one of, if that was allocated for a ResourceClaim.
	Claimed *pod.ClaimedDevice `json:"claimed,omitempty"`
}
