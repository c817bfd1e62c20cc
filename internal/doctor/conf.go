// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/install"
	"github.com/plexus-cni/plexus/nad"
)

// metaPlugins are types that themselves call the plugins of several networks for a pod.
func metaPlugins() []string {
	return []string{config.PluginType, "multus", "multus-shim", "genie", "danm", "knitter"}
}

// renamed are the suffixes that primaries give to the files of others.
func renamed() map[string]string {
	return map[string]string{
		".cilium_bak": "Cilium renames other configurations: set cni.exclusive=false in its Helm values (cni-exclusive: \"false\" in its ConfigMap)",
	}
}

// checkConf looks at the folder that the container runtime takes its configuration from.
func (d *Doctor) checkConf(_ context.Context, n *node) ([]Finding, error) {
	dir := filepath.Dir(d.Conf)
	if n.filesErr != nil && !errors.Is(n.filesErr, fs.ErrNotExist) {
		return nil, n.filesErr
	}
	found := renamedFiles(dir, filepath.Base(d.Conf))
	switch {
	case len(n.files) == 0:
		return append(found, newFinding(ConfNone, dir, "the container runtime finds no network configuration, so no pod starts", "start plexusd, which writes Plexus' configuration as soon as the cluster's network plugin has written its own")), nil
	case errors.Is(n.confErr, nad.ErrNotFound):
		found = append(found, newFinding(ConfMissing, dir, fmt.Sprintf("none of the files is Plexus': the container runtime takes %s, and pods get no further networks", n.files[0].name), "start plexusd on this node (kubectl -n plexus-system get pods -o wide), or write "+filepath.Base(d.Conf)))
	case n.confErr != nil:
		found = append(found, newFinding(ConfInvalid, d.Conf, oneLine(n.confErr.Error()), "correct it; plexusd rewrites a generated one when it starts"))
	default:
		found = append(found, confOrder(dir, n)...)
	}
	var metas []string
	for _, f := range n.files {
		if slices.ContainsFunc(f.types, func(t string) bool { return slices.Contains(metaPlugins(), t) }) {
			metas = append(metas, f.name)
		}
		if f.err != nil && filepath.Join(dir, f.name) != d.Conf {
			found = append(found, newFinding(ConfBroken, filepath.Join(dir, f.name), oneLine(f.err.Error()), "correct or remove it: some container runtimes stop at a file that they cannot read"))
		}
	}
	if len(metas) > 1 {
		found = append(found, newFinding(ConfSeveralMeta, dir, fmt.Sprintf("several meta-plugins: %s; the container runtime calls the first, the others do nothing or call each other", strings.Join(metas, ", ")), "remove all but one from the node, together with the DaemonSet that writes it"))
	}
	found = append(found, d.crioGC(dir, n)...)
	found = append(found, meshes(n)...)
	found = append(found, takenNames(n)...)
	found = append(found, d.withoutCheck(n)...)
	for _, p := range n.problems {
		found = append(found, newFinding(NetworkInvalid, p.from, oneLine(p.err.Error()), "correct it: pods that select this network cannot be attached"))
	}
	return found, nil
}

// crioGC tells of the files that CRI-O's GC is dangerous for: it calls GC for every configuration in the folder (ocicni), those that it attached
// nothing with included, with an empty list of attachments that are valid. Of CNI 1.1.0 on, a primary that implements GC then drops what
// Plexus attached with it.
func (d *Doctor) crioGC(dir string, n *node) []Finding {
	if _, err := os.Stat(d.Paths.CRIO); err != nil || n.conf == nil {
		return nil
	}
	var found []Finding
	for _, f := range n.files {
		path := filepath.Join(dir, f.name)
		if f.list == nil || path == n.conf.path || slices.ContainsFunc(f.types, func(t string) bool { return slices.Contains(metaPlugins(), t) }) {
			continue
		}
		if !f.list.HasGC() {
			continue
		}
		found = append(found, newFinding(ConfCRIOGC, path, fmt.Sprintf("CRI-O's GC tells network %s, with which it attached nothing itself, that no attachment is valid: at CNI %s its plugin may drop what Plexus attached with it", f.list.Name(), f.list.CNIVersion()),
			"set \"disableGC\": true in it, or in the settings of the agent that writes it; from then on only DEL gives back what that network holds"))
	}
	return found
}

// takenNames tells of NetworkAttachmentDefinitions that go by the default network's name, under which plugins keep its state.
func takenNames(n *node) []Finding {
	var found []Finding
	for _, w := range n.networks {
		for _, other := range n.networks {
			if other.isDefault && w.owner() != "" && w.list.Name() == other.list.Name() && w.key() != other.key() && w.name != other.name {
				found = append(found, newFinding(NetworkNameTaken, w.object(), fmt.Sprintf("its \"name\" %q is that of the default network: their plugins keep addresses and other state under one name", w.list.Name()), "give it a \"name\" of its own in "+w.from))
			}
		}
	}
	return found
}

// meshes tells of service meshes that have chained their plugins to Plexus' configuration.
func meshes(n *node) []Finding {
	if n.conf == nil {
		return nil
	}
	var found []Finding
	for _, t := range n.conf.list.Types() {
		if !install.IsMesh(t) {
			continue
		}
		twice := slices.ContainsFunc(n.networks, func(w network) bool { return w.isDefault && slices.Contains(w.list.Types(), t) })
		if !twice {
			found = append(found, newFinding(ConfMesh, n.conf.path, fmt.Sprintf("the service mesh's plugin %s is chained to Plexus: it runs once for each pod, and sees eth0 alone", t), ""))
			continue
		}
		found = append(found, newFinding(ConfMeshTwice, n.conf.path, fmt.Sprintf("the service mesh's plugin %s is chained to Plexus and to the default network: it runs twice for each pod", t),
			"for Istio, set cni.cniConfFileName to the default network's file, and restart plexusd"))
	}
	return found
}

// noCheck are IPAM plugins that answer every CHECK with an error.
func noCheck() []string { return []string{"whereabouts"} }

// withoutCheck tells of networks whose CHECK fails for want of an implementation, where all networks are asked.
func (d *Doctor) withoutCheck(n *node) []Finding {
	if n.conf == nil || !n.conf.cfg.CheckAll {
		return nil
	}
	var found []Finding
	for _, w := range d.concerned(n) {
		if !w.list.HasCheck() {
			continue
		}
		for _, p := range w.plugins() {
			var ipam struct {
				Type string `json:"type"`
			}
			if json.Unmarshal(p.IPAM, &ipam) == nil && slices.Contains(noCheck(), ipam.Type) {
				found = append(found, newFinding(NetworkNoCheck, w.object(), fmt.Sprintf("its IPAM plugin %s does not implement CHECK, and \"checkNetworks\" is all: each CHECK of a pod logs an error", ipam.Type), "set \"disableCheck\": true in "+w.from))
			}
		}
	}
	return found
}

// confOrder tells whether the runtime's choice is Plexus.
func confOrder(dir string, n *node) []Finding {
	own := filepath.Base(n.conf.path)
	if first := n.files[0]; first.name != own {
		return []Finding{newFinding(ConfNotFirst, filepath.Join(dir, first.name),
			fmt.Sprintf("the container runtime takes this file (%s), which is lexically first, instead of %s: pods get no further networks", typesOf(first), own),
			fmt.Sprintf("remove it if what wrote it is gone, or rename it so that it sorts after %s", own))}
	}
	return nil
}

func typesOf(f confFile) string {
	if f.err != nil {
		return "not readable"
	}
	return "of type " + strings.Join(f.types, ", ")
}

// renamedFiles finds what a primary has taken out of the runtime's sight.
func renamedFiles(dir, own string) []Finding {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // the caller has told
	}
	var found []Finding
	for _, e := range entries {
		for suffix, mend := range renamed() {
			name, cut := strings.CutSuffix(e.Name(), suffix)
			switch {
			case !cut:
			case name == own:
				found = append(found, newFinding(ConfRenamed, filepath.Join(dir, e.Name()), "Plexus' configuration was renamed by the primary network plugin: pods get no further networks", mend+", and restart plexusd"))
			default:
				found = append(found, newFinding(ConfForeignRenamed, filepath.Join(dir, e.Name()), "the primary network plugin renames other configurations, and may rename Plexus'", mend))
			}
		}
	}
	return found
}
