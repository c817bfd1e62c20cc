// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/nad"
)

// defaultNetwork decides about the keys that name the default network, of which one counts: clusterNetwork before delegates, and
// multusMasterCNI where Multus' daemon has not made either of it yet.
func (t *translator) defaultNetwork() {
	const cluster, inline, master = "clusterNetwork", "delegates", "multusMasterCNI"
	ignore := func(key, why string) {
		if v, ok := t.eff[key]; ok {
			t.add(key, v, outcome{became: Ignored, why: why})
		}
	}
	var delegates []json.RawMessage
	for _, key := range []string{cluster, master} {
		if v, ok := t.eff[key]; ok && !isString(v.raw) {
			t.add(key, v, outcome{became: Refused, why: key + " is not a string", mend: "name the default network, or the path of its file"})
			delete(t.eff, key)
		}
	}
	// What is no list is told of below, if it counts.
	_ = json.Unmarshal(t.eff[inline].raw, &delegates)
	switch {
	case t.text(cluster) != "":
		t.add(cluster, t.eff[cluster], t.reference(t.text(cluster)))
		ignore(inline, "clusterNetwork takes precedence")
		ignore(master, "Multus made clusterNetwork of it")
	case len(delegates) > 0 || (t.eff[inline].raw != nil && t.text(master) == ""):
		t.add(inline, t.eff[inline], t.delegates(delegates))
		ignore(cluster, "it is empty")
		ignore(master, "Multus made delegates of it")
	case t.text(master) != "":
		o := t.reference(filepath.Join("/", cmp.Or(t.text("multusAutoconfigDir"), t.text("cniConfigDir"), defaultNetDir), t.text(master)))
		if o.became == Kept || o.became == Changed {
			o.became = Renamed
		}
		t.add(master, t.eff[master], o)
		ignore(cluster, "it is empty")
		ignore(inline, "it is empty")
	default:
		ignore(cluster, "it is empty")
		ignore(master, "it is empty")
		t.unnamed()
	}
}

// unnamed is for a configuration that leaves it to the daemon to find the default network.
func (t *translator) unnamed() {
	t.out.Network = t.primary
	switch {
	case t.Target == Kubernetes:
		return // plexusd finds it
	case t.primary == nil:
		t.find(ConfNoNetwork, finding.Error, "clusterNetwork", fmt.Sprintf("no default network: neither clusterNetwork nor delegates is set, and %s has none", rooted(t.Root, defaultNetDir)),
			"name the file of the default network in clusterNetwork")
	default:
		t.out.Keys = append(t.out.Keys, Key{
			Key: "clusterNetwork", Became: Added, To: "clusterNetwork", Value: t.set("clusterNetwork", t.primaryPath),
			Why: "the lexically first network, which Multus' daemon finds by itself",
		})
	}
}

// reference decides about a default network that is named or given as a path.
func (t *translator) reference(name string) outcome {
	const key = "clusterNetwork"
	if !strings.Contains(name, "/") {
		return t.checked(outcome{became: Kept, to: key, value: name})
	}
	path := t.hostPath(name)
	list, _, err := nad.LoadPath(rooted(t.Root, path), "", nad.Defaults{CNIVersion: defaultCNIVersion})
	switch {
	case err == nil && isMeta(list):
		return t.meta(path, list)
	case err == nil:
		t.out.Network = list
	}
	if t.Target == Kubernetes && path == t.primaryPath {
		return followed(path)
	}
	if t.Target == Kubernetes && filepath.IsAbs(path) && filepath.Dir(path) != defaultNetDir {
		t.find(ConfKeyChanged, finding.Warning, key, fmt.Sprintf("%s is outside of %s, the only folder of networks that the DaemonSet of plexusd mounts", clip(path), defaultNetDir),
			"mount its folder into the DaemonSet, read-only and at the same path, or plexusd waits for a default network")
	}
	o := outcome{became: Kept, to: key, value: path}
	if path != name {
		o.became, o.why = Changed, "it was the path in the container of Multus' daemon; this is the node's"
	}
	return t.checked(o)
}

// meta is for a path that leads to Multus or Plexus: a daemon took the file of another meta-plugin for the network's.
func (t *translator) meta(path string, list *nad.List) outcome {
	why := fmt.Sprintf("%s is of the meta-plugin %s, which is not a network", path, strings.Join(list.Types(), ", "))
	t.out.Network = t.primary
	switch {
	case t.primary == nil:
		return outcome{became: Refused, why: why, mend: "name the file of the default network in clusterNetwork"}
	case t.Target == Kubernetes:
		return outcome{became: Ignored, why: why + "; plexusd takes " + t.primaryPath}
	}
	return outcome{became: Changed, to: "clusterNetwork", value: t.primaryPath, why: why}
}

// delegates decides about networks that stand in the configuration itself.
func (t *translator) delegates(delegates []json.RawMessage) outcome {
	o := t.checked(outcome{became: Kept, to: "delegates", value: t.eff["delegates"].raw})
	if o.became == Refused {
		return o
	}
	for i, raw := range delegates {
		list, err := nad.Normalize(raw, nad.Defaults{Name: cmp.Or(t.text("name"), defaultName), CNIVersion: cmp.Or(t.text("cniVersion"), defaultCNIVersion)})
		if err != nil {
			text, mend := splitMend(fmt.Sprintf("delegates[%d]: %v", i, err))
			return outcome{became: Refused, why: text, mend: mend}
		}
		if isMeta(list) {
			return outcome{
				became: Refused, why: fmt.Sprintf("delegates[%d] is of the meta-plugin %s, which is not a network", i, strings.Join(list.Types(), ", ")),
				mend: "write the configuration of the default network itself",
			}
		}
		if i == 0 {
			t.out.Network = list
		}
	}
	first := t.out.Network
	if t.Target == Kubernetes && len(delegates) == 1 && t.primary != nil && first.Name() == t.primary.Name() && slices.Equal(first.Types(), t.primary.Types()) {
		t.out.Network = t.primary
		return followed(t.primaryPath)
	}
	return o
}

func followed(path string) outcome {
	return outcome{became: Ignored, why: "plexusd finds " + path + " by itself, as the lexically first, and follows its changes"}
}

func isMeta(list *nad.List) bool {
	return slices.ContainsFunc(list.Types(), func(t string) bool { return t == config.PluginType || t == typeThin || t == typeThick })
}

// hostPath is a path of the daemon's container on the node.
func (t *translator) hostPath(path string) string {
	if !t.thick {
		return path
	}
	for _, prefix := range []string{cmp.Or(t.text("chrootDir"), defaultChrootDir), defaultHostPrefix} {
		if rest, ok := strings.CutPrefix(path, strings.TrimRight(prefix, "/")+"/"); ok {
			return "/" + rest
		}
	}
	return path
}

func isString(raw json.RawMessage) bool {
	var s *string
	return json.Unmarshal(raw, &s) == nil
}
