// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package install puts Plexus onto a node: its binaries, and the network configuration that makes the container runtime call it
// in front of the cluster's own network plugin.
package install

import (
	"encoding/json"
	"errors"
	"fmt"
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

// ErrNoPrimary says that the cluster's own network configuration is not there (yet).
var ErrNoPrimary = errors.New("no primary network configuration")

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
	// Extra are further keys of the plugin's configuration, which win over the generated ones.
	Extra map[string]json.RawMessage
}

// primary is the cluster's own network configuration.
type primary struct {
	path string
	list *nad.List
}

// findPrimary reads the folder; the warnings say which files were passed over.
func (c Conf) findPrimary() (*primary, []string, error) {
	if c.Primary != "" {
		p, err := c.load(c.Primary)
		return p, nil, err
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoPrimary, err)
	}
	var warnings []string
	for _, e := range entries { // sorted by name
		if e.IsDir() || e.Name() == ConfName || !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		p, err := c.load(e.Name())
		if err == nil {
			return p, warnings, nil
		}
		warnings = append(warnings, err.Error())
	}
	return nil, warnings, fmt.Errorf("%w: no usable one in %s: install the cluster's network plugin", ErrNoPrimary, c.Dir)
}

func (c Conf) load(name string) (*primary, error) {
	path := filepath.Join(c.Dir, name)
	list, _, err := nad.LoadPath(path, config.PluginType, nad.Defaults{Name: network, CNIVersion: "0.3.1"})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoPrimary, path, err)
	}
	for _, t := range metaPlugins() {
		if slices.Contains(list.Types(), t) {
			return nil, fmt.Errorf("%w: %s is of the meta-plugin %q, not of a network: take that plugin off the node", ErrNoPrimary, path, t)
		}
	}
	return &primary{path: path, list: list}, nil
}

// generate writes the configuration for a primary.
func (c Conf) generate(p *primary) ([]byte, error) {
	plugin := map[string]any{"type": config.PluginType, "clusterNetwork": p.path}
	if caps := p.list.Capabilities(); len(caps) > 0 {
		plugin["capabilities"] = caps
	}
	if c.Kubeconfig != "" {
		plugin["kubeconfig"] = c.Kubeconfig
	} else {
		plugin["daemonSocketDir"] = c.SocketDir
	}
	for key, value := range c.Extra {
		plugin[key] = value
	}
	if err := check(plugin); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(map[string]any{
		"cniVersion": p.list.CNIVersion(), "name": network, "plugins": []any{plugin},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("generate %s: %w", ConfName, err)
	}
	return append(data, '\n'), nil
}

// check refuses what the plugin would: a broken file would stop all pods of the node.
func check(plugin map[string]any) error {
	data, err := json.Marshal(plugin)
	if err == nil {
		_, err = config.Parse(data)
	}
	if err != nil {
		return fmt.Errorf("generate %s: %w", ConfName, err)
	}
	return nil
}

// Write generates the configuration and writes it if it is another than before: whole, or not at all. It returns the primary's path,
// whether it wrote, and the warnings about other files. Whatever fails, the file that was there stays. The error is an ErrNoPrimary
// while there is nothing to call.
func (c Conf) Write() (string, bool, []string, error) {
	p, warnings, err := c.findPrimary()
	if err != nil {
		return "", false, warnings, err
	}
	data, err := c.generate(p)
	if err != nil {
		return p.path, false, warnings, err
	}
	wrote, err := writeFile(filepath.Join(c.Dir, ConfName), data)
	return p.path, wrote, warnings, err
}

// ParseExtra reads further keys of the plugin's configuration: a JSON object.
func ParseExtra(data []byte) (map[string]json.RawMessage, error) {
	var extra map[string]json.RawMessage
	if err := json.Unmarshal(data, &extra); err != nil {
		return nil, fmt.Errorf("keys for the plugin's configuration: %w: write one JSON object", err)
	}
	for _, key := range []string{"type", "name", "cniVersion", "prevResult", "runtimeConfig"} {
		if _, ok := extra[key]; ok {
			return nil, fmt.Errorf("keys for the plugin's configuration: %q can not be set", key)
		}
	}
	return extra, nil
}
