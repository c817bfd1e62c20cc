// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/plexus-cni/plexus/sriov"
)

// changes says what behaves otherwise, as far as this configuration has to do with it.
func (t *translator) changes() []Change {
	c := t.out.Config
	if c == nil {
		return nil
	}
	var all []Change
	when := func(applies bool, topic, multus, plexus string) {
		if applies {
			all = append(all, Change{topic, multus, plexus})
		}
	}
	retries, several := false, len(c.Delegates) > 1 || len(c.DefaultNetworks) > 0
	_ = json.Unmarshal(t.eff["retryDeleteOnError"].raw, &retries) // what is no bool does not retry
	pods := t.Target == Kubernetes || c.Kubeconfig != "" || c.ManifestDir != ""

	when(pods, "unsupported requests",
		"mac and ips that no plugin declares as capability are passed in CNI_ARGS, without a look at the outcome; other undeclared requests are dropped",
		`mac and ips are passed likewise, and an ADD that did not set them fails; other undeclared requests are refused; "unsupportedRequests": "ignore" does as Multus does`)
	when(pods, "interface names", "two networks with one interface name fail half-way", "the pod is refused before any plugin runs")
	when(c.NamespaceIsolation, "isolation", "the default-network annotation is not checked", "namespaceIsolation holds for it, too")
	when(pods && len(c.SystemNamespaces) > 0, "system namespaces", "the pods of "+strings.Join(c.SystemNamespaces, ", ")+" have a network-status",
		"only those that select networks have one")
	when(several || pods, "port mappings and bandwidth of the runtime", "also go to secondary networks", "go to the default network only")
	when(t.thick, "daemon away", "the plugin fails, or its file goes and pods start with one network",
		"the file stays; ADD waits up to 30 s, then answers \"try again\"; DEL and CHECK do not need the daemon")
	when(!t.thick && t.Target == Kubernetes, "where pods and networks come from", "each ADD asks the API server, by the kubeconfig",
		"plexusd keeps them in memory; the kubeconfig is not needed")
	when(t.Target == Kubernetes && t.plugin["clusterNetwork"] == nil && t.plugin["delegates"] == nil, "default network",
		"as it was when its configuration was written", "its file is followed when it changes")
	when(c.ReadinessIndicatorFile != "", "readiness", fmt.Sprintf("ADD and DEL poll for %s", c.ReadinessIndicatorFile),
		"ADD waits up to 30 s for it, STATUS fails without it, DEL never waits")
	when(true, "time", "a plugin may take as long as the runtime allows",
		fmt.Sprintf("it is killed after %v, with its children (delegateTimeoutSeconds)", c.DelegateTimeout))
	when(!retries, "DEL that fails", "is forgotten", "what failed is kept for the next DEL or GC")
	when(true, "ADD that fails", "what was attached may remain", "everything is undone, in reverse order")
	when(true, "CHECK", "asks all networks of a pod", `asks the default network; "checkNetworks": "all" asks all`)
	when(true, "GC", "nothing is ever stale", "stale sandboxes are undone")
	when(t.thick, "hot plug", "multus-dynamic-networks-controller attaches networks to running pods, through the daemon's socket",
		"a pod gets its networks when it starts")
	if old := cmp.Or(t.text("cniVersion"), defaultCNIVersion); t.Target == Kubernetes && t.primary != nil {
		// The version that the generated configuration takes over has runtimes call more.
		when(t.primary.CNIVersion() != old, "CNI version", old+", that of its own configuration",
			t.primary.CNIVersion()+", that of the default network: runtimes call CHECK from 0.4.0 on, STATUS and GC from 1.1.0 on")
	}
	return all
}

// pluginChanges say what behaves otherwise by the plugins of the networks, as far as they are known.
func pluginChanges(tr *Translation, objects *Objects) []Change {
	if tr.Config == nil {
		return nil
	}
	var all []Change
	uses := usesOf(tr, objects)
	if uses[sriov.Type] {
		all = append(all, Change{
			"networks of type sriov", "the program sriov-cni serves them",
			`Plexus serves them itself, and is stricter: "spoofchk" and "trust" are "on" or "off" in lower case, "min_tx_rate" is not above "max_tx_rate", "mtu" is obeyed; "builtin": false in the configuration has the program called`,
		})
	}
	if uses["whereabouts"] {
		all = append(all, Change{
			"CHECK of whereabouts", "fails: whereabouts has no CHECK", `is not called; set "disableCheck": true in its networks before "checkNetworks": "all"`,
		})
	}
	return all
}

// usesOf are the types of the plugins and IPAM plugins of all networks that are known.
func usesOf(tr *Translation, objects *Objects) map[string]bool {
	uses := map[string]bool{}
	add := func(conf []byte) {
		type plugin struct {
			Type    string `json:"type"`
			Builtin *bool  `json:"builtin"`
			IPAM    struct {
				Type string `json:"type"`
			} `json:"ipam"`
		}
		var list struct {
			plugin

			Plugins []plugin `json:"plugins"`
		}
		if json.Unmarshal(conf, &list) != nil {
			return // told elsewhere
		}
		for _, p := range append(list.Plugins, list.plugin) {
			uses[p.IPAM.Type] = true
			if p.Builtin == nil || *p.Builtin {
				uses[p.Type] = true
			}
		}
	}
	for _, raw := range tr.Config.Delegates {
		add(raw)
	}
	if tr.Network != nil {
		add(tr.Network.Bytes())
	}
	if objects != nil {
		for _, d := range objects.definitions {
			add([]byte(d.Config))
		}
	}
	return uses
}
