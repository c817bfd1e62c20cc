// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultRouteOverASecondaryNetwork(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		networks string
		// want are the gateways by interface; eth0 has 10.10.0.1 and fd00:10::1 of its own, net2 10.30.0.1 and fd00:30::1.
		want map[string][]string
	}{
		"not asked for: all that the plugins set stay": {
			`[{"name":"plain"},{"name":"gatewayed"}]`,
			map[string][]string{"eth0": {"10.10.0.1", "fd00:10::1"}, "net2": {"10.30.0.1", "fd00:30::1"}},
		},
		"IPv4 and IPv6": {
			`[{"name":"plain","default-route":["10.20.0.1","fd00:20::1"]}]`,
			map[string][]string{"net1": {"10.20.0.1", "fd00:20::1"}},
		},
		"IPv4 alone": {
			`[{"name":"plain","default-route":["10.20.0.254"]}]`,
			map[string][]string{"eth0": {"fd00:10::1"}, "net1": {"10.20.0.254"}},
		},
		"IPv6 alone": {
			`[{"name":"plain","default-route":["fd00:20::fe"]}]`,
			map[string][]string{"eth0": {"10.10.0.1"}, "net1": {"fd00:20::fe"}},
		},
		"a family by each network": {
			`[{"name":"plain","default-route":["10.20.0.1"]},{"name":"gatewayed","default-route":["fd00:30::1"]}]`,
			map[string][]string{"net1": {"10.20.0.1"}, "net2": {"fd00:30::1"}},
		},
		"another gateway than the plugin's": {
			`[{"name":"plain"},{"name":"gatewayed","default-route":["10.30.0.9","fd00:30::9"]}]`,
			map[string][]string{"net2": {"10.30.0.9", "fd00:30::9"}},
		},
		"[]: what its plugin set": {
			`[{"name":"plain"},{"name":"gatewayed","default-route":[]}]`,
			map[string][]string{"net2": {"10.30.0.1", "fd00:30::1"}},
		},
		"[] where the plugin set none": {
			`[{"name":"plain","default-route":[]}]`,
			map[string][]string{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("plain", object{"type": "macvlan", "master": "business0", "ipam": h.hostLocal("10.20.0.0/24", "fd00:20::/64")})
			h.nad("gatewayed", object{"type": "bridge", "bridge": "mgmt0", "isDefaultGateway": true, "ipam": h.hostLocal("10.30.0.0/24", "fd00:30::/64")})
			p := h.pod("web", tc.networks)
			before := h.state(p)
			result := p.add() // compares the status with the kernel, too
			if diff := cmp.Diff(tc.want, p.gateways()); diff != "" {
				t.Errorf("default routes in the kernel (-want +got):\n%s", diff)
			}
			var told []string
			for _, r := range result.Routes {
				if ones, _ := r.Dst.Mask.Size(); ones == 0 {
					gw := r.GW
					for _, ip := range result.IPs { // a route without gateway goes by that of its family
						if gw == nil && (ip.Address.IP.To4() == nil) == (r.Dst.IP.To4() == nil) {
							gw = ip.Gateway
						}
					}
					told = append(told, gw.String())
				}
			}
			slices.Sort(told)
			if diff := cmp.Diff(tc.want["eth0"], told); diff != "" {
				t.Errorf("gateways in the result of the default network (-want +got):\n%s", diff)
			}
			p.must("DEL")
			h.assertState(before, p)
		})
	}
}

func TestAGatewayThatIsNotOnTheNetwork(t *testing.T) {
	t.Parallel()
	for name, gateway := range map[string]string{"IPv4": "192.0.2.1", "IPv6": "2001:db8::1", "the default network's": "10.10.0.1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.businessAndMgmt()
			h.pod("web", `[{"name":"mgmt-net"},{"name":"business-net","default-route":["`+gateway+`"]}]`).
				mustFail("default/business-net", "net2", gateway)
		})
	}
}
