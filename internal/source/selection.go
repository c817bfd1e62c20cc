// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
)

// Pod is what a source reads of a pod.
type Pod struct {
	Ref         pod.Ref
	Annotations map[string]string
}

// Definitions finds a NetworkAttachmentDefinition; its error matches [nad.ErrNotFound] when there is none.
type Definitions func(nad.Ref) (*nad.Definition, error)

// Select answers a query for a pod that was found. It is the one place that decides what a pod gets by reference, whichever
// source found the pod and its definitions.
func Select(q Query, p Pod, find Definitions) (*Selection, error) {
	if err := checkUID(q.Pod, p); err != nil {
		return nil, err
	}
	s := &selector{query: q, pod: p, find: find}
	sel := &Selection{Pod: p.Ref}
	var err error
	if sel.Default, err = s.defaultNetwork(); err != nil {
		return nil, err
	}
	for _, name := range q.DefaultNetworks {
		var n *Network
		if n, err = s.configured("defaultNetworks", name); err != nil {
			return nil, err
		}
		sel.DefaultNetworks = append(sel.DefaultNetworks, *n)
	}
	elements, err := annotations.ParseNetworks(p.Annotations[annotations.NetworksKey], p.Ref.Namespace)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", annotations.NetworksKey, err)
	}
	for _, e := range elements {
		n, err := s.selected(annotations.NetworksKey, e)
		if err != nil {
			return nil, err
		}
		sel.Networks = append(sel.Networks, *n)
	}
	return sel, nil
}

// checkUID refuses to attach a pod's sandbox to what a later or earlier pod of the same name asks for.
func checkUID(asked pod.Ref, found Pod) error {
	if asked.UID == "" || found.Ref.UID == "" || asked.UID == found.Ref.UID || annotations.IsStatic(found.Annotations) {
		return nil
	}
	return fmt.Errorf("%w: pod %s has UID %s, but the sandbox was made for UID %s: the pod was replaced meanwhile", ErrTryAgain, found.Ref, found.Ref.UID, asked.UID)
}

type selector struct {
	query Query
	pod   Pod
	find  Definitions
}

// defaultNetwork returns what replaces or defines the default network, nil for neither.
func (s *selector) defaultNetwork() (*Network, error) {
	e, err := annotations.ParseDefaultNetwork(s.pod.Annotations[annotations.DefaultNetworkKey], s.query.NetworksNamespace)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", annotations.DefaultNetworkKey, err)
	}
	if e != nil {
		return s.selected(annotations.DefaultNetworkKey, *e)
	}
	if s.query.ClusterNetwork == "" {
		return nil, nil // no network by reference is an answer, not a failure
	}
	return s.configured("clusterNetwork", s.query.ClusterNetwork)
}

// selected resolves a network that the pod itself asks for: isolation holds, and the NAD has to exist.
func (s *selector) selected(annotation string, e annotations.Element) (*Network, error) {
	ref := nad.Ref{Namespace: e.Namespace, Name: e.Name}
	// The default namespace of the default-network annotation is no exemption: the pod selected the network all the same.
	if err := s.query.Isolation.Check(s.pod.Ref.Namespace, ref); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", annotation, err)
	}
	def, err := s.find(ref)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", annotation, err)
	}
	if def.ResourceName != "" && e.DeviceID == "" {
		return nil, fmt.Errorf("annotation %s: %w: network %s consumes one of resource %q and none is known here: name it in the element's \"deviceID\"", annotation, ErrNoDevice, ref, def.ResourceName)
	}
	return &Network{Ref: ref, Config: def.Config, Device: e.DeviceID, Element: e}, nil
}

// configured resolves a network that the cluster's administrator named in the configuration.
func (s *selector) configured(key, name string) (*Network, error) {
	ref, err := nad.ParseRef(name, s.query.NetworksNamespace)
	if err != nil {
		// No NAD can be named so, but a file's network can ("My_Net").
		return &Network{Ref: nad.Ref{Namespace: s.query.NetworksNamespace, Name: name}, Missing: true}, nil
	}
	def, err := s.find(ref)
	if errors.Is(err, nad.ErrNotFound) {
		return &Network{Ref: ref, Missing: true}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, name, err)
	}
	if def.ResourceName != "" {
		return nil, fmt.Errorf("%s %q: %w: it consumes one of resource %q and none is known here: name a network that needs none", key, name, ErrNoDevice, def.ResourceName)
	}
	return &Network{Ref: ref, Config: def.Config}, nil
}
