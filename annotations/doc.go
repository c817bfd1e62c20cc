// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package annotations reads which networks a pod selects and writes what it got: strings in, values out.
//
// It implements the annotations of the NPWG Kubernetes Network Custom Resource Definition De-facto Standard v1.3: the network
// selection (§4.1) and the network status (§5), with the device information (NPWG Device Information Specification v1.1.0) that
// a status carries. All input is taken as hostile: any pod author can write it. Each value is bounded, checked whole before
// anything acts on it, and brought to one canonical form, so that no later package has to check it again.
package annotations

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
	// ConfigSourceKey tells on a pod where the kubelet has it from; present and not "api", the pod is static.
	ConfigSourceKey = "kubernetes.io/config.source"
)

// IsStatic reports whether a pod's annotations say that it comes from a file of the kubelet: what the API server has of it is a
// mirror, with a UID of its own.
func IsStatic(pod map[string]string) bool {
	from, ok := pod[ConfigSourceKey]
	return ok && from != "api"
}

const (
	// MaxNetworksBytes bounds the text of an annotation. Kubernetes bounds all annotations of an object together to as much, so
	// no text that comes from an API server is refused for it.
	MaxNetworksBytes = 256 << 10
	// MaxElements bounds the elements of one selection. Attachments are made one after the other (NPWG v1.3 §7.3), so long before
	// this number an ADD outlasts the patience of the container runtime; the bound keeps such a pod from occupying the node for so long.
	MaxElements = 256
)
