// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/sriov"
)

// plugin is what is known of a plugin type.
type plugin struct {
	// keys are its own; nil for a plugin of which no more than the name is known.
	keys map[string]rule
	// required are the keys that it cannot work without.
	required []string
	// capabilities are those that it honours itself.
	capabilities []string
	// device is set for who attaches a device of the node.
	device bool
	// chained is set for who changes an interface that a plugin before it made.
	chained bool
	// ipam says what it does with a section of that name.
	ipam ipamUse
	// check looks at several keys together; nil for no need.
	check func(*pluginCheck)
}

type ipamUse int

const (
	ipamNone ipamUse = iota
	ipamOptional
	ipamRequired
)

// rule is what a plugin takes as the value of a key.
type rule struct {
	kind kind
	// bad says what is wrong with a value of that kind, "" for nothing; nil for no further rule.
	bad func(*value) string
}

func text() rule    { return rule{kind: kindString} }
func boolean() rule { return rule{kind: kindBool} }
func list() rule    { return rule{kind: kindList} }
func object() rule  { return rule{kind: kindObject} }

// integer takes whole numbers from least to most. As encoding/json does it takes no fraction and no exponent.
func integer(least, most int64) rule {
	return rule{kind: kindNumber, bad: func(v *value) string {
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil || n < least || n > most {
			return fmt.Sprintf("it must be a whole number from %d to %d", least, most)
		}
		return ""
	}}
}

func oneOf(words ...string) rule {
	return rule{kind: kindString, bad: func(v *value) string {
		if v.text == "" || slices.Contains(words, v.text) {
			return ""
		}
		return "it must be " + strings.Join(words, ", ") + meant(v.text, words)
	}}
}

// ifName takes what the kernel takes as the name of an interface (dev_valid_name).
func ifName() rule {
	return rule{kind: kindString, bad: func(v *value) string {
		if len(v.text) > 15 || strings.ContainsAny(v.text, "/: \t\n\r\v\f") || v.text == "." || v.text == ".." {
			return `no interface can have that name: use 1 to 15 bytes, without "/", ":" and white space`
		}
		return ""
	}}
}

func mac() rule {
	return rule{kind: kindString, bad: func(v *value) string {
		if hw, err := net.ParseMAC(v.text); v.text != "" && (err != nil || len(hw) != 6) {
			return "it must be six bytes like 02:00:5e:10:00:01"
		}
		return ""
	}}
}

// mtu takes what a plugin takes without knowledge of the node: 0 leaves it alone. Less than IPv4 needs (RFC 791) cannot be meant.
func mtu() rule {
	return rule{kind: kindNumber, bad: func(v *value) string {
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil || n != 0 && (n < 68 || n > 65535) {
			return "it must be 68 to 65535 bytes, at most the MTU of the master, or 0 for the default"
		}
		return ""
	}}
}

// rate takes bit/s and bit.
func rate() rule { return integer(0, math.MaxInt64) }

// knownPlugins are those whose keys are checked: the reference plugins, and Plexus' own.
func knownPlugins() map[string]plugin {
	backend := oneOf("iptables", "nftables")
	sriovKeys := map[string]rule{"builtin": {}, "logLevel": text(), "logFile": text()} // the last two of sriov-cni
	for _, key := range sriov.Keys() {
		sriovKeys[key] = rule{} // its own parser tells
	}
	return map[string]plugin{
		"bridge": {ipam: ipamOptional, capabilities: []string{"mac"}, check: checkBridge, keys: map[string]rule{
			"bridge": ifName(), "isGateway": boolean(), "isDefaultGateway": boolean(), "forceAddress": boolean(), "ipMasq": boolean(), "ipMasqBackend": backend,
			"mtu": mtu(), "hairpinMode": boolean(), "promiscMode": boolean(), "vlan": integer(0, 4094), "vlanTrunk": list(), "preserveDefaultVlan": boolean(),
			"macspoofchk": boolean(), "enabledad": boolean(), "disableContainerInterface": boolean(), "portIsolation": boolean(),
		}},
		"macvlan": {ipam: ipamOptional, capabilities: []string{"mac"}, keys: map[string]rule{
			"master": ifName(), "mode": oneOf("bridge", "private", "vepa", "passthru"), "mtu": mtu(), "mac": mac(), "linkInContainer": boolean(),
			"bcqueuelen": integer(0, math.MaxUint32),
		}},
		"ipvlan": {ipam: ipamRequired, keys: map[string]rule{
			"master": ifName(), "mode": oneOf("l2", "l3", "l3s"), "mtu": mtu(), "linkInContainer": boolean(),
		}},
		"vlan": {ipam: ipamOptional, required: []string{"master", "vlanId"}, keys: map[string]rule{
			"master": ifName(), "vlanId": integer(0, 4094), "mtu": mtu(), "linkInContainer": boolean(),
		}},
		"host-device": {ipam: ipamOptional, capabilities: []string{"deviceID"}, device: true, check: checkHostDevice, keys: map[string]rule{
			"device": ifName(), "hwaddr": text(), "kernelpath": text(), "pciBusID": text(), "useInterfaceNetwork": boolean(),
		}},
		"ptp": {ipam: ipamRequired, keys: map[string]rule{"ipMasq": boolean(), "ipMasqBackend": backend, "mtu": mtu()}},
		"tap": {ipam: ipamOptional, capabilities: []string{"mac"}, keys: map[string]rule{
			"multiQueue": boolean(), "mtu": mtu(), "mac": mac(), "owner": integer(0, math.MaxUint32), "group": integer(0, math.MaxUint32),
			"selinuxContext": text(), "bridge": ifName(),
		}},
		"dummy":    {ipam: ipamRequired, keys: map[string]rule{}},
		"loopback": {keys: map[string]rule{}},
		sriov.Type: {ipam: ipamOptional, capabilities: []string{"mac", "deviceID", "CNIDeviceInfoFile"}, device: true, check: checkSRIOV, keys: sriovKeys},

		"bandwidth": {chained: true, capabilities: []string{"bandwidth"}, check: checkBandwidth, keys: map[string]rule{
			"ingressRate": rate(), "ingressBurst": rate(), "egressRate": rate(), "egressBurst": rate(),
		}},
		"tuning": {chained: true, capabilities: []string{"mac"}, keys: map[string]rule{
			"dataDir": text(), "sysctl": {kind: kindObject, bad: badSysctl}, "mac": mac(), "promisc": boolean(), "mtu": mtu(), "txQLen": integer(0, math.MaxInt32), "allmulti": boolean(),
		}},
		"firewall": {chained: true, keys: map[string]rule{
			"backend": oneOf("iptables", "firewalld"), "iptablesAdminChainName": text(), "firewalldZone": text(), "ingressPolicy": oneOf("open", "same-bridge", "isolated"),
		}},
		"portmap": {chained: true, capabilities: []string{"portMappings"}, check: checkPortmap, keys: map[string]rule{
			"backend": backend, "snat": boolean(), "conditionsV4": list(), "conditionsV6": list(), "masqAll": boolean(), "markMasqBit": integer(0, 31), "externalSetMarkChain": text(),
		}},
		"sbr": {chained: true, keys: map[string]rule{"table": integer(0, math.MaxInt32), "gateways": list(), "addSourceHints": boolean()}},
		"vrf": {chained: true, required: []string{"vrfname"}, keys: map[string]rule{"vrfname": ifName(), "table": integer(0, math.MaxUint32)}},
	}
}

// knownIPAM are the IPAM plugins whose keys are checked.
func knownIPAM() map[string]plugin {
	return map[string]plugin{
		"host-local": {capabilities: []string{"ips", "ipRanges"}, keys: map[string]rule{
			"ranges": list(), "routes": list(), "dataDir": text(), "resolvConf": text(),
			"subnet": text(), "rangeStart": text(), "rangeEnd": text(), "gateway": text(),
		}},
		"static": {capabilities: []string{"ips"}, keys: map[string]rule{"addresses": list(), "routes": list(), "dns": object()}},
		"dhcp": {keys: map[string]rule{
			"daemonSocketPath": text(), "priority": integer(0, math.MaxInt32), "provide": list(), "request": list(),
		}},
	}
}

// otherPlugins are well known by name alone.
func otherPlugins() []string {
	return []string{
		"accelerated-bridge", "antrea", "aws-cni", "azure-vnet", "azure-vnet-ipam", "bond", "calico", "calico-ipam", "cilium-cni", "cnv-bridge", "cnv-tuning", "coordinator",
		"egress-cni", "fakeipam", "flannel", "ib-sriov", "ifacer", "ipoib", "istio-cni", "kube-ovn", "kubevirt-passt-binding", "linkerd-cni", "macvtap", "multi-nic",
		"multi-nic-ipam", "nv-ipam", "ovn-k8s-cni-overlay", "ovs", "ovs-mirror-consumer", "ovs-mirror-producer", delegate.PassthruType, "rdma", "route-override",
		"spiderpool", "terway", "userspace", "weave-ipam", "weave-net", "whereabouts",
	}
}

// metaPlugins attach pods to networks themselves.
func metaPlugins() []string { return []string{"plexus", "multus", "multus-shim", "genie", "danm"} }

// capabilities are those of the CNI conventions and of the multi-network conventions.
func capabilities() []string {
	return []string{
		"mac", "ips", "ipRanges", "bandwidth", "portMappings", "infinibandGUID", "deviceID", "CNIDeviceInfoFile", "dns", "aliases", "cgroupPath", "ipam-claim-reference",
		"io.kubernetes.cri.pod-annotations",
	}
}

func checkBridge(c *pluginCheck) {
	if c.conf.isTrue("isDefaultGateway") {
		c.defaultRoute(c.conf.fold("isDefaultGateway"), "isDefaultGateway", "isDefaultGateway sets a default route")
	}
	if hairpin := c.conf.fold("hairpinMode"); c.conf.isTrue("hairpinMode") && c.conf.isTrue("promiscMode") {
		c.report(KeyValue, hairpin, "hairpinMode", "hairpinMode and promiscMode exclude each other", "leave one out")
	}
	if c.conf.isTrue("disableContainerInterface") && c.conf.fold("ipam").str("type") != "" {
		c.report(KeyValue, c.conf.fold("ipam"), "ipam", "an interface that is disabled (disableContainerInterface) cannot have addresses", "leave one out")
	}
	trunk := c.conf.fold("vlanTrunk")
	if trunk == nil {
		return
	}
	for i, item := range trunk.items {
		field := fmt.Sprintf("vlanTrunk[%d]", i)
		if item.kind != kindObject {
			c.report(KeyValue, item, field, fmt.Sprintf("it is %s and must be an object with id, or with minID and maxID", item.kind), "")
			continue
		}
		c.rules(item, field+".", map[string]rule{"id": integer(1, 4094), "minID": integer(1, 4094), "maxID": integer(1, 4094)}, nil)
		lowest, highest := item.fold("minID"), item.fold("maxID")
		switch {
		case (lowest == nil) != (highest == nil):
			c.report(KeyMissing, item, field, "minID and maxID need each other", "add the missing one")
		case lowest != nil && lowest.number() > highest.number():
			c.report(KeyValue, item, field, fmt.Sprintf("minID %s is above maxID %s", short(lowest.text), short(highest.text)), "swap them")
		}
	}
}

func checkHostDevice(c *pluginCheck) {
	named := slices.ContainsFunc([]string{"device", "hwaddr", "kernelpath", "pciBusID"}, func(key string) bool { return c.conf.str(key) != "" })
	c.checkDevice(named, `name it with "device", "hwaddr", "kernelpath" or "pciBusID", or annotate the definition with the resource that pods request`)
}

func checkSRIOV(c *pluginCheck) {
	c.checkDevice(c.conf.str("deviceID") != "", "annotate the definition with k8s.v1.cni.cncf.io/resourceName")
	if builtin := c.conf.fold("builtin"); builtin != nil && builtin.kind == kindBool && builtin.text == "false" {
		return // a program serves it, which may take other values
	}
	c.checkSRIOVKeys()
}

// checkSRIOVKeys lets the parser of the plugin judge the keys.
func (c *pluginCheck) checkSRIOVKeys() {
	for _, mistake := range sriov.Mistakes([]byte(c.conf.raw(c.d.config.text)), "") {
		at, field := c.conf.mentioned(mistake.Error()), ""
		if i := slices.IndexFunc(c.conf.members, func(m member) bool { return m.value == at }); i >= 0 {
			field = c.conf.members[i].key
		}
		c.report(SRIOVConfig, at, field, mistake.Error(), "")
	}
}

func checkBandwidth(c *pluginCheck) {
	for _, direction := range []string{"ingress", "egress"} {
		rate, burst := c.conf.fold(direction+"Rate"), c.conf.fold(direction+"Burst")
		given := func(v *value) bool { return v != nil && v.number() != 0 }
		switch {
		case given(rate) && !given(burst):
			c.report(KeyMissing, rate, direction+"Burst", fmt.Sprintf("%sRate needs %sBurst, in bit", direction, direction), "add it")
		case given(burst) && !given(rate):
			c.report(KeyMissing, burst, direction+"Rate", fmt.Sprintf("%sBurst needs %sRate, in bit/s", direction, direction), "add it")
		case given(burst) && burst.number()/8 >= math.MaxUint32:
			c.report(KeyValue, burst, direction+"Burst", "a burst must be less than 4 GiB", "lower it")
		}
	}
}

func checkPortmap(c *pluginCheck) {
	if chain := c.conf.fold("externalSetMarkChain"); chain != nil && c.conf.fold("markMasqBit") != nil {
		c.report(KeyValue, chain, "externalSetMarkChain", "markMasqBit and externalSetMarkChain exclude each other", "leave one out")
	}
}

// badSysctl tells values that are no strings apart: authors write numbers.
func badSysctl(v *value) string {
	for _, m := range v.members {
		if m.value.kind != kindString && m.value.kind != kindNull {
			return fmt.Sprintf("%q has %s as its value: write it in quotes", short(m.key), m.value.kind)
		}
	}
	return ""
}
