// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package manifest takes cluster knowledge from a folder of YAML or JSON files with Pods and NetworkAttachmentDefinitions: for
// demonstrations, CI, and hosts without Kubernetes. It needs no API server.
//
// The network status of a pod is written to the folder's subfolder network-status, as <namespace>_<name>.json: the text of the
// pod's network-status annotation.
package manifest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

const (
	// MaxFileBytes bounds one file; the API server bounds an object to 1.5 MiB.
	MaxFileBytes = 8 << 20
	// MaxFiles bounds the files of a folder: each call reads them all.
	MaxFiles = 1000
)

// statusDir is the subfolder that Report writes to. Lookups do not descend into folders.
const statusDir = "network-status"

// ErrInvalid marks a folder or file that can not be used; its text names the file and the document in it.
var ErrInvalid = errors.New("invalid manifest")

// Source is a folder of manifests. It implements [source.Source].
type Source struct{ dir string }

var _ source.Source = Source{}

// New returns a Source that reads dir anew on each lookup.
func New(dir string) Source { return Source{dir: dir} }

// StatusFile returns the file that holds the network status of a pod.
func (s Source) StatusFile(p pod.Ref) string {
	return filepath.Join(s.dir, statusDir, p.Namespace+"_"+p.Name+".json")
}

// Ready reports whether the folder can be read and all manifests in it are sound.
func (s Source) Ready(context.Context) error {
	_, err := Load(s.dir)
	return err
}

// Lookup implements [source.Source].
func (s Source) Lookup(_ context.Context, q source.Query) (*source.Selection, error) {
	objects, err := Load(s.dir)
	if err != nil {
		return nil, err
	}
	return objects.Select(q, s.dir, nil) // nobody gave devices to a pod that is a file
}

// Select answers a query from the objects, which were read from where. Without devices no network gets one.
func (o *Objects) Select(q source.Query, where string, devices source.Devices) (*source.Selection, error) {
	p, ok := o.pod(q.Pod)
	if !ok && !q.Pod.IsZero() {
		return nil, fmt.Errorf("%w: no Pod %s in %s: add its manifest there", source.ErrTryAgain, q.Pod, where)
	}
	find := func(ref nad.Ref) (*nad.Definition, error) {
		for i := range o.Definitions {
			if o.Definitions[i].Ref == ref {
				return &o.Definitions[i], nil
			}
		}
		return nil, fmt.Errorf("%w: no NetworkAttachmentDefinition %s in %s: add it there, or correct the name", nad.ErrNotFound, ref, where)
	}
	return source.Select(q, p, find, devices)
}

// Report implements [source.Source].
func (s Source) Report(_ context.Context, r source.Report) error {
	if r.Status == nil {
		return nil
	}
	text, err := annotations.FormatStatus(r.Status)
	if err != nil {
		return fmt.Errorf("format the network status of pod %s: %w", r.Pod, err)
	}
	file := s.StatusFile(r.Pod)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { // as readable as the manifests beside it
		return fmt.Errorf("make the folder for the network status of pod %s: %w", r.Pod, err)
	}
	if err := replace(file, text+"\n"); err != nil {
		return fmt.Errorf("write the network status of pod %s: %w", r.Pod, err)
	}
	return nil
}

// replace writes a file so that a reader never sees half of it, and two writers do not meet.
func replace(file, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(text)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()) // as readable as the manifests beside it
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// Objects are what a folder holds.
type Objects struct {
	Pods        []source.Pod
	Definitions []nad.Definition
}

func (o *Objects) pod(ref pod.Ref) (source.Pod, bool) {
	for _, p := range o.Pods {
		if p.Ref.Namespace == ref.Namespace && p.Ref.Name == ref.Name {
			return p, true
		}
	}
	return source.Pod{}, false
}

// Load reads all files of dir that end in .yaml, .yml or .json. Objects of other kinds are left alone; an object that is
// there twice is an error.
func Load(dir string) (*Objects, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: manifestDir: %w: make the folder and put Pods and NetworkAttachmentDefinitions into it", ErrInvalid, err)
	}
	objects := &Objects{}
	seen := map[string]string{}
	files := 0
	for _, e := range entries {
		if e.IsDir() || !isManifest(e.Name()) {
			continue
		}
		if files++; files > MaxFiles {
			return nil, fmt.Errorf("%w: %s: more than %d files", ErrInvalid, dir, MaxFiles)
		}
		file := filepath.Join(dir, e.Name())
		data, err := readFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the folder was read
		}
		if err != nil {
			return nil, err
		}
		parsed, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, file, err)
		}
		for _, id := range parsed.ids() {
			if other, ok := seen[id]; ok {
				return nil, fmt.Errorf("%w: %s is in %s and in %s: remove one", ErrInvalid, id, other, file)
			}
			seen[id] = file
		}
		objects.Pods = append(objects.Pods, parsed.Pods...)
		objects.Definitions = append(objects.Definitions, parsed.Definitions...)
	}
	return objects, nil
}

func isManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

func readFile(file string) ([]byte, error) {
	data, err := bounded.ReadFile(file, MaxFileBytes)
	switch {
	case errors.Is(err, bounded.ErrTooLarge):
		return nil, fmt.Errorf("%w: %w: split it", ErrInvalid, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return data, nil
}

// ids names each object once, for messages and to find doubles.
func (o *Objects) ids() []string {
	var ids []string
	for _, p := range o.Pods {
		ids = append(ids, "Pod "+p.Ref.String())
	}
	for _, d := range o.Definitions {
		ids = append(ids, "NetworkAttachmentDefinition "+d.Ref.String())
	}
	return ids
}

// object is what is read of any manifest.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		UID         string            `json:"uid"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Config string `json:"config"`
	} `json:"spec"`
	Items []json.RawMessage `json:"items"`
}

// Parse reads the documents of one file.
func Parse(data []byte) (*Objects, error) {
	if isUTF16(data) {
		return nil, errors.New("it is UTF-16: write it in UTF-8")
	}
	objects := &Objects{}
	for n, doc := range documents(data) {
		j, err := yaml.YAMLToJSON(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if err := objects.add(j); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
	}
	return objects, nil
}

// IsBoundary reports whether a line ends a document: "---", with or without the beginning of the next, or "...", wherever it stands, also in
// a block scalar (YAML 1.2 §9.1.2).
func IsBoundary(line []byte) bool {
	line = bytes.TrimRight(line, "\r\n\t ")
	return bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- ")) || bytes.Equal(line, []byte("..."))
}

// isUTF16 reports whether data begins as UTF-16 does, in which the boundaries of documents would be overlooked.
func isUTF16(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xfe\xff")) || bytes.HasPrefix(data, []byte("\xff\xfe"))
}

// documents yields the YAML documents of data, counted from 1, empty ones left out.
func documents(data []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		n, start := 0, 0
		emit := func(doc []byte) bool {
			if len(bytes.TrimSpace(doc)) == 0 {
				return true
			}
			n++
			return yield(n, doc)
		}
		for at := 0; at < len(data); {
			end := len(data)
			if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
				end = at + i + 1
			}
			if IsBoundary(data[at:end]) {
				if !emit(data[start:at]) {
					return
				}
				start = at + len("---")
			}
			at = end
		}
		emit(data[start:])
	}
}

// plainly says what is wrong with a field in the terms of who wrote it.
func plainly(err error) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case !ok:
		return err
	case wrong.Field == "spec.config":
		return fmt.Errorf("spec.config is a JSON %s, and has to be text: write \"config: |\" and the JSON below it, indented", wrong.Value)
	}
	return fmt.Errorf("%s is a JSON %s, and can not be", cmp.Or(wrong.Field, "it"), wrong.Value)
}

// definitionList is the kind in which the API server itself answers; its items need not say theirs.
const definitionList = "NetworkAttachmentDefinitionList"

// addItem adds an object of a list. Lists in lists are refused: each level is parsed anew, and nobody writes them.
func (o *Objects) addItem(doc []byte, list string) error {
	var head struct {
		Kind string `json:"kind"`
	}
	err := json.Unmarshal(doc, &head)
	switch {
	case err == nil && (head.Kind == "List" || head.Kind == definitionList):
		return errors.New("a List in a List: write its items into the outer one")
	case err == nil && head.Kind == "" && list == definitionList:
		return o.addObject(doc, "NetworkAttachmentDefinition")
	}
	return o.add(doc)
}

func (o *Objects) add(doc []byte) error {
	// Kind first: the fields below mean something for some kinds only, and others may use the same names otherwise.
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		return fmt.Errorf("not a Kubernetes object: %w", err)
	}
	switch head.Kind {
	case "Pod", "NetworkAttachmentDefinition", "List", definitionList:
	default:
		return nil
	}
	return o.addObject(doc, head.Kind)
}

func (o *Objects) addObject(doc []byte, kind string) error {
	var obj object
	if err := json.Unmarshal(doc, &obj); err != nil {
		return fmt.Errorf("%s: %w", kind, plainly(err))
	}
	obj.Kind = kind
	if obj.Kind == "List" || obj.Kind == definitionList {
		for i, item := range obj.Items {
			if err := o.addItem(item, obj.Kind); err != nil {
				return fmt.Errorf("items[%d]: %w", i, err)
			}
		}
		return nil
	}
	ref, err := nad.ParseRef(cmp.Or(obj.Metadata.Namespace, "default")+"/"+obj.Metadata.Name, "")
	if err != nil {
		return fmt.Errorf("%s: metadata: %w", obj.Kind, err)
	}
	if obj.Kind == "Pod" {
		o.Pods = append(o.Pods, source.Pod{
			Ref:         pod.Ref{Namespace: ref.Namespace, Name: ref.Name, UID: obj.Metadata.UID},
			Annotations: obj.Metadata.Annotations,
		})
		return nil
	}
	o.Definitions = append(o.Definitions, annotations.Definition(ref, obj.Spec.Config, obj.Metadata.Annotations))
	return nil
}
