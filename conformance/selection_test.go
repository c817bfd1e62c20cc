// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func TestSelection(t *testing.T) {
	t.Parallel()
	const cluster = "eth0 cluster default"
	tests := map[string]struct {
		annotation *string
		calls      []string // after the default network's
		interfaces []string
	}{
		"P1 no annotation selects only the default network": {},
		"P2 two networks get net1 and net2": {
			annotation: new("a, b"), calls: []string{"ADD a net1", "ADD b net2"}, interfaces: []string{"net1 default/a", "net2 default/b"},
		},
		"P3 a network of another namespace": {
			annotation: new("other/c"), calls: []string{"ADD c net1"}, interfaces: []string{"net1 other/c"},
		},
		"P4 an interface name": {
			annotation: new("a@x1"), calls: []string{"ADD a x1"}, interfaces: []string{"x1 default/a"},
		},
		"P5 a namespace and an interface name": {
			annotation: new("default/a@my_interface"), calls: []string{"ADD a my_interface"}, interfaces: []string{"my_interface default/a"},
		},
		"P13 the empty list selects nothing":   {annotation: new("[]")},
		"P14 the empty string selects nothing": {annotation: new("")},
		"P16 a name with dots, short form": {
			annotation: new("a.b.v1"), calls: []string{"ADD dotted net1"}, interfaces: []string{"net1 default/a.b.v1"},
		},
		"P16 a name with dots, JSON form": {
			annotation: new(`[{"name":"a.b.v1"}]`), calls: []string{"ADD dotted net1"}, interfaces: []string{"net1 default/a.b.v1"},
		},
		"P21 interfaceRequest is the old name of interface": {
			annotation: new(`[{"name":"a","interfaceRequest":"x1"}]`), calls: []string{"ADD a x1"}, interfaces: []string{"x1 default/a"},
		},
		"P22 unknown keys are ignored": {
			annotation: new(`[{"name":"a","color":"blue","nested":{"x":[1]}}]`), calls: []string{"ADD a net1"}, interfaces: []string{"net1 default/a"},
		},
		"the same network twice is attached twice": {
			annotation: new("a,a"), calls: []string{"ADD a net1", "ADD a net2"}, interfaces: []string{"net1 default/a", "net2 default/a"},
		},
		"an interface name counts for the numbering of the others": {
			annotation: new("a@x1,b"), calls: []string{"ADD a x1", "ADD b net2"}, interfaces: []string{"x1 default/a", "net2 default/b"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.nad("default/a.b.v1", w.recorder(object{"name": "dotted"}))
			if tc.annotation != nil {
				w.annotate(networks, *tc.annotation)
			}
			w.must("ADD")
			adds := append([]string{"ADD cluster eth0"}, tc.calls...)
			w.expectCalls(adds...)
			w.expectInterfaces(append([]string{cluster}, tc.interfaces...)...)

			w.must("DEL")
			var dels []string
			for _, add := range slices.Backward(adds) {
				dels = append(dels, strings.Replace(add, "ADD", "DEL", 1))
			}
			w.expectCalls(dels...)
			w.expectNothingLeft()
		})
	}
}

func TestSelectionRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		annotation string
		says       []string
	}{
		"P6 two interface names":                         {"a@b@c", []string{"element 1", `"a@b@c"`, "[namespace/]name[@interface]"}},
		"P7 two namespaces":                              {"a/b/c", []string{"element 1", `"a/b/c"`, "[namespace/]name[@interface]"}},
		"P8 two of both":                                 {"root@someIP/root@someOtherIP", []string{"element 1", "[namespace/]name[@interface]"}},
		"P9 an interface name with a blank":              {"default/net1@myIfc Name", []string{"element 1", "interface", `"myIfc Name"`}},
		"P10 an interface name that is too long":         {"default/net1@very_long_interface_name", []string{"interface", `"very_long_interface_name"`, "15"}},
		"P11 a name in upper case":                       {"A", []string{"element 1", `"A"`, "lower-case"}},
		"P12 a surplus comma":                            {"a,", []string{"element 2", "surplus comma"}},
		"P15 an object in the place of an array":         {`{"name":"a"}`, []string{"array", `[{"name":"..."}]`}},
		"P17 a MAC address that is none":                 {`[{"name":"a","mac":"zz"}]`, []string{"element 1", "mac", `"zz"`, "02:00:00:00:00:01"}},
		"P18 an IP address that is none":                 {`[{"name":"a","ips":["300.1.1.1"]}]`, []string{"element 1", "ips", `"300.1.1.1"`, "10.1.2.3"}},
		"P18 a prefix length that is none":               {`[{"name":"a","ips":["10.0.0.1/99"]}]`, []string{"element 1", "ips", `"10.0.0.1/99"`, "10.1.2.3/24"}},
		"P19 a GUID that is none":                        {`[{"name":"a","infiniband-guid":"xx"}]`, []string{"element 1", "infiniband-guid", `"xx"`, "8 bytes"}},
		"P22 ipam-claim-reference together with ips":     {`[{"name":"a","ips":["10.2.0.9/24"],"ipam-claim-reference":"claim"}]`, []string{"ipam-claim-reference", "ips", "remove one"}},
		"P24 one interface name twice":                   {"a@x1,a@x1", []string{"element 2", `"x1"`, "element 1"}},
		"P26 a network that does not exist":              {"missing", []string{"default/missing", "not found"}},
		"P26 the second network does not exist":          {"a,missing", []string{"default/missing", "not found"}},
		"blanks only":                                    {"  ", []string{"blank"}},
		"a comma only":                                   {",", []string{"element 1", "surplus comma"}},
		"null":                                           {"null", []string{"null"}},
		"an interface name that the default network has": {"a@eth0", []string{"default/a", `"eth0"`}},
		"an interface name that another network gets":    {"a@net2,b", []string{"default/a", "default/b", `"net2"`}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.annotate(networks, tc.annotation)
			w.expectRefused(types.ErrInvalidNetworkConfig, append(tc.says, "pod default/web")...)
			w.must("DEL") // what a runtime does after a failed ADD
			w.expectCalls()
			w.expectNothingLeft()
		})
	}
}

func TestSelectionRequests(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"P22 ipam-claim-reference is forwarded": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": object{"ipam-claim-reference": true}}))
			w.annotate(networks, `[{"name":"a","ipam-claim-reference":"claim-of-web"}]`)
			w.must("ADD")
			a := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.expectJSON("args", `{"cni":{"ipam-claim-reference":"claim-of-web"}}`, a.Config["args"])
			w.expectJSON("runtimeConfig", `{"ipam-claim-reference":"claim-of-web"}`, a.Config["runtimeConfig"])
		},
	})
}
