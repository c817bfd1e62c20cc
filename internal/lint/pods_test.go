// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnnotationsOfPods(t *testing.T) {
	t.Parallel()
	const key = "k8s.v1.cni.cncf.io/networks"
	pod := func(annotations string) string {
		return "kind: Pod\nmetadata:\n  name: web\n  namespace: shop\n  annotations:\n    " + annotations + "\n"
	}
	for name, tc := range map[string]struct {
		manifest string
		checked  int
		want     []string
		says     string
	}{
		"a pod that selects networks":       {manifest: pod(key + ": storage, mgmt@net2"), checked: 1},
		"a pod that selects none":           {manifest: pod("app: web")},
		"what a meta-plugin wrote":          {manifest: pod("k8s.v1.cni.cncf.io/network-status: '[]'")},
		"a key that lacks a letter":         {manifest: pod("k8s.v1.cni.cncf.io/network: storage"), want: []string{"annotation-unknown metadata.annotations <k8s.v1.c>"}, says: `perhaps "k8s.v1.cni.cncf.io/networks" is meant`},
		"a key of the convention's":         {manifest: pod("k8s.v1.cni.cncf.io/policy-for: x"), want: []string{"annotation-unknown metadata.annotations <k8s.v1.c>"}},
		"a key of an element that has none": {manifest: pod(key + `: '[{"name":"a","interfaceName":"eth1"}]'`), checked: 1, want: []string{"annotation-unknown metadata.annotations <k8s.v1.c>"}, says: `key "interfaceName" means nothing to Plexus: did you mean "interface"?`},
		"an annotation that is refused":     {manifest: pod(key + `: '[{"name":"a"}{"name":"b"}]'`), checked: 1, want: []string{"annotation-invalid metadata.annotations <k8s.v1.c>"}, says: "no valid JSON at byte 14"},
		"a default network, refused":        {manifest: pod("v1.multus-cni.io/default-network: a,b"), checked: 1, want: []string{"annotation-invalid metadata.annotations <v1.multu>"}},
		"a List of pods":                    {manifest: "kind: List\nitems:\n- kind: Pod\n  metadata: {name: web, annotations: {" + key + ": '['}}\n", checked: 1, want: []string{"annotation-invalid metadata.annotations <k8s.v1.c>"}},
		"the pods of a Deployment":          {manifest: "kind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    metadata:\n      annotations: {" + key + ": '['}\n", checked: 1, want: []string{"annotation-invalid metadata.annotations <k8s.v1.c>"}, says: "Deployment default/web"},
		"the pods of a CronJob":             {manifest: "kind: CronJob\nmetadata: {name: web}\nspec: {jobTemplate: {spec: {template: {metadata: {annotations: {" + key + ": storage}}}}}}\n", checked: 1},
		"a Deployment itself":               {manifest: "kind: Deployment\nmetadata:\n  name: web\n  annotations:\n    " + key + ": storage\n", want: []string{"annotation-misplaced metadata.annotations <k8s.v1.c>"}, says: "move it to spec.template.metadata.annotations"},
		"a template that is none":           {manifest: "kind: Deployment\nmetadata: {name: web}\nspec: [1]\n"},
		"annotations that are no object":    {manifest: "kind: Job\nmetadata: {name: web, annotations: [1]}\n"},
		"another kind":                      {manifest: "kind: ConfigMap\nmetadata:\n  name: web\n  annotations:\n    " + key + ": '['\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, n := Run([]File{{Name: "f.yaml", Data: []byte(tc.manifest)}}, Options{})
			if diff := cmp.Diff(tc.want, brief(found, tc.manifest)); diff != "" || n != tc.checked {
				t.Errorf("%d objects checked; want %d; findings (-want +got):\n%s", n, tc.checked, diff)
			}
			if text := fmt.Sprint(found); !strings.Contains(text, tc.says) {
				t.Errorf("%s; want %q in it", text, tc.says)
			}
		})
	}
}

func TestNamespacesThatShareLeases(t *testing.T) {
	t.Parallel()
	nad := func(namespace, name, subnet string) string {
		return strings.Replace(manifestOf(name, "", `{"cniVersion":"1.0.0","type":"macvlan","ipam":{"type":"host-local","subnet":"`+subnet+`"}}`), "  name: ", "  namespace: "+namespace+"\n  name: ", 1)
	}
	for name, tc := range map[string]struct {
		manifest string
		want     []string
	}{
		"of one name and the same addresses": {manifest: nad("a", "net", "10.0.0.0/24") + nad("b", "net", "10.0.0.0/25"), want: []string{`leases-shared ipam.subnet <"10.0.0.>`}},
		"of one name and other addresses":    {manifest: nad("a", "net", "10.0.0.0/24") + nad("b", "net", "10.0.1.0/24")},
		"of two names":                       {manifest: nad("a", "net", "10.0.0.0/24") + nad("b", "other", "10.0.0.0/24"), want: []string{`network-overlap ipam.subnet <"10.0.0.>`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, _ := Run([]File{{Name: "f.yaml", Data: []byte(tc.manifest)}}, Options{})
			if diff := cmp.Diff(tc.want, brief(found, tc.manifest)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
