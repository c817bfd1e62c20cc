// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestAMissingParentLink(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	h.nad("lost", object{"type": "macvlan", "master": "nic-of-another-node", "ipam": h.hostLocal("10.40.0.0/24")})
	h.pod("web", `[{"name":"mgmt-net"},{"name":"lost","interface":"lost0"},{"name":"business-net"}]`).
		mustFail("default/lost", "lost0", "macvlan", "nic-of-another-node")
}

func TestAnExhaustedRange(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	h.nad("tiny", object{"type": "bridge", "bridge": "tiny0", "ipam": h.hostLocal("10.40.0.0/30")})
	networks := `[{"name":"business-net","interface":"eth1"},{"name":"tiny"}]`
	first, second := h.pod("first", networks), h.pod("second", networks)
	before := h.state(first, second)
	first.add() // there is one address beside the gateway's
	second.mustFail("default/tiny", "net2", "no IP addresses available in range")
	first.must("CHECK")
	first.must("DEL")
	second.add() // and what is given back can be given again
	second.must("DEL")
	h.assertState(before, first, second)
}

func TestAnInterfaceThatIsInTheSandboxAlready(t *testing.T) {
	t.Parallel()
	for name, network := range map[string]string{"macvlan": "business-net", "bridge": "mgmt-net", "ptp": "p2p"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.businessAndMgmt()
			h.nad("p2p", object{"type": "ptp", "ipam": h.hostLocal("10.40.0.0/24")})
			p := h.pod("web", `[{"name":"business-net"},{"name":"`+network+`","interface":"taken0"}]`)
			testenv.Veth(t, testenv.End{NetNS: h.netns, Name: "taken1"}, testenv.End{NetNS: p.sandbox, Name: "taken0", Addrs: []string{"192.0.2.7/24"}})
			p.mustFail("default/"+network, "taken0") // and the link that was there is not taken away
		})
	}
}

func TestAnAddressThatAnotherPodHas(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	h.nad("fixed", object{
		"type": "bridge", "bridge": "fixed0", "capabilities": object{"ips": true},
		"ipam": h.hostLocal("10.40.0.0/24"),
	})
	first := h.pod("first", `[{"name":"fixed","ips":["10.40.0.7"]}]`)
	second := h.pod("second", `[{"name":"business-net"},{"name":"fixed","ips":["10.40.0.7"]}]`)
	before := h.state(first, second)
	first.add()
	second.mustFail("default/fixed", "net2", "10.40.0.7")
	first.must("CHECK")
	first.must("DEL")
	h.assertState(before, first, second)
}

func TestAPluginThatIsNotInstalled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	h.nad("exotic", object{"type": "exotic", "ipam": h.hostLocal("10.40.0.0/24")})
	h.pod("web", "business-net, exotic").mustFail("default/exotic", `"exotic"`)
}

// A log that journalctl and its like can search: who, which network and interface, at which step, and why.
func TestAFailedCallIsOneLineOfTheLog(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.businessAndMgmt()
	file := h.path("plexus.log")
	h.conf["logFile"] = file
	h.nad("lost", object{"type": "macvlan", "master": "nic-of-another-node", "ipam": h.hostLocal("10.40.0.0/24")})
	p := h.pod("web", `[{"name":"mgmt-net"},{"name":"lost","interface":"lost0"}]`)
	if _, err := p.start("ADD").wait(); err == nil {
		t.Fatal("it succeeds")
	}
	p = h.pod("none", "no-such-network")
	if _, err := p.start("ADD").wait(); err == nil {
		t.Fatal("it succeeds")
	}
	p = h.pod("db", "mgmt-net")
	p.add()
	h.conf["binDir"] = t.TempDir()
	for _, verb := range []string{"CHECK", "DEL"} {
		if _, err := p.start(verb).wait(); err == nil {
			t.Fatal("it succeeds")
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "level=ERROR") {
			failed = append(failed, line)
		}
	}
	if len(failed) != 4 {
		t.Fatalf("%d lines at level ERROR, want one for each call:\n%s", len(failed), text)
	}
	for i, want := range [][]string{
		{"verb=ADD", "pod=default/web", "containerID=", `step="attach lost0"`, "network=default/lost", "interface=lost0", "error=", "nic-of-another-node"},
		{"verb=ADD", "pod=default/none", "step=lookup", "no-such-network"},
		{"verb=CHECK", "pod=default/db", "step=check", "network=", "interface=", `no plugin \"bridge\"`},
		{"verb=DEL", "pod=default/db", `step="detach net1"`, "network=default/mgmt-net", "interface=net1"},
	} {
		for _, part := range want {
			if !strings.Contains(failed[i], part) {
				t.Errorf("no %s in %s", part, failed[i])
			}
		}
	}
}
