// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"encoding/json"
	"fmt"
	"strings"
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
		"of a request that no plugin of the network declares as capability, mac and ips are asked for by CNI_ARGS, whatever comes of it, and all else is dropped",
		`mac and ips are asked for as well, and an ADD that did not give them fails; all else is refused; "unsupportedRequests": "ignore" does as Multus does`)
	when(pods, "interface names", "two networks with one interface name fail half-way", "the pod is refused before any plugin runs")
	when(c.NamespaceIsolation, "isolation", "the default-network annotation is not checked", "namespaceIsolation holds for it, too")
	when(pods && len(c.SystemNamespaces) > 0, "system namespaces", "the pods of "+strings.Join(c.SystemNamespaces, ", ")+" have a network-status",
		"only those that select networks have one")
	when(several || pods, "port mappings and bandwidth of the runtime", "also go to secondary networks", "go to the default network only")
	when(t.thick, "daemon away", "the plugin fails, or its file goes and pods start with one network",
		"the file stays; ADD waits up to 30 s, then answers \"try again\"; DEL and CHECK do not need the daemon")
	when(!t.thick && t.Target == Kubernetes, "where pods and networks come from", "each ADD asks the API server, by the kubeconfig",
		"plexusd has them in memory; the kubeconfig is not needed")
	when(t.Target == Kubernetes && t.plugin["clusterNetwork"] == nil && t.plugin["delegates"] == nil, "default network",
		"as it was when its configuration was written", "its file is followed when it changes")
	when(c.ReadinessIndicatorFile != "", "readiness", fmt.Sprintf("ADD and DEL poll for %s", c.ReadinessIndicatorFile),
		"ADD waits up to 30 s for it, STATUS fails without it, DEL never waits")
	when(true, "time", "a call of a plugin may take as long as the runtime allows",
		fmt.Sprintf("it is killed after %v, with its children (delegateTimeoutSeconds)", c.DelegateTimeout))
	when(!retries, "DEL that fails", "is forgotten", "what failed is kept for the next DEL or GC")
	when(true, "ADD that fails", "what was attached may stay", "all is undone, in reverse")
	when(true, "GC", "nothing is ever stale", "stale sandboxes are undone")
	return all
}
