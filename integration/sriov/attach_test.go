// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/sriov"
)

// wire is a NIC outside, on the same segment as the first PF. It goes to a namespace of its own.
func (m *machine) wire() *pod {
	m.t.Helper()
	entries, err := os.ReadDir("/sys/bus/pci/drivers/e1000e")
	if err != nil {
		m.t.Fatalf("the machine has no NIC outside (e1000e): %v", err)
	}
	w := m.pod("wire")
	for _, e := range entries {
		address, err := sysfs.ParseAddress(e.Name())
		if err != nil {
			continue
		}
		d, err := m.sysfs.Device(string(address))
		if err != nil || len(d.NetDevs) == 0 {
			m.t.Fatalf("NIC %s: %+v, %v", address, d, err)
		}
		link, err := m.kernel.Link(netdev.Host, d.NetDevs[0])
		if err != nil {
			m.t.Fatal(err)
		}
		name := link.Name
		if err := m.kernel.MoveLink(netdev.Host, link.Index, w.netns, "wire0"); err != nil {
			m.t.Fatal(err)
		}
		m.t.Cleanup(func() {
			if link, err := m.kernel.Link(w.netns, "wire0"); err == nil {
				_ = m.kernel.MoveLink(w.netns, link.Index, netdev.Host, name)
			}
		})
		w.must("ip", "link", "set", "wire0", "up")
		return w
	}
	m.t.Fatal("no NIC of the driver e1000e")
	return nil
}

// TestTwoPodsOnTwoVFs is what people use it for: through Plexus, with a VLAN, a MAC of their own, trust and a rate; frames are tagged on the
// wire, whatever the pod does.
func TestTwoPodsOnTwoVFs(t *testing.T) {
	m := newMachine(t)
	pf, a, b := m.pfs[0], m.vf(0, 0), m.vf(0, 1)
	before := []string{m.state(a), m.state(b)}
	const subnet = "10.77.0.0/24"
	x := m.newPlexus(map[string]map[string]any{
		"fast-a": network(a, subnet, map[string]any{"name": "fast", "vlan": 100, "vlanQoS": 3, "mac": "02:00:00:00:aa:01", "trust": "on", "max_tx_rate": 100, "mtu": 1400}),
		"fast-b": network(b, subnet, map[string]any{"name": "fast", "vlan": 100, "spoofchk": "off"}),
	}, map[string]string{"pod-a": "fast-a", "pod-b": "fast-b"})
	podA, podB, wire := m.pod("pod-a"), m.pod("pod-b"), m.wire()
	x.must(podA, "ADD")
	x.must(podB, "ADD")

	vf, err := m.kernel.VF(pf.NetDev, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := vf
	want.VLAN, want.MAC, want.Trust, want.MaxTxMbps = netdev.VLAN{ID: 100, QoS: 3, Proto: "802.1q"}, "02:00:00:00:aa:01", true, 100
	if diff := cmp.Diff(want, vf); diff != "" {
		t.Errorf("the PF has (-want +got):\n%s", diff)
	}
	link, err := m.kernel.Link(podA.netns, "net1")
	if err != nil || link.MAC.String() != want.MAC || link.MTU != 1400 || !link.Up || link.Parent != string(a) {
		t.Errorf("interface of pod-a: %+v, %v", link, err)
	}
	x.must(podA, "CHECK")

	wire.must("ip", "link", "add", "link", "wire0", "name", "wire0.100", "type", "vlan", "id", "100")
	wire.must("ip", "address", "add", "10.77.0.200/24", "dev", "wire0.100")
	wire.must("ip", "link", "set", "wire0.100", "up")
	podA.reaches("10.77.0.3") // VF to VF
	podA.reaches("10.77.0.200")
	podB.reaches("10.77.0.200") // on the wire with a tag
	wire.must("ip", "address", "flush", "dev", "wire0.100")
	wire.must("ip", "address", "add", "10.77.0.201/24", "dev", "wire0")
	podA.doesNotReach("10.77.0.201") // and not without one

	x.must(podA, "DEL")
	x.must(podB, "DEL")
	if diff := cmp.Diff(before, []string{m.state(a), m.state(b)}); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// TestVFToPFUntagged is a network without options: the VF, the PF and the wire are one segment.
func TestVFToPFUntagged(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(0, 1)
	before := m.state(vf)
	x := m.newPlexus(map[string]map[string]any{"plain": network(vf, "10.78.0.0/24", nil)}, map[string]string{"pod-p": "plain"})
	p, wire := m.pod("pod-p"), m.wire()
	x.must(p, "ADD")
	if _, err := command(t.Context(), "", nil, "ip", "address", "add", "10.78.0.100/24", "dev", m.pfs[0].NetDev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = command(t.Context(), "", nil, "ip", "address", "flush", "dev", m.pfs[0].NetDev)
	})
	wire.must("ip", "address", "add", "10.78.0.200/24", "dev", "wire0")
	p.reaches("10.78.0.100")
	p.reaches("10.78.0.200")
	x.must(p, "DEL")
	if diff := cmp.Diff(before, m.state(vf)); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// TestStandalone is the same plugin as a program of its own, for a container runtime or another meta-plugin.
func TestStandalone(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(1, 0)
	before := m.state(vf)
	program := filepath.Join(*bin, sriov.Type)
	conf, err := json.Marshal(network(vf, "10.79.0.0/24", map[string]any{"name": "alone", "vlan": 7, "cniVersion": "0.3.1"}))
	if err != nil {
		t.Fatal(err)
	}
	p := m.pod("alone")
	out, err := p.plugin(program, "ADD", string(conf))
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		CNIVersion string                `json:"cniVersion"`
		Interfaces []*types100.Interface `json:"interfaces"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.CNIVersion != "0.3.1" || len(result.Interfaces) != 1 || result.Interfaces[0].Name != "eth0" {
		t.Errorf("result %s: %v", out, err)
	}
	other := m.pod("thief")
	if _, err := other.plugin(program, "ADD", string(conf)); err == nil || !strings.Contains(err.Error(), "default/alone") {
		t.Errorf("a second pod got the VF, or was not told whose it is: %v", err)
	}
	if _, err := p.plugin(program, "DEL", string(conf)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, m.state(vf)); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
	if out, err := p.plugin(program, "VERSION", ""); err != nil || !strings.Contains(out, "1.1.0") {
		t.Errorf("VERSION: %s, %v", out, err)
	}
	if _, err := p.plugin(program, "STATUS", strings.Replace(string(conf), "0.3.1", "1.1.0", 1)); err != nil {
		t.Errorf("STATUS: %v", err)
	}
}
