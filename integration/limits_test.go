// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestBandwidthByAnnotation(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	bandwidth := object{"type": "bandwidth", "capabilities": object{"bandwidth": true}}
	h.nad("mgmt-net", object{"type": "bridge", "bridge": "mgmt0", "isGateway": true, "ipam": h.hostLocal("10.30.0.0/24", "fd00:30::/64")}, bandwidth)
	slow := h.pod("slow", `[{"name":"mgmt-net","bandwidth":{"ingressRate":8000000,"ingressBurst":800000,"egressRate":16000000,"egressBurst":1600000}}, {"name":"mgmt-net"}]`)
	before := h.state(slow)

	// rates are in bit/s, by link. The host's ends have their pods' interfaces for a name.
	rates := func() map[string]uint64 {
		t.Helper()
		names := map[string]string{}
		for name := range slow.ifaces() {
			names[slow.peer(name).Attrs().Name] = name
		}
		all := map[string]uint64{}
		for _, l := range h.links() {
			for _, q := range h.qdiscs(l) {
				if tbf, ok := q.(*netlink.Tbf); ok {
					name := names[l.Attrs().Name]
					if l.Type() == "ifb" {
						name = "ifb"
					}
					all[name] += tbf.Rate * 8
				}
			}
		}
		return all
	}
	slow.add()
	// To the pod by the host's end, from the pod by an intermediate device; the second attachment asked for nothing.
	if diff := cmp.Diff(map[string]uint64{"net1": 8_000_000, "ifb": 16_000_000}, rates()); diff != "" {
		t.Errorf("limits in the kernel, bit/s (-want +got):\n%s", diff)
	}
	slow.must("DEL")
	h.assertState(before, slow)
	if got := rates(); len(got) != 0 {
		t.Errorf("limits after DEL: %v", got)
	}
}

func TestPortsOfThePodAreMappedToItsDefaultNetworkAlone(t *testing.T) {
	t.Parallel()
	nft, err := exec.LookPath("nft")
	if err != nil {
		testenv.Missing(t, "the plugin portmap runs nft, which is not installed: `make deps` installs it")
	}
	h := newHost(t)
	portmap := object{"type": "portmap", "backend": "nftables", "capabilities": object{"portMappings": true}}
	h.cluster("1.0.0", object{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipam": h.hostLocal("10.10.0.0/24")}, portmap)
	h.nad("mgmt-net", object{"type": "bridge", "bridge": "mgmt0", "isGateway": true, "ipam": h.hostLocal("10.30.0.0/24")}, portmap)
	h.conf["capabilities"] = object{"portMappings": true}
	p := h.pod("web", "mgmt-net")
	p.runtimeConfig = object{"portMappings": []any{object{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}}}
	outside := testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: h.netns, Name: "uplink0", Addrs: []string{"192.0.2.1/24"}}, testenv.End{NetNS: outside, Name: "uplink0", Addrs: []string{"192.0.2.2/24"}})
	// rules are the lines of the host's rule set that change a destination.
	rules := func() []string {
		t.Helper()
		var out []byte
		testenv.Do(t, h.netns, func() error {
			var runErr error
			out, runErr = exec.CommandContext(t.Context(), nft, "list", "ruleset").CombinedOutput()
			return runErr
		})
		var dnat []string
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "dnat") {
				dnat = append(dnat, strings.TrimSpace(line))
			}
		}
		return dnat
	}
	before := h.state(p)
	p.add()
	if got := rules(); len(got) != 1 || !strings.HasPrefix(got[0], "tcp dport 8081 dnat to 10.10.0.2:80") {
		t.Errorf("rules: %q, want one, from port 8081 to 10.10.0.2:80", got)
	}
	web := listen(t, p.sandbox, "10.10.0.2:80")
	if seen := dial(t, outside, "192.0.2.2", "192.0.2.1:8081", web); seen != "192.0.2.2" {
		t.Errorf("the pod sees the client 192.0.2.2 as %s", seen)
	}
	p.must("DEL")
	if got := rules(); len(got) != 0 {
		t.Errorf("rules after DEL: %q", got)
	}
	h.assertState(before, p)
}
