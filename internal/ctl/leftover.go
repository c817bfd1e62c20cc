// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
)

// bridges are those that the sandboxes on record are on. What cannot be read names none.
func (r *runtime) bridges() []string {
	pods, _, err := (&inspect.Node{StateDirs: []string{r.stateDir}, Now: time.Now}).Pods()
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range pods {
		for _, i := range p.Interfaces {
			if len(i.Plugins) > 0 && i.Plugins[0] == "bridge" && !slices.Contains(names, i.HostLink) {
				names = append(names, i.HostLink)
			}
		}
	}
	slices.Sort(names)
	return names
}

// leftover are the bridges of before that no sandbox is on any more, and that the plugin has left on the node, as it does.
func (r *runtime) leftover(before []string) []string {
	links, err := r.kernel.Links(netdev.Host)
	if err != nil {
		return nil
	}
	used := r.bridges()
	return slices.DeleteFunc(before, func(name string) bool {
		return slices.Contains(used, name) || !slices.ContainsFunc(links, func(l netdev.Link) bool { return l.Name == name })
	})
}

// elsewhere says where pods are attached from that are not from dir.
func (r *runtime) elsewhere(dir string) string {
	sandboxes, err := r.load()
	if err != nil {
		return ""
	}
	var texts []string
	for _, s := range sandboxes {
		if s.ManifestDir != dir {
			texts = append(texts, fmt.Sprintf("%s from %s", s.Pod, s.ManifestDir))
		}
	}
	if len(texts) == 0 {
		return ", by the records in " + r.stateDir
	}
	return "; attached are " + strings.Join(texts, ", ")
}
