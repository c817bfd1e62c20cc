// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sameAddr compares gateways; nil and empty lists of them stay different.
func sameAddr() cmp.Option { return cmpopts.EquateComparable(netip.Addr{}) }

func TestParseNetworksSelects(t *testing.T) {
	t.Parallel()
	gw4, gw6 := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")
	for name, tc := range map[string]struct {
		value string
		want  []Element
	}{
		"P2 two names in the pod's namespace":         {"a, b", []Element{{Namespace: "default", Name: "a"}, {Namespace: "default", Name: "b"}}},
		"P3 another namespace":                        {"other/c", []Element{{Namespace: "other", Name: "c"}}},
		"P4 an interface name":                        {"a@x1", []Element{{Namespace: "default", Name: "a", Interface: "x1"}}},
		"P5 namespace and interface with underscore":  {"default/a@my_interface", []Element{{Namespace: "default", Name: "a", Interface: "my_interface"}}},
		"P13 empty array":                             {"[]", nil},
		"P13 empty array with blanks":                 {" [ ] ", nil},
		"P14 empty text":                              {"", nil},
		"P16 dotted name, short form":                 {"other/a.b.c", []Element{{Namespace: "other", Name: "a.b.c"}}},
		"P16 dotted name, JSON form":                  {`[{"name":"a.b.c","namespace":"other"}]`, []Element{{Namespace: "other", Name: "a.b.c"}}},
		"P21 interfaceRequest is interface":           {`[{"name":"a","interfaceRequest":"x1"}]`, []Element{{Namespace: "default", Name: "a", Interface: "x1"}}},
		"P21 alias and interface the same":            {`[{"name":"a","interfaceRequest":"x1","interface":"x1"}]`, []Element{{Namespace: "default", Name: "a", Interface: "x1"}}},
		"P22 unknown key ignored":                     {`[{"name":"a","colour":{"x":[1]}}]`, []Element{{Namespace: "default", Name: "a"}}},
		"P22 ipam-claim-reference forwarded":          {`[{"name":"a","ipam-claim-reference":"vm.a"}]`, []Element{{Namespace: "default", Name: "a", IPAMClaimReference: "vm.a"}}},
		"the same network twice is two attachments":   {"a,a", []Element{{Namespace: "default", Name: "a"}, {Namespace: "default", Name: "a"}}},
		"line ends between items":                     {"a,\n  b\n", []Element{{Namespace: "default", Name: "a"}, {Namespace: "default", Name: "b"}}},
		"a network named null in JSON":                {`[{"name":"null"}]`, []Element{{Namespace: "default", Name: "null"}}},
		"an unknown key twice":                        {`[{"name":"a","x":1,"X":2,"x":3}]`, []Element{{Namespace: "default", Name: "a"}}},
		"null asks for nothing":                       {`[{"name":"a","mac":null,"ips":null,"bandwidth":null,"cni-args":null,"default-route":null}]`, []Element{{Namespace: "default", Name: "a"}}},
		"empty requests ask for nothing":              {`[{"name":"a","mac":"","ips":[],"bandwidth":{},"portMappings":[],"cni-args":{}}]`, []Element{{Namespace: "default", Name: "a"}}},
		"mac with hyphens and capitals, 6 bytes":      {`[{"name":"a","mac":"02-00-00-00-00-AB"}]`, []Element{{Namespace: "default", Name: "a", MAC: "02:00:00:00:00:ab"}}},
		"mac of 8 bytes":                              {`[{"name":"a","mac":"02:00:00:00:00:00:00:01"}]`, []Element{{Namespace: "default", Name: "a", MAC: "02:00:00:00:00:00:00:01"}}},
		"InfiniBand mac of 20 bytes":                  {`[{"name":"a","mac":"80:00:00:48:FE:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01"}]`, []Element{{Namespace: "default", Name: "a", MAC: "80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01"}}},
		"infiniband-guid":                             {`[{"name":"a","infiniband-guid":"C2:11:22:33:44:55:66:77"}]`, []Element{{Namespace: "default", Name: "a", InfinibandGUID: "c2:11:22:33:44:55:66:77"}}},
		"ips with and without prefix, canonical":      {`[{"name":"a","ips":["10.1.2.3/24","FD00:0::3/64","10.1.2.4","fd00::0:4"]}]`, []Element{{Namespace: "default", Name: "a", IPs: []string{"10.1.2.3/24", "fd00::3/64", "10.1.2.4", "fd00::4"}}}},
		"bandwidth of one direction":                  {`[{"name":"a","bandwidth":{"ingressRate":1000000,"ingressBurst":8000}}]`, []Element{{Namespace: "default", Name: "a", Bandwidth: &Bandwidth{IngressRate: 1000000, IngressBurst: 8000}}}},
		"the largest burst of the bandwidth plugin":   {`[{"name":"a","bandwidth":{"egressRate":1,"egressBurst":34359738359}}]`, []Element{{Namespace: "default", Name: "a", Bandwidth: &Bandwidth{EgressRate: 1, EgressBurst: 34359738359}}}},
		"portMappings, default and upper-case":        {`[{"name":"a","portMappings":[{"hostPort":1,"containerPort":65535},{"hostPort":53,"containerPort":53,"protocol":"UDP","hostIP":"FD00::1"},{"hostPort":9,"containerPort":9,"protocol":"SCTP"}]}]`, []Element{{Namespace: "default", Name: "a", PortMappings: []PortMapping{{HostPort: 1, ContainerPort: 65535, Protocol: "tcp"}, {HostPort: 53, ContainerPort: 53, Protocol: "udp", HostIP: "fd00::1"}, {HostPort: 9, ContainerPort: 9, Protocol: "sctp"}}}}},
		"cni-args keep their values, compact":         {`[{"name":"a","cni-args":{"x": [1,  "<b>"], "y": null}}]`, []Element{{Namespace: "default", Name: "a", CNIArgs: map[string]json.RawMessage{"x": json.RawMessage(`[1,"<b>"]`), "y": json.RawMessage("null")}}}},
		"deviceID":                                    {`[{"name":"a","deviceID":"0000:03:02.1"}]`, []Element{{Namespace: "default", Name: "a", DeviceID: "0000:03:02.1"}}},
		"G2 a gateway of each family on one element":  {`[{"name":"a","default-route":["10.1.0.1","fd00:0::1"]}]`, []Element{{Namespace: "default", Name: "a", DefaultRoute: []netip.Addr{gw4, gw6}}}},
		"G2 each family on another element":           {`[{"name":"a","default-route":["10.1.0.1"]},{"name":"b","default-route":["fd00::1"]}]`, []Element{{Namespace: "default", Name: "a", DefaultRoute: []netip.Addr{gw4}}, {Namespace: "default", Name: "b", DefaultRoute: []netip.Addr{gw6}}}},
		"G4 empty default-route is not an absent one": {`[{"name":"a","default-route":[]}]`, []Element{{Namespace: "default", Name: "a", DefaultRoute: []netip.Addr{}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseNetworks(tc.value, "default")
			if err != nil {
				t.Fatalf("ParseNetworks(%q): %v", tc.value, err)
			}
			if diff := cmp.Diff(tc.want, got, sameAddr()); diff != "" {
				t.Errorf("ParseNetworks(%q) (-want +got):\n%s", tc.value, diff)
			}
		})
	}
}

// TestParseNetworksRefuses has each message whole, so that it is read as its user reads it.
func TestParseNetworksRefuses(t *testing.T) {
	t.Parallel()
	const (
		shortForm = `write [namespace/]name[@interface]`
		badName   = `is no name of a NetworkAttachmentDefinition: use at most 253 lower-case letters, digits, "-" and ".", letters or digits at both ends`
		badIfName = `has a character that is not allowed: use letters, digits, "-", "_" and "."`
		badIP     = `is no IP address: write one like 10.1.2.3, 10.1.2.3/24 or fd00::3/64`
		badPrefix = `is no IP address with prefix length: write one like 10.1.2.3/24 or fd00::3/64`
		badMAC    = `is no hardware address: write 6 bytes (20 for InfiniBand) in hex, like 02:00:00:00:00:01`
		badGW     = `is no address of a gateway: write an IP address without prefix length, like 10.1.2.1 or fd00::1`
		badDevice = `is no device ID: write one like 0000:03:02.1, without "/" and white space`
	)
	for name, tc := range map[string]struct{ value, says string }{
		"P6 two interfaces":                 {"a@b@c", `element 1 ("a@b@c"): it has more than one "@": ` + shortForm},
		"P7 two namespaces":                 {"a/b/c", `element 1 ("a/b/c"): it has more than one "/": ` + shortForm},
		"P8 both":                           {"root@someIP/root@someOtherIP", `element 1 ("root@someIP/root@someOtherIP"): it has more than one "@": ` + shortForm},
		"P9 blank in the interface":         {"default/net1@myIfc Name", `element 1 ("net1"): interface "myIfc Name" ` + badIfName},
		"P10 interface too long":            {"default/net1@very_long_interface_name", `element 1 ("net1"): interface "very_long_interface_name" has 24 bytes and Linux allows 15: shorten it`},
		"P11 upper-case name":               {"A", `element 1 ("A"): name "A" ` + badName},
		"P12 trailing comma":                {"a,", `element 2: it is empty: remove the surplus comma`},
		"P15 object instead of array":       {`{"name":"a"}`, `"{\"name\":\"a\"}" is no JSON array: write [{"name":"..."}], or a list like a,b without "[", "{" and quotes`},
		"P17 mac":                           {`[{"name":"a","mac":"zz"}]`, `element 1 ("a"): mac "zz" ` + badMAC},
		"P18 ips address":                   {`[{"name":"a","ips":["10.0.0.1","300.1.1.1"]}]`, `element 1 ("a"): ips "300.1.1.1" ` + badIP},
		"P18 ips prefix":                    {`[{"name":"a"},{"name":"b","ips":["10.0.0.1/99"]}]`, `element 2 ("b"): ips "10.0.0.1/99" ` + badPrefix},
		"P19 infiniband-guid":               {`[{"name":"a","infiniband-guid":"xx"}]`, `element 1 ("a"): infiniband-guid "xx" is no GUID: write 8 bytes in hex, like 02:00:00:00:00:00:00:01`},
		"P19 infiniband-guid of 6 bytes":    {`[{"name":"a","infiniband-guid":"02:00:00:00:00:01"}]`, `element 1 ("a"): infiniband-guid "02:00:00:00:00:01" is no GUID: write 8 bytes in hex, like 02:00:00:00:00:00:00:01`},
		"P21 interface and alias differ":    {`[{"name":"a","interface":"x1","interfaceRequest":"x2"}]`, `element 1 ("a"): interface "x1" and its deprecated alias "interfaceRequest" "x2" differ: keep "interface" only`},
		"P22 claim together with ips":       {`[{"name":"a","ips":["10.0.0.1"],"ipam-claim-reference":"c"}]`, `element 1 ("a"): ipam-claim-reference "c" is given together with "ips": remove one of them, the claim decides the addresses`},
		"P24 interface twice":               {"a@x1,a@x1", `element 2 ("a"): interface "x1" is that of element 1 ("a") too: give each its own`},
		"G3 two IPv4 gateways":              {`[{"name":"a","default-route":["10.1.0.1","10.1.0.2"]}]`, `element 1 ("a"): default-route "10.1.0.2" is a second IPv4 gateway, and ECMP is not supported: keep one of a family`},
		"G3 two IPv6 gateways":              {`[{"name":"a","default-route":["fd00::1","10.1.0.1","fd00::2"]}]`, `element 1 ("a"): default-route "fd00::2" is a second IPv6 gateway, and ECMP is not supported: keep one of a family`},
		"G3 one family on two elements":     {`[{"name":"a","default-route":["10.1.0.1"]},{"name":"b","default-route":["10.1.0.1"]}]`, `element 2 ("b"): default-route claims the IPv4 default route, as element 1 ("a") does, and ECMP is not supported: leave it to one of them`},
		"G3 [] claims both families":        {`[{"name":"a","default-route":["fd00::1"]},{"name":"b","default-route":[]}]`, `element 2 ("b"): default-route claims the IPv6 default route, as element 1 ("a") does, and ECMP is not supported: leave it to one of them`},
		"only a comma":                      {",", `element 1: it is empty: remove the surplus comma`},
		"null":                              {" null ", `it is null: name a network or remove the annotation (for a network of the name "null", write [{"name":"null"}])`},
		"blanks":                            {" \t\n", `it is blank: name a network or remove the annotation`},
		"no namespace":                      {"/a", `element 1 ("/a"): it has no namespace before "/": ` + shortForm},
		"no interface":                      {"a@", `element 1 ("a@"): it has no interface name after "@": ` + shortForm},
		"no name, short":                    {"ns/@x1", `element 1: name is missing: name the NetworkAttachmentDefinition`},
		"no name, JSON":                     {`[{}]`, `element 1: name is missing: name the NetworkAttachmentDefinition`},
		"path in the name":                  {"..", `element 1 (".."): name ".." ` + badName},
		"path in the namespace":             {`[{"name":"a","namespace":"../b"}]`, `element 1 ("a"): namespace "../b" is no name of a namespace: use at most 63 lower-case letters, digits and "-", letters or digits at both ends`},
		"dot in the namespace":              {"a.b/c", `element 1 ("c"): namespace "a.b" is no name of a namespace: use at most 63 lower-case letters, digits and "-", letters or digits at both ends`},
		"long namespace":                    {strings.Repeat("n", 64) + "/c", `element 1 ("c"): namespace "` + strings.Repeat("n", 64) + `" is no name of a namespace: use at most 63 lower-case letters, digits and "-", letters or digits at both ends`},
		"long name":                         {strings.Repeat("n", 254), `element 1 ("` + strings.Repeat("n", 64) + `"...): name "` + strings.Repeat("n", 64) + `"... ` + badName},
		"NUL in the name":                   {"a\x00", `element 1 ("a\x00"): name "a\x00" ` + badName},
		"not UTF-8":                         {"a\xff", `"a\xff" is not UTF-8: write it in UTF-8`},
		"path in the interface":             {"a@../x", `element 1 ("a"): interface "../x" ` + badIfName},
		"string instead of array":           {`"a"`, `"\"a\"" is no JSON array: write [{"name":"..."}], or a list like a,b without "[", "{" and quotes`},
		"truncated JSON":                    {`[{"name":"a"`, `no valid JSON at byte 12: unexpected end of JSON input: correct it to an array like [{"name":"..."}]`},
		"trailing data":                     {`[{"name":"a"}] b`, `no valid JSON at byte 16: invalid character 'b' after top-level value: correct it to an array like [{"name":"..."}]`},
		"null element":                      {`[{"name":"a"},null]`, `element 2: "null" is no object: write {"name":"..."}`},
		"string element":                    {`["a"]`, `element 1: "\"a\"" is no object: write {"name":"..."}`},
		"name of the wrong type":            {`[{"name":1}]`, `element 1: name is of the wrong type (number): write a string`},
		"mac of the wrong type":             {`[{"name":"a","mac":1}]`, `element 1 ("a"): mac is of the wrong type (number): write a string`},
		"ips of the wrong type":             {`[{"name":"a","ips":"10.0.0.1"}]`, `element 1 ("a"): ips is of the wrong type (string): write an array`},
		"ips of numbers":                    {`[{"name":"a","ips":[1]}]`, `element 1 ("a"): ips is of the wrong type (number): write a string`},
		"ips of null":                       {`[{"name":"a","ips":[null]}]`, `element 1 ("a"): ips "" ` + badIP},
		"ips with a zone":                   {`[{"name":"a","ips":["fe80::1%eth0"]}]`, `element 1 ("a"): ips "fe80::1%eth0" ` + badIP},
		"ips with IPv4 in IPv6":             {`[{"name":"a","ips":["::ffff:10.0.0.1/120"]}]`, `element 1 ("a"): ips "::ffff:10.0.0.1/120" ` + badPrefix},
		"default-route of the wrong type":   {`[{"name":"a","default-route":"10.0.0.1"}]`, `element 1 ("a"): default-route is of the wrong type (string): write an array`},
		"default-route with prefix":         {`[{"name":"a","default-route":["10.0.0.1/24"]}]`, `element 1 ("a"): default-route "10.0.0.1/24" ` + badGW},
		"default-route unspecified":         {`[{"name":"a","default-route":["::"]}]`, `element 1 ("a"): default-route "::" ` + badGW},
		"default-route of null":             {`[{"name":"a","default-route":[null]}]`, `element 1 ("a"): default-route "" ` + badGW},
		"bandwidth as text":                 {`[{"name":"a","bandwidth":{"ingressRate":"10M"}}]`, `element 1 ("a"): bandwidth.ingressRate is of the wrong type (string): write a whole number, without quotes`},
		"bandwidth as fraction":             {`[{"name":"a","bandwidth":{"ingressRate":1.5}}]`, `element 1 ("a"): bandwidth.ingressRate is of the wrong type (number 1.5): write a whole number, without quotes`},
		"bandwidth negative":                {`[{"name":"a","bandwidth":{"egressRate":-1,"egressBurst":1}}]`, `element 1 ("a"): bandwidth has egressRate -1 and egressBurst 1: give bits per second and bits, 0 or more`},
		"bandwidth rate without burst":      {`[{"name":"a","bandwidth":{"ingressRate":1000}}]`, `element 1 ("a"): bandwidth has ingressRate 1000 and ingressBurst 0: give both or neither`},
		"bandwidth burst without rate":      {`[{"name":"a","bandwidth":{"egressBurst":1000}}]`, `element 1 ("a"): bandwidth has egressRate 0 and egressBurst 1000: give both or neither`},
		"bandwidth burst too large":         {`[{"name":"a","bandwidth":{"egressRate":1,"egressBurst":34359738360}}]`, `element 1 ("a"): bandwidth has egressBurst 34359738360: give at most 34359738359 bits (4 GiB)`},
		"portMappings of the wrong type":    {`[{"name":"a","portMappings":{}}]`, `element 1 ("a"): portMappings is of the wrong type (object): write an array`},
		"portMappings without hostPort":     {`[{"name":"a","portMappings":[{"containerPort":80}]}]`, `element 1 ("a"): portMappings[0] has hostPort 0: give a port from 1 to 65535`},
		"portMappings port too large":       {`[{"name":"a","portMappings":[{"hostPort":80,"containerPort":65536}]}]`, `element 1 ("a"): portMappings[0] has containerPort 65536: give a port from 1 to 65535`},
		"portMappings of a quoted port":     {`[{"name":"a","portMappings":[{"hostPort":"80"}]}]`, `element 1 ("a"): portMappings.hostPort is of the wrong type (string): write a whole number, without quotes`},
		"a wrong number is cut short":       {`[{"name":"a","portMappings":[{"hostPort":` + strings.Repeat("9", 200) + `}]}]`, `element 1 ("a"): portMappings.hostPort is of the wrong type (number ` + strings.Repeat("9", 57) + `): write a whole number, without quotes`},
		"portMappings of unknown protocol":  {`[{"name":"a","portMappings":[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]}]`, `element 1 ("a"): portMappings[0].protocol "icmp" is unknown: write tcp, udp or sctp`},
		"portMappings of bad hostIP":        {`[{"name":"a","portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"x"}]}]`, `element 1 ("a"): portMappings[0].hostIP "x" is no IP address: write one like 192.0.2.1, or leave it out`},
		"cni-args of the wrong type":        {`[{"name":"a","cni-args":["x"]}]`, `element 1 ("a"): cni-args is of the wrong type (array): write an object`},
		"deviceID with a path":              {`[{"name":"a","deviceID":"../0000:03:02.1"}]`, `element 1 ("a"): deviceID "../0000:03:02.1" ` + badDevice},
		"deviceID ..":                       {`[{"name":"a","deviceID":".."}]`, `element 1 ("a"): deviceID ".." ` + badDevice},
		"deviceID with a control character": {`[{"name":"a","deviceID":"x\u0000"}]`, `element 1 ("a"): deviceID "x\x00" ` + badDevice},
		"deviceID too long":                 {`[{"name":"a","deviceID":"` + strings.Repeat("d", 129) + `"}]`, `element 1 ("a"): deviceID "` + strings.Repeat("d", 64) + `"... has 129 bytes: give at most 128`},
		"claim with a path":                 {`[{"name":"a","ipam-claim-reference":"a/b"}]`, `element 1 ("a"): ipam-claim-reference "a/b" is no name of an IPAMClaim: use at most 253 lower-case letters, digits, "-" and ".", letters or digits at both ends`},
		"too long":                          {strings.Repeat("a", MaxNetworksBytes+1), `it has 262145 bytes: shorten it to 262144`},
		"too many elements, short":          {strings.Repeat("a,", MaxElements) + "a", `it has 257 elements: select at most 256 networks`},
		"too many elements, JSON":           {"[" + strings.Repeat("{},", MaxElements) + "{}]", `it has 257 elements: select at most 256 networks`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseNetworks(tc.value, "default")
			if err == nil {
				t.Fatalf("ParseNetworks = %v; want an error", got)
			}
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("error %v does not match ErrInvalid", err)
			}
			if diff := cmp.Diff("invalid network selection: "+tc.says, err.Error()); diff != "" {
				t.Errorf("ParseNetworks(%.80q) error (-want +got):\n%s", tc.value, diff)
			}
		})
	}
}

// TestParseNetworksSurvivesDeepNesting shows that a text of open brackets ends in an error and not in an exhausted stack.
func TestParseNetworksSurvivesDeepNesting(t *testing.T) {
	t.Parallel()
	value := `[{"name":"a","cni-args":{"x":` + strings.Repeat("[", MaxNetworksBytes/2)
	if got, err := ParseNetworks(value, "default"); !errors.Is(err, ErrInvalid) {
		t.Errorf("ParseNetworks = %v, %v; want ErrInvalid", got, err)
	}
}

func TestParseNetworksRefusesABadPodNamespace(t *testing.T) {
	t.Parallel()
	if got, err := ParseNetworks("a", ""); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `namespace ""`) {
		t.Errorf("ParseNetworks = %v, %v; want an error about the namespace", got, err)
	}
}

func TestParseDefaultNetwork(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		value string
		want  *Element
		says  string
	}{
		"empty replaces nothing":            {value: ""},
		"R16 name in the default namespace": {value: "x", want: &Element{Namespace: "kube-system", Name: "x"}},
		"own namespace":                     {value: "ns/x", want: &Element{Namespace: "ns", Name: "x"}},
		"R18 mac":                           {value: `[{"name":"x","mac":"02:00:00:00:00:01"}]`, want: &Element{Namespace: "kube-system", Name: "x", MAC: "02:00:00:00:00:01"}},
		"R17 two elements":                  {value: "x,y", says: `"x,y" has 2 elements: give exactly one, or remove the annotation`},
		"no element":                        {value: "[]", says: `"[]" has 0 elements: give exactly one, or remove the annotation`},
		"blank":                             {value: " ", says: "it is blank"},
		"an error of the element is told as usual": {value: "A", says: `element 1 ("A"): name "A"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseDefaultNetwork(tc.value, "kube-system")
			if tc.says != "" {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("ParseDefaultNetwork(%q) = %v, %v; want ErrInvalid saying %q", tc.value, got, err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatalf("ParseDefaultNetwork(%q): %v", tc.value, err)
			}
			if diff := cmp.Diff(tc.want, got, sameAddr()); diff != "" {
				t.Errorf("ParseDefaultNetwork(%q) (-want +got):\n%s", tc.value, diff)
			}
		})
	}
}

func TestValidateInterfaceName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "eth0", "net1", "x.1", "my_interface", "a-b", "123456789012345"} {
		if err := ValidateInterfaceName(name); err != nil {
			t.Errorf("ValidateInterfaceName(%q) = %v; want it accepted", name, err)
		}
	}
	for _, name := range []string{"", "1234567890123456", ".", "..", "lo", "a/b", "a:1", "a b", "a\tb", "a\nb", "a\u00a0b", "a\u2003b", "à", "net%d", "a\x00", "a\x7f", "a\xff", "é1", "..."} {
		if err := ValidateInterfaceName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("ValidateInterfaceName(%q) = %v; want ErrInvalid", name, err)
		}
	}
}

func TestElementStringIsTheShortForm(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]Element{
		"ns/a@x1": {Namespace: "ns", Name: "a", Interface: "x1"},
		"ns/a":    {Namespace: "ns", Name: "a"},
	} {
		if got := e.String(); got != want {
			t.Errorf("String = %q; want %q", got, want)
		}
	}
}

func fullElement() Element {
	return Element{
		Name: "a", Namespace: "ns", Interface: "x1",
		MAC: "02:00:00:00:00:01", IPs: []string{"10.1.2.3/24"}, InfinibandGUID: "02:00:00:00:00:00:00:01",
		Bandwidth:    &Bandwidth{IngressRate: 1, IngressBurst: 2, EgressRate: 3, EgressBurst: 4},
		PortMappings: []PortMapping{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp", HostIP: "192.0.2.1"}},
		CNIArgs:      map[string]json.RawMessage{"k": json.RawMessage(`{"x":"<&>"}`)},
		DefaultRoute: []netip.Addr{netip.MustParseAddr("10.1.2.1")},
		DeviceID:     "0000:03:02.1",
	}
}

func TestFormatNetworksWritesTheWireKeys(t *testing.T) {
	t.Parallel()
	claim := Element{Name: "b", Namespace: "ns", DefaultRoute: []netip.Addr{}, IPAMClaimReference: "c"}
	got, err := FormatNetworks([]Element{fullElement(), claim})
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"name":"a","namespace":"ns","interface":"x1","mac":"02:00:00:00:00:01","ips":["10.1.2.3/24"],"infiniband-guid":"02:00:00:00:00:00:00:01",` +
		`"bandwidth":{"ingressRate":1,"ingressBurst":2,"egressRate":3,"egressBurst":4},"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp","hostIP":"192.0.2.1"}],` +
		`"cni-args":{"k":{"x":"<&>"}},"default-route":["10.1.2.1"],"deviceID":"0000:03:02.1"},{"name":"b","namespace":"ns","default-route":[],"ipam-claim-reference":"c"}]`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("FormatNetworks (-want +got):\n%s", diff)
	}
	if got, err := FormatNetworks(nil); err != nil || got != "[]" {
		t.Errorf("FormatNetworks(nil) = %q, %v; want []", got, err)
	}
}

// TestElementSurvivesJSON is what the wire between plugin and daemon needs: nil and [] stay different.
func TestElementSurvivesJSON(t *testing.T) {
	t.Parallel()
	for _, routes := range [][]netip.Addr{nil, {}, {netip.MustParseAddr("fd00::1")}} {
		t.Run(fmt.Sprintf("default-route %#v", routes), func(t *testing.T) {
			t.Parallel()
			want := Element{Name: "a", Namespace: "ns", DefaultRoute: routes}
			data, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			var got Element
			if err := json.Unmarshal(data, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, sameAddr()); diff != "" {
				t.Errorf("after JSON (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzParseNetworks: what is accepted is bounded, fits together, and reads back from what FormatNetworks makes of it.
func FuzzParseNetworks(f *testing.F) {
	full, err := FormatNetworks([]Element{fullElement()})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		full, "", "[]", "a, b", "other/c", "a@x1", "a@b@c", "a/b/c", "a,", ",", "null", " ", `{"name":"a"}`, `[null]`, `["a"]`,
		`[{"name":"a","default-route":[]}]`, `[{"name":"a","interfaceRequest":"x1","NAME":"b"}]`, `[{"name":"a","cni-args":{"x":{"y":"\u2028<"}}}]`,
		`[{"name":"a","bandwidth":{"ingressRate":1e3}}]`, `[{"name":"a","portMappings":[{"hostPort":80,"containerPort":80,"protocol":"UDP"}]}]`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		elements, err := ParseNetworks(value, "default")
		if err != nil {
			if !errors.Is(err, ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 1<<10 {
				t.Errorf("error %q: want ErrInvalid in one short line", err)
			}
			return
		}
		if len(elements) > MaxElements {
			t.Errorf("%d elements accepted", len(elements))
		}
		taken := map[string]bool{}
		for _, e := range elements {
			if e.Interface == "" {
				continue
			}
			if invalid := ValidateInterfaceName(e.Interface); invalid != nil || taken[e.Interface] {
				t.Errorf("interface %q accepted: taken %v, %v", e.Interface, taken[e.Interface], invalid)
			}
			taken[e.Interface] = true
		}
		text, err := FormatNetworks(elements)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseNetworks(text, "elsewhere")
		if err != nil {
			if len(text) > MaxNetworksBytes {
				return // the JSON form of a short form at the bound
			}
			t.Fatalf("ParseNetworks(%q): %v", text, err)
		}
		if diff := cmp.Diff(elements, again, sameAddr()); diff != "" {
			t.Errorf("after FormatNetworks (-want +got):\n%s", diff)
		}
	})
}
