// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/nad"
)

// Objects are the pods and NetworkAttachmentDefinitions of a cluster.
type Objects struct {
	pods        []podObject
	definitions map[nad.Ref]*nad.Definition
	// refs are the keys of definitions, in the order of the input.
	refs []nad.Ref
	// findings are about objects that could not be read.
	findings []finding.Finding
}

// meta is what is read of any object.
type meta struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		Annotations     map[string]string `json:"annotations"`
		OwnerReferences []struct {
			Kind       string `json:"kind"`
			Name       string `json:"name"`
			Controller bool   `json:"controller"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
}

// podObject is what is read of a pod.
type podObject struct {
	meta

	Spec struct {
		HostNetwork    bool        `json:"hostNetwork"`
		Containers     []container `json:"containers"`
		InitContainers []container `json:"initContainers"`
		ResourceClaims []struct {
			Name string `json:"name"`
		} `json:"resourceClaims"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

type container struct {
	Image     string `json:"image"`
	Resources struct {
		Limits map[string]any `json:"limits"`
	} `json:"resources"`
}

// Parse reads the documents of one file: Pods, NetworkAttachmentDefinitions and lists of them, as kubectl prints them. Objects of other
// kinds are left alone; one that cannot be read becomes a finding. The error is for what is no YAML or JSON at all.
func (o *Objects) Parse(name string, data []byte) error {
	if o.definitions == nil {
		o.definitions = map[nad.Ref]*nad.Definition{}
	}
	for doc, err := range manifest.Documents(data) {
		if err != nil {
			return fmt.Errorf("%s: %w: correct it", name, err)
		}
		if err := o.add(name, doc, ""); err != nil {
			return err
		}
	}
	return nil
}

// add takes an object; kind is what an item of a list has that does not say it.
func (o *Objects) add(file string, doc json.RawMessage, kind string) error {
	var head struct {
		Kind  string            `json:"kind"`
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		// Most kinds are none of ours, and may have any "items".
		var just struct {
			Kind string `json:"kind"`
		}
		if json.Unmarshal(doc, &just) != nil || strings.HasSuffix(just.Kind, "List") {
			return fmt.Errorf("%s: not a Kubernetes object, or a broken list: %s: give what kubectl get -o json prints", file, plainJSON(err))
		}
		head.Kind, head.Items = just.Kind, nil
	}
	switch k := cmp.Or(head.Kind, kind); {
	case k == "Pod":
		o.addPod(file, doc)
	case k == "NetworkAttachmentDefinition":
		o.addDefinition(file, doc)
	case strings.HasSuffix(k, "List"):
		if kind != "" {
			return fmt.Errorf("%s: a list in a list: move its items into the outer one", file)
		}
		for _, item := range head.Items {
			// "-" stands for a List's own items, which say what they are.
			if err := o.add(file, item, cmp.Or(strings.TrimSuffix(k, "List"), "-")); err != nil {
				return err
			}
		}
	}
	if len(o.pods)+len(o.refs) > maxObjects {
		return fmt.Errorf("%s: more than %d objects: give those of some namespaces at a time", file, maxObjects)
	}
	return nil
}

// plainJSON says what is wrong with JSON in its own words, rather than in those of Go.
func plainJSON(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return fmt.Sprintf("it is a JSON %s, and should be an object", e.Value)
		}
		return fmt.Sprintf("%s is a JSON %s, which it cannot be", strings.TrimPrefix(e.Field, "meta."), e.Value)
	}
	return err.Error()
}

func (o *Objects) invalid(file, object string, err error) {
	o.findings = append(o.findings, finding.Finding{
		Code: ObjectInvalid, Severity: finding.Error, Object: object, Text: fmt.Sprintf("%s: it cannot be read: %s", file, plainJSON(err)),
		Mend: "give what kubectl get -o json prints",
	})
}

func (o *Objects) addPod(file string, doc json.RawMessage) {
	var p podObject
	err := json.Unmarshal(doc, &p)
	if err == nil {
		_, err = p.ref()
	}
	if err != nil {
		o.invalid(file, "pod "+clip(p.Metadata.Namespace+"/"+p.Metadata.Name), err)
		return
	}
	o.pods = append(o.pods, p)
}

func (o *Objects) addDefinition(file string, doc json.RawMessage) {
	var d struct {
		meta

		Spec struct {
			Config string `json:"config"`
		} `json:"spec"`
	}
	err := json.Unmarshal(doc, &d)
	var ref nad.Ref
	if err == nil {
		ref, err = d.ref()
	}
	if err == nil && o.definitions[ref] != nil {
		err = errors.New("it is there twice")
	}
	if err != nil {
		o.invalid(file, "network "+clip(d.Metadata.Namespace+"/"+d.Metadata.Name), err)
		return
	}
	o.refs = append(o.refs, ref)
	def := annotations.Definition(ref, d.Spec.Config, d.Metadata.Annotations)
	o.definitions[ref] = &def
}

func (m *meta) ref() (nad.Ref, error) {
	return nad.ParseRef(cmp.Or(m.Metadata.Namespace, "default")+"/"+m.Metadata.Name, "")
}

// find is a [source.Definitions].
func (o *Objects) find(ref nad.Ref) (*nad.Definition, error) {
	if d := o.definitions[ref]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%w: there is no NetworkAttachmentDefinition %s: create it, correct the name, or give the objects of all namespaces", nad.ErrNotFound, ref)
}

// owner is what stands for a pod in findings: its controller, as all pods of one are alike.
func (p *podObject) owner() string {
	for _, o := range p.Metadata.OwnerReferences {
		if o.Controller {
			return o.Kind + " " + p.Metadata.Namespace + "/" + o.Name
		}
	}
	return ""
}

// attaches reports whether the pod will come to Plexus: one with the node's network, or one that has ended, does not.
func (p *podObject) attaches() bool {
	return !p.Spec.HostNetwork && p.Status.Phase != "Succeeded" && p.Status.Phase != "Failed"
}

// source is the pod as sources of cluster knowledge see it.
func (p *podObject) source(keys ...string) source.Pod {
	kept := map[string]string{}
	for _, key := range keys {
		if v, ok := p.Metadata.Annotations[key]; ok {
			kept[key] = v
		}
	}
	return source.Pod{Ref: pod.Ref{Namespace: cmp.Or(p.Metadata.Namespace, "default"), Name: p.Metadata.Name}, Annotations: kept}
}

// devices are what the node will have given the pod for what it requests: of a device plugin's resource as many as its containers ask for.
// A claim can hold anything, so that every network finds its device there.
func (p *podObject) devices(_ source.Pod, needs []source.Need) ([]pod.Device, error) {
	var given []pod.Device
	for i, n := range needs {
		id := fmt.Sprintf("any-%d", i)
		switch {
		case !n.Claim.IsZero() && p.claims(n.Claim.Claim):
			given = append(given, pod.Device{ID: id, Resource: n.Resource, Claimed: &pod.ClaimedDevice{PodClaim: n.Claim.Claim, Request: n.Claim.Request, Device: id}})
		case n.Claim.IsZero() && n.Resource != "" && len(p.Spec.ResourceClaims) > 0:
			given = append(given, pod.Device{ID: id, Resource: n.Resource})
		}
	}
	seen := map[string]bool{}
	for _, n := range needs {
		if n.Resource == "" || seen[n.Resource] || len(p.Spec.ResourceClaims) > 0 {
			continue
		}
		seen[n.Resource] = true
		for i := range p.requested(n.Resource, len(needs)) {
			given = append(given, pod.Device{ID: fmt.Sprintf("requested-%d", i), Resource: n.Resource})
		}
	}
	return given, nil
}

func (p *podObject) claims(name string) bool {
	for _, c := range p.Spec.ResourceClaims {
		if c.Name == name {
			return true
		}
	}
	return false
}

// requested is how many of a resource the pod's containers ask for, at most the given number. Devices have a limit and need no request.
func (p *podObject) requested(resource string, most int) int {
	sum := 0
	for _, list := range [][]container{p.Spec.Containers, p.Spec.InitContainers} {
		for _, c := range list {
			n, err := strconv.Atoi(strings.TrimSpace(fmt.Sprint(c.Resources.Limits[resource])))
			if err != nil {
				continue // none, or a quantity that no device plugin's resource has
			}
			sum += min(max(n, 0), most)
		}
	}
	return min(sum, most)
}

// blank reports whether an annotation asks for nothing.
func blank(value string) bool { return len(bytes.TrimSpace([]byte(value))) == 0 }
