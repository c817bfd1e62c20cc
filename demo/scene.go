// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/plexus-cni/plexus/internal/source/manifest"
)

// scene is an example, in the form in which the demo needs it.
type scene struct {
	dir         string
	definitions []map[string]any
	pods        []map[string]any
	conf        []byte
	netns       []string // names of the network namespaces that the pods get
	masters     []string // links that macvlan networks are made on
	bridges     []string // links that bridge networks make
}

func (sc *scene) links() []string { return append(slices.Clone(sc.masters), sc.bridges...) }

// loadScene reads an example and has host-local keep its leases in a folder of the demo's.
func loadScene(dir string) (*scene, error) {
	objects, err := manifest.Load(dir)
	if err != nil {
		return nil, err
	}
	sc := &scene{dir: dir}
	for _, d := range objects.Definitions {
		conf, e := sc.adapt([]byte(d.Config))
		if e != nil {
			return nil, fmt.Errorf("network %s: %w", d.Ref, e)
		}
		sc.definitions = append(sc.definitions, map[string]any{
			"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
			"metadata": map[string]any{"name": d.Ref.Name, "namespace": d.Ref.Namespace},
			"spec":     map[string]any{"config": string(conf)},
		})
	}
	for _, p := range objects.Pods {
		sc.pods = append(sc.pods, map[string]any{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": map[string]any{"name": p.Ref.Name, "namespace": p.Ref.Namespace, "annotations": p.Annotations},
		})
		sc.netns = append(sc.netns, p.Ref.Namespace+"-"+p.Ref.Name) // as plexusctl names them
	}
	if len(sc.pods) != 2 {
		return nil, fmt.Errorf("%s has %d pods, and the demo is about 2", dir, len(sc.pods))
	}
	conf, err := os.ReadFile(filepath.Join(dir, "plexus.conflist"))
	if err != nil {
		return nil, err
	}
	sc.conf, err = sc.adapt(conf)
	return sc, err
}

// adapt sets host-local's dataDir wherever it is in a CNI configuration, and notes the links that the configuration needs.
func (sc *scene) adapt(conf []byte) ([]byte, error) {
	var v any
	if err := json.Unmarshal(conf, &v); err != nil {
		return nil, err
	}
	sc.walk(v)
	return json.MarshalIndent(v, "", "  ")
}

func (sc *scene) walk(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			sc.walk(item)
		}
	case map[string]any:
		if v["type"] == "host-local" {
			v["dataDir"] = leasesDir
		}
		if name, ok := v["master"].(string); ok && !slices.Contains(sc.masters, name) {
			sc.masters = append(sc.masters, name)
		}
		if name, ok := v["bridge"].(string); ok && !slices.Contains(sc.bridges, name) {
			sc.bridges = append(sc.bridges, name)
		}
		for _, item := range v {
			sc.walk(item)
		}
	}
}

func (sc *scene) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	list, err := json.MarshalIndent(map[string]any{"apiVersion": "v1", "kind": "List", "items": append(slices.Clone(sc.definitions), sc.pods...)}, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "manifests.json"), list, 0o644),
		os.WriteFile(filepath.Join(dir, "plexus.conflist"), sc.conf, 0o644),
	)
}
