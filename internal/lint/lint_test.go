// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
	"github.com/plexus-cni/plexus/nad"
)

// TestMistakes has a file with a mistake of almost each kind.
func TestMistakes(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("testdata", "mistakes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found, n := Run([]File{{Name: "mistakes.yaml", Data: data}}, Options{})
	if n != 7 {
		t.Errorf("%d definitions; want 7", n)
	}
	var out bytes.Buffer
	if err = finding.WriteText(&out, found, false); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "mistakes", out.String())
}

// manifestOf is a definition with a configuration.
func manifestOf(name, annotations, config string) string {
	text := "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata:\n  name: " + name + "\n"
	if annotations != "" {
		text += "  annotations: {" + annotations + "}\n"
	}
	return text + "spec:\n  config: |\n    " + strings.ReplaceAll(config, "\n", "\n    ") + "\n---\n"
}

// brief is code, field and the text under the place of each finding, which shows that the place is right.
func brief(l finding.List, data string) []string {
	lines := strings.Split(data, "\n")
	var all []string
	for _, f := range l {
		at := ""
		if f.Line > 0 && f.Line <= len(lines) && f.Column > 0 {
			at = lines[f.Line-1][f.Column-1:]
			at = at[:min(len(at), 8)]
		}
		all = append(all, fmt.Sprintf("%s %s <%s>", f.Code, f.Field, at))
	}
	return all
}

func TestFindings(t *testing.T) {
	t.Parallel()
	const (
		resource = `k8s.v1.cni.cncf.io/resourceName: `
		dual     = `"ipam":{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]}`
	)
	host := func(rest string) string {
		return `{"cniVersion":"1.0.0","type":"macvlan","ipam":{"type":"host-local",` + rest + `}}`
	}
	for name, tc := range map[string]struct {
		annotations, config string
		types               []string
		want                []string
	}{
		"a sound network has none":                {config: `{"cniVersion":"1.0.0","type":"macvlan","master":"eth0","mode":"bridge",` + dual + `}`},
		"neither has one in another case":         {config: `{"cniVersion":"1.0.0","type":"macvlan","Master":"eth0","MTU":1500,` + dual + `}`},
		"nor a foreign plugin":                    {config: `{"cniVersion":"1.0.0","type":"ovs","bridge":"br1","capabilities":{"mac":true},"ipam":{"type":"whereabouts","range":"x"}}`},
		"nor a plugin of the folder":              {types: []string{"mine"}, config: `{"cniVersion":"1.0.0","type":"mine"}`},
		"a comment after the JSON":                {config: "{\"cniVersion\":\"1.0.0\",\n  \"type\":\"macvlan\"}\n# no", want: []string{"config-json spec.config <# no>"}},
		"an unfinished string":                    {config: `{"type":"macvlan`, want: []string{"config-json spec.config <>"}},
		"an unknown type":                         {config: `{"type":"macvlen"}`, want: []string{"plugin-unknown type <\"macvlen>"}},
		"no type at all":                          {config: `{"name":"x"}`, want: []string{"config-invalid spec.config <{\"name\":>"}},
		"a plugin without a type":                 {config: `{"plugins":[{"type":"macvlan"},{"mtu":1}]}`, want: []string{"config-invalid spec.config.plugins[1] <{\"mtu\":1>"}},
		"a bad network name":                      {config: `{"name":"a b","type":"macvlan"}`, want: []string{"config-invalid spec.config <\"a b\",\"t>"}},
		"capabilities that are no object":         {config: `{"type":"macvlan","capabilities":[]}`, want: []string{"config-invalid spec.config <[]}>"}},
		"a list's unknown key":                    {config: `{"disableChek":true,"plugins":[{"type":"macvlan"}]}`, want: []string{"key-unknown disableChek <\"disable>"}},
		"an unknown spelling of a mode":           {config: `{"type":"ipvlan","mode":"L2",` + dual + `}`, want: []string{`key-value mode <"L2","ip>`}},
		"a VLAN beyond the range":                 {config: `{"type":"vlan","master":"eth0","vlanId":4095,` + dual + `}`, want: []string{"key-value vlanId <4095,\"ip>"}},
		"a VLAN without its keys":                 {config: `{"type":"vlan",` + dual + `}`, want: []string{`key-missing master <{"type":>`, `key-missing vlanId <{"type":>`}},
		"an MTU that cannot be":                   {config: `{"type":"macvlan","mtu":67}`, want: []string{"key-value mtu <67}>"}},
		"a fraction":                              {config: `{"type":"macvlan","mtu":1500.5}`, want: []string{"key-value mtu <1500.5}>"}},
		"a name too long for an interface":        {config: `{"type":"bridge","bridge":"bridge-of-storage"}`, want: []string{`key-value bridge <"bridge->`}},
		"no ipam where there has to be one":       {config: `{"type":"ipvlan"}`, want: []string{`key-missing ipam <{"type":>`}},
		"ipam without a type":                     {config: `{"type":"macvlan","ipam":{"subnet":"10.0.0.0/8"}}`, want: []string{`key-missing ipam.type <{"subnet>`}},
		"an empty ipam, as for layer 2":           {config: `{"type":"macvlan","ipam":{}}`},
		"an unknown ipam":                         {config: `{"type":"macvlan","ipam":{"type":"hostlocal"}}`, want: []string{`plugin-unknown ipam.type <"hostloc>`}},
		"mac of ipvlan":                           {config: `{"type":"ipvlan","capabilities":{"mac":true},` + dual + `}`, want: []string{"capability-unsupported capabilities.mac <\"mac\":tr>"}},
		"rates of its own, and of pods":           {config: `{"plugins":[{"type":"bridge"},{"type":"bandwidth","capabilities":{"bandwidth":true},"ingressRate":1000000,"ingressBurst":1000000}]}`, want: []string{"capability-unsupported plugins[1].capabilities.bandwidth <\"bandwid>"}},
		"a gateway that a route leads to":         {config: `{"type":"macvlan","ipam":{"type":"static","addresses":[{"address":"10.0.0.1/24","gateway":"169.254.1.1"}],"routes":[{"dst":"169.254.1.1/32","scope":253},{"dst":"10.9.0.0/16"}]}}`},
		"a gateway that host-local refuses":       {config: host(`"ranges":[[{"subnet":"10.0.0.0/24","gateway":"169.254.1.1"}]]`), want: []string{`ipam-invalid ipam.ranges[0][0].gateway <"169.254>`}},
		"a vlan of layer 2":                       {config: `{"type":"vlan","master":"eth0","vlanId":7}`},
		"a default route":                         {config: host(`"subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`), want: []string{`route-default ipam.routes[0].dst <"0.0.0.0>`, `route-default ipam.routes[1].dst <"::/0"}]>`}},
		"a bridge that is the default gateway":    {config: `{"type":"bridge","isDefaultGateway":true,` + dual + `}`, want: []string{"route-default isDefaultGateway <true,\"ip>"}},
		"a bandwidth behind macvlan":              {config: `{"plugins":[{"type":"macvlan"},{"type":"bandwidth","ingressRate":1000000,"ingressBurst":1000000}]}`, want: []string{`plugin-chain plugins[1].type <"bandwid>`}},
		"a bandwidth for pods behind sriov":       {annotations: resource + "intel.com/nic", config: `{"plugins":[{"type":"sriov"},{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`, want: []string{"capability-unsupported plugins[1].capabilities.bandwidth <true}}]}>"}},
		"a bandwidth behind ptp":                  {config: `{"plugins":[{"type":"ptp",` + dual + `},{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`},
		"a bandwidth behind a foreign plugin":     {config: `{"plugins":[{"type":"calico"},{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`},
		"a route of IPv6 with the bits of a host": {config: host(`"ranges":[[{"subnet":"3ffe:ffff:0:1ff::/64"}]],"routes":[{"dst":"3ffe:ffff:0:01ff::1/64"}]`)},
		"ips of dhcp":                             {config: `{"type":"macvlan","capabilities":{"ips":true},"ipam":{"type":"dhcp"}}`, want: []string{"capability-unsupported capabilities.ips <\"ips\":tr>"}},
		"ips of host-local":                       {config: `{"type":"macvlan","capabilities":{"ips":true},` + dual + `}`},
		"a capability that is switched off":       {config: `{"type":"ipvlan","capabilities":{"mac":false},` + dual + `}`},
		"static that pods ask addresses of":       {config: `{"type":"macvlan","capabilities":{"ips":true},"ipam":{"type":"static"}}`},
		"sriov without a resource":                {config: `{"type":"sriov"}`, want: []string{`device-missing  <{"type":>`}},
		"sriov with one":                          {annotations: resource + "intel.com/nic", config: `{"type":"sriov","vlan":7,"trust":"on","logLevel":"debug"}`},
		"sriov with a bad switch":                 {annotations: resource + "intel.com/nic", config: `{"type":"sriov","trust":"yes"}`, want: []string{`sriov-config trust <"yes"}>`}},
		"sriov with many mistakes": {annotations: resource + "intel.com/nic", config: `{"type":"sriov","vlan":5000,"vlanQoS":9,"spoofchk":true,"trust":"yes","min_tx_rate":9,"max_tx_rate":8,"mtu":1}`, want: []string{
			"sriov-config vlan <5000,\"vl>", "sriov-config vlanQoS <9,\"spoof>", "sriov-config spoofchk <true,\"tr>", `sriov-config trust <"yes","m>`, "sriov-config min_tx_rate <9,\"max_t>", "sriov-config mtu <1}>",
		}},
		"sriov with an unknown key":                 {annotations: resource + "intel.com/nic", config: `{"type":"sriov","spoofcheck":"on"}`, want: []string{`key-unknown spoofcheck <"spoofch>`}},
		"a program of that name takes other values": {annotations: resource + "intel.com/nic", config: `{"type":"sriov","builtin":false,"trust":"yes"}`},
		"host-device that names none":               {config: `{"type":"host-device"}`, want: []string{`device-missing  <{"type":>`}},
		"host-device that names one":                {config: `{"type":"host-device","device":"eth7"}`},
		"a resource for nobody":                     {annotations: resource + "intel.com/nic", config: `{"type":"macvlan"}`, want: []string{"device-unused metadata.annotations <k8s.v1.c>"}},
		"a resource without a domain":               {annotations: resource + "nic", config: `{"type":"sriov"}`, want: []string{"resource-name metadata.annotations <k8s.v1.c>"}},
		"a resource of Kubernetes itself":           {annotations: resource + "x.kubernetes.io/nic", config: `{"type":"sriov"}`, want: []string{"resource-name metadata.annotations <k8s.v1.c>"}},
		"a resource for a plugin that may take it":  {annotations: resource + "intel.com/nic", config: `{"type":"userspace"}`},
		"a bandwidth without burst":                 {config: `{"plugins":[{"type":"macvlan"},{"type":"bandwidth","egressRate":5}]}`, want: []string{`plugin-chain plugins[1].type <"bandwid>`, "key-missing plugins[1].egressBurst <5}]}>"}},
		"a chained plugin alone":                    {config: `{"type":"tuning"}`, want: []string{`plugin-order type <"tuning">`}},
		"a subnet with host bits":                   {config: host(`"subnet":"10.0.0.5/24"`), want: []string{`ipam-invalid ipam.subnet <"10.0.0.>`}},
		"a subnet that is too small":                {config: host(`"ranges":[[{"subnet":"10.0.0.4/31"}]]`), want: []string{`ipam-invalid ipam.ranges[0][0].subnet <"10.0.0.>`}},
		"no subnet":                                 {config: host(`"ranges":[[{}]]`), want: []string{`ipam-invalid ipam.ranges[0][0].subnet <{}]]}}>`}},
		"a list too few":                            {config: host(`"ranges":[{"subnet":"10.0.0.0/24"}]`), want: []string{`ipam-invalid ipam.ranges[0] <{"subnet>`}},
		"no range":                                  {config: host(`"dataDir":"/x"`), want: []string{`key-missing ipam.ranges <{"type":>`}},
		"a range in reverse":                        {config: host(`"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"`), want: []string{`ipam-invalid ipam.rangeStart <"10.0.0.>`}},
		"both families in a set":                    {config: host(`"ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]`), want: []string{`ipam-invalid ipam.ranges[0] <[{"subne>`}},
		"ranges that overlap":                       {config: host(`"ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.99"}],[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.99"}]]`), want: []string{`ipam-overlap ipam.ranges[1][0].subnet <"10.0.0.>`}},
		"ranges side by side":                       {config: host(`"ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.98"}],[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.99"}]]`)},
		"a gateway of nobody":                       {config: host(`"ranges":[[{"subnet":"10.0.0.0/24"}]],"gateway":"10.0.0.1"`), want: []string{`key-unknown ipam.gateway <"10.0.0.>`}},
		"a route with host bits":                    {config: host(`"subnet":"10.0.0.0/24","routes":[{"dst":"10.0.0.1/8"}]`), want: []string{`ipam-invalid ipam.routes[0].dst <"10.0.0.>`}},
		"a route by a gateway of the other family":  {config: host(`"subnet":"10.0.0.0/24","routes":[{"dst":"10.0.0.0/8","gw":"fd00::1"}]`), want: []string{`ipam-invalid ipam.routes[0].gw <"fd00::1>`}},
		"a static address without its prefix":       {config: `{"type":"macvlan","ipam":{"type":"static","addresses":[{"address":"10.0.0.1"}]}}`, want: []string{`ipam-invalid ipam.addresses[0].address <"10.0.0.>`}},
		"a static gateway outside":                  {config: `{"type":"macvlan","ipam":{"type":"static","addresses":[{"address":"10.0.0.1/24","gateway":"10.1.0.1"}]}}`, want: []string{`gateway-outside ipam.addresses[0].gateway <"10.1.0.>`}},
		"portmap that marks twice":                  {config: `{"plugins":[{"type":"ptp",` + dual + `},{"type":"portmap","markMasqBit":3,"externalSetMarkChain":"X"}]}`, want: []string{`key-value plugins[1].externalSetMarkChain <"X"}]}>`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := manifestOf("net", tc.annotations, tc.config)
			found, n := Run([]File{{Name: "f.yaml", Data: []byte(data)}}, Options{Types: tc.types})
			if diff := cmp.Diff(tc.want, brief(found, data)); diff != "" || n != 1 {
				t.Errorf("%d definitions, findings (-want +got):\n%s", n, diff)
			}
		})
	}
}

func TestNetworksOverlapUnlessTheyShareTheirLeases(t *testing.T) {
	t.Parallel()
	conf := func(name, subnet string) string {
		return fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"type":"macvlan","ipam":{"type":"host-local","subnet":%q}}`, name, subnet)
	}
	run := func(configs ...string) []string {
		var files []File
		for i, c := range configs {
			files = append(files, File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(manifestOf(fmt.Sprintf("net%d", i), "", c))})
		}
		found, _ := Run(files, Options{})
		var all []string
		for _, f := range found {
			all = append(all, f.File+" "+f.Code)
		}
		return all
	}
	for name, tc := range map[string]struct{ got, want []string }{
		"apart":                     {got: run(conf("a", "10.0.0.0/24"), conf("b", "10.0.1.0/24"))},
		"overlapping":               {got: run(conf("a", "10.0.0.0/24"), conf("b", "10.0.0.0/16")), want: []string{"1.yaml network-overlap"}},
		"sharing":                   {got: run(conf("a", "10.0.0.0/24"), conf("a", "10.0.0.0/16"))},
		"a third behind two shared": {got: run(conf("a", "10.0.0.0/16"), conf("b", "10.0.1.0/24"), conf("a", "10.0.1.128/25")), want: []string{"1.yaml network-overlap", "2.yaml network-overlap"}},
	} {
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWhatIsTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	found, _ := Run([]File{{Name: "large.yaml", Data: bytes.Repeat([]byte("#"), manifest.MaxFileBytes+1)}}, Options{})
	if len(found) != 1 || found[0].Code != ManifestInvalid {
		t.Errorf("a large file: %v", found)
	}
	// An error among more warnings than are shown has to fail all the same.
	keys := &strings.Builder{}
	for i := range MaxFindings + 1 {
		fmt.Fprintf(keys, `"key%d":1,`, i)
	}
	data := manifestOf("net", "", "{"+keys.String()+`"type":"macvlan","mtu":"1"}`)
	found, _ = Run([]File{{Name: "many.yaml", Data: []byte(data)}}, Options{})
	if len(found) != MaxFindings+1 || !found.Fails(finding.Error) || found[MaxFindings].Code != TooMany {
		t.Errorf("%d findings, fails %v", len(found), found.Fails(finding.Error))
	}
}

func TestCodesAreComplete(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	var constants, kinds []string
	for _, m := range regexp.MustCompile(`(?m)^\t[A-Z]\w+ += "([^"]+)"$`).FindAllStringSubmatch(string(source), -1) {
		constants = append(constants, m[1])
	}
	for _, k := range Kinds() {
		kinds = append(kinds, k.Code)
	}
	if diff := cmp.Diff(constants, kinds); diff != "" {
		t.Errorf("(-constants +Kinds):\n%s", diff)
	}
}

// FuzzRun holds the check to its promise: what has no error is not refused by Plexus, and every finding is a known one and stands in
// the file.
func FuzzRun(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "mistakes.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		f.Add([]byte(doc))
	}
	f.Add([]byte("{\"apiVersion\":\"k8s.cni.cncf.io/v1\",\"kind\":\"NetworkAttachmentDefinition\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"config\":\"{\\\"type\\\":\\\"sriov\\\"}\"}}"))
	f.Add([]byte("kind: List\nitems: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, _ := Run([]File{{Name: "f", Data: data}}, Options{})
		codes := Kinds()
		breaks := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + bytes.Count(data, []byte("\u0085")) + bytes.Count(data, []byte("\u2028")) + bytes.Count(data, []byte("\u2029"))
		for _, x := range found {
			if !slices.ContainsFunc(codes, func(k finding.Kind) bool { return k.Code == x.Code && k.Severity == x.Severity }) {
				t.Errorf("unknown finding %v", x)
			}
			if x.Line < 0 || x.Line > breaks+1 || x.Column < 0 || x.Text == "" {
				t.Errorf("line %d of %d: %v", x.Line, breaks+1, x)
			}
		}
		if found.Fails(finding.Error) {
			return
		}
		objects, err := manifest.Parse(data)
		if err != nil {
			t.Fatalf("no error, but %v", err)
		}
		for _, d := range objects.Definitions {
			if d.Config == "" {
				continue
			}
			if _, err := nad.Normalize([]byte(d.Config), nad.Defaults{Name: d.Ref.Name, CNIVersion: "1.0.0"}); err != nil {
				t.Errorf("no error, but %v", err)
			}
		}
	})
}
