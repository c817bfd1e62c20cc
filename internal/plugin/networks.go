// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

// lookup asks the source what the pod gets by reference. Without a source the answer is: what the configuration names, from
// its folder.
func (c *call) lookup(ctx context.Context, src source.Source) (*source.Selection, error) {
	q := source.Query{
		Pod:               c.args.Pod,
		NetworksNamespace: c.cfg.NetworksNamespace,
		Isolation:         nad.Policy{Isolate: c.cfg.NamespaceIsolation},
	}
	if g := c.cfg.GlobalNamespaces; g != nil {
		q.Isolation.GlobalNamespaces = nad.ParseGlobalNamespaces(*g)
	}
	if !c.cfg.ClusterNetworkIsPath() {
		q.ClusterNetwork = c.cfg.ClusterNetwork
	}
	for _, n := range c.defaultNetworks() {
		if !isPath(n) {
			q.DefaultNetworks = append(q.DefaultNetworks, n)
		}
	}
	if src != nil {
		return src.Lookup(ctx, q)
	}
	s := &source.Selection{Pod: c.args.Pod}
	if q.ClusterNetwork != "" {
		s.Default = &source.Network{Ref: nad.Ref{Name: q.ClusterNetwork}, Missing: true}
	}
	for _, n := range q.DefaultNetworks {
		s.DefaultNetworks = append(s.DefaultNetworks, source.Network{Ref: nad.Ref{Name: n}, Missing: true})
	}
	return s, nil
}

// defaultNetworks are the configuration's further networks for this pod.
func (c *call) defaultNetworks() []string {
	if c.cfg.IsSystemNamespace(c.args.Pod.Namespace) {
		return nil
	}
	return c.cfg.DefaultNetworks
}

func isPath(network string) bool { return strings.Contains(network, "/") }

// networks puts together what the cluster knows and what only the host knows, in the order of attachment: default network, inline
// ones, default networks, selected ones, auxiliary chain.
func (c *call) networks(s *source.Selection) ([]delegate.Network, error) {
	first, err := c.defaultNetwork(s.Default)
	if err != nil {
		return nil, err
	}
	networks := []delegate.Network{*first}
	add := func(n *delegate.Network, err error) error {
		if err == nil && n != nil {
			networks = append(networks, *n)
		}
		return err
	}
	for i := 1; i < len(c.cfg.Delegates); i++ {
		if err := add(c.inline(i)); err != nil {
			return nil, err
		}
	}
	byName := s.DefaultNetworks
	for _, n := range c.defaultNetworks() {
		if isPath(n) {
			if err := add(c.file("defaultNetworks", n)); err != nil {
				return nil, err
			}
			continue
		}
		if len(byName) == 0 {
			return nil, fmt.Errorf("defaultNetworks: the source left out %q", n)
		}
		if err := add(c.byReference("defaultNetworks", &byName[0])); err != nil {
			return nil, err
		}
		byName = byName[1:]
	}
	for i := range s.Networks {
		if err := add(c.byReference("network", &s.Networks[i])); err != nil {
			return nil, err
		}
	}
	if err := add(c.auxiliary()); err != nil {
		return nil, err
	}
	for _, n := range networks {
		if slices.Contains(n.List.Types(), config.PluginType) {
			return nil, fmt.Errorf("%w: network %s is of type %q, which would call Plexus from Plexus: name a network plugin", delegate.ErrInvalid, n.Name, config.PluginType)
		}
	}
	return networks, nil
}

func (c *call) defaultNetwork(n *source.Network) (*delegate.Network, error) {
	switch {
	case n != nil:
		return c.byReference("clusterNetwork", n)
	case c.cfg.ClusterNetworkIsPath():
		return c.file("clusterNetwork", c.cfg.ClusterNetwork)
	}
	return c.inline(0)
}

// inline is an entry of the configuration's delegates.
func (c *call) inline(i int) (*delegate.Network, error) {
	list, err := nad.Normalize(c.cfg.Delegates[i], c.defaults(c.cfg.Name))
	if err != nil {
		return nil, fmt.Errorf("delegates[%d]: %w", i, err)
	}
	return &delegate.Network{Name: list.Name(), List: list}, nil
}

// file is a network of the configuration that is given as a path.
func (c *call) file(key, path string) (*delegate.Network, error) {
	list, warnings, err := nad.LoadPath(path, config.PluginType, c.defaults(""))
	c.warn(warnings)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, path, err)
	}
	return &delegate.Network{Name: list.Name(), List: list}, nil
}

// byReference is a network that the source found, or that it left to the folder confDir.
func (c *call) byReference(key string, n *source.Network) (*delegate.Network, error) {
	if n.Missing || n.Config == "" {
		list, warnings, err := nad.FindFile(c.cfg.ConfDir, n.Ref.Name, c.defaults(n.Ref.Name))
		c.warn(warnings)
		if errors.Is(err, nad.ErrNotFound) && n.Missing {
			return nil, fmt.Errorf("%s %q: %w: there is neither a NetworkAttachmentDefinition of that name in namespace %s nor a configuration in %s whose \"name\" it is", key, n.Ref.Name, nad.ErrNotFound, c.cfg.NetworksNamespace, c.cfg.ConfDir)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", key, n.Ref, err)
		}
		if n.Missing {
			return &delegate.Network{Name: list.Name(), List: list}, nil
		}
		return &delegate.Network{Name: n.Ref.String(), List: list, Device: n.Device, ResourceName: n.ResourceName, Claimed: n.Claimed, Element: n.Element}, nil
	}
	list, err := nad.Normalize([]byte(n.Config), c.defaults(n.Ref.Name))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", key, n.Ref, err)
	}
	return &delegate.Network{Name: n.Ref.String(), List: list, Device: n.Device, ResourceName: n.ResourceName, Claimed: n.Claimed, Element: n.Element}, nil
}

// auxiliary is the extra last network of plugin files that other programs drop beside the default network's; nil when there is none.
func (c *call) auxiliary() (*delegate.Network, error) {
	chain := c.cfg.AuxiliaryCNIChainName
	if chain == "" {
		return nil, nil // no network is an answer, not a failure
	}
	if !c.cfg.ClusterNetworkIsPath() {
		return nil, fmt.Errorf("%w: auxiliaryCNIChainName %q needs clusterNetwork to be a path: the chain's files are looked for beside it", config.ErrInvalid, chain)
	}
	dir := c.cfg.ClusterNetwork
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	list, err := nad.AuxiliaryChain(dir, chain, c.defaults(chain))
	if err != nil {
		return nil, fmt.Errorf("auxiliaryCNIChainName %q: %w", chain, err)
	}
	if list == nil {
		return nil, nil // no network is an answer, not a failure
	}
	return &delegate.Network{Name: list.Name(), List: list}, nil
}

func (c *call) defaults(name string) nad.Defaults {
	return nad.Defaults{Name: name, CNIVersion: c.cfg.CNIVersion}
}

func (c *call) warn(warnings []string) {
	for _, w := range warnings {
		c.log.Warn(w)
	}
}
