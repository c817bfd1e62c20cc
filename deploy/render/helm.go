// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// Helm renders a chart as `helm template` does, with its CustomResourceDefinitions: YAML documents.
func Helm(chart, namespace string, values map[string]any) ([]byte, error) {
	c, err := loader.Load(chart)
	if err != nil {
		return nil, fmt.Errorf("helm: %w", err)
	}
	capabilities := chartutil.DefaultCapabilities
	release := chartutil.ReleaseOptions{Name: "plexus", Namespace: namespace, IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(c, values, release, capabilities)
	if err != nil {
		return nil, fmt.Errorf("helm: %w", err)
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, fmt.Errorf("helm: %w", err)
	}
	var out strings.Builder
	for _, crd := range c.CRDObjects() {
		fmt.Fprintf(&out, "---\n%s\n", crd.File.Data)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(files[name]) != "" {
			fmt.Fprintf(&out, "---\n%s\n", files[name])
		}
	}
	return []byte(out.String()), nil
}
