// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

// The codes of findings. They are stable: scripts and documents go by them.
const (
	ConfNone            = "conf-none"
	ConfMissing         = "conf-missing"
	ConfInvalid         = "conf-invalid"
	ConfNotFirst        = "conf-not-first"
	ConfRenamed         = "conf-renamed"
	ConfForeignRenamed  = "conf-foreign-renamed"
	ConfBroken          = "conf-broken"
	ConfSeveralMeta     = "conf-several-meta"
	ConfCRIOGC          = "conf-crio-gc"
	ConfMesh            = "conf-mesh"
	ConfMeshTwice       = "conf-mesh-twice"
	NetworkInvalid      = "network-invalid"
	NetworkNameTaken    = "network-name-taken"
	PluginMissing       = "plugin-missing"
	PluginNotExecutable = "plugin-not-executable"
	PluginBroken        = "plugin-broken"
	PluginVersion       = "plugin-version"
	PluginSlow          = "plugin-slow"
	NetworkNoCheck      = "network-no-check"
	StatusNetwork       = "status-network"
	StatusPlexus        = "status-plexus"
	DaemonUnreachable   = "daemon-unreachable"
	DaemonVersion       = "daemon-version"
	DaemonNotReady      = "daemon-not-ready"
	ManifestsInvalid    = "manifests-invalid"
	KubeconfigInvalid   = "kubeconfig-invalid"
	CredentialsExpired  = "credentials-expired"
	CredentialsExpiring = "credentials-expiring"
	APIUnreachable      = "api-unreachable"
	APIRefused          = "api-refused"
	AddFailed           = "add-failed"
	PoolInvalid         = "pool-invalid"
	PoolExhausted       = "pool-exhausted"
	PoolNearlyExhausted = "pool-nearly-exhausted"
	PoolUsage           = "pool-usage"
	PoolLeak            = "pool-leak"
	PoolOverlap         = "pool-overlap"
	PoolShared          = "pool-shared"
	PoolNodeAddress     = "pool-node-address"
	AddressConflict     = "address-conflict"
	RecordOrphan        = "record-orphan"
	RecordCorrupt       = "record-corrupt"
	RecordNewer         = "record-newer"
	RecordUnfinished    = "record-unfinished"
	LegacyOrphan        = "legacy-orphan"
	PodUnknown          = "pod-unknown"
	AttachmentFailed    = "attachment-failed"
	InterfaceMissing    = "interface-missing"
	InterfaceDown       = "interface-down"
	AddressLost         = "address-lost"
	NamespaceUnseen     = "namespace-unseen"
	NamespaceIdle       = "namespace-idle"
	NamespaceOrphan     = "namespace-orphan"
	LinkMissing         = "link-missing"
	LinkDown            = "link-down"
	LinkNoCarrier       = "link-no-carrier"
	GatewayMissing      = "gateway-missing"
	MTUMismatch         = "mtu-mismatch"
	RouteTwoDefaults    = "route-two-defaults"
	RouteSourceEmpty    = "route-source-empty"
	RouteSourceMissing  = "route-source-missing"
	RouteReversePath    = "route-reverse-path"
	GatewayUnreachable  = "gateway-unreachable"
	SRIOVNoVFs          = "sriov-no-vfs"
	SRIOVPFDown         = "sriov-pf-down"
	SRIOVVFDriver       = "sriov-vf-driver"
	SRIOVVFSettings     = "sriov-vf-settings"
	SRIOVVFLost         = "sriov-vf-lost"
	SRIOVLeftoverName   = "sriov-leftover-name"
	SRIOVStaleMark      = "sriov-stale-mark"
	SRIOVRecordOrphan   = "sriov-record-orphan"
	DevicesUnknown      = "devices-unknown"
	DevicePluginGone    = "device-plugin-gone"
	Fixed               = "fixed"
	FixFailed           = "fix-failed"
	CheckFailed         = "check-failed"
	CheckSkipped        = "check-skipped"
)

// Code is a kind of finding.
type Code struct {
	Code     string
	Severity Severity
	// Meaning and Mend are Markdown, a sentence each.
	Meaning, Mend string
}

// Codes are all there are, by subject.
func Codes() []Code {
	return []Code{
		{ConfNone, Error, "The container runtime's folder has no network configuration, so no pod starts.", "Start plexusd and the cluster's network plugin."},
		{ConfMissing, Error, "None of the configurations is Plexus', so pods get no further networks.", "Start plexusd on the node."},
		{ConfInvalid, Error, "Plexus' configuration cannot be used.", "Correct the key that is named."},
		{ConfNotFirst, Error, "The container runtime takes the lexically first file, which is not Plexus'.", "Remove that file, or rename it so that it sorts after Plexus'."},
		{ConfRenamed, Error, "The primary network plugin has renamed Plexus' configuration.", "Turn that off in the primary. For Cilium: `cni.exclusive=false`."},
		{ConfForeignRenamed, Warning, "The primary network plugin renames other configurations.", "As for `conf-renamed`."},
		{ConfBroken, Warning, "Another configuration in the folder cannot be read.", "Correct or remove it."},
		{ConfSeveralMeta, Warning, "Several meta-plugins have a configuration in the folder.", "Remove all but one from the node."},
		{ConfCRIOGC, Warning, "CRI-O runs GC for every configuration in its folder, and tells the primary's own file, with which it attached nothing, that no attachment is valid.", "Set `\"disableGC\": true` in that file."},
		{ConfMesh, Info, "A service mesh has chained its plugin to Plexus' configuration, where plexusd keeps it.", ""},
		{ConfMeshTwice, Warning, "A service mesh has chained its plugin both to Plexus' configuration and to the default network's, so it runs twice for each pod.", "For Istio: set `cni.cniConfFileName` to the default network's file."},
		{NetworkInvalid, Error, "A network of the configuration, or of its folders, cannot be used.", "Correct what is named."},
		{NetworkNameTaken, Warning, "A NetworkAttachmentDefinition has the CNI name of the default network.", "Give it a `name` of its own."},
		{PluginMissing, Error, "A network needs a plugin that is not installed.", "Install it in `binDir`, or correct `type`."},
		{PluginNotExecutable, Error, "A plugin is installed but not executable.", "`chmod 0755`"},
		{PluginBroken, Error, "A plugin does not answer VERSION.", "Install it again, for this architecture."},
		{PluginVersion, Error, "A plugin does not support the CNI version of a network.", "Install a newer one, or lower `cniVersion`."},
		{PluginSlow, Warning, "A plugin takes more than half a second for VERSION, which does nothing.", "Find out what keeps the node or its disk busy."},
		{NetworkNoCheck, Warning, "With `checkNetworks` `all`, CHECK calls an IPAM plugin that does not implement it.", "Set `\"disableCheck\": true` in the network's configuration."},
		{StatusNetwork, Error, "The plugins of a network report that they cannot attach a pod now (STATUS).", "Fix what they report."},
		{StatusPlexus, Error, "Plexus reports that it cannot attach a pod now (STATUS).", "Fix what it reports."},
		{DaemonUnreachable, Error, "plexusd does not answer on its socket, so no pod is attached.", "Start plexusd on the node."},
		{DaemonVersion, Error, "The plugin and plexusd speak different versions.", "Install both from one release."},
		{DaemonNotReady, Error, "plexusd runs but cannot answer lookups yet.", "Look at its log. Usually it cannot reach the API server."},
		{ManifestsInvalid, Error, "The folder of manifests cannot be used.", "Correct what is named."},
		{KubeconfigInvalid, Error, "The kubeconfig, or a file that it names, cannot be used.", "Run `plexusd install`, which rewrites it."},
		{CredentialsExpired, Error, "A token or certificate of the kubeconfig has expired.", "Run `plexusd install`, which renews it."},
		{CredentialsExpiring, Warning, "A token expires within five minutes, or a certificate within a week.", "As for `credentials-expired`."},
		{APIUnreachable, Error, "The API server does not answer this node.", "Check routes, firewall, `server` and the certificate authority."},
		{APIRefused, Error, "The API server does not accept the credentials.", "Run `plexusd install`, which rewrites them."},
		{AddFailed, Error, "The last ADD of a pod failed, by Plexus' log of the last hour.", "Fix what the error names. The kubelet tries again."},
		{PoolInvalid, Error, "host-local cannot use the `ipam` section of a network.", "Correct the key that is named."},
		{PoolExhausted, Error, "All addresses of a pool of this node are in use.", "Widen the range or add one, and release leaked leases."},
		{PoolNearlyExhausted, Warning, "Nine out of ten addresses of a pool are in use.", "As for `pool-exhausted`."},
		{PoolUsage, Info, "How many addresses of a pool are in use and free.", ""},
		{PoolLeak, Warning, "Addresses are leased to containers that neither Plexus, libcni's cache nor the container runtime knows.", "Remove the lease files that are named."},
		{PoolOverlap, Warning, "Addresses of a network's pool belong to another network too, or to the cluster or the node.", "Give each a range of its own."},
		{PoolShared, Warning, "Networks of several Kubernetes namespaces, or one of them and the default network, give away the same addresses from one folder of leases.", "Give each a `name` and a range of its own."},
		{PoolNodeAddress, Error, "The pool of a network on one of the node's links contains the node's own address.", "Leave it out with `rangeStart` and `rangeEnd`."},
		{AddressConflict, Error, "Two pods of a network have the same address.", "Give each its own."},
		{RecordOrphan, Warning, "A pod's network namespace is gone, but its addresses and devices are still held.", "`plexusctl doctor --fix`"},
		{RecordCorrupt, Error, "A record cannot be read.", "Delete its pod. DEL then uses libcni's cache instead."},
		{RecordNewer, Error, "A record was written by a newer Plexus.", "Install that version again."},
		{RecordUnfinished, Warning, "An ADD stopped midway.", "Delete the pod."},
		{LegacyOrphan, Warning, "Multus left state of containers that are gone.", "The next GC of the container runtime releases it."},
		{PodUnknown, Error, "The pod that was asked for is not on record here.", "Name a pod of this node."},
		{AttachmentFailed, Error, "An attachment of a pod failed, or could not be undone.", "Fix what its plugin reports."},
		{InterfaceMissing, Error, "An interface of a pod is no longer there.", "Delete the pod."},
		{InterfaceDown, Error, "An interface of a pod is down.", "Find out what set it down, or delete the pod."},
		{AddressLost, Error, "An interface has lost an address that it was given.", "Delete the pod."},
		{NamespaceUnseen, Info, "A pod's network namespace cannot be examined.", "Run as root on the node."},
		{NamespaceIdle, Warning, "No process runs in the network namespace of a pod that is still attached.", "End the sandbox: `crictl stopp`, `crictl rmp`."},
		{NamespaceOrphan, Warning, "A network namespace of the container runtime has neither a process nor a record.", "`ip netns delete`, once `crictl pods` does not list it either."},
		{LinkMissing, Error, "The interface or bridge of the node that a network needs does not exist.", "Correct `master`, or create it."},
		{LinkDown, Error, "The interface or bridge of the node that a network needs is down.", "Set it up."},
		{LinkNoCarrier, Warning, "The interface of the node that a network needs has no carrier.", "Check cable and switch."},
		{GatewayMissing, Error, "A bridge has lost the address that its pods use as gateway.", "Add it again."},
		{MTUMismatch, Warning, "An interface of a pod has a larger MTU than the node's link below it.", "Set `mtu` in the network's configuration."},
		{RouteTwoDefaults, Warning, "A pod has default routes through several interfaces.", "Keep one, or chain the plugin `sbr`."},
		{RouteSourceEmpty, Warning, "A rule sends packets of a pod to a table without routes.", "Delete the pod."},
		{RouteSourceMissing, Warning, "A rule that the plugin `sbr` set is gone, so replies leave by another interface.", "Delete the pod."},
		{RouteReversePath, Warning, "Strict reverse path filtering drops what comes from beyond the subnet of a secondary network.", "Set `rp_filter` to 2."},
		{GatewayUnreachable, Error, "A gateway does not answer ARP or neighbour discovery.", "Correct `gateway`; check router and VLAN."},
		{SRIOVNoVFs, Error, "There are networks of type `sriov` but no VFs.", "Create VFs: `sriov_numvfs`."},
		{SRIOVPFDown, Error, "A PF with VFs is down or has no carrier.", "Set it up; check cable and switch."},
		{SRIOVVFDriver, Warning, "A VF is bound to no driver.", "Bind it."},
		{SRIOVVFSettings, Error, "The PF does not enforce on a VF what the pod's network asked for.", "Delete the pod, and find out what else configures VFs."},
		{SRIOVVFLost, Warning, "A VF is in a network namespace that no record names and no process runs in, or was taken away from a pod.", "End that sandbox."},
		{SRIOVLeftoverName, Warning, "A device came back from a pod under a name that the kernel, or sriov-cni, made up.", "Rename it."},
		{SRIOVStaleMark, Info, "sriov-cni left marks of sandboxes that are gone.", ""},
		{SRIOVRecordOrphan, Info, "A VF is on record for a sandbox that is gone.", "Nothing to do: the next ADD that uses the VF releases it first."},
		{DevicesUnknown, Error, "The kubelet does not report which devices pods were given.", "Start the kubelet."},
		{DevicePluginGone, Warning, "A device plugin left its socket but does not listen.", "Start it."},
		{Fixed, Info, "What a sandbox that is gone still held was released (`--fix`).", ""},
		{FixFailed, Error, "What a sandbox that is gone still holds could not be released.", "Fix what the plugin reports, and try again."},
		{CheckFailed, Warning, "A check could not be done, or did not end in time. The others were done.", "Run as root on the node."},
		{CheckSkipped, Info, "A check was skipped, and why.", ""},
	}
}
