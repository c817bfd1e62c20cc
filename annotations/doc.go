// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package annotations reads which networks a pod selects and writes what it got: strings in, values out.
//
// It implements the annotations of the NPWG Kubernetes Network Custom Resource Definition De-facto Standard v1.3: the network
// selection (§4.1) and the network status (§5), with the device information (NPWG Device Information Specification v1.1.0) that
// a status carries. All input is taken as hostile: any pod author can write it. Each value is bounded, checked whole before
// anything acts on it, and brought to one canonical form, so that no later package has to check it again.
package annotations

import "github.com/plexus-cni/plexus/nad"

// Keys of annotations, and the object that carries them.
const (
	// NetworksKey selects a pod's additional networks. NPWG v1.3 §4.1.
	NetworksKey = "k8s.v1.cni.cncf.io/networks"
	// DefaultNetworkKey replaces a pod's default network.
	DefaultNetworkKey = "v1.multus-cni.io/default-network"
	// NetworkStatusKey tells on a pod what its networks gave it. NPWG v1.3 §5.
	NetworkStatusKey = "k8s.v1.cni.cncf.io/network-status"
	// LegacyNetworkStatusKey is the name that NetworkStatusKey had in NPWG v1.0.
	LegacyNetworkStatusKey = "k8s.v1.cni.cncf.io/networks-status"
	// ResourceNameKey names on a NetworkAttachmentDefinition the device resource that an attachment consumes.
	ResourceNameKey = "k8s.v1.cni.cncf.io/resourceName"
	// ClaimRequestKey binds on a NetworkAttachmentDefinition each attachment to a request of a ResourceClaim of the pod, as
	// "claim/request" with the claim's name in spec.resourceClaims. It is Plexus' own.
	ClaimRequestKey = "plexus-cni.io/claim-request"
	// UnsupportedRequestsKey on a NetworkAttachmentDefinition, with the value "refuse", has pods refused that ask its network for what no
	// plugin of it declares as capability, whatever Plexus' configuration says. It is Plexus' own.
	UnsupportedRequestsKey = "plexus-cni.io/unsupported-requests"
	// AllowedCNIArgsKey on a NetworkAttachmentDefinition lists, separated by commas, keys that a pod's "cni-args" may carry although they
	// stand for a request that has to be granted: "mac, sysctl". It is Plexus' own.
	AllowedCNIArgsKey = "plexus-cni.io/allowed-cni-args"
	// MirrorKey is on the mirror of a static pod, which the kubelet has from a file: the UID by which the kubelet, and so the runtime, knows
	// the pod. The mirror has another one.
	MirrorKey = "kubernetes.io/config.mirror"
)

// Definition is what Plexus reads of a NetworkAttachmentDefinition, whoever found it.
func Definition(ref nad.Ref, config string, of map[string]string) nad.Definition {
	return nad.Definition{
		Ref: ref, Config: config,
		ResourceName: of[ResourceNameKey], ClaimRequest: of[ClaimRequestKey],
		UnsupportedRequests: of[UnsupportedRequestsKey], AllowedCNIArgs: of[AllowedCNIArgsKey],
	}
}

// DefinitionKeys are the annotations of a NetworkAttachmentDefinition that Plexus reads.
func DefinitionKeys() []string {
	return []string{ResourceNameKey, ClaimRequestKey, UnsupportedRequestsKey, AllowedCNIArgsKey}
}

// IsMirror reports whether a pod's annotations say that it is the mirror of the static pod with a UID (the kubelet's
// pkg/kubelet/config/common.go and pkg/kubelet/pod/mirror_client.go). The kubelet does not run a pod that says so of itself, so nobody
// gets round the comparison of UIDs by it.
func IsMirror(pod map[string]string, uid string) bool { return uid != "" && pod[MirrorKey] == uid }

const (
	// MaxNetworksBytes bounds the text of an annotation. Kubernetes bounds all annotations of an object together to as much, so
	// no text that comes from an API server is refused for it.
	MaxNetworksBytes = 256 << 10
	// MaxElements bounds the elements of one selection. Attachments are made one after the other (NPWG v1.3 §7.3), so long before
	// this number an ADD outlasts the patience of the container runtime; the bound keeps such a pod from occupying the node for so long.
	MaxElements = 256
)
