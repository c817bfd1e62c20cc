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
	"strings"

	"github.com/plexus-cni/plexus/annotations"
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
	// PodOptional is set where the runtime is not Kubernetes': a pod that the source does not know gets what the configuration names.
	PodOptional bool
	// Warn is told of files that were skipped.
	Warn func(text string)
}

// Lookup asks the source what the pod gets by reference. Without a source the answer is: what the configuration names, from
// its folder.
func (r *Resolver) Lookup(ctx context.Context, src source.Source) (*source.Selection, error) {
	q := source.Query{Pod: r.Pod, PodOptional: r.PodOptional, NetworksNamespace: r.Config.NetworksNamespace, Isolation: r.Isolation()}
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

// Isolation says which namespaces' networks the pod may use.
func (r *Resolver) Isolation() nad.Policy {
	p := nad.Policy{Isolate: r.Config.NamespaceIsolation}
	if g := r.Config.GlobalNamespaces; g != nil {
		p.GlobalNamespaces = nad.ParseGlobalNamespaces(*g)
	}
	return p
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
		if err := add(r.byReference("defaultNetworks", n, &byName[0])); err != nil {
			return nil, err
		}
		byName = byName[1:]
	}
	for i := range s.Networks {
		if err := add(r.byReference("network", "", &s.Networks[i])); err != nil {
			return nil, err
		}
	}
	if err := add(r.auxiliary()); err != nil {
		return nil, err
	}
	return networks, nil
}

// DefaultNetwork is the default network: what the source found, or what the configuration has itself. One that stands in the configuration,
// or in a file that it names, gives way to what the source says only where the configuration allows it: the source may be a daemon that
// lies.
func (r *Resolver) DefaultNetwork(n *source.Network) (*delegate.Network, error) {
	var network *delegate.Network
	var err error
	byName := r.Config.ClusterNetwork != "" && !r.Config.ClusterNetworkIsPath()
	switch {
	case n != nil:
		if err = r.Config.CheckReplacement(n.Ref.String()); err != nil {
			return nil, fmt.Errorf("%w: annotation %s: %w", delegate.ErrInvalid, annotations.DefaultNetworkKey, err)
		}
		network, err = r.byReference("clusterNetwork", r.Config.ClusterNetwork, n)
	case byName:
		return nil, fmt.Errorf("%w: clusterNetwork %q: the source left it out", delegate.ErrInvalid, r.Config.ClusterNetwork)
	case r.Config.ClusterNetworkIsPath():
		network, err = r.file("clusterNetwork", r.Config.ClusterNetwork)
	default:
		network, err = r.inline(0)
	}
	if err == nil && network.List.IsLoopback() {
		return nil, fmt.Errorf("%w: the default network %s is the loopback interface alone: install the cluster's network plugin, and name its configuration", delegate.ErrInvalid, network.Name)
	}
	return network, err
}

// inline is an entry of the configuration's delegates.
func (r *Resolver) inline(i int) (*delegate.Network, error) {
	list, err := r.Config.Inline(i)
	if err != nil {
		return nil, err
	}
	return r.network(&delegate.Network{Name: list.Name(), List: list, Trusted: true})
}

// file is a network of the configuration that is given as a path.
func (r *Resolver) file(key, path string) (*delegate.Network, error) {
	list, warnings, err := nad.LoadPath(path, config.PluginType, r.defaults(""))
	r.warn(warnings)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, path, err)
	}
	network, err := r.network(&delegate.Network{Name: list.Name(), List: list, Trusted: true})
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, path, err)
	}
	return network, nil
}

// byReference is a network that the source found, or that it left to the folder confDir. What the source says is taken as if the pod's
// author had written it. configured is the name by which the configuration has the network, "" for one that the pod selected.
func (r *Resolver) byReference(key, configured string, n *source.Network) (*delegate.Network, error) {
	network, err := r.referred(configured, n)
	if err != nil && n.Missing {
		return nil, fmt.Errorf("%s %q: %w", key, n.Ref.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", key, n.Ref, err)
	}
	return network, nil
}

func (r *Resolver) referred(configured string, n *source.Network) (*delegate.Network, error) {
	if n.Missing && configured != "" && !isPath(configured) {
		return r.configured(configured)
	}
	if n.Missing {
		return nil, fmt.Errorf("%w: there is no such NetworkAttachmentDefinition", nad.ErrNotFound)
	}
	out := &delegate.Network{
		Name: n.Ref.String(), Device: n.Device, ResourceName: n.ResourceName, Claimed: n.Claimed,
		RefuseUnsupported: n.RefuseUnsupported, AllowedCNIArgs: n.AllowedCNIArgs,
	}
	_, err := nad.ParseRef(n.Ref.String(), "")
	if err != nil {
		return nil, err
	}
	if n.Device != "" {
		if err = (pod.Device{ID: n.Device, Resource: n.ResourceName}).Validate(); err != nil {
			return nil, err
		}
	}
	if n.Element.Name != "" {
		if out.Element, err = n.Element.Validate(); err != nil {
			return nil, err
		}
	}
	if n.Config == "" {
		if err = r.checkFileOf(n.Ref); err != nil {
			return nil, err
		}
		var warnings []string
		out.List, warnings, err = nad.FindFile(r.Config.ConfDir, n.Ref.Name, r.defaults(n.Ref.Name))
		r.warn(warnings)
	} else {
		out.List, err = nad.Normalize([]byte(n.Config), r.defaults(n.Ref.Name))
	}
	if err != nil {
		return nil, err
	}
	return r.network(out)
}

// configured is a network that the configuration names and no NetworkAttachmentDefinition defines.
func (r *Resolver) configured(name string) (*delegate.Network, error) {
	list, warnings, err := nad.FindFile(r.Config.ConfDir, name, r.defaults(name))
	r.warn(warnings)
	if errors.Is(err, nad.ErrNotFound) {
		return nil, fmt.Errorf("%w: there is neither a NetworkAttachmentDefinition of that name in namespace %s nor a configuration in %s whose \"name\" it is", nad.ErrNotFound, r.Config.NetworksNamespace, r.Config.ConfDir)
	}
	if err != nil {
		return nil, err
	}
	return r.network(&delegate.Network{Name: list.Name(), List: list, Trusted: true})
}

// checkFileOf keeps a definition from the node's configurations that nobody meant for its namespace: under isolation, an empty definition
// in a tenant's own namespace would reach whatever file has its name.
func (r *Resolver) checkFileOf(ref nad.Ref) error {
	p := r.Isolation()
	if ref.Namespace == r.Config.NetworksNamespace || p.IsGlobal(ref.Namespace) {
		return nil
	}
	return fmt.Errorf("%w: it has no configuration, and under namespaceIsolation those in %s are for definitions of namespace %s and of globalNamespaces: write the configuration into spec.config, or create the definition there",
		nad.ErrForbidden, r.Config.ConfDir, r.Config.NetworksNamespace)
}

// network is where every network passes, whatever it was made from, and for every verb.
func (r *Resolver) network(n *delegate.Network) (*delegate.Network, error) {
	if err := r.Config.CheckNetwork(n.List); err != nil {
		return nil, err
	}
	return n, nil
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
	network, err := r.network(&delegate.Network{Name: list.Name(), List: list, Trusted: true})
	if err != nil {
		return nil, fmt.Errorf("auxiliaryCNIChainName %q: %w", chain, err)
	}
	return network, nil
}

func (r *Resolver) defaults(name string) nad.Defaults {
	return nad.Defaults{Name: name, CNIVersion: r.Config.CNIVersion}
}

func (r *Resolver) warn(warnings []string) {
	for _, w := range warnings {
		r.Warn(w)
	}
}
