// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nadv1 "github.com/plexus-cni/plexus/nad/v1"
)

func TestDecodeList(t *testing.T) {
	t.Parallel()
	const items = `[{"metadata":{"name":"a"},"spec":{"config":"1"}},{"metadata":{"name":"b"},"spec":{"config":"2"}}]`
	for name, text := range map[string]string{
		"as Kubernetes writes it":  `{"apiVersion":"k8s.cni.cncf.io/v1","items":` + items + `,"kind":"List","metadata":{"resourceVersion":"7","continue":"c"}}`,
		"metadata first":           `{"metadata":{"resourceVersion":"7","continue":"c"},"items":` + items + `}`,
		"with keys that are new":   `{"other":[{"items":[1]}],"metadata":{"resourceVersion":"7","continue":"c","x":1},"items":` + items + `}`,
		"with blanks between them": "{ \"metadata\" :\n{\"resourceVersion\":\"7\",\"continue\":\"c\"} , \"items\" : " + items + " }\n",
	} {
		got, meta, err := decodeList(strings.NewReader(text), func(d *nadv1.NetworkAttachmentDefinition) { d.Spec.Config += " trimmed" })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got) != 2 || got[0].Name != "a" || got[1].Spec.Config != "2 trimmed" || meta.ResourceVersion != "7" || meta.Continue != "c" {
			t.Errorf("%s: %+v %+v", name, got, meta)
		}
	}
	for _, empty := range []string{`{}`, `{"items":null}`, `{"items":[]}`} {
		if got, _, err := decodeList(strings.NewReader(empty), func(*nadv1.NetworkAttachmentDefinition) {}); err != nil || len(got) != 0 {
			t.Errorf("%s: %v, %v", empty, got, err)
		}
	}
}

func TestDecodeListRefuses(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		``: "EOF", `[]`: "an object", `null`: "an object", `{"items":{}}`: "an array", `{"items":[{"metadata":1}]}`: "items", `{"items":[{}`: "EOF", `{"items":[{}]`: "EOF", `{"metadata":[]}`: "metadata",
	} {
		if got, _, err := decodeList(strings.NewReader(text), func(*nadv1.NetworkAttachmentDefinition) {}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v; want an error saying %q", text, got, err, says)
		}
	}
}

// many is a list of n definitions of size bytes each, which takes no memory.
func many(n, size int) io.Reader {
	r, w := io.Pipe()
	go func() {
		config := strings.Repeat("x", size)
		_, _ = io.WriteString(w, `{"items":[`)
		for i := range n {
			if i > 0 {
				_, _ = io.WriteString(w, ",")
			}
			_, _ = fmt.Fprintf(w, `{"metadata":{"namespace":"default","name":"n%d","uid":"u%d"},"spec":{"config":%q}}`, i, i, config)
		}
		_, _ = io.WriteString(w, `],"metadata":{"resourceVersion":"1"}}`)
		_ = w.Close()
	}()
	return r
}

func TestConfigurationsInMemoryAreBoundedTogether(t *testing.T) {
	t.Parallel()
	c := &Cache{kept: keptSizes{of: map[types.UID]int{}}}
	const n, size = 1500, 15 << 10
	items, _, err := decodeList(many(n, size), c.trimDefinition)
	if err != nil || len(items) != n {
		t.Fatalf("%d definitions, %v", len(items), err)
	}
	kept := func() int {
		sum := 0
		for _, d := range items {
			sum += len(d.Spec.Config)
		}
		return sum
	}
	if sum := kept(); sum > maxKeptSum || sum < maxKeptSum-size {
		t.Errorf("%d bytes are kept, want nearly %d", sum, maxKeptSum)
	}
	before := kept()
	for i := range items { // a watch tells them again
		c.trimDefinition(&items[i])
	}
	if kept() != before || c.kept.sum != before {
		t.Errorf("%d bytes are kept and %d counted when they are told again, want %d", kept(), c.kept.sum, before)
	}
	last := nadv1.NetworkAttachmentDefinition{ObjectMeta: metav1.ObjectMeta{UID: "last"}, Spec: nadv1.NetworkAttachmentDefinitionSpec{Config: strings.Repeat("x", size)}}
	full := last
	if c.trimDefinition(&full); full.Spec.Config != "" || full.Labels == nil {
		t.Error("one more is kept")
	}
	c.forget(items[0].UID)
	if c.trimDefinition(&last); last.Spec.Config == "" {
		t.Error("one more is not kept when another has been deleted")
	}
}

// FuzzDecodeList: it reads what encoding/json reads, of a list that has its keys once.
func FuzzDecodeList(f *testing.F) {
	f.Add([]byte(`{"kind":"L","items":[{"metadata":{"name":"a"},"spec":{"config":"{}"}}],"metadata":{"resourceVersion":"1"}}`))
	f.Add([]byte(`{"items":null}`))
	f.Add([]byte(`{"items":[{}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		items, meta, err := decodeList(strings.NewReader(string(data)), func(*nadv1.NetworkAttachmentDefinition) {})
		var want nadv1.NetworkAttachmentDefinitionList
		lower := strings.ToLower(string(data))
		if json.Unmarshal(data, &want) != nil || strings.Count(lower, `"items"`) != 1 || strings.Count(string(data), `"items"`) != 1 || strings.Contains(lower, `\`) {
			return
		}
		if err != nil && string(data) != "null" {
			t.Fatalf("refused: %v", err)
		}
		if strings.Count(lower, `"metadata"`) > 0 || len(items) == 0 {
			return // keys in other letters, which Kubernetes does not write
		}
		if diff := cmp.Diff(want.Items, items); diff != "" || meta.ResourceVersion != "" {
			t.Errorf("items (-want +got):\n%s", diff)
		}
	})
}
