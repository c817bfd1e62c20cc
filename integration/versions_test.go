// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestS2TheResultIsOfTheConfigurationsVersion(t *testing.T) {
	t.Parallel()
	versions := []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}
	for _, own := range versions {
		for _, delegates := range versions {
			t.Run("Plexus "+own+", network "+delegates, func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.conf["cniVersion"] = own
				h.cluster(delegates, object{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipam": h.hostLocal("10.10.0.0/24", "fd00:10::/64")})
				h.businessAndMgmt()
				p := h.pod("web", businessAndMgmt)
				before := h.state(p)
				out := p.must("ADD")
				p.assertStatus()

				var result struct {
					CNIVersion string `json:"cniVersion"`
					Interfaces []struct{ Name, Mac, Sandbox string }
					IPs        []struct {
						Version, Address, Gateway string
						Interface                 int
					}
				}
				if err := json.Unmarshal(out, &result); err != nil {
					t.Fatal(err)
				}
				if result.CNIVersion != own {
					t.Errorf("cniVersion %q, want %q", result.CNIVersion, own)
				}
				type ip struct{ Version, Address, Gateway, Interface string }
				var got []ip
				for _, i := range result.IPs {
					if i.Interface < 0 || i.Interface >= len(result.Interfaces) {
						t.Fatalf("interface %d of %d", i.Interface, len(result.Interfaces))
					}
					f := result.Interfaces[i.Interface]
					if f.Sandbox != p.sandbox || f.Mac != p.iface("eth0").MAC {
						t.Errorf("%s is on %+v, want eth0 of the sandbox", i.Address, f)
					}
					got = append(got, ip{i.Version, i.Address, i.Gateway, f.Name})
				}
				// CNI 1.0.0 removed the version of an address.
				v4, v6 := "4", "6"
				if slices.Contains(versions[2:], own) {
					v4, v6 = "", ""
				}
				want := []ip{{v4, "10.10.0.2/24", "10.10.0.1", "eth0"}, {v6, "fd00:10::2/64", "fd00:10::1", "eth0"}}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("addresses (-want +got):\n%s\n%s", diff, out)
				}
				if own != "0.3.1" { // which has no CHECK
					p.must("CHECK")
				}
				p.must("DEL")
				h.assertState(before, p)
			})
		}
	}
}
