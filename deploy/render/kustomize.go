// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// Overlay is a kustomization as people write it to install Plexus. Its paths are names in the folder of the manifests.
type Overlay struct {
	Components []string
	Namespace  string
	// Image replaces "plexus:dev": "registry.example/plexus:1.0.0".
	Image string
	// More are further fields of the kustomization.
	More map[string]any
}

// Kustomize renders the base with an overlay, as `kubectl kustomize` does: YAML documents.
func Kustomize(deploy string, o Overlay) ([]byte, error) {
	dir, err := os.MkdirTemp("", "overlay-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err = o.write(dir, deploy); err != nil {
		return nil, err
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("kustomize: %w", err)
	}
	return resources.AsYaml()
}

func (o Overlay) write(dir, deploy string) error {
	deploy, err := filepath.Abs(deploy)
	if err == nil {
		deploy, err = filepath.EvalSymlinks(deploy)
	}
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	if deploy, err = filepath.Rel(dir, deploy); err != nil {
		return err
	}
	k := map[string]any{"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": []string{filepath.Join(deploy, "base")}}
	var components []string
	for _, c := range o.Components {
		components = append(components, filepath.Join(deploy, "components", c))
	}
	if len(components) > 0 {
		k["components"] = components
	}
	if o.Namespace != "" {
		k["namespace"] = o.Namespace
	}
	if o.Image != "" {
		name, tag, tagErr := cutTag(o.Image)
		if tagErr != nil {
			return tagErr
		}
		k["images"] = []map[string]string{{"name": "plexus", "newName": name, "newTag": tag}}
	}
	maps.Copy(k, o.More)
	data, err := yaml.Marshal(k)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "kustomization.yaml"), data, 0o600)
}

// cutTag splits an image's name from its tag.
func cutTag(image string) (string, string, error) {
	for i := len(image) - 1; i >= 0 && image[i] != '/'; i-- {
		if image[i] == ':' {
			return image[:i], image[i+1:], nil
		}
	}
	return "", "", fmt.Errorf("image %q has no tag", image)
}
