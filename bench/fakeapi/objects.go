// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package fakeapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// Namespace is where all objects are.
const Namespace = "bench"

// Pod is a pod of the node.
type Pod struct {
	Name, UID string
	// Networks is its networks annotation, "" for none.
	Networks string
}

// Definition is a NetworkAttachmentDefinition.
type Definition struct{ Name, Config string }

// object is a stored object: in its parts, as patches change annotations only.
type object struct {
	name, uid   string
	version     int64
	annotations map[string]string
	// rest are the other top-level keys.
	rest map[string]any
	// managed is how much of the ballast there is that objects of a real cluster carry, in bytes.
	managed int
}

// metadata is the object's metadata as the API server would tell it.
func (o *object) metadata() map[string]any {
	return map[string]any{
		"namespace": Namespace, "name": o.name, "uid": o.uid, "resourceVersion": strconv.FormatInt(o.version, 10),
		"creationTimestamp": "2026-01-01T00:00:00Z",
		"labels":            map[string]string{"app.kubernetes.io/name": o.name, "app.kubernetes.io/part-of": "bench"},
		"annotations":       o.annotations,
		"managedFields": []any{map[string]any{
			"manager": "bench", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
			"fieldsV1": map[string]any{"f:metadata": map[string]any{"f:" + strings.Repeat("x", o.managed): map[string]any{}}},
		}},
	}
}

// fields are those that selectors look at.
func (o *object) fields() map[string]string {
	fields := map[string]string{"metadata.name": o.name, "metadata.namespace": Namespace}
	for field, part := range map[string]string{"nodeName": "spec", "phase": "status"} {
		values, _ := o.rest[part].(map[string]any)
		if value, ok := values[field].(string); ok {
			fields[part+"."+field] = value
		}
	}
	return fields
}

// encode renders the object whole, or its metadata alone.
func (o *object) encode(metadataOnly bool) json.RawMessage {
	whole := map[string]any{"metadata": o.metadata()}
	if metadataOnly {
		whole["kind"], whole["apiVersion"] = "PartialObjectMetadata", "meta.k8s.io/v1"
	} else {
		maps.Copy(whole, o.rest)
	}
	return mustEncode(whole)
}

// podObject is a pod with as much around what is read as pods usually have.
func podObject(p Pod, node string) *object {
	o := &object{
		name: p.Name, uid: p.UID, annotations: map[string]string{}, managed: 1500,
		rest: map[string]any{
			"kind": "Pod", "apiVersion": "v1",
			"spec":   map[string]any{"nodeName": node, "containers": []any{map[string]any{"name": "main", "image": "example.org/main:1"}}},
			"status": map[string]any{"phase": "Pending"},
		},
	}
	if p.Networks != "" {
		o.annotations["k8s.v1.cni.cncf.io/networks"] = p.Networks
	}
	return o
}

func definitionObject(d Definition) *object {
	return &object{
		name: d.Name, uid: "nad-" + d.Name, managed: 300,
		annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": d.Config},
		rest: map[string]any{
			"kind": "NetworkAttachmentDefinition", "apiVersion": "k8s.cni.cncf.io/v1",
			"spec": map[string]any{"config": d.Config},
		},
	}
}

// merge applies the annotations of a merge patch or of a whole object; whatever else is in it is not kept. It reports whether the
// UID in it, if any, is the object's. What is no JSON, as other encodings of a whole object, changes nothing.
func (o *object) merge(body []byte) bool {
	var change struct {
		Metadata struct {
			UID         string             `json:"uid"`
			Annotations map[string]*string `json:"annotations"`
		} `json:"metadata"`
	}
	if json.Unmarshal(body, &change) != nil {
		return true
	}
	if change.Metadata.UID != "" && change.Metadata.UID != o.uid {
		return false
	}
	for key, value := range change.Metadata.Annotations {
		if value == nil {
			delete(o.annotations, key)
			continue
		}
		o.annotations[key] = *value
	}
	return true
}

// mustEncode encodes what is made of strings and numbers alone.
func mustEncode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return data
}
