// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWhatIsNotThereIsTold: what Multus and its companions did, and what no parser of Plexus refuses, is told all the same.
func TestWhatIsNotThereIsTold(t *testing.T) {
	t.Parallel()
	network := func(config string) string {
		return fmt.Sprintf("kind: NetworkAttachmentDefinition\nmetadata: {name: net, annotations: {k8s.v1.cni.cncf.io/resourceName: intel.com/vf}}\nspec: {config: '%s'}\n", config)
	}
	pod := func(annotations string) string {
		return "kind: Pod\nmetadata: {name: p, annotations: {" + annotations + "}}\n"
	}
	for name, tc := range map[string]struct {
		in      string
		want    []string // code, severity, field
		says    string
		refused int
	}{
		"sriov-cni's values": {
			in:   network(`{"cniVersion":"0.3.1","type":"sriov","spoofchk":"OFF","trust":"yes","min_tx_rate":9,"max_tx_rate":8}`),
			want: []string{"sriov-config error spec.config, min_tx_rate", "sriov-config error spec.config, spoofchk", "sriov-config error spec.config, trust"}, says: `"trust" is "yes"`, refused: 1,
		},
		"sriov-cni itself":               {in: network(`{"cniVersion":"0.3.1","type":"sriov","builtin":false,"trust":"yes"}`)},
		"what never worked":              {in: network(`{"cniVersion":"0.3.1","type":"host-device","ipam":{"type":"host-local","subnet":"10.0.0.0"}}`), want: []string{"ipam-invalid warning spec.config, ipam.subnet"}},
		"a plugin of one's own":          {in: network(`{"cniVersion":"0.3.1","type":"mine","keys":1}`)},
		"a long configuration":           {in: network(`{"cniVersion":"0.3.1","type":"mine","x":"` + strings.Repeat("x", MaxConfigBytes) + `"}`), want: []string{"config-too-long error spec.config"}, says: "allows 65536"},
		"a key that is almost one":       {in: pod("k8s.v1.cni.cncf.io/network: net"), want: []string{"annotation-unknown warning "}, says: "did you mean k8s.v1.cni.cncf.io/networks?"},
		"a key of an element, almost":    {in: network(`{"cniVersion":"0.3.1","type":"mine"}`) + "---\n" + pod(`k8s.v1.cni.cncf.io/networks: '[{"name":"net","ip":["10.0.0.1"]}]'`), want: []string{"annotation-unknown warning "}, says: `did you mean "ips"?`},
		"the controller of hot plug":     {in: "kind: Pod\nmetadata: {name: p, namespace: kube-system}\nspec: {containers: [{image: ghcr.io/k8snetworkplumbingwg/multus-dynamic-networks-controller:latest}]}\n", want: []string{"hot-plug-unsupported warning "}},
		"a resource without devices":     {in: strings.Replace(network(`{"cniVersion":"0.3.1","type":"cnv-bridge","bridge":"br1","ipam":{}}`), "intel.com/vf", "bridge.network.kubevirt.io/br1", 1) + "---\nkind: Pod\nmetadata: {name: p, annotations: {k8s.v1.cni.cncf.io/networks: net}}\nspec: {containers: [{resources: {limits: {bridge.network.kubevirt.io/br1: 1}}}]}\n"},
		"an address that a plugin takes": {in: network(`{"cniVersion":"0.3.1","type":"bridge","ipam":{"type":"static"}}`) + "---\n" + pod(`k8s.v1.cni.cncf.io/networks: '[{"name":"net","mac":"02:00:00:00:00:01","ips":["10.0.0.5/24"]}]'`), want: []string{"key-missing warning spec.config, ipam.addresses"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			findings, counts := examine(t, tc.in)
			var got []string
			for _, f := range findings {
				got = append(got, fmt.Sprintf("%s %s %s", f.Code, f.Severity, f.Field))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || counts.NetworksRefused != tc.refused {
				t.Errorf("%d networks refused; findings (-want +got):\n%s\n%+v", counts.NetworksRefused, diff, findings)
			}
			if !strings.Contains(fmt.Sprint(findings), tc.says) {
				t.Errorf("%v; want %q in it", findings, tc.says)
			}
		})
	}
}

func TestStepsNameTheFileOfTheNode(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(root, "etc/cni/net.d/05-m.conf"): "on each node /etc/cni/net.d/05-m.conf",
		"/tmp/m.conf": "on each node 00-multus.conf in /etc/cni/net.d",
	} {
		f, err := ParseConf(path, []byte(`{"type": "multus", "clusterNetwork": "/etc/cni/net.d/10-a.conf"}`))
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewReport(Input{Conf: f, Target: Kubernetes, Root: root}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(r.Steps, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("steps for %s: %q; want %q in one", path, r.Steps, want)
		}
	}
}
