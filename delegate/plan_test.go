// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
	"github.com/plexus-cni/plexus/nad"
)

func list(tb testing.TB, config string) *nad.List {
	tb.Helper()
	l, err := nad.Normalize([]byte(config), nad.Defaults{Name: "unnamed", CNIVersion: "1.0.0"})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// request is a pod with a default network and the given others.
func request(t *testing.T, more ...Network) Request {
	t.Helper()
	return Request{
		Config:  "plexus",
		BootID:  "boot-1",
		Now:     time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Sandbox: Sandbox{ContainerID: "c1", NetNS: "/run/netns/x", IfName: "eth0"},
		Args: pod.Args{
			Pod:              pod.Ref{Namespace: "shop", Name: "web", UID: "u1"},
			InfraContainerID: "c1",
			Others:           [][2]string{{"FOO", "a=b"}},
		},
		RuntimeConfig: map[string]json.RawMessage{"portMappings": json.RawMessage(`[{"hostPort":80}]`)},
		Networks: append([]Network{{
			Name: "cluster",
			List: list(t, `{"name":"cluster","plugins":[{"type":"bridge","custom":{"big":9007199254740993}},{"type":"portmap","capabilities":{"portMappings":true}}]}`),
		}}, more...),
		DeviceInfoDir: "/var/run/devinfo",
	}
}

func addrs(s ...string) []netip.Addr {
	a := []netip.Addr{}
	for _, x := range s {
		a = append(a, netip.MustParseAddr(x))
	}
	return a
}

func TestPlanGolden(t *testing.T) {
	t.Parallel()
	all := annotations.Element{
		Namespace: "shop", Name: "all", Interface: "data0",
		MAC: "02:00:00:00:00:01", IPs: []string{"10.2.0.7/24", "fd00::7/64"}, InfinibandGUID: "c2:11:22:33:44:55:66:77",
		Bandwidth:    &annotations.Bandwidth{IngressRate: 1000, IngressBurst: 2000},
		PortMappings: []annotations.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}},
		CNIArgs:      map[string]json.RawMessage{"vlan": json.RawMessage(`7`), "keep": json.RawMessage(`"pod's"`)},
		DefaultRoute: addrs("10.2.0.1", "fd00::1"),
		DeviceID:     "0000:01:10.0",
	}
	tests := map[string]Request{
		"only the default network": request(t),
		"everything that an element can ask for": request(t, Network{
			Name: "shop/all", Device: all.DeviceID, Element: all,
			List: list(t, `{"name":"all","plugins":[
			  {"type":"macvlan","capabilities":{"mac":true,"ips":true,"deviceID":true,"CNIDeviceInfoFile":true},"args":{"cni":{"keep":"nad's","mine":1},"other":{}}},
			  {"type":"tuning","capabilities":{"bandwidth":true,"portMappings":true,"infinibandGUID":true}}]}`),
		}),
		"an IPAM claim is handed on": request(t, Network{
			Name: "shop/claimed", Element: annotations.Element{Namespace: "shop", Name: "claimed", IPAMClaimReference: "web-0"},
			List: list(t, `{"type":"ovn"}`),
		}),
		"the same network twice, and one that keeps its default route": request(t,
			Network{Name: "shop/a", List: list(t, `{"name":"a","type":"bridge"}`), Element: annotations.Element{Namespace: "shop", Name: "a"}},
			Network{Name: "shop/a", List: list(t, `{"name":"a","type":"bridge"}`), Element: annotations.Element{Namespace: "shop", Name: "a", DefaultRoute: addrs()}},
		),
	}
	for name, req := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := NewPlan(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(p, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, name, string(got)+"\n")
			var back Plan
			if err = json.Unmarshal(got, &back); err != nil {
				t.Fatal(err)
			}
			again, err := json.MarshalIndent(&back, "", "  ")
			if err != nil || !bytes.Equal(got, again) {
				t.Errorf("the record does not survive being read: %v\n%s", err, cmp.Diff(string(got), string(again)))
			}
			if err := back.Validate(); err != nil {
				t.Errorf("Validate: %v", err)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	net := func(name, config string, e annotations.Element) Network {
		return Network{Name: name, List: list(t, config), Element: e}
	}
	const plain = `{"type":"macvlan"}`
	tests := map[string]struct {
		networks []Network
		kind     error
		says     []string
	}{
		"P24 one interface name twice": {
			[]Network{net("d/a", plain, annotations.Element{Interface: "x1"}), net("d/b", plain, annotations.Element{Interface: "x1"})},
			ErrInvalid,
			[]string{"d/a", "d/b", `"x1"`},
		},
		"a name that a later network gets by its position": {
			[]Network{net("d/a", plain, annotations.Element{Interface: "net2"}), net("d/b", plain, annotations.Element{})},
			ErrInvalid,
			[]string{"d/a", "d/b", `"net2"`, `"interface"`},
		},
		"the default network's interface name": {
			[]Network{net("d/a", plain, annotations.Element{Interface: "eth0"})},
			ErrInvalid,
			[]string{"d/a", `"eth0"`, "default network"},
		},
		"an interface name that the kernel would not take": {
			[]Network{net("d/a", plain, annotations.Element{Interface: "much-too-long-for-it"})},
			annotations.ErrInvalid,
			[]string{"d/a", "much-too-long-for-it"},
		},
		"C2 a request that no plugin supports, and nobody could see": {
			[]Network{net("d/a", plain, annotations.Element{Bandwidth: &annotations.Bandwidth{IngressRate: 1, IngressBurst: 1}})},
			ErrInvalid,
			[]string{"d/a", `"bandwidth"`, "macvlan", `"capabilities": {"bandwidth": true}`, "unsupportedRequests"},
		},
		"C2 a capability that is declared false": {
			[]Network{net("d/a", `{"type":"x","capabilities":{"portMappings":false}}`, annotations.Element{PortMappings: []annotations.PortMapping{{HostPort: 1, ContainerPort: 1}}})},
			ErrInvalid,
			[]string{"d/a", `"portMappings"`},
		},
		"G3 two networks for one default route": {
			[]Network{net("d/a", plain, annotations.Element{DefaultRoute: addrs("10.0.0.1")}), net("d/b", plain, annotations.Element{DefaultRoute: addrs("10.0.1.1")})},
			ErrInvalid,
			[]string{"d/a", "d/b", "IPv4", "ECMP"},
		},
		"G3 an empty default-route claims both families": {
			[]Network{net("d/a", plain, annotations.Element{DefaultRoute: addrs()}), net("d/b", plain, annotations.Element{DefaultRoute: addrs("fd00::1")})},
			ErrInvalid,
			[]string{"IPv6", "ECMP"},
		},
		"a network that insists on declared capabilities": {
			[]Network{{Name: "d/a", List: list(t, plain), RefuseUnsupported: true, Element: annotations.Element{MAC: "02:00:00:00:00:01"}}},
			ErrInvalid,
			[]string{"d/a", `"mac"`, `"capabilities": {"mac": true}`},
		},
		"a device that the pod names": {
			[]Network{net("d/a", `{"type":"host-device","pciBusID":"0000:03:00.0"}`, annotations.Element{DeviceID: "0000:00:1f.6"})},
			ErrInvalid,
			[]string{"d/a", `"deviceID"`, "host-device"},
		},
		"a device that the pod names, of a resource that the node gave it none of": {
			[]Network{{Name: "d/a", ResourceName: "intel.com/vf", List: list(t, `{"type":"x","plugins":[],"capabilities":{"deviceID":true}}`), Element: annotations.Element{DeviceID: "0000:00:1f.6"}}},
			ErrInvalid,
			[]string{"d/a", `"intel.com/vf"`, "gave the pod none"},
		},
		"a plugin that takes a device, and none was given": {
			[]Network{{Name: "d/a", ResourceName: "intel.com/vf", List: list(t, `{"type":"sriov"}`)}},
			ErrInvalid,
			[]string{"d/a", `"intel.com/vf"`, "sriov", "gave the pod none"},
		},
		"args that are no object": {
			[]Network{net("d/a", `{"type":"x","args":7}`, annotations.Element{CNIArgs: map[string]json.RawMessage{"a": json.RawMessage("1")}})},
			nad.ErrInvalid,
			[]string{"d/a", `"args"`},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewPlan(request(t, tc.networks...))
			if !errors.Is(err, tc.kind) {
				t.Fatalf("NewPlan: %v, want kind %v", err, tc.kind)
			}
			for _, s := range tc.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
		})
	}
}

func TestC2UnsupportedRequestsCanBeDropped(t *testing.T) {
	t.Parallel()
	req := request(t, Network{Name: "d/a", List: list(t, `{"type":"macvlan"}`), Element: annotations.Element{MAC: "02:00:00:00:00:01"}})
	req.UnsupportedRequests = config.IgnoreRequests
	p, err := NewPlan(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Attachments[1].CapabilityArgs; len(got) != 0 {
		t.Errorf("capability args = %s, want none", got)
	}
}

func TestC5RuntimeConfigGoesToTheDefaultNetworkOnly(t *testing.T) {
	t.Parallel()
	p, err := NewPlan(request(t, Network{Name: "d/a", List: list(t, `{"type":"x","capabilities":{"portMappings":true}}`)}))
	if err != nil {
		t.Fatal(err)
	}
	if p.Attachments[0].CapabilityArgs["portMappings"] == nil || p.Attachments[1].CapabilityArgs["portMappings"] != nil {
		t.Errorf("port mappings of the pod: default network %s, secondary %s", p.Attachments[0].CapabilityArgs, p.Attachments[1].CapabilityArgs)
	}
}

func TestTheCallersMACAndIPAreForTheDefaultNetwork(t *testing.T) {
	t.Parallel()
	req := request(t, Network{Name: "d/a", List: list(t, `{"type":"x"}`)})
	req.Args = pod.Args{Others: [][2]string{{"MAC", "02:00:00:00:00:09"}, {"IP", "10.0.0.9"}, {"FOO", "1"}}}
	p, err := NewPlan(req)
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]string{{"IgnoreUnknown", "true"}, {"FOO", "1"}}
	if diff := cmp.Diff(want, p.Attachments[1].Args); diff != "" {
		t.Errorf("args of the secondary network (-want +got):\n%s", diff)
	}
	if got := len(p.Attachments[0].Args); got != 4 {
		t.Errorf("the default network got %v, want the caller's MAC and IP too", p.Attachments[0].Args)
	}
}

func FuzzPlan(f *testing.F) {
	seed, err := os.ReadFile(filepath.Join("testdata", "everything_that_an_element_can_ask_for.golden"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"version":1,"sandbox":{"containerID":"c","ifName":"eth0"},"attachments":[{"ifName":"eth0","list":{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"x"}]},"defaultRoute":[]}]}`))
	f.Add([]byte(`{"version":99}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Plan
		if json.Unmarshal(data, &p) != nil || p.Validate() != nil {
			return
		}
		for i := range p.Attachments {
			a := &p.Attachments[i]
			_ = a.String()
			if len(a.List.Types()) == 0 {
				t.Error("accepted an attachment without plugins")
			}
			if _, err := a.PodInterfaces("/run/netns/x"); err != nil {
				continue // a broken result is told, and does no harm
			}
		}
	})
}
