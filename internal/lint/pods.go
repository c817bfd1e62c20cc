// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/finding"
)

// workloads are the kinds that make pods of a template, with the way to it.
func workloads() map[string][]string {
	template := []string{"spec", "template"}
	return map[string][]string{
		"Deployment": template, "StatefulSet": template, "DaemonSet": template, "ReplicaSet": template, "ReplicationController": template, "Job": template,
		"CronJob": {"spec", "jobTemplate", "spec", "template"},
	}
}

// podAnnotations are those of a pod, or of the pods that a workload makes.
type podAnnotations struct {
	*linter

	file, object, namespace string
	values                  map[string]string
	places                  map[string]place
}

// pods checks the annotations of the pods and workloads in a document, and returns how many select networks.
func (l *linter) pods(file string, root *yaml.Node, offset int) int {
	if root.Kind != yaml.DocumentNode || len(root.Content) == 0 {
		return 0
	}
	object := follow(root.Content[0])
	objects := []*yaml.Node{object}
	if strings.HasSuffix(kindOf(object), "List") {
		objects = nil
		if _, items := child(object, "items"); items != nil {
			objects = items.Content
		}
	}
	n := 0
	for _, o := range objects {
		if l.pod(file, follow(o), cmp.Or(kindOf(follow(o)), strings.TrimSuffix(kindOf(object), "List")), offset) {
			n++
		}
	}
	return n
}

func (l *linter) pod(file string, object *yaml.Node, kind string, offset int) bool {
	way, isWorkload := workloads()[kind]
	if !isWorkload && kind != "Pod" {
		return false
	}
	metadata := childOf(object, "metadata")
	name, namespace := textOf(metadata, "name"), cmp.Or(textOf(metadata, "namespace"), "default")
	p := &podAnnotations{linter: l, file: file, namespace: namespace, object: fmt.Sprintf("%s %s/%s", kind, short(namespace), short(name))}
	if isWorkload {
		outer := *p
		outer.read(metadata, offset)
		outer.checkMisplaced(strings.Join(append(slices.Clone(way), "metadata", "annotations"), "."))
	}
	pod := object
	for _, key := range way {
		pod = childOf(pod, key)
	}
	metadata = childOf(pod, "metadata")
	p.read(metadata, offset)
	return p.check()
}

// childOf is the value of a key of a node that may be missing.
func childOf(node *yaml.Node, name string) *yaml.Node {
	if node == nil {
		return nil
	}
	_, value := child(node, name)
	return value
}

func textOf(node *yaml.Node, name string) string {
	if value := childOf(node, name); value != nil && value.Kind == yaml.ScalarNode {
		return value.Value
	}
	return ""
}

// read takes the annotations of some metadata.
func (p *podAnnotations) read(metadata *yaml.Node, offset int) {
	p.values, p.places = map[string]string{}, map[string]place{}
	list := childOf(metadata, "annotations")
	if list == nil || list.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(list.Content); i += 2 {
		key, value := list.Content[i], follow(list.Content[i+1])
		if value.Kind == yaml.ScalarNode {
			p.values[key.Value], p.places[key.Value] = value.Value, place{offset + key.Line, key.Column}
		}
	}
}

func (p *podAnnotations) report(code, key, text, mend string) {
	at := p.places[key]
	p.add(finding.Finding{Code: code, Object: p.object, File: p.file, Line: at.line, Column: at.column, Field: "metadata.annotations", Text: line(text), Mend: mend})
}

// podKeys are the annotations of pods that mean something.
func podKeys() []string { return []string{annotations.NetworksKey, annotations.DefaultNetworkKey} }

// statusKeys are those that a meta-plugin writes.
func statusKeys() []string {
	return []string{annotations.NetworkStatusKey, annotations.LegacyNetworkStatusKey}
}

// checkMisplaced reports annotations that stand on the workload, where nobody reads them, rather than on its pods.
func (p *podAnnotations) checkMisplaced(where string) {
	for _, key := range podKeys() {
		if _, ok := p.values[key]; ok {
			p.report(AnnotationMisplaced, key, key+" has no effect here: it is read from the pods", "move it to "+where)
		}
	}
}

// check reports whether the pod selects networks, and what is wrong with how it does.
func (p *podAnnotations) check() bool {
	for _, key := range slices.Sorted(maps.Keys(p.values)) {
		domain, _, _ := strings.Cut(key, "/")
		if slices.Contains(podKeys(), key) || slices.Contains(statusKeys(), key) {
			continue
		}
		near := annotations.MeantKey(key)
		if near != "" || domain == "k8s.v1.cni.cncf.io" || domain == "v1.multus-cni.io" {
			text := fmt.Sprintf("%q has no effect on a pod", short(key))
			if near != "" {
				text += fmt.Sprintf("; perhaps %q is meant", near)
			}
			p.report(AnnotationUnknown, key, text, "")
		}
	}
	for _, key := range podKeys() {
		for _, notice := range annotations.Notices(map[string]string{key: p.values[key]}) {
			p.report(AnnotationUnknown, key, notice, "")
		}
	}
	for key, parse := range map[string]func(string) error{
		annotations.NetworksKey: func(v string) error { _, err := annotations.ParseNetworks(v, p.namespace); return err },
		annotations.DefaultNetworkKey: func(v string) error {
			_, err := annotations.ParseDefaultNetwork(v, p.namespace)
			return err
		},
	} {
		if value, ok := p.values[key]; ok {
			if err := parse(value); err != nil {
				p.report(AnnotationInvalid, key, strings.TrimPrefix(err.Error(), annotations.ErrInvalid.Error()+": "), "")
			}
		}
	}
	return len(p.values[annotations.NetworksKey])+len(p.values[annotations.DefaultNetworkKey]) > 0
}
