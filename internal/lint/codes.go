// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import "github.com/plexus-cni/plexus/internal/finding"

// The codes of findings. They are stable: scripts and documents go by them.
const (
	ManifestInvalid       = "manifest-invalid"
	ManifestDuplicate     = "manifest-duplicate"
	AnnotationUnknown     = "annotation-unknown"
	ResourceName          = "resource-name"
	ClaimRequest          = "claim-request"
	ConfigEmpty           = "config-empty"
	ConfigJSON            = "config-json"
	ConfigInvalid         = "config-invalid"
	ConfigDuplicateKey    = "config-duplicate-key"
	PluginUnknown         = "plugin-unknown"
	PluginMeta            = "plugin-meta"
	PluginOrder           = "plugin-order"
	KeyUnknown            = "key-unknown"
	KeyMissing            = "key-missing"
	KeyValue              = "key-value"
	SRIOVConfig           = "sriov-config"
	CapabilityUnknown     = "capability-unknown"
	CapabilityUnsupported = "capability-unsupported"
	DeviceMissing         = "device-missing"
	DeviceUnused          = "device-unused"
	IPAMInvalid           = "ipam-invalid"
	GatewayOutside        = "gateway-outside"
	IPAMOverlap           = "ipam-overlap"
	NetworkOverlap        = "network-overlap"
	TooMany               = "too-many"
)

// Kinds are all there are, by subject.
func Kinds() []finding.Kind {
	return []finding.Kind{
		{Code: ManifestInvalid, Severity: finding.Error, Meaning: "A file is no YAML, or an object can not be read as what its `kind` says.", Mend: "Correct what is named."},
		{Code: ManifestDuplicate, Severity: finding.Error, Meaning: "A NetworkAttachmentDefinition is there twice: which one counts depends on the order.", Mend: "Remove one."},
		{Code: AnnotationUnknown, Severity: finding.Warning, Meaning: "An annotation of the multi-network conventions that means nothing.", Mend: "Correct its key."},
		{Code: ResourceName, Severity: finding.Error, Meaning: "The annotation `resourceName` names nothing that a node could offer.", Mend: "Write `domain/name`, as in the node's `status.allocatable`."},
		{Code: ClaimRequest, Severity: finding.Error, Meaning: "The annotation `claim-request` names no request of a ResourceClaim.", Mend: "Write `claim/request`."},
		{Code: ConfigEmpty, Severity: finding.Info, Meaning: "There is no configuration: each node has to have one of that name in `confDir`.", Mend: "Put one there, or write `spec.config`."},
		{Code: ConfigJSON, Severity: finding.Error, Meaning: "The configuration is no JSON.", Mend: "Correct it where the finding points. JSON has no comments, and no comma after the last item."},
		{Code: ConfigInvalid, Severity: finding.Error, Meaning: "The configuration is JSON, and none that Plexus accepts.", Mend: "Correct the key that is named."},
		{Code: ConfigDuplicateKey, Severity: finding.Warning, Meaning: "A key is there twice: the last one counts, without a word.", Mend: "Remove one."},
		{Code: PluginUnknown, Severity: finding.Warning, Meaning: "No plugin of this name is known, nor is one in the folder of `--bin-dir`.", Mend: "Correct `type`, or name the folder that has the plugin."},
		{Code: PluginMeta, Severity: finding.Error, Meaning: "The network is made of a meta-plugin, which would call itself.", Mend: "Name a network plugin."},
		{Code: PluginOrder, Severity: finding.Error, Meaning: "A plugin can not work where it stands: it needs an interface that a plugin before it made.", Mend: "Put it behind that plugin."},
		{Code: KeyUnknown, Severity: finding.Warning, Meaning: "The plugin has no such key: what it says is without effect.", Mend: "Correct or remove it. Keys that begin with `_` or `//` pass as comments."},
		{Code: KeyMissing, Severity: finding.Error, Meaning: "The plugin can not work without a key.", Mend: "Add it."},
		{Code: KeyValue, Severity: finding.Error, Meaning: "The plugin refuses the value of a key.", Mend: "Correct it."},
		{Code: SRIOVConfig, Severity: finding.Error, Meaning: "The built-in plugin `sriov` refuses the configuration.", Mend: "Correct the key that is named."},
		{Code: CapabilityUnknown, Severity: finding.Warning, Meaning: "No pod can ask for a capability of this name.", Mend: "Correct it."},
		{Code: CapabilityUnsupported, Severity: finding.Warning, Meaning: "A plugin declares a capability that it does not honour: what a pod asks for is accepted, and nothing comes of it.", Mend: "Declare it at the plugin that honours it, or remove it."},
		{Code: DeviceMissing, Severity: finding.Warning, Meaning: "The plugin attaches a device, and nothing says which: only pods that name one themselves can be attached.", Mend: "Annotate the NetworkAttachmentDefinition with `k8s.v1.cni.cncf.io/resourceName`."},
		{Code: DeviceUnused, Severity: finding.Warning, Meaning: "Pods have to be given a device for the network, and no plugin of it does anything with one.", Mend: "Remove the annotation, or correct `type`."},
		{Code: IPAMInvalid, Severity: finding.Error, Meaning: "The section `ipam` holds addresses that its plugin refuses, or that can not work.", Mend: "Correct the key that is named."},
		{Code: GatewayOutside, Severity: finding.Warning, Meaning: "A gateway is outside of the subnet, and no route leads to it.", Mend: "Correct it, or add a route to it that has no `gw`."},
		{Code: IPAMOverlap, Severity: finding.Error, Meaning: "Two ranges of a network have addresses in common.", Mend: "Set them apart."},
		{Code: NetworkOverlap, Severity: finding.Warning, Meaning: "Two networks of the input give away the same addresses, from leases of their own.", Mend: "Set their ranges apart, unless no pod and no router is ever in both."},
		{Code: TooMany, Severity: finding.Error, Meaning: "There are more findings than anybody reads: the rest is left out.", Mend: "Mend these first."},
	}
}
