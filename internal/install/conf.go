// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package install puts Plexus onto a node: its binaries, and the network configuration that makes the container runtime call it
// in front of the cluster's own network plugin.
package install

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/nad"
)

// ConfName is the name of the generated file: the lexically first in its folder, which runtimes take.
const ConfName = "00-plexus.conflist"

// network is the generated configuration's network name.
const network = "plexus"

var (
	// ErrNoPrimary says that the cluster's own network configuration is not there (yet).
	ErrNoPrimary = errors.New("no primary network configuration")
	// ErrNotFirst says that the runtime takes another configuration than the generated one, because of its name.
	ErrNotFirst = errors.New("pods do not come to Plexus")
)

// metaPlugins are types that themselves call another configuration of the folder: none of them is a primary.
func metaPlugins() []string { return []string{config.PluginType, "multus", "multus-shim"} }

// Conf says what to generate.
type Conf struct {
	// Dir is the runtime's folder of network configurations, by the same path here and on the host.
	Dir string
	// Primary is the file name, in Dir, of the cluster's own network configuration; "" takes the lexically first.
	Primary string
	// SocketDir is the folder of the daemon's socket; or
	// Kubeconfig is the file for lookups without a daemon.
	SocketDir, Kubeconfig string
	// BinDir is the folder that the runtime runs plugins from, by the same path here and on the host. Networks' plugins are looked for
	// there as well. "" is [config.DefaultBinDir].
	BinDir string
	// Extra are further keys of the plugin's configuration, which win over the generated ones.
	Extra map[string]json.RawMessage
	// ExtraErr is why the further keys can not be used. Nothing is written without them.
	ExtraErr error
	// MountTable is the file that shows whether the folders have the same paths here and on the host, [MountTable]. "" asks nothing.
	MountTable string
}

// Keys of the plugin's configuration that say where its default network is.
const (
	keyClusterNetwork = "clusterNetwork"
	keyDelegates      = "delegates"
)

// primary is the cluster's own network configuration.
type primary struct {
	path string // "" if it is inline
	list *nad.List
}

// defaults are the plugin's: what it would refuse can be nobody's primary.
func defaults() nad.Defaults { return nad.Defaults{CNIVersion: "0.3.1"} }

// findPrimary reads the folder, unless the primary is named; the warnings say which files were passed over.
func (c Conf) findPrimary() (*primary, []string, error) {
	if c.isInline() {
		p, err := c.inline()
		return p, nil, err
	}
	var warnings []string
	if path := c.named(); path != "" {
		p, err := load(path)
		if err == nil {
			return p, nil, nil
		}
		if !errors.Is(err, nad.ErrNotFound) || filepath.Dir(path) == filepath.Clean(c.Dir) {
			return nil, nil, fmt.Errorf("%w: %w", ErrNoPrimary, err)
		}
		warnings = append(warnings, fmt.Sprintf("%s %s is in no folder of this container: version and capabilities are taken from the first file of %s instead; mount its folder by the same path",
			keyClusterNetwork, path, c.Dir))
	}
	names, err := c.configurations()
	if err != nil {
		return nil, warnings, fmt.Errorf("%w: %w", ErrNoPrimary, err)
	}
	var refused []string
	for _, name := range names {
		path := filepath.Join(c.Dir, name)
		p, err := load(path)
		if err == nil {
			return p, append(warnings, refused...), nil
		}
		if errors.Is(err, fs.ErrPermission) {
			// It may well be the cluster's network: the next file would be another one.
			return nil, warnings, fmt.Errorf("%w: %w", ErrNoPrimary, denied(path, err))
		}
		refused = append(refused, err.Error())
	}
	if len(refused) > 0 {
		return nil, append(warnings, refused...), fmt.Errorf("%w: none of %d in %s is usable: %s", ErrNoPrimary, len(refused), c.Dir, refused[0])
	}
	return nil, warnings, fmt.Errorf("%w: there is none in %s: install the cluster's network plugin", ErrNoPrimary, c.Dir)
}

// named is the path of the primary if one is named; "" for the lexically first.
func (c Conf) named() string {
	var path string
	// A name instead of a path leaves it to the first file what runtimes are told; what is neither is refused by check.
	if err := json.Unmarshal(c.Extra[keyClusterNetwork], &path); err == nil && filepath.IsAbs(path) {
		return path
	}
	if c.Primary != "" {
		return filepath.Join(c.Dir, c.Primary)
	}
	return ""
}

// configurations are the names of the files in the folder that runtimes read, without ours, in the order in which they do.
func (c Conf) configurations() ([]string, error) {
	entries, err := os.ReadDir(c.Dir) // sorted by name
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && e.Name() != ConfName && nad.IsFile(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// isInline reports whether the default network stands in the plugin's configuration itself.
func (c Conf) isInline() bool {
	_, delegates := c.Extra[keyDelegates]
	_, wins := c.Extra[keyClusterNetwork]
	return delegates && !wins
}

func (c Conf) inline() (*primary, error) {
	var delegates []json.RawMessage
	if err := json.Unmarshal(c.Extra[keyDelegates], &delegates); err != nil || len(delegates) == 0 {
		return nil, fmt.Errorf("%s is no list of network configurations: put the default network's into it, or leave it out", keyDelegates)
	}
	d := defaults()
	d.Name = network
	list, err := nad.Normalize(delegates[0], d)
	if err != nil {
		return nil, fmt.Errorf("%s[0]: %w", keyDelegates, err)
	}
	return &primary{list: list}, nil
}

func load(path string) (*primary, error) {
	list, _, err := nad.LoadPath(path, config.PluginType, defaults())
	if err != nil {
		return nil, err
	}
	if list.IsLoopback() {
		return nil, fmt.Errorf("file %s is of the loopback interface alone, which is nobody's pod network: install the cluster's network plugin", path)
	}
	for _, t := range metaPlugins() {
		if slices.Contains(list.Types(), t) {
			return nil, fmt.Errorf("file %s is of the meta-plugin %q, not of a network: take that plugin off the node", path, t)
		}
	}
	return &primary{path: path, list: list}, nil
}

// checkFirst refuses usable configurations that runtimes read before ours, but for another one of Plexus.
func (c Conf) checkFirst() error {
	names, err := c.configurations()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotFirst, err)
	}
	for _, name := range names {
		if name > ConfName {
			break
		}
		path := filepath.Join(c.Dir, name)
		if list, _, err := nad.LoadPath(path, config.PluginType, defaults()); err == nil {
			return fmt.Errorf("%w: the runtime takes %s (network %q), which sorts before %s: rename it so that it comes later, or remove it", ErrNotFirst, path, list.Name(), ConfName)
		}
	}
	return nil
}

// generate writes the configuration for a primary, with what is chained to Plexus.
func (c Conf) generate(p *primary, chained []json.RawMessage) ([]byte, error) {
	plugin := map[string]any{"type": config.PluginType}
	if p.path != "" {
		plugin[keyClusterNetwork] = p.path
	}
	if caps := p.list.Capabilities(); len(caps) > 0 {
		plugin["capabilities"] = caps
	}
	if c.Kubeconfig != "" {
		plugin["kubeconfig"] = c.Kubeconfig
	} else {
		plugin["daemonSocketDir"] = c.SocketDir
		// As pods are used to. Who writes this file could write the default network itself.
		plugin["defaultNetworkAnnotation"] = true
	}
	if c.BinDir != "" && filepath.Clean(c.BinDir) != config.DefaultBinDir {
		plugin["binDir"] = c.BinDir
	}
	for key, value := range c.Extra {
		plugin[key] = value
	}
	if err := check(plugin); err != nil {
		return nil, err
	}
	plugins := []any{plugin}
	for _, p := range chained {
		plugins = append(plugins, p)
	}
	data, err := json.MarshalIndent(map[string]any{
		"cniVersion": p.list.CNIVersion(), "name": network, "plugins": plugins,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("generate %s: %w", ConfName, err)
	}
	return append(data, '\n'), nil
}

// check refuses what the plugin would: a broken file would stop all pods of the node.
func check(plugin map[string]any) error {
	data, err := json.Marshal(plugin)
	var c *config.Config
	if err == nil {
		c, err = config.Parse(data)
	}
	for i := 0; err == nil && i < len(c.Delegates); i++ {
		c.Name, c.CNIVersion = network, defaults().CNIVersion
		_, err = c.Inline(i)
	}
	if err != nil {
		return fmt.Errorf("generate %s: %w", ConfName, err)
	}
	return nil
}

// Outcome is what came of a Write.
type Outcome struct {
	// Primary says where the cluster's own network configuration is.
	Primary string
	// Wrote is set if the generated configuration was another one before.
	Wrote bool
	// Warnings are about other files.
	Warnings []string
	// Mesh are the types of the plugins that service meshes have chained to Plexus; they are kept. Twice are those of them that are
	// chained to the primary, too, so that they run twice for each pod.
	Mesh, Twice []string
	// Collected is set if a runtime that has each file of the folder collect garbage (CRI-O, from CNI 1.1.0 on) tells the primary that
	// nothing is in use: it knows only Plexus' attachments as such.
	Collected bool
	// Strangers are the types of other plugins that were in Plexus' configuration, and are not any more.
	Strangers []string

	data []byte
	// folders are those whose files are part of it: the primary's own, and that of plugins chained to it (CNI 1.1.0 §1).
	folders []string
}

// Write generates the configuration and writes it if it is another than before: whole, or not at all. Whatever fails, the file that was
// there stays. The error is an ErrNoPrimary while there is nothing to call, an ErrNotFirst if it was written in vain, and an ErrPaths if
// the host could not follow what it says.
func (c Conf) Write() (Outcome, error) {
	if c.ExtraErr != nil {
		return Outcome{}, c.ExtraErr
	}
	if c.MountTable != "" {
		if err := checkPaths(c.MountTable, c.hostDirs()); err != nil {
			return Outcome{}, err
		}
	}
	p, warnings, err := c.findPrimary()
	if err != nil {
		return Outcome{Warnings: warnings}, err
	}
	o := Outcome{Primary: cmp.Or(p.path, "the key "+keyDelegates), Warnings: warnings}
	if p.path != "" {
		dir := filepath.Dir(p.path)
		o.Collected = dir == filepath.Clean(c.Dir) && p.list.HasGC()
		o.folders = []string{dir, filepath.Join(dir, p.list.Name())}
	}
	path := filepath.Join(c.Dir, ConfName)
	before, err := readWritten(path)
	if err != nil {
		return o, err
	}
	o.Mesh, o.Strangers = before.meshTypes(), before.strangers
	for _, t := range o.Mesh {
		if slices.Contains(p.list.Types(), t) {
			o.Twice = append(o.Twice, t)
		}
	}
	if o.data, err = c.generate(p, before.mesh); err != nil {
		return o, err
	}
	if len(o.Mesh) > 0 && len(o.Strangers) == 0 && sameJSON(before.data, o.data) {
		return o, c.checkFirst() // as the mesh wrote it
	}
	if o.Wrote, err = writeFile(path, o.data); err != nil {
		return o, err
	}
	return o, c.checkFirst()
}

// hostDirs are the folders that the configuration names, by the flags that give them.
func (c Conf) hostDirs() map[string]string {
	dirs := map[string]string{"conf-dir": c.Dir}
	if c.BinDir != "" {
		dirs["bin-dir"] = c.BinDir
	}
	if c.Kubeconfig == "" && c.SocketDir != "" {
		dirs["socket-dir"] = c.SocketDir
	}
	return dirs
}

// ParseExtra reads further keys of the plugin's configuration: a JSON object. A cniVersion, which the configuration of other daemons has,
// is left out: the primary's counts.
func ParseExtra(data []byte) (map[string]json.RawMessage, error) {
	var extra map[string]json.RawMessage
	if err := json.Unmarshal(data, &extra); err != nil {
		return nil, fmt.Errorf("keys for the plugin's configuration: %w: write one JSON object", err)
	}
	delete(extra, "cniVersion")
	for _, key := range []string{"type", "name", "prevResult", "runtimeConfig"} {
		if _, ok := extra[key]; ok {
			return nil, fmt.Errorf("keys for the plugin's configuration: %q can not be set: leave it out", key)
		}
	}
	return extra, nil
}
