// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
// source found the pod and its definitions. A source that knows nothing of devices has nil for them.
func Select(q Query, p Pod, find Definitions, devices Devices) (*Selection, error) {
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
	if err := s.giveDevices(sel.all(), devices); err != nil {
		return nil, err
	}
	sel.Warnings = annotations.Notices(p.Annotations)
	return sel, nil
}

// all are the networks in the order of attachment.
func (s *Selection) all() []*Network {
	var all []*Network
	if s.Default != nil {
		all = append(all, s.Default)
	}
	for i := range s.DefaultNetworks {
		all = append(all, &s.DefaultNetworks[i])
	}
	for i := range s.Networks {
		all = append(all, &s.Networks[i])
	}
	return all
}

// giveDevices finds out what the node gave the pod, if any of its networks consumes a device, and gives each its own.
func (s *selector) giveDevices(networks []*Network, find Devices) error {
	if s.pod.Ref.IsZero() {
		return nil // the question is about networks, not about a pod that has devices
	}
	var given []pod.Device
	if find != nil && slices.ContainsFunc(s.needs, Need.consumes) {
		var err error
		if given, err = find(s.pod, s.needs); err != nil {
			return fmt.Errorf("devices of pod %s: %w", s.pod.Ref, err)
		}
		for _, d := range given {
			if err := d.Validate(); err != nil {
				return fmt.Errorf("devices of pod %s: %w", s.pod.Ref, err)
			}
		}
	}
	got, err := Distribute(s.needs, given)
	if err != nil && find == nil {
		return fmt.Errorf("%w; no devices are known here at all: write the device into the configuration of a network without resource", err)
	}
	if err != nil {
		return err
	}
	for i, d := range got {
		networks[i].ResourceName = s.needs[i].Resource
		if d != nil {
			networks[i].Device, networks[i].ResourceName, networks[i].Claimed = d.ID, d.Resource, d.Claimed
		}
	}
	return nil
}

// checkUID refuses to attach a pod's sandbox to what a later or earlier pod of the same name asks for.
func checkUID(asked pod.Ref, found Pod) error {
	if asked.UID == "" || found.Ref.UID == "" || asked.UID == found.Ref.UID || annotations.IsMirror(found.Annotations, asked.UID) {
		return nil
	}
	return fmt.Errorf("%w: pod %s has UID %s, but the sandbox was made for UID %s: the pod was replaced meanwhile", ErrTryAgain, found.Ref, found.Ref.UID, asked.UID)
}

type selector struct {
	query Query
	pod   Pod
	find  Definitions
	// needs has one for each network that was resolved, in the order of attachment.
	needs []Need
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
	n, err := s.network(def, e)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", annotation, err)
	}
	return n, nil
}

// configured resolves a network that the cluster's administrator named in the configuration.
func (s *selector) configured(key, name string) (*Network, error) {
	ref, err := nad.ParseRef(name, s.query.NetworksNamespace)
	if err != nil {
		// No NAD can be named so, but a file's network can ("My_Net").
		s.needs = append(s.needs, Need{})
		return &Network{Ref: nad.Ref{Namespace: s.query.NetworksNamespace, Name: name}, Missing: true}, nil
	}
	def, err := s.find(ref)
	if errors.Is(err, nad.ErrNotFound) {
		s.needs = append(s.needs, Need{})
		return &Network{Ref: ref, Missing: true}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, name, err)
	}
	n, err := s.network(def, annotations.Element{})
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, name, err)
	}
	return n, nil
}

// network is what a definition makes of a selection; it notes what the attachment asks of the pod's devices.
func (s *selector) network(def *nad.Definition, e annotations.Element) (*Network, error) {
	need, err := needOf(def, e.DeviceID)
	if err != nil {
		return nil, err
	}
	s.needs = append(s.needs, need)
	n := &Network{Ref: def.Ref, Config: def.Config, Element: e}
	switch def.UnsupportedRequests {
	case "":
	case "refuse":
		n.RefuseUnsupported = true
	default:
		return nil, fmt.Errorf("network %s: annotation %s: %w: %q is unknown: write \"refuse\", or remove it", def.Ref, annotations.UnsupportedRequestsKey, nad.ErrInvalid, shortened(def.UnsupportedRequests))
	}
	for key := range strings.SplitSeq(def.AllowedCNIArgs, ",") {
		if key = strings.TrimSpace(key); key != "" {
			n.AllowedCNIArgs = append(n.AllowedCNIArgs, key)
		}
	}
	return n, nil
}

// shortened bounds what a message repeats of an annotation.
func shortened(s string) string {
	const most = 64
	return s[:min(len(s), most)]
}
