// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/plexus-cni/plexus/nad"
	"github.com/plexus-cni/plexus/sriov"
)

// check looks at one definition, and returns the addresses that it gives away.
func (d *definition) check() []pool {
	d.checkAnnotations()
	if strings.TrimSpace(d.Config) == "" {
		if d.Config != "" {
			d.report(ConfigJSON, d.config.at, "spec.config", "it is blank", "write the configuration, or omit spec.config to keep it on the nodes")
			return nil
		}
		d.report(ConfigEmpty, d.config.at, "spec.config", fmt.Sprintf("it is missing: each node must have a file in confDir whose \"name\" is %q", d.Ref.Name), "")
		return nil
	}
	// A version that the definition leaves out is the meta-plugin's own; any will do to check the rest.
	accepted, normalizeErr := nad.Normalize([]byte(d.Config), nad.Defaults{Name: d.Ref.Name, CNIVersion: "1.0.0"})
	if at, err := syntaxError(d.Config); err != nil {
		line, column := d.config.within(at)
		d.report(ConfigJSON, d.config.place(at), "spec.config", fmt.Sprintf("not JSON at line %d, column %d of the configuration: %v", line, column, err), "correct it there")
		return nil
	}
	tree, err := parseTree([]byte(d.Config))
	if normalizeErr != nil {
		d.reportRefusal(tree, normalizeErr)
	}
	if err != nil || tree.kind != kindObject {
		return nil // nad.Normalize has said so
	}
	d.checkDuplicates(tree, "")
	name := d.Ref.Name
	if accepted != nil {
		name = accepted.Name()
	}
	return d.checkPlugins(tree, name)
}

// syntaxError is that of a JSON text, and the offset of the byte that is wrong.
func syntaxError(text string) (int, error) {
	var whole json.RawMessage
	err := json.Unmarshal([]byte(text), &whole)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return max(0, int(syntax.Offset)-1), err
	}
	return 0, nil
}

// reportRefusal says why Plexus does not take the configuration, where the message tells.
func (d *definition) reportRefusal(tree *value, err error) {
	message := strings.TrimPrefix(strings.ReplaceAll(err.Error(), nad.ErrInvalid.Error()+": ", ""), "network "+strconv.Quote(d.Ref.Name)+": ")
	at, field := tree, "spec.config"
	if m := regexp.MustCompile(`^plugins\[(\d{1,6})\]: `).FindStringSubmatch(message); m != nil && tree != nil {
		// The number has at most six digits.
		if i, e := strconv.Atoi(m[1]); e == nil {
			if plugins := tree.get("plugins"); plugins != nil && i < len(plugins.items) {
				at, field, message = plugins.items[i], fmt.Sprintf("spec.config.plugins[%d]", i), strings.TrimPrefix(message, m[0])
			}
		}
	}
	where := d.config.at
	if at != nil {
		where = d.config.place(at.mentioned(message).start)
	}
	d.report(ConfigInvalid, where, field, message, "")
}

// checkDuplicates finds keys that are there twice, on all levels. The plugins are Go programs, to which case makes no difference.
func (d *definition) checkDuplicates(v *value, field string) {
	seen := map[string]bool{}
	for _, m := range v.members {
		folded := strings.ToLower(m.key)
		if seen[folded] {
			d.report(ConfigDuplicateKey, d.config.place(m.at), strings.TrimPrefix(field+"."+short(m.key), "."), fmt.Sprintf("key %q appears twice: the last one counts", short(m.key)), "remove one")
		}
		seen[folded] = true
		d.checkDuplicates(m.value, field+"."+short(m.key))
	}
	for i, item := range v.items {
		d.checkDuplicates(item, fmt.Sprintf("%s[%d]", field, i))
	}
}

// pluginCheck is the check of one plugin of a list.
type pluginCheck struct {
	d    *definition
	conf *value
	// prefix stands before the names of its keys, "plugins[1]." or nothing.
	prefix string
	typ    string
	pools  []pool
	// network is the name of the network, under which addresses are kept.
	network string
}

func (c *pluginCheck) report(code string, at *value, field, text, mend string) {
	c.d.report(code, c.d.config.place(at.start), strings.TrimSuffix(c.prefix+field, "."), text, mend)
}

// listKeys are those of a configuration list (CNI 1.1.0 §1), commonKeys those of every plugin.
func listKeys() []string {
	return []string{"cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins"}
}

func commonKeys() []string {
	return []string{"cniVersion", "cniVersions", "name", "type", "capabilities", "dns", "args", "prevResult", "runtimeConfig", "disableCheck", "disableGC"}
}

// checkPlugins looks at the plugins of a network, and at what they are together.
func (d *definition) checkPlugins(tree *value, network string) []pool {
	known := knownPlugins()
	plugins, prefix := []*value{tree}, func(int) string { return "" }
	if tree.str("type") == "" {
		if tree.get("plugins") == nil {
			return nil // nad.Normalize has said so
		}
		list := &pluginCheck{d: d, conf: tree, typ: "a configuration list"}
		list.rules(tree, "", nil, listKeys())
		plugins, prefix = tree.get("plugins").items, func(i int) string { return fmt.Sprintf("plugins[%d].", i) }
	}
	var pools []pool
	devices := false // whether a plugin takes one, or may do so
	for i, conf := range plugins {
		c := &pluginCheck{d: d, conf: conf, prefix: prefix(i), typ: conf.str("type"), network: network}
		p, ok := known[c.typ]
		devices = devices || p.device || !ok
		switch {
		case conf.kind != kindObject || c.typ == "": // nad.Normalize has said so
		case slices.Contains(metaPlugins(), c.typ):
			c.report(PluginMeta, conf.fold("type"), "type", fmt.Sprintf("%q is a meta-plugin, which would call itself", short(c.typ)), "name a network plugin")
		case !ok:
			c.checkUnknown(conf.fold("type"), "type", slices.Collect(maps.Keys(known)))
			c.checkCapabilities(nil, true)
			c.checkIPAM(ipamOptional)
		default:
			c.checkKnown(p, i)
		}
		pools = append(pools, c.pools...)
		if i > 0 && c.typ == "bandwidth" {
			c.checkVeth(plugins[0].str("type"))
		}
	}
	if d.ResourceName != "" && !devices && len(plugins) > 0 {
		at := d.at
		for key, place := range d.annotations {
			if strings.HasSuffix(key, "/resourceName") {
				at = place
			}
		}
		d.report(DeviceUnused, at, "metadata.annotations", fmt.Sprintf("no plugin of the network takes a device, so resource %q only has pods scheduled to nodes that offer it", short(d.ResourceName)), "nothing, if that is meant; else remove the annotation, or correct \"type\"")
	}
	return pools
}

// checkVeth is for the plugin bandwidth, which shapes at the host's end of a veth pair: other plugins than these make none, and ADD fails.
func (c *pluginCheck) checkVeth(first string) {
	if p, known := knownPlugins()[first]; !known || p.chained || first == "bridge" || first == "ptp" {
		return
	}
	mend := "remove it"
	if first == sriov.Type {
		mend = `remove it, and set "max_tx_rate" of sriov`
	}
	text := fmt.Sprintf("bandwidth shapes at the host's end of a veth pair, and %s makes none", first)
	switch declared := c.conf.fold("capabilities"); {
	case c.hasOwnRates():
		c.report(PluginChain, c.conf.fold("type"), "type", text+": every ADD fails", mend)
	case declared.isTrue("bandwidth"):
		c.report(CapabilityUnsupported, declared.fold("bandwidth"), "capabilities.bandwidth", text+": the ADD of a pod that asks for a bandwidth fails", mend)
	}
}

// checkUnknown reports a type that nobody knows.
func (c *pluginCheck) checkUnknown(typ *value, field string, known []string) {
	if slices.Contains(otherPlugins(), typ.text) || slices.Contains(c.d.options.Types, typ.text) {
		return
	}
	slices.Sort(known)
	c.report(PluginUnknown, typ, field, fmt.Sprintf("no plugin %q is known%s", short(typ.text), meant(typ.text, slices.Concat(known, otherPlugins()))),
		"correct it; if it is your own, name the folder that has it with --bin-dir")
}

// checkKnown checks a plugin whose keys are known, the i-th of its list.
func (c *pluginCheck) checkKnown(p plugin, i int) {
	common := commonKeys()
	if p.ipam != ipamNone {
		common = append(common, "ipam")
	}
	c.rules(c.conf, "", p.keys, common)
	c.required(c.conf, "", p.required)
	if p.chained && i == 0 {
		c.report(PluginOrder, c.conf.fold("type"), "type", fmt.Sprintf("%s changes an interface that another plugin created, and it is the first of its list", c.typ),
			"put it after that plugin in a list \"plugins\"")
	}
	if p.check != nil {
		p.check(c)
	}
	c.checkCapabilities(p.capabilities, false)
	if p.ipam != ipamNone {
		c.checkIPAM(p.ipam)
	}
}

// rules checks the keys of an object against those that its plugin has.
func (c *pluginCheck) rules(object *value, prefix string, keys map[string]rule, common []string) {
	known := slices.Sorted(maps.Keys(keys))
	for _, m := range object.members {
		if strings.HasPrefix(m.key, "_") || strings.HasPrefix(m.key, "//") || slices.ContainsFunc(common, func(k string) bool { return strings.EqualFold(k, m.key) }) {
			continue // authors comment like that
		}
		i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, m.key) })
		if i < 0 {
			c.d.report(KeyUnknown, c.d.config.place(m.at), c.prefix+prefix+short(m.key), fmt.Sprintf("%s has no key %q%s", c.typ, short(m.key), meant(m.key, slices.Concat(known, common))), "correct or remove it")
			continue
		}
		c.rule(m, prefix, keys[known[i]])
	}
}

// rule checks one value. Null is none.
func (c *pluginCheck) rule(m member, prefix string, r rule) {
	if r.kind == "" || m.value.kind == kindNull {
		return
	}
	switch {
	case m.value.kind != r.kind:
		c.report(KeyValue, m.value, prefix+m.key, fmt.Sprintf("%q is %s and must be %s", m.key, m.value.kind, r.kind), "")
	case r.bad != nil:
		if why := r.bad(m.value); why != "" {
			shown := ""
			if m.value.text != "" {
				shown = " is " + strconv.Quote(short(m.value.text)) + ","
			}
			c.report(KeyValue, m.value, prefix+m.key, fmt.Sprintf("%q%s %s", m.key, shown, why), "")
		}
	}
}

// required reports keys that are not there, or empty.
func (c *pluginCheck) required(object *value, prefix string, keys []string) {
	for _, key := range keys {
		if v := object.fold(key); v == nil || v.kind == kindString && v.text == "" {
			c.report(KeyMissing, object, prefix+key, fmt.Sprintf("%s needs %q", c.typ, key), "add it")
		}
	}
}

// checkDevice is for plugins that attach a device: named by the configuration, or given to the pod.
func (c *pluginCheck) checkDevice(named bool, mend string) {
	if !named && c.d.ResourceName == "" && c.d.ClaimRequest == "" {
		c.report(DeviceMissing, c.conf, "", c.typ+" attaches a device, but nothing says which one", mend)
	}
}

// checkCapabilities checks what a plugin says that it honours. all is set for one of which nothing is known.
func (c *pluginCheck) checkCapabilities(honoured []string, all bool) {
	declared := c.conf.fold("capabilities")
	if declared == nil {
		return
	}
	ipam := c.conf.fold("ipam").str("type")
	if p, ok := knownIPAM()[ipam]; ok {
		honoured = slices.Concat(honoured, p.capabilities)
	} else if ipam != "" {
		all = true
	}
	for _, m := range declared.members {
		if m.value.kind != kindBool || m.value.text != "true" {
			continue
		}
		place, field := c.d.config.place(m.at), c.prefix+"capabilities."+short(m.key)
		switch {
		case c.typ == "bandwidth" && m.key == "bandwidth" && c.hasOwnRates():
			c.d.report(CapabilityUnsupported, place, field, "bandwidth prefers the rates of its configuration to those that a pod asks for",
				"remove the capability, so that a pod that asks is refused instead of ignored; or remove the rates")
		case !all && slices.Contains(honoured, m.key):
		case !slices.Contains(capabilities(), m.key):
			c.d.report(CapabilityUnknown, place, field, fmt.Sprintf("no pod can ask for a capability %q%s", short(m.key), meant(m.key, capabilities())), "")
		case !all:
			c.d.report(CapabilityUnsupported, place, field, fmt.Sprintf("%s does not honour %q", c.who(ipam), m.key), c.instead(m.key))
		}
	}
}

// hasOwnRates reports whether the plugin bandwidth has rates, or bursts, in its configuration.
func (c *pluginCheck) hasOwnRates() bool {
	return slices.ContainsFunc([]string{"ingressRate", "ingressBurst", "egressRate", "egressBurst"}, func(key string) bool { return c.conf.fold(key) != nil })
}

// who is the plugin with its IPAM.
func (c *pluginCheck) who(ipam string) string {
	if ipam == "" {
		return c.typ
	}
	return c.typ + " with " + ipam
}

// instead says which plugins honour a capability.
func (c *pluginCheck) instead(capability string) string {
	var names []string
	for _, table := range []map[string]plugin{knownPlugins(), knownIPAM()} {
		for name, p := range table {
			if slices.Contains(p.capabilities, capability) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return "remove it"
	}
	slices.Sort(names)
	return "remove it, or declare it at a plugin that supports it: " + strings.Join(names, ", ")
}
