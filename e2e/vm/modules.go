// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// moduleTree is what depmod(8) knows of the modules of a kernel.
type moduleTree struct {
	needs   map[string][]string // By path, the modules that have to be loaded before.
	paths   map[string]string   // By name.
	builtin map[string]bool     // By name.
}

// parseModules reads modules.dep and modules.builtin.
func parseModules(dep, builtin io.Reader) (moduleTree, error) {
	tree := moduleTree{needs: map[string][]string{}, paths: map[string]string{}, builtin: map[string]bool{}}
	lines := bufio.NewScanner(dep)
	for lines.Scan() {
		module, needs, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			return moduleTree{}, fmt.Errorf("modules.dep: line %q has no colon", lines.Text())
		}
		name := moduleName(module)
		if name == "" || moduleName(name) != name {
			return moduleTree{}, fmt.Errorf("modules.dep: %q is no file of a module", module)
		}
		tree.needs[module] = strings.Fields(needs)
		tree.paths[name] = module
	}
	if err := lines.Err(); err != nil {
		return moduleTree{}, fmt.Errorf("modules.dep: %w", err)
	}
	lines = bufio.NewScanner(builtin)
	for lines.Scan() {
		tree.builtin[moduleName(lines.Text())] = true
	}
	if err := lines.Err(); err != nil {
		return moduleTree{}, fmt.Errorf("modules.builtin: %w", err)
	}
	return tree, nil
}

// moduleName is the name that the kernel has for a module: a name and a path, with "-" or "_", mean the same.
func moduleName(name string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path.Base(name), ".ko"), "-", "_")
}

// order returns the paths of the modules named and of those that they need, each once and after what it needs.
// What is built into the kernel is left out.
func (t moduleTree) order(names ...string) ([]string, error) {
	var ordered []string
	seen := map[string]bool{}
	var add func(string)
	add = func(module string) {
		if seen[module] {
			return
		}
		seen[module] = true
		for _, need := range t.needs[module] {
			add(need)
		}
		ordered = append(ordered, module)
	}
	for _, name := range names {
		module, ok := t.paths[moduleName(name)]
		switch {
		case ok:
			add(module)
		case !t.builtin[moduleName(name)]:
			return nil, fmt.Errorf("kernel module %q: the kernel of the virtual machine has none of this name", name)
		}
	}
	return ordered, nil
}
