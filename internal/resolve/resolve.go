// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package resolve turns what the configuration of Plexus, the cluster and the host's folders say about a pod into the networks to attach
// it to. It reads, and changes nothing.
package resolve

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
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

// Resolver resolves the networks of one pod.
type Resolver struct {
	Config *config.Config
	// Pod is the pod of the call; zero for a question about what the configuration names alone.
	Pod pod.Ref
	// Warn is told of files that were skipped.
	Warn func(text string)
}

// Lookup asks the source what the pod gets by reference. Without a source the answer is: what the configuration names, from
// its folder.
func (r *Resolver) Lookup(ctx context.Context, src source.Source) (*source.Selection, error) {
	q := source.Query{
		Pod:               r.Pod,
		NetworksNamespace: r.Config.NetworksNamespace,
		Isolation:         nad.Policy{Isolate: r.Config.NamespaceIsolation},
	}
	if g := r.Config.GlobalNamespaces; g != nil {
		q.Isolation.GlobalNamespaces = nad.ParseGlobalNamespaces(*g)
	}
	if !r.Config.ClusterNetworkIsPath() {
		q.ClusterNetwork = r.Config.ClusterNetwork
	}
	for _, n := range r.defaultNetworks() {
		if !isPath(n) {
			q.DefaultNetworks = append(q.DefaultNetworks, n)
		}
	}
	if src != nil {
		return src.Lookup(ctx, q)
	}
	s := &source.Selection{Pod: r.Pod}
	if q.ClusterNetwork != "" {
		s.Default = &source.Network{Ref: nad.Ref{Name: q.ClusterNetwork}, Missing: true}
	}
	for _, n := range q.DefaultNetworks {
		s.DefaultNetworks = append(s.DefaultNetworks, source.Network{Ref: nad.Ref{Name: n}, Missing: true})
	}
	return s, nil
}

// defaultNetworks are the configuration's further networks for this pod.
func (r *Resolver) defaultNetworks() []string {
	if r.Config.IsSystemNamespace(r.Pod.Namespace) {
		return nil
	}
	return r.Config.DefaultNetworks
}

func isPath(network string) bool { return strings.Contains(network, "/") }

// Networks puts together what the cluster knows and what only the host knows, in the order of attachment: default network, inline
// ones, default networks, selected ones, auxiliary chain.
func (r *Resolver) Networks(s *source.Selection) ([]delegate.Network, error) {
	first, err := r.DefaultNetwork(s.Default)
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
	for i := 1; i < len(r.Config.Delegates); i++ {
		if err := add(r.inline(i)); err != nil {
			return nil, err
		}
	}
	byName := s.DefaultNetworks
	for _, n := range r.defaultNetworks() {
		if isPath(n) {
			if err := add(r.file("defaultNetworks", n)); err != nil {
				return nil, err
			}
			continue
		}
		if len(byName) == 0 {
			return nil, fmt.Errorf("defaultNetworks: the source left out %q", n)
		}
		if err := add(r.byReference("defaultNetworks", &byName[0])); err != nil {
			return nil, err
		}
		byName = byName[1:]
	}
	for i := range s.Networks {
		if err := add(r.byReference("network", &s.Networks[i])); err != nil {
			return nil, err
		}
	}
	if err := add(r.auxiliary()); err != nil {
		return nil, err
	}
	for _, n := range networks {
		if slices.Contains(n.List.Types(), config.PluginType) {
			return nil, fmt.Errorf("%w: network %s is of type %q, which would call Plexus from Plexus: name a network plugin", delegate.ErrInvalid, n.Name, config.PluginType)
		}
	}
	return networks, nil
}

// DefaultNetwork is the default network: what the source found, or what the configuration has itself.
func (r *Resolver) DefaultNetwork(n *source.Network) (*delegate.Network, error) {
	switch {
	case n != nil:
		return r.byReference("clusterNetwork", n)
	case r.Config.ClusterNetworkIsPath():
		return r.file("clusterNetwork", r.Config.ClusterNetwork)
	}
	return r.inline(0)
}

// inline is an entry of the configuration's delegates.
func (r *Resolver) inline(i int) (*delegate.Network, error) {
	list, err := nad.Normalize(r.Config.Delegates[i], r.defaults(r.Config.Name))
	if err != nil {
		return nil, fmt.Errorf("delegates[%d]: %w", i, err)
	}
	return &delegate.Network{Name: list.Name(), List: list}, nil
}

// file is a network of the configuration that is given as a path.
func (r *Resolver) file(key, path string) (*delegate.Network, error) {
	list, warnings, err := nad.LoadPath(path, config.PluginType, r.defaults(""))
	r.warn(warnings)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, path, err)
	}
	return &delegate.Network{Name: list.Name(), List: list}, nil
}

// byReference is a network that the source found, or that it left to the folder confDir.
func (r *Resolver) byReference(key string, n *source.Network) (*delegate.Network, error) {
	if n.Missing || n.Config == "" {
		list, warnings, err := nad.FindFile(r.Config.ConfDir, n.Ref.Name, r.defaults(n.Ref.Name))
		r.warn(warnings)
		if errors.Is(err, nad.ErrNotFound) && n.Missing {
			return nil, fmt.Errorf("%s %q: %w: there is neither a NetworkAttachmentDefinition of that name in namespace %s nor a configuration in %s whose \"name\" it is", key, n.Ref.Name, nad.ErrNotFound, r.Config.NetworksNamespace, r.Config.ConfDir)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", key, n.Ref, err)
		}
		if n.Missing {
			return &delegate.Network{Name: list.Name(), List: list}, nil
		}
		return &delegate.Network{Name: n.Ref.String(), List: list, Device: n.Device, ResourceName: n.ResourceName, Claimed: n.Claimed, Element: n.Element}, nil
	}
	list, err := nad.Normalize([]byte(n.Config), r.defaults(n.Ref.Name))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", key, n.Ref, err)
	}
	return &delegate.Network{Name: n.Ref.String(), List: list, Device: n.Device, ResourceName: n.ResourceName, Claimed: n.Claimed, Element: n.Element}, nil
}

// auxiliary is the extra last network of plugin files that other programs drop beside the default network's; nil when there is none.
func (r *Resolver) auxiliary() (*delegate.Network, error) {
	chain := r.Config.AuxiliaryCNIChainName
	if chain == "" {
		return nil, nil // no network is an answer, not a failure
	}
	if !r.Config.ClusterNetworkIsPath() {
		return nil, fmt.Errorf("%w: auxiliaryCNIChainName %q needs clusterNetwork to be a path: the chain's files are looked for beside it", config.ErrInvalid, chain)
	}
	dir := r.Config.ClusterNetwork
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	list, err := nad.AuxiliaryChain(dir, chain, r.defaults(chain))
	if err != nil {
		return nil, fmt.Errorf("auxiliaryCNIChainName %q: %w", chain, err)
	}
	if list == nil {
		return nil, nil // no network is an answer, not a failure
	}
	return &delegate.Network{Name: list.Name(), List: list}, nil
}

func (r *Resolver) defaults(name string) nad.Defaults {
	return nad.Defaults{Name: name, CNIVersion: r.Config.CNIVersion}
}

func (r *Resolver) warn(warnings []string) {
	for _, w := range warnings {
		r.Warn(w)
	}
}
