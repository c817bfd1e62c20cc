// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import "github.com/plexus-cni/plexus/internal/finding"

// The codes of findings. They are stable: scripts and documents go by them.
const (
	ManifestInvalid       = "manifest-invalid"
	ManifestDuplicate     = "manifest-duplicate"
	AnnotationUnknown     = "annotation-unknown"
	AnnotationInvalid     = "annotation-invalid"
	AnnotationMisplaced   = "annotation-misplaced"
	ResourceName          = "resource-name"
	ClaimRequest          = "claim-request"
	ConfigEmpty           = "config-empty"
	ConfigJSON            = "config-json"
	ConfigInvalid         = "config-invalid"
	ConfigDuplicateKey    = "config-duplicate-key"
	PluginUnknown         = "plugin-unknown"
	PluginMeta            = "plugin-meta"
	PluginOrder           = "plugin-order"
	PluginChain           = "plugin-chain"
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
	LeasesShared          = "leases-shared"
	RouteDefault          = "route-default"
	TooMany               = "too-many"
)

// Kinds are all there are, by subject.
func Kinds() []finding.Kind {
	return []finding.Kind{
		{Code: ManifestInvalid, Severity: finding.Error, Meaning: "A file is not YAML, or an object is not what its `kind` says.", Mend: "Correct what is named."},
		{Code: ManifestDuplicate, Severity: finding.Error, Meaning: "A NetworkAttachmentDefinition is defined twice. Which one counts depends on the order.", Mend: "Remove one."},
		{Code: AnnotationUnknown, Severity: finding.Warning, Meaning: "An annotation that looks like one of the multi-network conventions and has no effect.", Mend: "Correct its key."},
		{Code: AnnotationInvalid, Severity: finding.Error, Meaning: "The annotation by which a pod selects networks is refused.", Mend: "Correct what is named."},
		{Code: AnnotationMisplaced, Severity: finding.Warning, Meaning: "The annotation that selects networks is on a workload instead of its pods, where it has no effect.", Mend: "Move it to the metadata of the pod template."},
		{Code: ResourceName, Severity: finding.Error, Meaning: "The annotation `resourceName` names nothing that a node could offer.", Mend: "Write `domain/name`, as in the node's `status.allocatable`."},
		{Code: ClaimRequest, Severity: finding.Error, Meaning: "The annotation `claim-request` names no request of a ResourceClaim.", Mend: "Write `claim/request`."},
		{Code: ConfigEmpty, Severity: finding.Info, Meaning: "There is no configuration: each node must have one of that name in `confDir`.", Mend: "Put one there, or write `spec.config`."},
		{Code: ConfigJSON, Severity: finding.Error, Meaning: "The configuration is not JSON.", Mend: "Correct it where the finding points. JSON has no comments, and no comma after the last item."},
		{Code: ConfigInvalid, Severity: finding.Error, Meaning: "Plexus does not accept the configuration.", Mend: "Correct the key that is named."},
		{Code: ConfigDuplicateKey, Severity: finding.Warning, Meaning: "A key appears twice. The last one counts, silently.", Mend: "Remove one."},
		{Code: PluginUnknown, Severity: finding.Warning, Meaning: "No plugin of this name is known, and none is in the folder of `--bin-dir`.", Mend: "Correct `type`, or name the folder that has the plugin."},
		{Code: PluginMeta, Severity: finding.Error, Meaning: "The network is made of a meta-plugin, which would call itself.", Mend: "Name a network plugin."},
		{Code: PluginOrder, Severity: finding.Error, Meaning: "A plugin cannot be the first of its list: it needs an interface that another one created.", Mend: "Put it after that plugin."},
		{Code: PluginChain, Severity: finding.Error, Meaning: "A plugin cannot work with the interface that the first plugin of its list creates.", Mend: "Remove it, or use the first plugin's own key for the purpose."},
		{Code: KeyUnknown, Severity: finding.Warning, Meaning: "The plugin has no such key, so its value has no effect.", Mend: "Correct or remove it. Keys that begin with `_` or `//` pass as comments."},
		{Code: KeyMissing, Severity: finding.Error, Meaning: "A key that the plugin needs is missing.", Mend: "Add it."},
		{Code: KeyValue, Severity: finding.Error, Meaning: "The plugin refuses the value of a key.", Mend: "Correct it."},
		{Code: SRIOVConfig, Severity: finding.Error, Meaning: "The built-in plugin `sriov` refuses the value of a key.", Mend: "Correct it."},
		{Code: CapabilityUnknown, Severity: finding.Warning, Meaning: "No pod can ask for a capability of this name.", Mend: "Correct it."},
		{Code: CapabilityUnsupported, Severity: finding.Warning, Meaning: "A plugin declares a capability that it does not honour: what a pod asks for is accepted and has no effect, or its ADD fails.", Mend: "Declare it at the plugin that honours it, or remove it."},
		{Code: DeviceMissing, Severity: finding.Warning, Meaning: "The plugin attaches a device, and nothing says which one.", Mend: "Annotate the NetworkAttachmentDefinition with `k8s.v1.cni.cncf.io/resourceName`."},
		{Code: DeviceUnused, Severity: finding.Info, Meaning: "Pods request a resource for the network, and none of its plugins takes a device: the resource only steers the scheduler.", Mend: "Nothing, if that is meant. Else remove the annotation, or correct `type`."},
		{Code: IPAMInvalid, Severity: finding.Error, Meaning: "The section `ipam` has addresses that its plugin refuses, or that cannot work.", Mend: "Correct the key that is named."},
		{Code: GatewayOutside, Severity: finding.Warning, Meaning: "A gateway is outside of the subnet, and no route leads to it.", Mend: "Correct it, or add a route to it that has no `gw`."},
		{Code: IPAMOverlap, Severity: finding.Error, Meaning: "Two ranges of a network have addresses in common.", Mend: "Separate them."},
		{Code: NetworkOverlap, Severity: finding.Warning, Meaning: "Two networks of the input give away the same addresses, each with its own leases.", Mend: "Separate their ranges, unless no pod and no router is ever in both."},
		{Code: LeasesShared, Severity: finding.Warning, Meaning: "Networks of several Kubernetes namespaces give away the same addresses from one folder of leases, because their CNI names are equal.", Mend: "Give each a `name` and a range of its own."},
		{Code: RouteDefault, Severity: finding.Warning, Meaning: "The network sets a default route, which competes with that of the pod's default network.", Mend: "Remove it. Pods that want it use `default-route` in their annotation."},
		{Code: TooMany, Severity: finding.Error, Meaning: "There are too many findings: the rest is left out.", Mend: "Fix these first."},
	}
}
