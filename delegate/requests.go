// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/nad"
)

// A pod may choose among what was granted, and grants itself nothing. This file is the one place that decides what of a pod's requests
// reaches the plugins of a network, and on whose word; docs/security.md has it as a table.

// Capabilities of the CNI conventions that Plexus knows.
const (
	capMAC            = "mac"
	capIPs            = "ips"
	capBandwidth      = "bandwidth"
	capPortMappings   = "portMappings"
	capInfinibandGUID = "infinibandGUID"
	capDeviceID       = "deviceID"
	capDeviceInfoFile = "CNIDeviceInfoFile"
	capIPAMClaim      = "ipam-claim-reference"
)

// Keys of CNI_ARGS by which plugins take a request without any capability.
const (
	argMAC = "MAC"
	argIP  = "IP"
)

// Rules are what the plugin's own configuration says of what pods and networks may ask for.
type Rules struct {
	// UnsupportedRequests says what becomes of requests that no plugin of a network declares; "" verifies them.
	UnsupportedRequests config.RequestPolicy
	// DefaultNetworkPortMappings lets a pod's element for the default network ask for port mappings beside the runtime's.
	DefaultNetworkPortMappings bool
	// AllowedPlugins are the only types that networks of the cluster may call; nil for all.
	AllowedPlugins []string
	// MaxNetworks bounds the attachments of the pod; 0 stands for MaxAttachments.
	MaxNetworks int
}

// RulesOf are the rules of a configuration.
func RulesOf(c *config.Config) Rules {
	return Rules{
		UnsupportedRequests: c.UnsupportedRequests, DefaultNetworkPortMappings: c.DefaultNetworkPortMappings,
		AllowedPlugins: c.AllowedPlugins, MaxNetworks: c.MaxNetworks,
	}
}

// podRequest is something that an element asks the plugins of its network for.
type podRequest struct {
	// field is the element's key, capability the one that a plugin declares which honours it.
	field, capability string
	// arg is the key of CNI_ARGS by which plugins that declare nothing may honour it all the same, "" for none. What comes of it can be
	// seen afterwards, of all others it cannot.
	arg   string
	value any
}

// requestsOf are an element's requests.
func requestsOf(e annotations.Element) []podRequest {
	all := []struct {
		podRequest
		asked bool
	}{
		{podRequest{"mac", capMAC, argMAC, e.MAC}, e.MAC != ""},
		{podRequest{"ips", capIPs, argIP, e.IPs}, len(e.IPs) > 0},
		{podRequest{"bandwidth", capBandwidth, "", e.Bandwidth}, e.Bandwidth != nil},
		{podRequest{"portMappings", capPortMappings, "", e.PortMappings}, len(e.PortMappings) > 0},
		{podRequest{"infiniband-guid", capInfinibandGUID, "", e.InfinibandGUID}, e.InfinibandGUID != ""},
		{podRequest{"deviceID", capDeviceID, "", e.DeviceID}, e.DeviceID != ""},
	}
	var asked []podRequest
	for _, r := range all {
		if r.asked {
			asked = append(asked, r.podRequest)
		}
	}
	return asked
}

// addRequests puts what an element asks for, and may ask for, into the attachment: into its capability args where a plugin declares the
// capability, and on its list of what has to be looked at after the ADD where none does.
func (r *Request) addRequests(a *Attachment, n Network) error {
	declared := n.List.Capabilities()
	for _, q := range requestsOf(n.Element) {
		if q.capability == capDeviceID && (n.Device != "" || n.Claimed != nil) {
			continue // it chose among the devices that the pod was given
		}
		if a.Default {
			if err := r.mergeable(q); err != nil {
				return err
			}
		}
		if !declared[q.capability] {
			if err := r.undeclared(a, n, q); err != nil {
				return err
			}
			continue
		}
		if q.capability == capDeviceID && n.ResourceName != "" {
			return fmt.Errorf("%w: it was asked for the device %q, and takes only devices of resource %q that the node gave the pod, which it did not: request one in the resources of the pod's containers",
				ErrInvalid, n.Element.DeviceID, n.ResourceName)
		}
		if err := a.addCapability(q.capability, q.value); err != nil {
			return err
		}
	}
	// These two are information, not demands: a plugin that wants them says so.
	if n.Device != "" {
		if err := a.setCapability(capDeviceID, n.Device); err != nil {
			return err
		}
	}
	if ref := n.Element.IPAMClaimReference; ref != "" {
		return a.setCapability(capIPAMClaim, ref)
	}
	return nil
}

// undeclared decides about a request that no plugin of the network declares.
func (r *Request) undeclared(a *Attachment, n Network, q podRequest) error {
	policy := r.UnsupportedRequests
	if n.RefuseUnsupported {
		policy = config.RefuseRequests
	}
	switch {
	case policy == config.IgnoreRequests:
		return nil
	case q.arg != "" && policy != config.RefuseRequests:
		if a.Verify == nil {
			a.Verify = &Asked{}
		}
		switch q.capability {
		case capMAC:
			a.Verify.MAC = n.Element.MAC
		case capIPs:
			a.Verify.IPs = n.Element.IPs
		}
		return nil
	}
	fix := fmt.Sprintf("add \"capabilities\": {%q: true} to the plugin that honours it, or drop the request", q.capability)
	if !n.RefuseUnsupported {
		fix = fmt.Sprintf("add \"capabilities\": {%q: true} to the plugin that honours it, drop the request, or set \"unsupportedRequests\": \"ignore\" in Plexus' configuration", q.capability)
	}
	return fmt.Errorf("%w: it was asked for %q, and none of its plugins (%s) declares the capability %q: %s",
		ErrInvalid, q.field, strings.Join(n.List.Types(), ", "), q.capability, fix)
}

// mergeable refuses a request to the cluster's default network that would take the place of the runtime's own there.
func (r *Request) mergeable(q podRequest) error {
	if q.capability == capPortMappings {
		if !r.DefaultNetworkPortMappings {
			return fmt.Errorf("%w: it is the pod's default network, and was asked for \"portMappings\", which Pod Security, quotas and the scheduler do not see there: use hostPort in the pod's containers, or set \"defaultNetworkPortMappings\": true in Plexus' configuration", ErrInvalid)
		}
		return nil
	}
	_, taken := r.RuntimeConfig[q.capability]
	for _, kv := range r.Args.Others {
		taken = taken || q.arg != "" && kv[0] == q.arg
	}
	if taken {
		return fmt.Errorf("%w: it is the pod's default network, of which the container runtime asks for %q itself: drop the request", ErrInvalid, q.field)
	}
	return nil
}

// addCapability sets a capability arg. Port mappings are appended to those of the runtime.
func (a *Attachment) addCapability(name string, value any) error {
	before, ok := a.CapabilityArgs[name]
	if name != capPortMappings || !ok {
		return a.setCapability(name, value)
	}
	var runtimes, pods []json.RawMessage
	raw, err := json.Marshal(value)
	if err == nil {
		err = errors.Join(json.Unmarshal(before, &runtimes), json.Unmarshal(raw, &pods))
	}
	if err != nil {
		return fmt.Errorf("%w: %q of the container runtime and of the pod cannot be put together: %w", ErrInvalid, name, err)
	}
	return a.setCapability(name, slices.Concat(runtimes, pods))
}

func (a *Attachment) setCapability(name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("request %q: %w", name, err)
	}
	a.CapabilityArgs[name] = raw
	return nil
}

// guardedCNIArgs are keys of args.cni by which plugins take what an element has a key for, or what only a network's author decides: the
// reference plugins bridge, macvlan, tuning, host-local and static, and those that the conventions name. Logical ports of OVN are among
// them, by which a pod could take another's place; KubeVirt's logicNetworkName is not: it names no more than the pod's own interface.
func guardedCNIArgs() []string {
	return []string{
		"mac", "ip", "ips", "ipRanges", "gateway", "routes", "dns", "aliases", "bandwidth", "portMappings", "infinibandGUID", "infiniband-guid",
		"deviceID", "pciBusID", "CNIDeviceInfoFile", "cgroupPath", "ipam-claim-reference", "ovnPort",
		"guid", "mellanox.infiniband.app", // of ib-sriov
		"addroutes", "delroutes", "flushroutes", "flushgateway", "skipcheck", // of route-override
		"sysctl", "promisc", "allmulti", "mtu", "txQLen",
	}
}

// checkCNIArgs refuses in cni-args what stands for a request that has to be granted, in any letters that encoding/json takes for it, unless
// the network's author allows it by name.
func checkCNIArgs(n Network) error {
	is := func(key string) func(string) bool { return func(k string) bool { return strings.EqualFold(key, k) } }
	for _, key := range slices.Sorted(maps.Keys(n.Element.CNIArgs)) {
		if slices.ContainsFunc(guardedCNIArgs(), is(key)) && !slices.ContainsFunc(n.AllowedCNIArgs, is(key)) {
			return fmt.Errorf("%w: it was asked for %q by \"cni-args\", which the network's author has to allow: use the element's own key where there is one, or annotate the NetworkAttachmentDefinition with %s: %s",
				ErrInvalid, key, annotations.AllowedCNIArgsKey, key)
		}
	}
	return nil
}

// delegateArgs are the CNI_ARGS of one attachment. MAC and IP of the caller are meant for the one interface that the caller knows.
// Several addresses in IP= are a list to some IPAM plugins and nonsense to others (host-local), so that they go there only when no plugin
// takes them as runtimeConfig.
func (r *Request) delegateArgs(n Network, isDefault bool) [][2]string {
	e := n.Element
	pairs := slices.DeleteFunc(r.Args.CNIArgs(), func(kv [2]string) bool {
		return !isDefault && (kv[0] == argMAC || kv[0] == argIP)
	})
	if e.MAC != "" {
		pairs = append(pairs, [2]string{argMAC, e.MAC})
	}
	if len(e.IPs) == 1 || (len(e.IPs) > 1 && !n.List.Capabilities()[capIPs]) {
		pairs = append(pairs, [2]string{argIP, strings.Join(e.IPs, ",")})
	}
	return pairs
}

// editPlugin writes into one plugin's configuration what does not travel as runtimeConfig: the device that the node gave, and cni-args.
func editPlugin(plugin map[string]json.RawMessage, n Network) error {
	if n.Device != "" {
		id, err := json.Marshal(n.Device)
		if err != nil {
			return fmt.Errorf("device %q: %w", n.Device, err)
		}
		// Two keys for one thing: plugins were written against either, and read them in any letters.
		for _, key := range []string{capDeviceID, "pciBusID"} {
			maps.DeleteFunc(plugin, func(k string, _ json.RawMessage) bool { return strings.EqualFold(k, key) })
			plugin[key] = id
		}
	}
	cniArgs := n.Element.CNIArgs
	if ref := n.Element.IPAMClaimReference; ref != "" {
		raw, err := json.Marshal(ref)
		if err != nil {
			return fmt.Errorf("ipam-claim-reference %q: %w", ref, err)
		}
		cniArgs = maps.Clone(cniArgs)
		if cniArgs == nil {
			cniArgs = map[string]json.RawMessage{}
		}
		cniArgs[capIPAMClaim] = raw
	}
	if len(cniArgs) == 0 {
		return nil
	}
	return mergeCNIArgs(plugin, cniArgs)
}

// mergeCNIArgs merges over args.cni (CNI conventions, args in network config); the pod's value wins per key.
func mergeCNIArgs(plugin, cniArgs map[string]json.RawMessage) error {
	args, err := object(plugin["args"])
	if err != nil {
		return fmt.Errorf("%w: key \"args\": %w", nad.ErrInvalid, err)
	}
	inner, err := object(args["cni"])
	if err != nil {
		return fmt.Errorf("%w: key \"args.cni\": %w", nad.ErrInvalid, err)
	}
	maps.Copy(inner, cniArgs)
	if args["cni"], err = json.Marshal(inner); err != nil {
		return fmt.Errorf("key \"args.cni\": %w", err)
	}
	if plugin["args"], err = json.Marshal(args); err != nil {
		return fmt.Errorf("key \"args\": %w", err)
	}
	return nil
}

// object decodes a JSON object; absent and null are an empty one.
func object(raw json.RawMessage) (map[string]json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("not a JSON object: %w", err)
		}
	}
	if m == nil {
		m = map[string]json.RawMessage{}
	}
	return m, nil
}

// Asked is what was asked for by CNI_ARGS alone, and has to be seen after the ADD.
type Asked struct {
	MAC string   `json:"mac,omitempty"`
	IPs []string `json:"ips,omitempty"`
}

// verify looks whether an attachment has what it was asked for by CNI_ARGS and no plugin declares: whether its interface has the MAC, and
// all addresses are among its own. A plugin that was asked and did not listen fails the ADD: the pod would otherwise run with another
// address than its author, and the peers that know it, count on. The kernel knows best; where the interface is none of the kernel's
// (vhost-user, a VF with a userspace driver), or an address is not set on it, the result counts. Prefix lengths are the network's business.
func (e *Executor) verify(s Sandbox, a *Attachment) error {
	if a.Verify == nil {
		return nil
	}
	interfaces, err := a.PodInterfaces(s.NetNS)
	if err != nil {
		return err
	}
	links, err := e.Kernel.Links(s.NetNS)
	if err != nil {
		return fmt.Errorf("verify what was asked for: %w", err)
	}
	var macs, ips []string
	for _, i := range interfaces {
		at := slices.IndexFunc(links, func(l netdev.Link) bool { return l.Name == i.Name })
		if at >= 0 {
			macs = append(macs, links[at].MAC.String())
			i.MAC = ""
			for _, p := range links[at].Addrs {
				ips = append(ips, p.Addr().String())
			}
		}
		if mac, err := net.ParseMAC(i.MAC); err == nil {
			macs = append(macs, mac.String())
		}
		for _, p := range i.Addresses() {
			ips = append(ips, p.Addr().String())
		}
	}
	if asked := a.Verify.MAC; asked != "" && !slices.Contains(macs, asked) {
		return a.unheard("mac", asked, capMAC, macs)
	}
	for _, asked := range a.Verify.IPs {
		if !slices.Contains(ips, bare(asked)) {
			return a.unheard("ips", asked, capIPs, ips)
		}
	}
	return nil
}

// bare is an address of an element without its prefix length.
func bare(ip string) string {
	if p, err := netip.ParsePrefix(ip); err == nil {
		return p.Addr().String()
	}
	return ip
}

// unheard words a request that no plugin honoured.
func (a *Attachment) unheard(field, asked, capability string, has []string) error {
	slices.Sort(has)
	have := strings.Join(slices.Compact(has), ", ")
	if have == "" {
		have = "none"
	}
	return fmt.Errorf("%w: it was asked for %q %s, and its plugins (%s), none of which declares the capability %q, did not honour it (there is %s): use a plugin that takes it, drop the request, or set \"unsupportedRequests\": \"ignore\" in Plexus' configuration",
		ErrInvalid, field, asked, strings.Join(a.pluginTypes(), ", "), capability, have)
}

// pluginTypes are the types of the attachment's plugins, IPAM included.
func (a *Attachment) pluginTypes() []string {
	return slices.Concat(a.List.Types(), a.List.NestedTypes())
}

// checkAllowed refuses a network of the cluster that calls a plugin which the plugin's own configuration does not allow: it keeps who writes
// definitions, and a daemon that lies about them, from the other programs of the node.
func (r *Request) checkAllowed(n Network) error {
	if r.AllowedPlugins == nil || n.Trusted {
		return nil
	}
	for _, t := range slices.Concat(n.List.Types(), n.List.NestedTypes()) {
		if !slices.Contains(r.AllowedPlugins, t) {
			return fmt.Errorf("%w: it calls the plugin %q, which \"allowedPlugins\" of Plexus' configuration does not list (%s): use another plugin, or add it there",
				ErrInvalid, t, strings.Join(r.AllowedPlugins, ", "))
		}
	}
	return nil
}
