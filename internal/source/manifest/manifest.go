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
	"maps"
	"os"
	"path/filepath"
	"slices"
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

// ErrInvalid marks a folder or file that cannot be used; its text names the file and the document in it.
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

// Ready reports whether the folder can be read. A manifest that is not sound stops what it is about, and no more.
func (s Source) Ready(context.Context) error {
	_, err := read(s.dir)
	return err
}

// Lookup implements [source.Source].
func (s Source) Lookup(_ context.Context, q source.Query) (*source.Selection, error) {
	objects, err := read(s.dir)
	if err != nil {
		return nil, err
	}
	selection, err := objects.Select(q, s.dir, nil) // nobody gave devices to a pod that is a file
	if err != nil {
		return nil, err
	}
	for _, p := range objects.problems[:min(len(objects.problems), maxToldProblems)] {
		selection.Warnings = append(selection.Warnings, "left out: "+p.Error())
	}
	return selection, nil
}

// maxToldProblems bounds what each ADD tells of manifests that are not sound.
const maxToldProblems = 8

// Select answers a query from the objects, which were read from where. Without devices no network gets one.
func (o *Objects) Select(q source.Query, where string, devices source.Devices) (*source.Selection, error) {
	if err := o.check("Pod " + q.Pod.String()); err != nil {
		return nil, err
	}
	p, ok := o.pod(q.Pod)
	if !ok && !q.Pod.IsZero() {
		if !q.PodOptional {
			return nil, fmt.Errorf("%w: no Pod %s in %s: add its manifest there%s", source.ErrTryAgain, q.Pod, where, o.unread())
		}
		p = source.Pod{}
	}
	find := func(ref nad.Ref) (*nad.Definition, error) {
		if err := o.check("NetworkAttachmentDefinition " + ref.String()); err != nil {
			return nil, err
		}
		for i := range o.Definitions {
			if o.Definitions[i].Ref == ref {
				return &o.Definitions[i], nil
			}
		}
		return nil, fmt.Errorf("%w: no NetworkAttachmentDefinition %s in %s: add it there, or correct the name%s", nad.ErrNotFound, ref, where, o.unread())
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

// Objects are what a folder or file holds.
type Objects struct {
	Pods        []source.Pod
	Definitions []nad.Definition
	// problems are about manifests that are left out.
	problems []problem
	// files has each object's file.
	files map[string]string
}

// problem says why a manifest is left out. It matches [ErrInvalid].
type problem struct {
	// file is "" where a text was read that is none.
	file string
	// object is its kind and name, like "Pod default/web"; "" where it is not known which object it is.
	object string
	err    error
}

func (p problem) Error() string {
	text := ErrInvalid.Error() + ": "
	if p.file != "" {
		text += p.file + ": "
	}
	return text + p.err.Error()
}

// Unwrap returns what the problem is.
func (p problem) Unwrap() []error { return []error{ErrInvalid, p.err} }

// check is why an object is left out; nil if it is not.
func (o *Objects) check(object string) error {
	for _, p := range o.problems {
		if p.object == object {
			return p
		}
	}
	return nil
}

// unread says that what is not found may be in what was not read; "" if all was.
func (o *Objects) unread() string {
	for _, p := range o.problems {
		if p.object == "" {
			return " (it may be in what could not be read: " + p.Error() + ")"
		}
	}
	return ""
}

func (o *Objects) pod(ref pod.Ref) (source.Pod, bool) {
	for _, p := range o.Pods {
		if p.Ref.Namespace == ref.Namespace && p.Ref.Name == ref.Name {
			return p, true
		}
	}
	return source.Pod{}, false
}

// Load reads all files of dir that end in .yaml, .yml or .json. Objects of other kinds are left alone. What is not sound, and an object that
// is there twice, is an error.
func Load(dir string) (*Objects, error) {
	objects, err := read(dir)
	if err == nil && len(objects.problems) > 0 {
		err = objects.problems[0]
	}
	if err != nil {
		return nil, err
	}
	objects.files = nil
	return objects, nil
}

// read does as Load, and leaves out what is not sound: whoever else has a manifest there is not concerned. The error is about the folder.
func read(dir string) (*Objects, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: manifestDir: %w: make the folder and put Pods and NetworkAttachmentDefinitions into it", ErrInvalid, err)
	}
	all := &Objects{}
	files := 0
	for _, e := range entries {
		if e.IsDir() || !IsManifest(e.Name()) {
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
		var parsed *Objects
		if err == nil {
			parsed, err = parse(data)
		}
		if err != nil {
			all.problems = append(all.problems, problem{file: file, err: err})
			continue
		}
		all.merge(file, parsed)
	}
	return all, nil
}

// merge adds what a file holds. An object that is there already is ambiguous, and so none.
func (o *Objects) merge(file string, parsed *Objects) {
	for _, p := range parsed.problems {
		p.file = file
		o.problems = append(o.problems, p)
	}
	taken := func(id string) bool {
		if o.files == nil {
			o.files = map[string]string{}
		}
		other, ok := o.files[id]
		if ok {
			o.problems = append(o.problems, problem{object: id, err: fmt.Errorf("%s is in %s and in %s: remove one", id, other, file)})
			return true
		}
		o.files[id] = file
		return false
	}
	for _, p := range parsed.Pods {
		if !taken("Pod " + p.Ref.String()) {
			o.Pods = append(o.Pods, p)
		}
	}
	for _, d := range parsed.Definitions {
		if !taken("NetworkAttachmentDefinition " + d.Ref.String()) {
			o.Definitions = append(o.Definitions, d)
		}
	}
}

// IsManifest reports whether a file of that name is read: .yaml, .yml or .json, and not hidden.
func IsManifest(name string) bool {
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

// object is what is read of a Pod or a NetworkAttachmentDefinition.
type object struct {
	Metadata struct {
		UID         string                     `json:"uid"`
		Annotations map[string]json.RawMessage `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Config string `json:"config"`
	} `json:"spec"`
}

// Parse reads the documents of one file. What is not sound is an error.
func Parse(data []byte) (*Objects, error) {
	objects, err := parse(data)
	if err == nil && len(objects.problems) > 0 {
		err = objects.problems[0].err
	}
	if err != nil {
		return nil, err
	}
	return objects, nil
}

// parse does as Parse, and leaves out what is not sound.
func parse(data []byte) (*Objects, error) {
	if isUTF16(data) {
		return nil, errors.New("it is UTF-16: write it in UTF-8")
	}
	objects := &Objects{}
	for n, doc := range documents(data) {
		where := fmt.Sprintf("document %d", n)
		j, err := yaml.YAMLToJSON(doc)
		if err != nil {
			objects.leaveOut("", fmt.Errorf("%s: %w", where, err))
			continue
		}
		objects.add(where, j)
	}
	return objects, nil
}

func (o *Objects) leaveOut(object string, err error) {
	o.problems = append(o.problems, problem{object: object, err: err})
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
	return fmt.Errorf("%s is a JSON %s, and cannot be", cmp.Or(wrong.Field, "it"), wrong.Value)
}

// definitionList is the kind in which the API server itself answers; its items need not say theirs.
const definitionList = "NetworkAttachmentDefinitionList"

// addItem adds an object of a list. Lists in lists are refused: each level is parsed anew, and nobody writes them.
func (o *Objects) addItem(where string, doc []byte, list string) {
	var head struct {
		Kind string `json:"kind"`
	}
	err := json.Unmarshal(doc, &head)
	switch {
	case err == nil && (head.Kind == "List" || head.Kind == definitionList):
		o.leaveOut("", fmt.Errorf("%s: a List in a List: write its items into the outer one", where))
	case err == nil && head.Kind == "" && list == definitionList:
		o.addObject(where, doc, "NetworkAttachmentDefinition")
	default:
		o.add(where, doc)
	}
}

// add adds a document, or an item of a list. where says in messages which it is.
func (o *Objects) add(where string, doc []byte) {
	// Kind first: the fields below mean something for some kinds only, and others may use the same names otherwise.
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		o.leaveOut("", fmt.Errorf("%s: not a Kubernetes object: %w", where, err))
		return
	}
	switch head.Kind {
	case "List", definitionList:
		o.addList(where, doc, head.Kind)
	case "Pod", "NetworkAttachmentDefinition":
		o.addObject(where, doc, head.Kind)
	}
}

func (o *Objects) addList(where string, doc []byte, kind string) {
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(doc, &list); err != nil {
		o.leaveOut("", fmt.Errorf("%s: %s: %w", where, kind, plainly(err)))
		return
	}
	for i, item := range list.Items {
		o.addItem(fmt.Sprintf("%s: items[%d]", where, i), item, kind)
	}
}

func (o *Objects) addObject(where string, doc []byte, kind string) {
	// The name by itself, so that what is wrong with the rest is told of the object.
	var named struct {
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	err := json.Unmarshal(doc, &named)
	var ref nad.Ref
	if err == nil {
		ref, err = nad.ParseRef(cmp.Or(named.Metadata.Namespace, "default")+"/"+named.Metadata.Name, "")
	}
	if err != nil {
		o.leaveOut("", fmt.Errorf("%s: %s: metadata: %w", where, kind, plainly(err)))
		return
	}
	if err = o.addNamed(doc, kind, ref); err != nil {
		o.leaveOut(kind+" "+ref.String(), fmt.Errorf("%s: %s %s: %w", where, kind, ref, err))
	}
}

func (o *Objects) addNamed(doc []byte, kind string, ref nad.Ref) error {
	var obj object
	if err := json.Unmarshal(doc, &obj); err != nil {
		return plainly(err)
	}
	var texts map[string]string
	for _, key := range slices.Sorted(maps.Keys(obj.Metadata.Annotations)) {
		var text string
		if raw := obj.Metadata.Annotations[key]; json.Unmarshal(raw, &text) != nil {
			return fmt.Errorf("annotation %q is %.32s, and has to be text: write it in quotes", key, raw)
		}
		if texts == nil {
			texts = map[string]string{}
		}
		texts[key] = text
	}
	if kind == "Pod" {
		o.Pods = append(o.Pods, source.Pod{Ref: pod.Ref{Namespace: ref.Namespace, Name: ref.Name, UID: obj.Metadata.UID}, Annotations: texts})
		return nil
	}
	o.Definitions = append(o.Definitions, annotations.Definition(ref, obj.Spec.Config, texts))
	return nil
}
