// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/nad"
)

// node is what several checks go by, read once.
type node struct {
	conf    *conf
	confErr error
	// files are those of the runtime's folder that it would read, in its order.
	files    []confFile
	filesErr error
	records  []recorded
	// pods are all on record, chosen those that are asked for.
	pods, chosen []inspect.Pod
	podsErr      error
	networks     []network
	// problems are networks that cannot be read.
	problems []problem
	// links are the host's.
	links    []netdev.Link
	linksErr error
	// devices are in network namespaces, by the parent of their interfaces; see devicesIn.
	devices map[string]string
}

// conf is the configuration of Plexus.
type conf struct {
	path string
	list *nad.List
	// plugin is the configuration of the plugin as libcni hands it on.
	plugin []byte
	cfg    *config.Config
}

// confFile is a file of the runtime's folder.
type confFile struct {
	name  string
	types []string
	list  *nad.List
	err   error
}

// recorded is a record, or why it cannot be read.
type recorded struct {
	dir, key string
	plan     *delegate.Plan
	err      error
}

// network is a network that pods of this node have or may get.
type network struct {
	name string
	list *nad.List
	// from says where it was found.
	from string
	// isDefault marks the default network of the configuration.
	isDefault bool
}

// problem is a network of the configuration that cannot be used.
type problem struct {
	from string
	err  error
}

func (d *Doctor) gather() *node {
	n := &node{}
	n.files, n.filesErr = readFolder(filepath.Dir(d.Conf))
	n.conf, n.confErr = d.loadConf(n.files)
	dirs := slices.Clone(d.StateDirs)
	if n.conf != nil && !slices.Contains(dirs, n.conf.cfg.CNIDir) {
		dirs = append([]string{n.conf.cfg.CNIDir}, dirs...)
	}
	n.records = readRecords(dirs)
	in := &inspect.Node{StateDirs: dirs, Kernel: d.Kernel, Driver: d.driver, Now: d.Now}
	n.pods, _, n.podsErr = in.Pods()
	n.chosen = n.pods
	n.links, n.linksErr = d.Kernel.Links("")
	n.gatherNetworks()
	return n
}

// driver names the driver of a device, as [inspect.Node] wants it.
func (d *Doctor) driver(device string) string {
	dev, err := d.Sysfs.Device(device)
	if err != nil {
		return "" // what is no device has none
	}
	return dev.Driver
}

// readFolder lists what a container runtime takes for configurations, in its order.
func readFolder(dir string) ([]confFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []confFile
	for _, e := range entries {
		if e.IsDir() || !nad.IsFile(e.Name()) {
			continue
		}
		f := confFile{name: e.Name()}
		list, _, err := nad.LoadPath(filepath.Join(dir, e.Name()), "", nad.Defaults{Name: e.Name(), CNIVersion: "0.3.1"})
		if err == nil {
			f.types, f.list = list.Types(), list
		}
		f.err = err
		files = append(files, f)
	}
	return files, nil
}

// loadConf reads the configuration of Plexus: the file of that name, or else whichever of its folder is of Plexus.
func (d *Doctor) loadConf(files []confFile) (*conf, error) {
	path := d.Conf
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		for _, f := range files {
			if slices.Contains(f.types, config.PluginType) {
				path = filepath.Join(filepath.Dir(d.Conf), f.name)
				break
			}
		}
	}
	list, _, err := nad.LoadPath(path, "", nad.Defaults{CNIVersion: "0.3.1"})
	if err != nil {
		return nil, err
	}
	var doc struct {
		Plugins []map[string]json.RawMessage `json:"plugins"`
	}
	if err = json.Unmarshal(list.Bytes(), &doc); err != nil {
		return nil, err
	}
	for i, p := range doc.Plugins {
		if list.Types()[i] != config.PluginType {
			continue
		}
		for key, value := range map[string]string{"name": list.Name(), "cniVersion": list.CNIVersion()} {
			if p[key], err = json.Marshal(value); err != nil {
				return nil, err
			}
		}
		plugin, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		cfg, err := config.Parse(plugin)
		if err != nil {
			return nil, err
		}
		return &conf{path: path, list: list, plugin: plugin, cfg: cfg}, nil
	}
	return nil, fmt.Errorf("%w: %s has no plugin of type %q", config.ErrInvalid, path, config.PluginType)
}

func readRecords(dirs []string) []recorded {
	var all []recorded
	for _, dir := range dirs {
		store := record.Open[delegate.Plan](filepath.Join(dir, "records"))
		keys, err := store.Keys()
		if err != nil {
			all = append(all, recorded{dir: dir, err: err})
			continue
		}
		for _, k := range keys {
			plan, err := store.Load(k)
			if errors.Is(err, fs.ErrNotExist) {
				continue // its DEL was faster
			}
			if err == nil {
				err = plan.Validate()
			}
			if err != nil {
				plan = nil
			}
			all = append(all, recorded{dir: dir, key: k, plan: plan, err: err})
		}
	}
	return all
}

// gatherNetworks finds the networks of the configuration, of its folders, and those that pods have.
func (n *node) gatherNetworks() {
	seen := map[string]bool{}
	add := func(w network) {
		k := w.key()
		if !seen[k] {
			seen[k] = true
			n.networks = append(n.networks, w)
		}
	}
	if n.conf != nil {
		for _, w := range n.configured() {
			add(w)
		}
	}
	for _, r := range n.records {
		if r.plan == nil || n.isGone(r) {
			continue // what a sandbox was attached with that is gone may have been corrected since
		}
		for i := range r.plan.Attachments {
			a := &r.plan.Attachments[i]
			from := "the configuration of network " + cmp.Or(a.Network, a.List.Name())
			if strings.Contains(a.Network, "/") {
				from = "NetworkAttachmentDefinition " + a.Network
			}
			add(network{name: cmp.Or(a.Network, a.List.Name()), list: a.List, from: from, isDefault: a.Default})
		}
	}
}

// isGone reports whether a record is of a sandbox that is gone.
func (n *node) isGone(r recorded) bool {
	return slices.ContainsFunc(n.pods, func(p inspect.Pod) bool {
		return p.State == inspect.Gone && p.StateDir == r.dir && p.ContainerID == r.plan.Sandbox.ContainerID
	})
}

// configured are the networks that the configuration names or has in its folders.
func (n *node) configured() []network {
	c := n.conf.cfg
	var found []network
	take := func(name, from string, isDefault bool, list *nad.List, err error) {
		if err != nil {
			n.problems = append(n.problems, problem{from: from, err: err})
			return
		}
		found = append(found, network{name: cmp.Or(name, list.Name()), list: list, from: from, isDefault: isDefault})
	}
	for i, raw := range c.Delegates {
		list, err := nad.Normalize(raw, nad.Defaults{Name: c.Name, CNIVersion: c.CNIVersion})
		take("", fmt.Sprintf("delegates[%d] of %s", i, n.conf.path), i == 0, list, err)
	}
	references := map[string][]string{"clusterNetwork": {c.ClusterNetwork}, "defaultNetworks": c.DefaultNetworks}
	for _, key := range []string{"clusterNetwork", "defaultNetworks"} {
		for _, ref := range references[key] {
			if strings.Contains(ref, "/") {
				list, _, err := nad.LoadPath(ref, config.PluginType, nad.Defaults{CNIVersion: c.CNIVersion})
				take("", fmt.Sprintf("%s %s of %s", key, ref, n.conf.path), key == "clusterNetwork", list, err)
			}
		}
	}
	files, _ := os.ReadDir(c.ConfDir) // without one there are none
	for _, f := range files {
		if nad.IsFile(f.Name()) && f.Type().IsRegular() {
			path := filepath.Join(c.ConfDir, f.Name())
			list, _, err := nad.LoadPath(path, config.PluginType, nad.Defaults{Name: f.Name(), CNIVersion: c.CNIVersion})
			take("", path, false, list, err)
		}
	}
	if c.ManifestDir == "" {
		return found
	}
	objects, err := manifest.Load(c.ManifestDir)
	if err != nil {
		n.problems = append(n.problems, problem{from: "manifestDir " + c.ManifestDir, err: err})
		return found
	}
	for _, def := range objects.Definitions {
		if def.Config == "" {
			continue // it is in the folder confDir
		}
		list, err := nad.Normalize([]byte(def.Config), nad.Defaults{Name: def.Ref.Name, CNIVersion: c.CNIVersion})
		take(def.Ref.String(), "NetworkAttachmentDefinition "+def.Ref.String(), false, list, err)
	}
	return found
}

// key is the same for a network of the configuration and for its copy in a record.
func (w *network) key() string {
	parts := []string{w.name, w.list.Name(), strings.Join(w.list.Types(), ",")}
	for _, p := range w.plugins() {
		parts = append(parts, p.Master, p.Bridge, canonical(p.IPAM))
	}
	return strings.Join(parts, "\x00")
}

// canonical brings JSON into one form: a record is written in another than a configuration.
func canonical(raw json.RawMessage) string {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return string(raw)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return string(raw)
	}
	return string(text)
}

// plugin is what is looked at of a plugin's configuration.
type plugin struct {
	Type    string          `json:"type"`
	Master  string          `json:"master"`
	Bridge  string          `json:"bridge"`
	MTU     int             `json:"mtu"`
	Builtin *bool           `json:"builtin"`
	IPAM    json.RawMessage `json:"ipam"`
}

func (w *network) plugins() []plugin {
	var list struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if json.Unmarshal(w.list.Bytes(), &list) != nil {
		return nil
	}
	plugins := make([]plugin, len(list.Plugins))
	for i, raw := range list.Plugins {
		if json.Unmarshal(raw, &plugins[i]) == nil {
			continue
		}
		// A key means something else to this plugin.
		plugins[i] = plugin{Type: w.list.Types()[i]}
	}
	return plugins
}

// object names the network in findings.
func (w *network) object() string { return "network " + w.name }

// owner is the Kubernetes namespace that the network is defined in, "" for one of the node's configuration.
func (w *network) owner() string {
	namespace, _, ok := strings.Cut(w.name, "/")
	if !ok {
		return ""
	}
	return namespace
}

// isOf reports whether one of the pods has the network.
func (w *network) isOf(pods []inspect.Pod) bool {
	return slices.ContainsFunc(pods, func(p inspect.Pod) bool {
		return slices.ContainsFunc(p.Interfaces, func(i inspect.Interface) bool { return i.Network == w.name })
	})
}

// concerned are the networks to look at: all, or those of the pods that are asked for and the default one. Of a pod that is not on
// record nobody knows them: all may be.
func (d *Doctor) concerned(n *node) []network {
	if d.Choose == nil || len(n.chosen) == 0 {
		return n.networks
	}
	return slices.DeleteFunc(slices.Clone(n.networks), func(w network) bool { return !w.isDefault && !w.isOf(n.chosen) })
}

// maxFileBytes bounds the files that are read here.
const maxFileBytes = 1 << 20

// readSmall reads a regular file that is not large.
func readSmall(path string) ([]byte, error) { return bounded.ReadFile(path, maxFileBytes) }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
