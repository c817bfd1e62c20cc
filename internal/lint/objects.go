// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/nad"
)

const (
	nadKind       = "NetworkAttachmentDefinition"
	nadAPIVersion = "k8s.cni.cncf.io/v1"
)

// definition is a NetworkAttachmentDefinition of a file.
type definition struct {
	*linter
	nad.Definition

	file string
	// at is where the object begins.
	at     place
	config config
	// annotations has the places of those that there are.
	annotations map[string]place
}

func (d *definition) object() string { return nadKind + " " + d.Ref.String() }

// document is a YAML document of a file.
type document struct {
	// offset is how many lines stand before it.
	offset int
	text   []byte
}

// documents cuts a file where the source of manifests does.
func documents(data []byte) []document {
	var found []document
	doc := document{}
	number := 0
	for line := range bytes.Lines(data) {
		if manifest.IsBoundary(line) {
			found = append(found, doc)
			doc = document{offset: number, text: slices.Clone(line[len("---"):])}
		} else {
			doc.text = append(doc.text, line...)
		}
		number++
	}
	return append(found, doc)
}

// definitions reads the objects of a file. The source of manifests decides what they are; the YAML tree tells where.
func (l *linter) definitions(file string, data []byte) []definition {
	var all []definition
	whole := splitLines(data)
	for _, doc := range documents(data) {
		if len(bytes.TrimSpace(doc.text)) == 0 {
			continue
		}
		objects, err := manifest.Parse(doc.text)
		if err != nil {
			l.fileError(file, place{line: doc.offset + 1}, len(whole), strings.TrimPrefix(err.Error(), "document 1: "))
			continue
		}
		var root yaml.Node
		if err := yaml.Unmarshal(doc.text, &root); err != nil {
			l.fileError(file, place{line: doc.offset + 1}, len(whole), err.Error())
			continue
		}
		l.selecting += l.pods(file, &root, doc.offset)
		nodes := nadNodes(&root)
		if len(nodes) != len(objects.Definitions) {
			// Two readers of YAML disagree; what stands there is not what it seems to be.
			l.fileError(file, place{line: doc.offset + 1}, len(whole), fmt.Sprintf("the kinds of its objects are ambiguous: write %q plainly, once", "kind: "+nadKind))
			continue
		}
		for i, parsed := range objects.Definitions {
			d := definition{linter: l, Definition: parsed, file: file, annotations: map[string]place{}}
			d.locate(nodes[i], whole, doc.offset)
			all = append(all, d)
		}
	}
	return all
}

// locate finds the places of what is checked.
func (d *definition) locate(node *yaml.Node, whole lines, offset int) {
	d.at = place{offset + node.Line, node.Column}
	d.config = config{text: d.Config, at: d.at}
	if _, metadata := child(node, "metadata"); metadata != nil {
		if _, list := child(metadata, "annotations"); list != nil {
			for i := 0; i+1 < len(list.Content); i += 2 {
				key := list.Content[i]
				d.annotations[key.Value] = place{offset + key.Line, key.Column}
			}
		}
	}
	if _, spec := child(node, "spec"); spec != nil {
		if key, value := child(spec, "config"); value != nil {
			if value.Value == d.Config {
				d.config = newConfig(whole, offset, key, value)
			} else {
				d.config.at = place{offset + key.Line, key.Column}
			}
		}
		for i := 0; i+1 < len(spec.Content); i += 2 {
			if key := spec.Content[i]; key.Value != "config" {
				d.report(KeyUnknown, place{offset + key.Line, key.Column}, "spec."+key.Value, fmt.Sprintf("spec has no key %q, so the API server drops it%s", short(key.Value), meant(key.Value, []string{"config"})), "")
			}
		}
	}
	if key, version := child(node, "apiVersion"); version == nil {
		d.report(ManifestInvalid, d.at, "apiVersion", "there is no apiVersion", "write "+nadAPIVersion)
	} else if version.Value != nadAPIVersion {
		d.report(ManifestInvalid, place{offset + key.Line, key.Column}, "apiVersion", fmt.Sprintf("apiVersion %q has no kind %s", short(version.Value), nadKind), "write "+nadAPIVersion)
	}
}

// nadNodes are the mappings of the definitions in a document, in the order of manifest.Parse.
func nadNodes(root *yaml.Node) []*yaml.Node {
	if root.Kind != yaml.DocumentNode || len(root.Content) == 0 {
		return nil
	}
	object := follow(root.Content[0])
	switch kindOf(object) {
	case nadKind:
		return []*yaml.Node{object}
	case "List", nadKind + "List":
		_, items := child(object, "items")
		if items == nil {
			return nil
		}
		var found []*yaml.Node
		for _, item := range items.Content {
			item = follow(item)
			if kind := kindOf(item); kind == nadKind || kind == "" && kindOf(object) == nadKind+"List" {
				found = append(found, item)
			}
		}
		return found
	}
	return nil
}

func kindOf(object *yaml.Node) string {
	_, kind := child(object, "kind")
	if kind == nil {
		return ""
	}
	return kind.Value
}

// follow is what an alias stands for.
func follow(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode && node.Alias != nil {
		return node.Alias
	}
	return node
}

// child is the last entry of a key, as it counts for who decodes it; nil if there is none.
func child(node *yaml.Node, name string) (*yaml.Node, *yaml.Node) {
	if node.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := len(node.Content) - 2; i >= 0; i -= 2 {
		if node.Content[i].Value == name {
			return node.Content[i], follow(node.Content[i+1])
		}
	}
	return nil, nil
}

// conventional are the annotations that mean something on a NetworkAttachmentDefinition.
func conventional() []string {
	return annotations.DefinitionKeys()
}

// checkAnnotations checks those that Plexus reads, and who looks almost like them.
func (d *definition) checkAnnotations() {
	for key, at := range d.annotations {
		domain, _, _ := strings.Cut(key, "/")
		if domain != "k8s.v1.cni.cncf.io" && domain != "plexus-cni.io" || slices.Contains(conventional(), key) {
			continue
		}
		d.report(AnnotationUnknown, at, "metadata.annotations", fmt.Sprintf("%q has no effect on a %s%s", short(key), nadKind, meant(key, conventional())), "")
	}
	if at, ok := d.annotations[annotations.ResourceNameKey]; ok {
		if why := badResourceName(d.ResourceName); why != "" {
			d.report(ResourceName, at, "metadata.annotations", fmt.Sprintf("%s %q %s", annotations.ResourceNameKey, short(d.ResourceName), why), "write domain/name, as in the node's status.allocatable")
		}
	}
	if _, err := nad.ParseClaimRequest(d.ClaimRequest); d.ClaimRequest != "" && err != nil {
		d.report(ClaimRequest, cmp.Or(d.annotations[annotations.ClaimRequestKey], d.at), "metadata.annotations", err.Error(), "")
	}
}

// badResourceName says why Kubernetes takes no such extended resource: domain/name, of which the name is a qualified one, and the
// domain not Kubernetes' own.
func badResourceName(s string) string {
	const maxName, maxDomain = 63, 253
	domain, name, ok := strings.Cut(s, "/")
	switch {
	case s == "":
		return "is empty: remove it, or name a resource"
	case !ok:
		return "has no domain: device plugins offer resources as domain/name"
	case !isWord(name, maxName, true, "-_."):
		return fmt.Sprintf("has a bad name: use 1 to %d letters, digits, \"-\", \"_\" and \".\", with a letter or digit at both ends", maxName)
	case !isWord(domain, maxDomain, false, "-."):
		return fmt.Sprintf("has a bad domain: use 1 to %d lower-case letters, digits, \"-\" and \".\"", maxDomain)
	case domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io"):
		return "has a domain that Kubernetes reserves for itself"
	}
	return ""
}

// isWord reports whether s is made of letters and digits, and of marks between them.
func isWord(s string, most int, upper bool, marks string) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || upper && 'A' <= c && c <= 'Z'
		if !alphanumeric && (i == 0 || i == len(s)-1 || strings.IndexByte(marks, c) < 0) {
			return false
		}
	}
	return true
}
