// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// parseResult reads a plugin's output as libcni does.
func parseResult(t *testing.T, text string) types.Result {
	t.Helper()
	result, err := create.CreateFromBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func TestStatusOf(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in     Attached
		result string
		want   []Status
	}{
		"P1 S3 the default network, one interface": {
			in: Attached{Network: "cni0", IfName: "eth0", Default: true},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/n"}],
				"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1","interface":0}],"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"}]}`,
			want: []Status{{Name: "cni0", Interface: "eth0", IPs: []string{"10.1.0.2"}, MAC: "02:00:00:00:00:01", Default: true, Gateway: []string{"10.1.0.1"}}},
		},
		"another network is never the default": {
			in:     Attached{Network: "default/a", IfName: "net1"},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"/n"}],"ips":[{"address":"10.2.0.2/24","gateway":"10.2.0.1","interface":0}]}`,
			want:   []Status{{Name: "default/a", Interface: "net1", IPs: []string{"10.2.0.2"}}},
		},
		"an only interface has all addresses, whatever their index": {
			in: Attached{Network: "default/a", IfName: "net1"},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"/n"}],
				"ips":[{"address":"10.2.0.2/24"},{"address":"fd00::2/64","interface":7},{"address":"10.3.0.2/24","interface":-1}]}`,
			want: []Status{{Name: "default/a", Interface: "net1", IPs: []string{"10.2.0.2", "fd00::2", "10.3.0.2"}}},
		},
		"interfaces on the host have no object, and their addresses are left out": {
			in: Attached{Network: "cni0", IfName: "eth0", Default: true},
			result: `{"cniVersion":"1.1.0","interfaces":[{"name":"br0"},{"name":"veth1"},{"name":"eth0","mtu":1450,"sandbox":"/n"}],
				"ips":[{"address":"10.9.0.1/24","gateway":"10.9.0.9","interface":0},{"address":"10.1.0.2/24","gateway":"10.1.0.1","interface":2},{"address":"10.8.0.1/24","interface":9}]}`,
			want: []Status{{Name: "cni0", Interface: "eth0", IPs: []string{"10.1.0.2"}, MTU: 1450, Default: true}},
		},
		"S4 two sandbox interfaces": {
			in: Attached{Network: "default/a", IfName: "eth0", Default: true},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/n"},{"name":"eth1","mac":"02:00:00:00:00:02","sandbox":"/n"}],
				"ips":[{"address":"10.1.0.2/24","interface":0},{"address":"10.2.0.2/24","interface":1}],"dns":{"nameservers":["10.1.0.53"]}}`,
			want: []Status{
				{Name: "default/a", Interface: "eth0", IPs: []string{"10.1.0.2"}, MAC: "02:00:00:00:00:01", Default: true, DNS: types.DNS{Nameservers: []string{"10.1.0.53"}}},
				{Name: "default/a", Interface: "eth1", IPs: []string{"10.2.0.2"}, MAC: "02:00:00:00:00:02", DNS: types.DNS{Nameservers: []string{"10.1.0.53"}}},
			},
		},
		"S5 the gateway on the second": {
			in: Attached{Network: "default/a", IfName: "eth0", Default: true},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"},{"name":"eth1","sandbox":"/n"}],
				"ips":[{"address":"10.1.0.2/24","interface":0},{"address":"10.2.0.2/24","gateway":"10.2.0.1","interface":1}],"routes":[{"dst":"0.0.0.0/0","gw":"10.2.0.1"}]}`,
			want: []Status{
				{Name: "default/a", Interface: "eth0", IPs: []string{"10.1.0.2"}},
				{Name: "default/a", Interface: "eth1", IPs: []string{"10.2.0.2"}, Default: true, Gateway: []string{"10.2.0.1"}},
			},
		},
		"S5 a default route is told by subnet where no address has its gateway": {
			in: Attached{Network: "default/a", IfName: "eth0"},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"},{"name":"eth1","sandbox":"/n"}],
				"ips":[{"address":"10.1.0.2/24","interface":0},{"address":"fd00::2/64","interface":1}],
				"routes":[{"dst":"::/0","gw":"fd00::1"},{"dst":"0.0.0.0/0","gw":"192.0.2.1"}]}`,
			want: []Status{
				{Name: "default/a", Interface: "eth0", IPs: []string{"10.1.0.2"}, Gateway: []string{"192.0.2.1"}},
				{Name: "default/a", Interface: "eth1", IPs: []string{"fd00::2"}, Gateway: []string{"fd00::1"}},
			},
		},
		"S5 a default route over a gateway outside every subnet is told by the address that has it": {
			in: Attached{Network: "default/a", IfName: "eth0"},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"},{"name":"eth1","sandbox":"/n"}],
				"ips":[{"address":"10.1.0.2/32","interface":0},{"address":"10.2.0.2/32","gateway":"169.254.1.1","interface":1}],"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}]}`,
			want: []Status{
				{Name: "default/a", Interface: "eth0", IPs: []string{"10.1.0.2"}},
				{Name: "default/a", Interface: "eth1", IPs: []string{"10.2.0.2"}, Gateway: []string{"169.254.1.1"}},
			},
		},
		"S6 ips without index go to the last": {
			in: Attached{Network: "default/a", IfName: "eth0", Default: true},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"},{"name":"eth1","sandbox":"/n"},{"name":"veth1"}],
				"ips":[{"address":"10.1.0.2/24"},{"address":"10.2.0.2/24","gateway":"10.2.0.1"}]}`,
			want: []Status{
				{Name: "default/a", Interface: "eth0"},
				{Name: "default/a", Interface: "eth1", IPs: []string{"10.1.0.2", "10.2.0.2"}, Default: true},
			},
		},
		"S7 one interface without sandbox: its addresses are the pod's, its MAC is the host's": {
			in:     Attached{Network: "default/a", IfName: "net1"},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"tap0","mac":"02:00:00:00:00:01"}],"ips":[{"address":"10.1.0.2/24"}],"dns":{"domain":"x"}}`,
			want:   []Status{{Name: "default/a", Interface: "net1", IPs: []string{"10.1.0.2"}, DNS: types.DNS{Domain: "x"}}},
		},
		"S7 no interface, default network": {
			in:     Attached{Network: "cni0", IfName: "eth0", Default: true},
			result: `{"cniVersion":"1.0.0"}`,
			want:   []Status{{Name: "cni0", Interface: "eth0", Default: true}},
		},
		"a result of CNI 0.2.0 names no interface": {
			in:     Attached{Network: "default/a", IfName: "net1"},
			result: `{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.2/24","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"}]},"dns":{"nameservers":["10.1.0.53"]}}`,
			want: []Status{{
				Name: "default/a", Interface: "net1", IPs: []string{"10.1.0.2"}, DNS: types.DNS{Nameservers: []string{"10.1.0.53"}}, Gateway: []string{"10.1.0.1"},
			}},
		},
		"a result of CNI 0.3.1": {
			in:     Attached{Network: "default/a", IfName: "net1"},
			result: `{"cniVersion":"0.3.1","interfaces":[{"name":"net1","sandbox":"/n"}],"ips":[{"version":"4","address":"10.1.0.2/24","interface":0}]}`,
			want:   []Status{{Name: "default/a", Interface: "net1", IPs: []string{"10.1.0.2"}}},
		},
		"a result of CNI 0.4.0": {
			in:     Attached{Network: "default/a", IfName: "net1"},
			result: `{"cniVersion":"0.4.0","interfaces":[{"name":"net1","sandbox":"/n"}],"ips":[{"version":"6","address":"fd00::2/64","interface":0}],"routes":[{"dst":"::/0","gw":"fd00::1"}]}`,
			want:   []Status{{Name: "default/a", Interface: "net1", IPs: []string{"fd00::2"}, Gateway: []string{"fd00::1"}}},
		},
		"no result": {
			in:   Attached{Network: "default/a", IfName: "net1"},
			want: []Status{{Name: "default/a", Interface: "net1"}},
		},
		"S9 a default route without gateway adds nothing": {
			in: Attached{Network: "default/a", IfName: "net1"},
			result: `{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"/n"}],"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}],
				"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"10.0.0.0/8","gw":"10.1.0.1"}]}`,
			want: []Status{{Name: "default/a", Interface: "net1", IPs: []string{"10.1.0.2"}}},
		},
		"a gateway of two default routes is told once": {
			in: Attached{Network: "default/a", IfName: "net1"},
			result: `{"cniVersion":"1.1.0","interfaces":[{"name":"net1","sandbox":"/n"}],
				"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1","priority":1},{"dst":"0.0.0.0/0","gw":"10.1.0.1","priority":2},{"dst":"::/0","gw":"fd00::1"}]}`,
			want: []Status{{Name: "default/a", Interface: "net1", Gateway: []string{"10.1.0.1", "fd00::1"}}},
		},
		"S10 dns, mtu, device-info": {
			in: Attached{Network: "default/a", IfName: "net1", DeviceInfo: &DeviceInfo{Type: "pci", Version: "1.1.0", PCI: &PCIDevice{PCIAddress: "0000:03:02.1"}}},
			result: `{"cniVersion":"1.1.0","interfaces":[{"name":"net1","mtu":9000,"sandbox":"/n"}],
				"dns":{"nameservers":["10.1.0.53"],"domain":"x","search":["y"],"options":["ndots:2"]}}`,
			want: []Status{{
				Name: "default/a", Interface: "net1", MTU: 9000, DNS: types.DNS{Nameservers: []string{"10.1.0.53"}, Domain: "x", Search: []string{"y"}, Options: []string{"ndots:2"}},
				DeviceInfo: &DeviceInfo{Type: "pci", Version: "1.1.0", PCI: &PCIDevice{PCIAddress: "0000:03:02.1"}},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.result != "" {
				tc.in.Result = parseResult(t, tc.result)
			}
			got, err := StatusOf(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("StatusOf (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusOfRefusesGarbageOfAPlugin(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		result types.Result
		says   string
	}{
		"null address, 0.4.0":   {parseResult(t, `{"cniVersion":"0.4.0","ips":[null]}`), "null entry"},
		"null interface, 0.4.0": {parseResult(t, `{"cniVersion":"0.4.0","interfaces":[null]}`), "null entry"},
		"null route, 0.4.0":     {parseResult(t, `{"cniVersion":"0.4.0","routes":[null]}`), "null entry"},
		"null address":          {parseResult(t, `{"cniVersion":"1.0.0","ips":[null]}`), "null entry"},
		"null interface":        {parseResult(t, `{"cniVersion":"1.0.0","interfaces":[null]}`), "null entry"},
		"null route":            {parseResult(t, `{"cniVersion":"1.1.0","routes":[null]}`), "null entry"},
		"no address":            {parseResult(t, `{"cniVersion":"1.0.0","ips":[{"gateway":"10.1.0.1"}]}`), "without address"},
		"unknown version":       {&types100.Result{CNIVersion: "9.9.9"}, "9.9.9"},
		"unknown old version":   {&types040.Result{CNIVersion: "0.9.9"}, "0.9.9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := StatusOf(Attached{Network: "default/a", IfName: "net1", Result: tc.result})
			if err == nil || !strings.Contains(err.Error(), "status of network default/a: ") || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("StatusOf = %v, %v; want an error about the network saying %q", got, err, tc.says)
			}
		})
	}
}

func TestFormatStatusWritesTheExactText(t *testing.T) {
	t.Parallel()
	full := Status{
		Name: "default/a", Interface: "net1", IPs: []string{"10.1.0.2", "fd00::2"}, MAC: "02:00:00:00:00:01", MTU: 1500, Default: true,
		DNS: types.DNS{Nameservers: []string{"10.1.0.53"}, Domain: "x", Search: []string{"y"}, Options: []string{"ndots:2"}},
		DeviceInfo: &DeviceInfo{
			Type: "pci", Version: "1.1.0",
			PCI:       &PCIDevice{PCIAddress: "0000:03:02.1", VhostNet: "/dev/vhost-net", RDMADevice: "mlx5_2", PFPCIAddress: "0000:03:00.0", RepresentorDevice: "eth5"},
			VDPA:      &VDPADevice{ParentDevice: "vdpa1", Driver: "vhost", Path: "/dev/vhost-vdpa1", PCIAddress: "0000:03:02.1", PFPCIAddress: "0000:03:00.0", RepresentorDevice: "eth5"},
			VhostUser: &VhostUserDevice{Mode: "client", Path: "/run/s"},
			Memif:     &MemifDevice{Role: "master", Path: "/run/m", Mode: "ethernet"},
		},
		Gateway: []string{"10.1.0.1", "fd00::1"},
	}
	plain := Status{Name: "cni0", Interface: "eth0", IPs: []string{"10.1.0.2"}, MAC: "02:00:00:00:00:01", Default: true}
	for name, list := range map[string][]Status{
		"S3-two-networks": {plain, {Name: "default/a", Interface: "net1", IPs: []string{"10.2.0.2"}, MAC: "02:00:00:00:00:02"}},
		"S10-every-key":   {full},
		"minimal":         {{Name: "default/a", Interface: "net1"}},
		"none":            nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := FormatStatus(list)
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, "status-"+name, got)
			back, err := ParseStatus(got)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 0 && len(back) == 0 {
				return
			}
			if diff := cmp.Diff(list, back); diff != "" {
				t.Errorf("ParseStatus (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want []Status
		says string
	}{
		"empty":                   {text: ""},
		"indented as an array":    {text: "[\n    {\n        \"name\": \"a\"\n    }\n]", want: []Status{{Name: "a"}}},
		"unknown key ignored":     {text: `[{"name":"a","x":1}]`, want: []Status{{Name: "a"}}},
		"null":                    {text: "null", says: "network-status is null"},
		"object":                  {text: `{"name":"a"}`, says: "its JSON is of the wrong type (object): write an array"},
		"null object":             {text: "[null]", says: "object 1 has no name"},
		"no name":                 {text: `[{"name":"a"},{"interface":"eth0"}]`, says: "object 2 has no name"},
		"wrong type":              {text: `[{"name":"a","mtu":"1500"}]`, says: "mtu is of the wrong type (string): write a whole number"},
		"wrong flag":              {text: `[{"name":"a","default":"yes"}]`, says: "default is of the wrong type (string): write true or false"},
		"object is a number":      {text: `[1]`, says: "its JSON is of the wrong type (number): write an object"},
		"truncated":               {text: `[{"name":"a"`, says: "unexpected end of JSON input"},
		"trailing data":           {text: `[] x`, says: "after top-level value"},
		"longer than it can be":   {text: "[" + strings.Repeat(" ", MaxNetworksBytes) + "]", says: "has 262146 bytes"},
		"long value is cut short": {text: `{` + strings.Repeat("x", 200), says: `"{` + strings.Repeat("x", 63) + `"...: no valid JSON at byte 2`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseStatus(tc.text)
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("ParseStatus = %v, %v; want an error saying %q", got, err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ParseStatus (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzParseStatus: what is accepted has names, and FormatStatus and ParseStatus undo each other.
func FuzzParseStatus(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "*.golden"))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range seeds {
		text, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, seed := range []string{"", "null", "[null]", `{"name":"a"}`, `[{"name":"a","ips":[],"dns":{"search":[]}}]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseStatus(text)
		if err != nil {
			return
		}
		first, err := FormatStatus(list)
		if err != nil {
			t.Fatal(err)
		}
		if len(first) > MaxNetworksBytes {
			return // indented, it is longer than it was
		}
		list, err = ParseStatus(first)
		if err != nil {
			t.Fatalf("ParseStatus(%q): %v", first, err)
		}
		for _, s := range list {
			if s.Name == "" {
				t.Errorf("accepted without name: %q", text)
			}
		}
		second, err := FormatStatus(list)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("after ParseStatus (-want +got):\n%s", diff)
		}
	})
}
