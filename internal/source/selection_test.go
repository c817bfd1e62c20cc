// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
)

// cluster is a set of definitions whose config is their name.
type cluster map[nad.Ref]string

func (c cluster) find(ref nad.Ref) (*nad.Definition, error) {
	resource, ok := c[ref]
	if !ok {
		return nil, fmt.Errorf("%w: %s", nad.ErrNotFound, ref)
	}
	config := ref.Name + "-config"
	if resource != "" {
		config = `{"type":"sriov"}`
	}
	return &nad.Definition{Ref: ref, Config: config, ResourceName: resource}, nil
}

var nets = cluster{
	{Namespace: "default", Name: "a"}:         "",
	{Namespace: "other", Name: "c"}:           "",
	{Namespace: "kube-system", Name: "x"}:     "",
	{Namespace: "default", Name: "vf"}:        "intel.com/vf",
	{Namespace: "kube-system", Name: "vfdef"}: "intel.com/vf",
}

func web(ann map[string]string) Pod {
	return Pod{Ref: pod.Ref{Namespace: "default", Name: "web", UID: "u1"}, Annotations: ann}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	element := func(ns, name string) annotations.Element { return annotations.Element{Namespace: ns, Name: name} }
	tests := map[string]struct {
		query Query
		ann   map[string]string
		want  Selection
	}{
		"P1 no annotation selects nothing": {},
		"P3 a network of another namespace": {
			ann:  map[string]string{annotations.NetworksKey: "other/c"},
			want: Selection{Networks: []Network{{Ref: nad.Ref{Namespace: "other", Name: "c"}, Config: "c-config", Element: element("other", "c")}}},
		},
		"R9 clusterNetwork is a NAD of the networks' namespace": {
			query: Query{ClusterNetwork: "x"},
			want:  Selection{Default: &Network{Ref: nad.Ref{Namespace: "kube-system", Name: "x"}, Config: "x-config"}},
		},
		"R10 clusterNetwork without a NAD is left to the plugin": {
			query: Query{ClusterNetwork: "onfile"},
			want:  Selection{Default: &Network{Ref: nad.Ref{Namespace: "kube-system", Name: "onfile"}, Missing: true}},
		},
		"R10 a name that no NAD can have is left to the plugin": {
			query: Query{ClusterNetwork: "My_Net"},
			want:  Selection{Default: &Network{Ref: nad.Ref{Namespace: "kube-system", Name: "My_Net"}, Missing: true}},
		},
		"R14 default networks come one for one": {
			query: Query{DefaultNetworks: []string{"x", "onfile"}},
			want: Selection{DefaultNetworks: []Network{
				{Ref: nad.Ref{Namespace: "kube-system", Name: "x"}, Config: "x-config"},
				{Ref: nad.Ref{Namespace: "kube-system", Name: "onfile"}, Missing: true},
			}},
		},
		"R16 the default-network annotation replaces clusterNetwork": {
			query: Query{ClusterNetwork: "onfile"},
			ann:   map[string]string{annotations.DefaultNetworkKey: "x"},
			want:  Selection{Default: &Network{Ref: nad.Ref{Namespace: "kube-system", Name: "x"}, Config: "x-config", Element: element("kube-system", "x")}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.query.NetworksNamespace = "kube-system"
			p := web(tc.ann)
			tc.want.Pod = p.Ref
			got, err := Select(tc.query, p, nets.find, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Errorf("Select (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSelectRefuses(t *testing.T) {
	t.Parallel()
	isolated := Query{Isolation: nad.Policy{Isolate: true}}
	tests := map[string]struct {
		query Query
		ann   map[string]string
		kind  error
		says  string
	}{
		"P26 a network that is not there": {
			ann: map[string]string{annotations.NetworksKey: "missing"}, kind: nad.ErrNotFound, says: "default/missing",
		},
		"I1 another namespace under isolation": {
			query: isolated, ann: map[string]string{annotations.NetworksKey: "other/c"}, kind: nad.ErrForbidden, says: "other",
		},
		"isolation holds for the default-network annotation too": {
			query: isolated, ann: map[string]string{annotations.DefaultNetworkKey: "x"}, kind: nad.ErrForbidden, says: annotations.DefaultNetworkKey,
		},
		"a broken selection names the annotation": {
			ann: map[string]string{annotations.NetworksKey: "a@b@c"}, kind: annotations.ErrInvalid, says: annotations.NetworksKey,
		},
		"R17 two default networks": {
			ann: map[string]string{annotations.DefaultNetworkKey: "x,y"}, kind: annotations.ErrInvalid, says: annotations.DefaultNetworkKey,
		},
		"D17 another pod of the same name": {
			query: Query{Pod: pod.Ref{Namespace: "default", Name: "web", UID: "older"}}, kind: ErrTryAgain, says: "UID u1",
		},
		"a network that consumes a device, and none is known": {
			ann: map[string]string{annotations.NetworksKey: "vf"}, says: `resource "intel.com/vf"`,
		},
		"a device that the element names is not one that the pod was given": {
			ann: map[string]string{annotations.NetworksKey: `[{"name":"vf","deviceID":"0000:01:10.0"}]`}, kind: ErrNoDevice, says: `resource "intel.com/vf"`,
		},
		"a default network that consumes a device, and none is known": {
			query: Query{DefaultNetworks: []string{"vfdef"}}, says: `resource "intel.com/vf"`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.query.NetworksNamespace = "kube-system"
			sel, err := Select(tc.query, web(tc.ann), nets.find, nil)
			if err == nil || sel != nil || (tc.kind != nil && !errors.Is(err, tc.kind)) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Select = %+v, %v; want an error of kind %v saying %q", sel, err, tc.kind, tc.says)
			}
		})
	}
}

func TestD17StaticPodHasAMirrorUID(t *testing.T) {
	t.Parallel()
	p := web(map[string]string{annotations.MirrorKey: "of the file"})
	if _, err := Select(Query{Pod: pod.Ref{Namespace: "default", Name: "web", UID: "of the file"}}, p, nets.find, nil); err != nil {
		t.Errorf("a static pod was refused for its mirror's UID: %v", err)
	}
	p.Annotations = map[string]string{annotations.MirrorKey: "of another file", "kubernetes.io/config.source": "file"}
	if _, err := Select(Query{Pod: pod.Ref{Namespace: "default", Name: "web", UID: "of the file"}}, p, nets.find, nil); err == nil {
		t.Error("a pod that says that it is static passed with another UID")
	}
}
