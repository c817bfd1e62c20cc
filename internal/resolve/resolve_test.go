// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

const inline = `"delegates":[{"cniVersion":"1.0.0","name":"cluster","type":"bridge"}]`

func resolver(t *testing.T, keys string) *Resolver {
	t.Helper()
	c, err := config.Parse([]byte(`{"cniVersion":"1.0.0","name":"plexus","type":"plexus",` + keys + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return &Resolver{Config: c, Pod: pod.Ref{Namespace: "tenant", Name: "web"}, Warn: func(string) {}}
}

// TestADaemonThatLies: what the daemon hands over is checked as if the pod's author had written it, and the default network of the
// configuration is not the daemon's to replace.
func TestADaemonThatLies(t *testing.T) {
	t.Parallel()
	ref := func(name string) nad.Ref { return nad.Ref{Namespace: "tenant", Name: name} }
	const bridge = `{"type":"bridge"}`
	asked := func(e annotations.Element) source.Selection {
		e.Namespace, e.Name = "tenant", "a"
		return source.Selection{Networks: []source.Network{{Ref: ref("a"), Config: bridge, Element: e}}}
	}
	file := filepath.Join(t.TempDir(), "10-mgmt.conf")
	if err := os.WriteFile(file, []byte(`{"cniVersion":"1.0.0","name":"mgmt","type":"bridge"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := inline + `,"daemonSocketDir":"/run/plexus","confDir":"` + filepath.Dir(file) + `"`
	for name, tc := range map[string]struct {
		keys string
		sel  source.Selection
		says []string // nil for an answer that is fine
	}{
		"the truth": {daemon, asked(annotations.Element{MAC: "02:00:00:00:00:01"}), nil},
		"another default network, inline": {
			daemon, source.Selection{Default: &source.Network{Ref: ref("evil"), Config: bridge}}, []string{"tenant/evil", `"defaultNetworkAnnotation" to true`},
		},
		"another default network, in a file": {
			`"clusterNetwork":"/etc/cni/net.d/10.conflist","daemonSocketDir":"/run/plexus"`,
			source.Selection{Default: &source.Network{Ref: ref("evil"), Config: bridge}},
			[]string{"tenant/evil", `"defaultNetworkAnnotation" to true`},
		},
		"another default network, where the configuration says so": {
			daemon + `,"defaultNetworkAnnotation":true`, source.Selection{Default: &source.Network{Ref: ref("x"), Config: bridge}}, nil,
		},
		"no default network": {`"clusterNetwork":"x","daemonSocketDir":"/run/plexus"`, source.Selection{}, []string{`clusterNetwork "x"`, "left it out"}},
		"a default network that is missing and another's": {
			daemon + `,"defaultNetworkAnnotation":true`, source.Selection{Default: &source.Network{Ref: ref("mgmt"), Missing: true}}, []string{`"mgmt"`, "not found"},
		},
		"a selected network that is missing": {daemon, source.Selection{Networks: []source.Network{{Ref: ref("mgmt"), Missing: true}}}, []string{`"mgmt"`, "not found"}},
		"a MAC that is none":                 {daemon, asked(annotations.Element{MAC: "02:00:00:00:00:01;IP=10.0.0.1"}), []string{"tenant/a", "mac"}},
		"an address that is none":            {daemon, asked(annotations.Element{IPs: []string{"10.0.0.1;A=b"}}), []string{"tenant/a", "ips"}},
		"an interface name with a path":      {daemon, asked(annotations.Element{Interface: "../x"}), []string{"tenant/a", "interface"}},
		"a port that is none":                {daemon, asked(annotations.Element{PortMappings: []annotations.PortMapping{{HostPort: 99999, ContainerPort: 1}}}), []string{"hostPort"}},
		"a reference that is a path":         {daemon, source.Selection{Networks: []source.Network{{Ref: nad.Ref{Namespace: "..", Name: "a"}, Config: bridge}}}, []string{"namespace"}},
		"a device in lines":                  {daemon, source.Selection{Networks: []source.Network{{Ref: ref("a"), Config: bridge, Device: "a\nb"}}}, []string{"device"}},
		"Plexus as IPAM":                     {daemon, source.Selection{Networks: []source.Network{{Ref: ref("a"), Config: `{"type":"ptp","ipam":{"type":"plexus"}}`}}}, []string{`"plexus"`}},
		"what is the runtime's": {
			daemon, source.Selection{Networks: []source.Network{{Ref: ref("a"), Config: `{"type":"sriov","runtimeConfig":{"CNIDeviceInfoFile":"/etc/passwd"}}`}}}, []string{"runtimeConfig"},
		},
		"a file, under isolation": {
			daemon + `,"namespaceIsolation":true`, source.Selection{Networks: []source.Network{{Ref: ref("mgmt")}}}, []string{"tenant/mgmt", "namespaceIsolation"},
		},
		"fewer default networks than there are": {daemon + `,"defaultNetworks":["a"]`, source.Selection{}, []string{"defaultNetworks"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			networks, err := resolver(t, tc.keys).Networks(&tc.sel)
			if tc.says == nil && err != nil {
				t.Fatalf("Networks = %v", err)
			}
			for _, text := range tc.says {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("Networks = %v, %v; want an error saying %q", networks, err, text)
				}
			}
		})
	}
}

func TestTheOperatorsOwnNetworksAreTrusted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, network := range map[string]string{"own": "own", "other": "other"} {
		if err := os.WriteFile(filepath.Join(dir, name+".conf"), []byte(fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"type":"bridge"}`, network)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := resolver(t, inline+`,"confDir":"`+dir+`","defaultNetworks":["own","`+dir+`/other.conf"]`)
	networks, err := r.Networks(&source.Selection{
		DefaultNetworks: []source.Network{{Ref: nad.Ref{Namespace: "kube-system", Name: "own"}, Missing: true}},
		Networks:        []source.Network{{Ref: nad.Ref{Namespace: "tenant", Name: "other"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range networks {
		got = append(got, fmt.Sprint(n.Name, " ", n.Trusted))
	}
	if want := "[cluster true own true other true tenant/other false]"; fmt.Sprint(got) != want {
		t.Errorf("networks %v, want %s", got, want)
	}
}

func TestALoopbackIsNoDefaultNetwork(t *testing.T) {
	t.Parallel()
	r := resolver(t, `"delegates":[{"cniVersion":"1.0.0","name":"lo","type":"loopback"}]`)
	if n, err := r.DefaultNetwork(nil); !errors.Is(err, delegate.ErrInvalid) {
		t.Errorf("DefaultNetwork = %v, %v", n, err)
	}
}
