// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func TestWireFormat(t *testing.T) {
	t.Parallel()
	meta := metav1.TypeMeta{APIVersion: "k8s.cni.cncf.io/v1", Kind: "NetworkAttachmentDefinition"}
	full := NetworkAttachmentDefinition{
		TypeMeta: meta,
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   "default",
			Name:        "business-net",
			Annotations: map[string]string{"k8s.v1.cni.cncf.io/resourceName": "example.com/vf"},
		},
		Spec: NetworkAttachmentDefinitionSpec{Config: `{"type":"macvlan","master":"eth1"}`},
	}
	empty := NetworkAttachmentDefinition{TypeMeta: meta, ObjectMeta: metav1.ObjectMeta{Name: "from-a-file"}}
	tests := map[string]struct {
		object, decoded runtime.Object
	}{
		"definition":            {&full, &NetworkAttachmentDefinition{}},
		"definition-empty-spec": {&empty, &NetworkAttachmentDefinition{}},
		"list": {
			&NetworkAttachmentDefinitionList{
				TypeMeta: metav1.TypeMeta{APIVersion: "k8s.cni.cncf.io/v1", Kind: "NetworkAttachmentDefinitionList"},
				ListMeta: metav1.ListMeta{ResourceVersion: "7"},
				Items:    []NetworkAttachmentDefinition{full, empty},
			},
			&NetworkAttachmentDefinitionList{},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := json.MarshalIndent(test.object, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, name, string(got)+"\n")
			if err := json.Unmarshal(got, test.decoded); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.object, test.decoded); diff != "" {
				t.Errorf("decoded: -want +got:\n%s", diff)
			}
		})
	}
}

func TestDecodesADefinitionWithoutSpec(t *testing.T) {
	t.Parallel()
	var got NetworkAttachmentDefinition
	if err := json.Unmarshal([]byte(`{"metadata":{"name":"a"}}`), &got); err != nil {
		t.Fatal(err)
	}
	want := NetworkAttachmentDefinition{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSchemeKnowsTheTypes(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for kind, object := range map[string]runtime.Object{
		"NetworkAttachmentDefinition":     &NetworkAttachmentDefinition{},
		"NetworkAttachmentDefinitionList": &NetworkAttachmentDefinitionList{},
	} {
		got, err := scheme.New(GroupVersion.WithKind(kind))
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(object, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", kind, diff)
		}
	}
}

func TestDeepCopySharesNothing(t *testing.T) {
	t.Parallel()
	list := &NetworkAttachmentDefinitionList{Items: []NetworkAttachmentDefinition{
		{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"k": "v"}}},
	}}
	list.DeepCopy().Items[0].Annotations["k"] = "changed"
	if got := list.Items[0].Annotations["k"]; got != "v" {
		t.Errorf("the original became %q", got)
	}
}

// The names are what clusters know the resource by: one that differs would make
// another resource of it.
func TestCRD(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../deploy/crd/k8s.cni.cncf.io_network-attachment-definitions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type property struct {
		Type       string              `json:"type"`
		Required   []string            `json:"required"`
		Properties map[string]property `json:"properties"`
	}
	type versionSpec struct {
		Name    string `json:"name"`
		Served  bool   `json:"served"`
		Storage bool   `json:"storage"`
		Schema  struct {
			OpenAPIV3Schema property `json:"openAPIV3Schema"`
		} `json:"schema"`
	}
	type names struct {
		Kind       string   `json:"kind"`
		ListKind   string   `json:"listKind"`
		Plural     string   `json:"plural"`
		Singular   string   `json:"singular"`
		ShortNames []string `json:"shortNames"`
	}
	type crd struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Group    string        `json:"group"`
			Scope    string        `json:"scope"`
			Names    names         `json:"names"`
			Versions []versionSpec `json:"versions"`
		} `json:"spec"`
	}

	var want crd
	want.APIVersion, want.Kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
	want.Metadata.Name = "network-attachment-definitions.k8s.cni.cncf.io"
	want.Spec.Group, want.Spec.Scope = GroupVersion.Group, "Namespaced"
	want.Spec.Names = names{
		Kind:       "NetworkAttachmentDefinition",
		ListKind:   "NetworkAttachmentDefinitionList",
		Plural:     "network-attachment-definitions",
		Singular:   "network-attachment-definition",
		ShortNames: []string{"nad", "net-attach-def"},
	}
	v1 := versionSpec{Name: GroupVersion.Version, Served: true, Storage: true}
	v1.Schema.OpenAPIV3Schema = property{Type: "object", Properties: map[string]property{
		"apiVersion": {Type: "string"},
		"kind":       {Type: "string"},
		"metadata":   {Type: "object"},
		"spec":       {Type: "object", Properties: map[string]property{"config": {Type: "string"}}},
	}}
	want.Spec.Versions = []versionSpec{v1}

	var got crd
	if err := yaml.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
