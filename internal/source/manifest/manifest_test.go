// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

const podWeb = `apiVersion: v1
kind: Pod
metadata:
  name: web
  uid: u1
  annotations:
    k8s.v1.cni.cncf.io/networks: shop/storage
spec:
  containers: [{name: c, image: i}]
`

const netStorage = `apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: storage, namespace: shop}
spec:
  config: '{"type":"bridge"}'
`

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoad(t *testing.T) {
	t.Parallel()
	web := source.Pod{
		Ref:         pod.Ref{Namespace: "default", Name: "web", UID: "u1"},
		Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "shop/storage"},
	}
	storage := nad.Definition{Ref: nad.Ref{Namespace: "shop", Name: "storage"}, Config: `{"type":"bridge"}`}
	tests := map[string]struct {
		files map[string]string
		want  Objects
	}{
		"an empty folder": {},
		"a file each": {
			files: map[string]string{"pod.yaml": podWeb, "nad.yml": netStorage},
			want:  Objects{Pods: []source.Pod{web}, Definitions: []nad.Definition{storage}},
		},
		"several documents in one file": {
			files: map[string]string{"all.yaml": "# first\n---\n" + podWeb + "--- # second\n" + netStorage + "---\n\n"},
			want:  Objects{Pods: []source.Pod{web}, Definitions: []nad.Definition{storage}},
		},
		"documents that end by dots": {
			files: map[string]string{"all.yaml": podWeb + "...\n" + netStorage},
			want:  Objects{Pods: []source.Pod{web}, Definitions: []nad.Definition{storage}},
		},
		"a list as the API server writes it, without kinds": {
			files: map[string]string{"l.json": `{"kind":"NetworkAttachmentDefinitionList","items":[{"metadata":{"name":"storage","namespace":"shop"},"spec":{"config":"{\"type\":\"bridge\"}"}}]}`},
			want:  Objects{Definitions: []nad.Definition{storage}},
		},
		"a List": {
			files: map[string]string{"l.json": `{"kind":"List","items":[{"kind":"NetworkAttachmentDefinition","metadata":{"name":"storage","namespace":"shop"},"spec":{"config":"{\"type\":\"bridge\"}"}}]}`},
			want:  Objects{Definitions: []nad.Definition{storage}},
		},
		"other kinds, hidden files and other endings are left alone": {
			files: map[string]string{
				"d.yaml":     "kind: Deployment\nspec: {config: {a: 1}}\n",
				".hid.yaml":  podWeb,
				"README.md":  "# not YAML: {",
				"notes.yaml": "just: text\n",
			},
		},
		"a resource that the network consumes": {
			files: map[string]string{"n.yaml": "kind: NetworkAttachmentDefinition\nmetadata: {name: vf, annotations: {k8s.v1.cni.cncf.io/resourceName: intel.com/vf}}\n"},
			want:  Objects{Definitions: []nad.Definition{{Ref: nad.Ref{Namespace: "default", Name: "vf"}, ResourceName: "intel.com/vf"}}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Load(folder(t, tc.files))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tc.want, got, cmpopts.IgnoreUnexported(Objects{})); diff != "" {
				t.Errorf("Load (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		says  []string
	}{
		"YAML that is none":               {map[string]string{"a.yaml": "a: [1\n"}, []string{"a.yaml", "document 1"}},
		"UTF-16":                          {map[string]string{"a.yaml": "\xff\xfek\x00i\x00n\x00d\x00"}, []string{"a.yaml", "UTF-16", "write it in UTF-8"}},
		"a configuration that is no text": {map[string]string{"a.yaml": "kind: NetworkAttachmentDefinition\nmetadata: {name: a}\nspec: {config: {type: x}}\n"}, []string{"a.yaml", "spec.config is a JSON object", "config: |"}},
		"a List in a List":                {map[string]string{"a.yaml": "kind: List\nitems: [{kind: List, items: []}]\n"}, []string{"a.yaml", "items[0]", "a List in a List"}},
		"the number of a document":        {map[string]string{"a.yaml": podWeb + "---\n- 1\n"}, []string{"a.yaml", "document 2", "not a Kubernetes object"}},
		"one pod twice":                   {map[string]string{"a.yaml": podWeb, "b.yaml": podWeb}, []string{"Pod default/web", "a.yaml", "b.yaml"}},
		"a field of the wrong type":       {map[string]string{"a.yaml": "kind: NetworkAttachmentDefinition\nmetadata: {name: net}\nspec: {config: {type: bridge}}\n"}, []string{"spec.config"}},
		"a name with a path":              {map[string]string{"a.yaml": "kind: Pod\nmetadata: {name: ../../etc/passwd}\n"}, []string{"a.yaml", "metadata"}},
		"a name with another namespace":   {map[string]string{"a.yaml": "kind: Pod\nmetadata: {name: kube-system/x}\n"}, []string{"a.yaml", "metadata"}},
		"no name":                         {map[string]string{"a.yaml": "kind: Pod\n"}, []string{"a.yaml", "metadata"}},
		"a file that is too large":        {map[string]string{"a.yaml": strings.Repeat("#", MaxFileBytes+1)}, []string{"a.yaml", "split it"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(folder(t, tc.files))
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Load: %v, want ErrInvalid", err)
			}
			for _, s := range tc.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
		})
	}
}

func TestLoadRefusesAFolderThatIsNotThere(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	if _, err := Load(dir); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Load = %v, want ErrInvalid naming %s", err, dir)
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	s := New(folder(t, map[string]string{"pod.yaml": podWeb, "nad.yaml": netStorage}))
	sel, err := s.Lookup(t.Context(), source.Query{Pod: pod.Ref{Namespace: "default", Name: "web", UID: "u1"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(sel.Networks) != 1 || sel.Networks[0].Config != `{"type":"bridge"}` {
		t.Errorf("Lookup = %+v, want the network shop/storage", sel)
	}
	for name, tc := range map[string]struct {
		pod  pod.Ref
		kind error
	}{
		"a pod that is not there may come": {pod.Ref{Namespace: "default", Name: "other"}, source.ErrTryAgain},
		"a pod that was replaced":          {pod.Ref{Namespace: "default", Name: "web", UID: "u0"}, source.ErrTryAgain},
	} {
		if _, err = s.Lookup(t.Context(), source.Query{Pod: tc.pod}); !errors.Is(err, tc.kind) {
			t.Errorf("%s: Lookup = %v, want %v", name, err, tc.kind)
		}
	}
	sel, err = s.Lookup(t.Context(), source.Query{ClusterNetwork: "storage", NetworksNamespace: "shop"})
	if err != nil || sel.Default == nil || sel.Default.Missing || sel.Networks != nil {
		t.Errorf("a query without a pod: %+v, %v, want the configured network", sel, err)
	}
}

func TestAManifestThatIsNotSoundStopsWhatItIsAbout(t *testing.T) {
	t.Parallel()
	const pod = "kind: Pod\nmetadata: {name: %s, annotations: {%s}}\n"
	files := map[string]string{
		"pod.yaml": podWeb, "nad.yaml": netStorage, "cut.yaml": "a: [1\n",
		"bad.yaml": fmt.Sprintf(pod, "bad", "k8s.v1.cni.cncf.io/networks: 5") + "---\n" + fmt.Sprintf(pod, "good", "a: b") +
			"---\n" + fmt.Sprintf(pod, "user", "k8s.v1.cni.cncf.io/networks: bad"),
		"bad-nad.yaml": "kind: NetworkAttachmentDefinition\nmetadata: {name: bad}\nspec: {config: {type: x}}\n",
		"one.yaml":     fmt.Sprintf(pod, "twice", "a: b"), "two.yaml": fmt.Sprintf(pod, "twice", "a: c"),
	}
	s := New(folder(t, files))
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("Ready = %v", err)
	}
	for name, says := range map[string][]string{
		"web": nil, "good": nil,
		"bad":   {"bad.yaml", "Pod default/bad", `annotation "k8s.v1.cni.cncf.io/networks" is 5`, "quotes"},
		"user":  {"bad-nad.yaml", "NetworkAttachmentDefinition default/bad", "spec.config is a JSON object"},
		"twice": {"Pod default/twice", "one.yaml", "two.yaml", "remove one"},
		"none":  {"no Pod default/none", "cut.yaml"},
	} {
		sel, err := s.Lookup(t.Context(), source.Query{Pod: podRef(name)})
		if says == nil && (err != nil || len(sel.Warnings) != 4 || !strings.Contains(strings.Join(sel.Warnings, " "), "bad.yaml")) {
			t.Errorf("%s: Lookup = %+v, %v; want it, with four warnings", name, sel, err)
		}
		for _, text := range says {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: Lookup = %v; want an error saying %q", name, err, text)
			}
		}
	}
	sel, err := s.Lookup(t.Context(), source.Query{Pod: podRef("none"), PodOptional: true, ClusterNetwork: "storage", NetworksNamespace: "shop"})
	if err != nil || sel.Default == nil || !sel.Pod.IsZero() {
		t.Errorf("Lookup of a pod that need not be there = %+v, %v; want what the configuration names", sel, err)
	}
}

func podRef(name string) pod.Ref { return pod.Ref{Namespace: "default", Name: name} }

func TestReportWritesTheStatusBeside(t *testing.T) {
	t.Parallel()
	s := New(folder(t, map[string]string{"pod.yaml": podWeb}))
	p := pod.Ref{Namespace: "default", Name: "web"}
	status := []annotations.Status{{Name: "cluster", Interface: "eth0", IPs: []string{"10.1.0.2"}, Default: true}}
	for range 2 { // the second replaces the first
		if err := s.Report(t.Context(), source.Report{Pod: p, Status: status}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(s.StatusFile(p))
	if err != nil {
		t.Fatal(err)
	}
	got, err := annotations.ParseStatus(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(status, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if _, err := Load(s.dir); err != nil {
		t.Errorf("the status beside them disturbs the manifests: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(podWeb))
	f.Add([]byte(podWeb + "---\n" + netStorage))
	f.Add([]byte("kind: List\nitems: [{kind: Pod, metadata: {name: a}}]\n"))
	f.Add([]byte("---\n---\n--- \n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := Parse(data)
		if err != nil {
			return
		}
		for _, p := range o.Pods {
			if p.Ref.Name == "" || p.Ref.Namespace == "" || strings.Contains(fmt.Sprint(p.Ref.Name, p.Ref.Namespace), "/") {
				t.Errorf("accepted a pod named %q", p.Ref)
			}
		}
	})
}
