// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestTwoPodsOnTheirBusinessAndManagementNetworks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("business-net", object{
		"type": "macvlan", "master": "business0", "mode": "bridge",
		"capabilities": object{"ips": true, "mac": true}, "ipam": object{"type": "static"},
	})
	h.nad("mgmt-net", object{"type": "bridge", "bridge": "mgmt0", "isGateway": true, "capabilities": object{"ips": true}, "ipam": object{"type": "static"}},
		object{"type": "tuning", "dataDir": h.path("tuning"), "capabilities": object{"mac": true}})
	client := h.pod("client", `[
		{"name":"business-net","interface":"eth1","mac":"02:00:00:00:20:0a","ips":["10.20.0.10/24","fd00:20::a/64"]},
		{"name":"mgmt-net","mac":"02:00:00:00:30:0a","ips":["10.30.0.10/24","fd00:30::a/64"]}]`)
	server := h.pod("server", `[
		{"name":"business-net","interface":"eth1","mac":"02:00:00:00:20:0b","ips":["10.20.0.11/24","fd00:20::b/64"]},
		{"name":"mgmt-net","mac":"02:00:00:00:30:0b","ips":["10.30.0.11/24","fd00:30::b/64"]}]`)
	before := h.state(client, server)
	client.must("STATUS")
	client.add()
	server.add()

	for p, last := range map[*pod]string{client: "a", server: "b"} {
		decimal, lease := map[string]string{"a": "10", "b": "11"}[last], map[string]string{"a": "2", "b": "3"}[last]
		want := map[string]iface{
			"eth0": {MAC: p.iface("eth0").MAC, MTU: 1500, IPs: []string{"10.10.0." + lease, "fd00:10::" + lease}},
			"eth1": {MAC: "02:00:00:00:20:0" + last, MTU: 1500, IPs: []string{"10.20.0." + decimal, "fd00:20::" + last}},
			"net2": {MAC: "02:00:00:00:30:0" + last, MTU: 1500, IPs: []string{"10.30.0." + decimal, "fd00:30::" + last}},
		}
		if diff := cmp.Diff(want, p.ifaces()); diff != "" {
			t.Errorf("interfaces of pod %s in the kernel (-want +got):\n%s", p.name, diff)
		}
		if diff := cmp.Diff(map[string][]string{"eth0": {"10.10.0.1", "fd00:10::1"}}, p.gateways()); diff != "" {
			t.Errorf("gateways of pod %s (-want +got):\n%s", p.name, diff)
		}
		names := map[string]string{}
		for ifName, s := range p.status() {
			names[ifName] = s.Name
		}
		if diff := cmp.Diff(map[string]string{"eth0": "cluster", "eth1": "default/business-net", "net2": "default/mgmt-net"}, names); diff != "" {
			t.Errorf("networks in the status of pod %s (-want +got):\n%s", p.name, diff)
		}
	}
	for _, ifName := range []string{"eth0", "eth1", "net2"} {
		client.assertReaches(server, ifName)
	}
	// One pod goes: the other keeps all that it has.
	with := server.ifaces()
	client.must("DEL")
	server.must("CHECK")
	if diff := cmp.Diff(with, server.ifaces()); diff != "" {
		t.Errorf("pod server after the DEL of pod client (-before +after):\n%s", diff)
	}
	server.must("DEL")
	h.assertState(before, client, server)
}

func TestOneNetworkTwice(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	p := h.pod("web", "business-net, mgmt-net@m0, business-net, mgmt-net")
	before := h.state(p)
	p.add()
	want := map[string][]string{
		"eth0": {"10.10.0.2", "fd00:10::2"}, "net1": {"10.20.0.2", "fd00:20::2"}, "m0": {"10.30.0.2", "fd00:30::2"},
		"net3": {"10.20.0.3", "fd00:20::3"}, "net4": {"10.30.0.3", "fd00:30::3"},
	}
	got, macs := map[string][]string{}, map[string]bool{}
	for name, i := range p.ifaces() {
		got[name] = i.IPs
		macs[i.MAC] = true
	}
	if diff := cmp.Diff(want, got); diff != "" || len(macs) != 5 {
		t.Errorf("%d MACs, addresses (-want +got):\n%s", len(macs), diff)
	}
	p.must("DEL")
	h.assertState(before, p)
}

func TestStaticAddressesAndRoutesOfANetwork(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("office", object{"type": "macvlan", "master": "business0", "ipam": object{
		"type":      "static",
		"addresses": []any{object{"address": "10.40.0.7/24", "gateway": "10.40.0.1"}, object{"address": "fd00:40::7/64"}},
		"routes":    []any{object{"dst": "10.99.0.0/16", "gw": "10.40.0.9"}, object{"dst": "fd00:99::/48", "gw": "fd00:40::9"}},
	}})
	p := h.pod("printer", "office@lan0")
	before := h.state(p)
	p.add()
	if diff := cmp.Diff([]string{"10.40.0.7", "fd00:40::7"}, p.iface("lan0").IPs); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	handle := testenv.Handle(t, p.sandbox)
	var got []string
	for _, r := range dump(t, func() ([]netlink.Route, error) { return handle.RouteList(nil, netlink.FAMILY_ALL) }) {
		if r.Gw != nil {
			got = append(got, r.Dst.String()+" via "+r.Gw.String())
		}
	}
	slices.Sort(got)
	want := []string{"0.0.0.0/0 via 10.10.0.1", "10.99.0.0/16 via 10.40.0.9", "::/0 via fd00:10::1", "fd00:99::/48 via fd00:40::9"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes with a gateway (-want +got):\n%s", diff)
	}
	p.must("DEL")
	h.assertState(before, p)
}

func TestTuning(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("tuned", object{"type": "bridge", "bridge": "tuned0", "ipam": h.hostLocal("10.40.0.0/24")}, object{
		"type": "tuning", "dataDir": h.path("tuning"), "mtu": 1400, "promisc": true, "sysctl": object{"net.ipv4.conf.net1.arp_announce": "2"},
	})
	p := h.pod("web", "tuned")
	before := h.state(p)
	p.add()
	link, err := testenv.Handle(t, p.sandbox).LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	if a := link.Attrs(); a.MTU != 1400 || a.RawFlags&unix.IFF_PROMISC == 0 {
		t.Errorf("MTU %d, flags %#x: want 1400, promiscuous", a.MTU, a.RawFlags)
	}
	sysctl := func(ifName string) string {
		t.Helper()
		var text []byte
		testenv.Do(t, p.sandbox, func() error {
			var readErr error
			text, readErr = os.ReadFile("/proc/sys/net/ipv4/conf/" + ifName + "/arp_announce")
			return readErr
		})
		return strings.TrimSpace(string(text))
	}
	if net1, eth0 := sysctl("net1"), sysctl("eth0"); net1 != "2" || eth0 != "0" || p.iface("eth0").MTU != 1500 {
		t.Errorf("arp_announce: net1 %s, eth0 %s; MTU of eth0 %d: want 2 on net1 alone, and eth0 untouched", net1, eth0, p.iface("eth0").MTU)
	}
	p.must("DEL")
	h.assertState(before, p)
}

func TestPointToPoint(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("p2p", object{"type": "ptp", "ipam": h.hostLocal("10.40.0.0/24", "fd00:40::/64")})
	first, second := h.pod("first", "p2p"), h.pod("second", "p2p")
	before := h.state(first, second)
	first.add()
	second.add()
	first.assertReaches(second, "net1") // by the host
	first.must("DEL")
	second.must("DEL")
	h.assertState(before, first, second)
}
