// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/internal/pod"
)

// picked is what names stand for.
type picked struct {
	pods    []pod.Ref
	missing []string // the names of no pod
}

// pick finds pods by NAME or NAMESPACE/NAME, each once, in the order of the names. A NAME that several namespaces have is an error.
func pick(all []pod.Ref, names []string) (*picked, error) {
	p := &picked{}
	for _, name := range names {
		found := slices.DeleteFunc(slices.Clone(all), func(r pod.Ref) bool { return name != r.Name && name != r.String() })
		switch len(found) {
		case 0:
			p.missing = append(p.missing, name)
		case 1:
			if !slices.Contains(p.pods, found[0]) {
				p.pods = append(p.pods, found[0])
			}
		default:
			return nil, fmt.Errorf("%s matches several pods: name one as %s or %s", name, found[0], found[1])
		}
	}
	return p, nil
}

// netnsPath is the path of the namespace that the user named, "" for none.
func netnsPath(name string, pods int) (string, error) {
	switch {
	case name == "":
		return "", nil
	case pods != 1:
		return "", fmt.Errorf("--netns %s is for one pod, not for %d: name the pod", name, pods)
	case filepath.IsAbs(name):
		return filepath.Clean(name), nil
	case strings.ContainsRune(name, '/') || name == "." || name == "..":
		return "", fmt.Errorf("--netns %q: use a name in %s or an absolute path", name, netnsDir)
	}
	return filepath.Join(netnsDir, name), nil
}
