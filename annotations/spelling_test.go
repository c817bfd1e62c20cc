// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKnownKeysInOtherLettersAndDoubledOnesAreRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ value, says string }{
		"name in capitals":              {`[{"name":"harmless","NAME":"n1"}]`, `element 1 ("n1"): key "NAME" is "name" in other letters: write "name"`},
		"a request in capitals":         {`[{"name":"a","MAC":"02:00:00:00:00:01"}]`, `key "MAC" is "mac" in other letters`},
		"a request in mixed letters":    {`[{"name":"a","iPs":["10.0.0.1"]}]`, `key "iPs" is "ips"`},
		"a letter that folds to one":    {`[{"name":"a","ipſ":["10.0.0.1"]}]`, `is "ips" in other letters`},
		"a key with an escape, doubled": {`[{"name":"a","\u006eame":"b"}]`, `name is there twice: keep one`},
		"cni-args in capitals":          {`[{"name":"a","CNI-ARGS":{"x":1}}]`, `is "cni-args" in other letters`},
		"a port in capitals":            {`[{"name":"a","portMappings":[{"hostPort":1,"containerPort":1,"HOSTPORT":22}]}]`, `key "portMappings.HOSTPORT" is "hostPort"`},
		"a rate twice":                  {`[{"name":"a","bandwidth":{"ingressRate":1,"ingressBurst":1,"ingressRate":9}}]`, `bandwidth.ingressRate is there twice`},
	} {
		_, err := ParseNetworks(tc.value, "default")
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: ParseNetworks(%s) = %v, want an error saying %q", name, tc.value, err, tc.says)
		}
	}
}

func TestInterfaceNamesThatAShellMisreadsAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"-h", "--help", "$(id)", "`id`", ";id;", "*", "a=b", "~", ".eth", "a b", "é1", "a\xa0b", "a:1", "a/b", "a%d", "a\x00"} {
		if err := ValidateInterfaceName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("ValidateInterfaceName(%q) = %v, want an error", name, err)
		}
	}
	for _, name := range []string{"net1", "eth0.100", "pod37a8eec1ce1", "my_interface", "_x", "A-b", "0"} {
		if err := ValidateInterfaceName(name); err != nil {
			t.Errorf("ValidateInterfaceName(%q) = %v", name, err)
		}
	}
}

func TestNoticesNameWhatIsMeant(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pod  map[string]string
		want []string
	}{
		"nothing":    {map[string]string{NetworksKey: `[{"name":"a","mac":"02:00:00:00:00:01"}]`, "example.com/networks": "x", NetworkStatusKey: "[]"}, nil},
		"short form": {map[string]string{NetworksKey: "a,b"}, nil},
		"keys of elements": {map[string]string{NetworksKey: `[{"name":"a"},{"name":"b","interfaceName":"x","ip":"10.0.0.1","colour":1}]`}, []string{
			`annotation k8s.v1.cni.cncf.io/networks, element 2: key "interfaceName" means nothing to Plexus: did you mean "interface"?`,
			`annotation k8s.v1.cni.cncf.io/networks, element 2: key "ip" means nothing to Plexus: did you mean "ips"?`,
			`annotation k8s.v1.cni.cncf.io/networks, element 2: key "colour" means nothing to Plexus`,
		}},
		"a letter less":     {map[string]string{"k8s.v1.cni.cncf.io/network": "a"}, []string{`annotation "k8s.v1.cni.cncf.io/network" means nothing to Plexus: did you mean k8s.v1.cni.cncf.io/networks?`}},
		"without version":   {map[string]string{"k8s.cni.cncf.io/networks": "a"}, []string{`annotation "k8s.cni.cncf.io/networks" means nothing to Plexus: did you mean k8s.v1.cni.cncf.io/networks?`}},
		"a letter more":     {map[string]string{"v1.multus-cni.io/default-networks": "a"}, []string{`annotation "v1.multus-cni.io/default-networks" means nothing to Plexus: did you mean v1.multus-cni.io/default-network?`}},
		"in other letters":  {map[string]string{"k8s.v1.cni.cncf.io/Networks": "a"}, []string{`annotation "k8s.v1.cni.cncf.io/Networks" means nothing to Plexus: did you mean k8s.v1.cni.cncf.io/networks?`}},
		"no JSON, no panic": {map[string]string{NetworksKey: `[{"name":`, DefaultNetworkKey: `[1,null,"x"]`}, nil},
	} {
		if diff := cmp.Diff(tc.want, Notices(tc.pod)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	many := "[{" + strings.Repeat(`"x":1,`, 100) + `"name":"a"}]`
	if got := Notices(map[string]string{NetworksKey: many}); len(got) != maxNotices {
		t.Errorf("%d notices, want %d", len(got), maxNotices)
	}
}
