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
	NetworkInvalid      = "network-invalid"
	PluginMissing       = "plugin-missing"
	PluginNotExecutable = "plugin-not-executable"
	PluginBroken        = "plugin-broken"
	PluginVersion       = "plugin-version"
	PluginSlow          = "plugin-slow"
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
		{ConfNone, Error, "The container runtime's folder has no network configuration: no pod starts.", "Start plexusd and the cluster's network plugin."},
		{ConfMissing, Error, "No configuration there is of Plexus: pods get no further networks.", "Start plexusd on the node."},
		{ConfInvalid, Error, "Plexus' configuration can not be used.", "Correct the key that is named."},
		{ConfNotFirst, Error, "The container runtime takes the lexically first file, and that is not Plexus'.", "Remove that file, or name it behind Plexus'."},
		{ConfRenamed, Error, "The primary network plugin has renamed Plexus' configuration.", "Turn that off in the primary, for Cilium with `cni.exclusive=false`."},
		{ConfForeignRenamed, Warning, "The primary network plugin renames the configurations of others.", "The same."},
		{ConfBroken, Warning, "Another configuration in the folder can not be read.", "Correct or remove it."},
		{ConfSeveralMeta, Warning, "Several meta-plugins have a configuration in the folder.", "Take all but one off the node."},
		{NetworkInvalid, Error, "A network of the configuration, or of its folders, can not be used.", "Correct what is named."},
		{PluginMissing, Error, "A network needs a program that is not there.", "Install it in `binDir`, or correct `type`."},
		{PluginNotExecutable, Error, "A program is there and can not be executed.", "`chmod 0755`"},
		{PluginBroken, Error, "A program does not answer to VERSION.", "Install it anew, for this architecture."},
		{PluginVersion, Error, "A program does not speak the CNI version of a network.", "Install a newer one, or lower `cniVersion`."},
		{PluginSlow, Warning, "A program takes more than half a second to do nothing.", "Look what keeps the node or its disk busy."},
		{StatusNetwork, Error, "The plugins of a network say that they can not attach a pod now (STATUS).", "Mend what they say."},
		{StatusPlexus, Error, "Plexus says that it can not attach a pod now (STATUS).", "Mend what it says."},
		{DaemonUnreachable, Error, "Nobody answers on the daemon's socket: no pod is attached.", "Start plexusd on the node."},
		{DaemonVersion, Error, "Plugin and daemon speak different versions.", "Install both of one release."},
		{DaemonNotReady, Error, "The daemon is there and can not answer lookups yet.", "Look at its log; mostly it does not reach the API server."},
		{ManifestsInvalid, Error, "The folder of manifests can not be used.", "Correct what is named."},
		{KubeconfigInvalid, Error, "The kubeconfig, or a file that it names, can not be used.", "Run `plexusd install`, which writes it anew."},
		{CredentialsExpired, Error, "A token or certificate of the kubeconfig has expired.", "Run `plexusd install`, which renews it."},
		{CredentialsExpiring, Warning, "A token expires within five minutes, or a certificate within a week.", "The same."},
		{APIUnreachable, Error, "The API server does not answer this node.", "Look at routes, firewall, `server` and the certificate authority."},
		{APIRefused, Error, "The API server does not accept the credentials.", "Run `plexusd install`, which writes them anew."},
		{AddFailed, Error, "The last ADD of a pod failed, by Plexus' log of the last hour.", "Mend what it says; the kubelet tries again."},
		{PoolInvalid, Error, "A network's `ipam` can not be used by host-local.", "Correct the key that is named."},
		{PoolExhausted, Error, "All addresses of a pool of this node are in use.", "Widen or add a range; give back leaked leases."},
		{PoolNearlyExhausted, Warning, "Nine of ten addresses of a pool are in use.", "The same."},
		{PoolUsage, Info, "How many addresses of a pool are in use and free.", ""},
		{PoolLeak, Warning, "Addresses are leased to containers that neither Plexus, libcni's cache nor the container runtime knows.", "Remove the files of the leases that are named."},
		{PoolOverlap, Warning, "Addresses that a network gives away are another network's too, or the cluster's or node's.", "Give each a range of its own."},
		{PoolNodeAddress, Error, "A network on a link of the node may give away the node's own address.", "Leave it out with `rangeStart` and `rangeEnd`."},
		{AddressConflict, Error, "Two pods of a network have the same address.", "Give each its own."},
		{RecordOrphan, Warning, "A pod's network namespace is gone, and its addresses and devices are still held.", "`plexusctl doctor --fix`"},
		{RecordCorrupt, Error, "A record can not be read.", "Delete its pod; libcni's cache makes up for it."},
		{RecordNewer, Error, "A record was written by a newer Plexus.", "Install that again."},
		{RecordUnfinished, Warning, "An ADD stopped midway.", "Delete the pod."},
		{LegacyOrphan, Warning, "The former meta-plugin left state of containers that are gone.", "A GC of the container runtime gives it back."},
		{PodUnknown, Error, "The pod that was asked for is not on record here.", "Name a pod of this node."},
		{AttachmentFailed, Error, "An attachment of a pod failed, or could not be given back.", "Mend what its plugin says."},
		{InterfaceMissing, Error, "An interface of a pod is no longer there.", "Delete the pod."},
		{InterfaceDown, Error, "An interface of a pod is down.", "Find out who did that, or delete the pod."},
		{AddressLost, Error, "An interface has lost an address that it was given.", "Delete the pod."},
		{NamespaceUnseen, Info, "A pod's network namespace can not be looked at.", "Run as root on the node."},
		{NamespaceIdle, Warning, "No process lives in the network namespace of a pod that is still attached.", "End the sandbox: `crictl stopp`, `crictl rmp`."},
		{NamespaceOrphan, Warning, "A network namespace of the container runtime has neither a process nor a record.", "`ip netns delete`, once `crictl pods` does not know it either."},
		{LinkMissing, Error, "The interface or bridge of the node that a network needs is not there.", "Correct `master`, or create it."},
		{LinkDown, Error, "The interface or bridge of the node that a network needs is down.", "Set it up."},
		{LinkNoCarrier, Warning, "The interface of the node that a network needs has no carrier.", "Look at cable and switch."},
		{GatewayMissing, Error, "A bridge has lost the address that its pods have for a gateway.", "Add it again."},
		{MTUMismatch, Warning, "An interface of a pod has a larger MTU than the link of the node that it hangs on.", "Set `mtu` in the network's configuration."},
		{RouteTwoDefaults, Warning, "A pod has default routes through several interfaces.", "Leave one, or chain the plugin `sbr`."},
		{RouteSourceEmpty, Warning, "A rule sends packets of a pod to a table without routes.", "Delete the pod."},
		{RouteSourceMissing, Warning, "The plugin `sbr` set a rule that is no longer there: answers leave by another interface.", "Delete the pod."},
		{RouteReversePath, Warning, "Strict reverse path filtering drops what comes from beyond the subnet of a further network.", "Set `rp_filter` to 2."},
		{GatewayUnreachable, Error, "A gateway does not answer ARP or neighbour discovery.", "Correct `gateway`; look at router and VLAN."},
		{SRIOVNoVFs, Error, "There are networks of type `sriov` and no VFs.", "Make VFs: `sriov_numvfs`."},
		{SRIOVPFDown, Error, "A PF with VFs is down or has no carrier.", "Set it up; look at cable and switch."},
		{SRIOVVFDriver, Warning, "A VF is bound to no driver.", "Bind it."},
		{SRIOVVFSettings, Error, "What a PF enforces on a VF is not what the pod's network asked for.", "Delete the pod; find out who else sets VFs."},
		{SRIOVVFLost, Warning, "A VF is in a network namespace that nobody knows, or was taken away from a pod.", "End that sandbox."},
		{SRIOVLeftoverName, Warning, "A device came back from a pod under a name that the kernel, or sriov-cni, made up.", "Rename it."},
		{SRIOVStaleMark, Info, "sriov-cni left marks of sandboxes that are gone.", ""},
		{SRIOVRecordOrphan, Info, "A VF is on record for a sandbox that is gone.", "The next ADD that gets it gives it back first."},
		{DevicesUnknown, Error, "The kubelet does not tell which devices pods were given.", "Start the kubelet."},
		{DevicePluginGone, Warning, "A device plugin has left its socket and does not listen.", "Start it."},
		{Fixed, Info, "What a sandbox held that is gone was given back (`--fix`).", ""},
		{FixFailed, Error, "What a sandbox holds that is gone could not be given back.", "Mend what the plugin says, and try again."},
		{CheckFailed, Warning, "A check could not be done, or did not end in time. The others were.", "Run as root on the node."},
		{CheckSkipped, Info, "A check was left out, and why.", ""},
	}
}
