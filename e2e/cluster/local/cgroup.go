// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const cgroupfs = "/sys/fs/cgroup"

// cgroups are the hierarchies of the machine that the kubelet needs a group in.
type cgroups struct {
	v2    bool
	roots []string
}

// findCgroups tells version 2, with its one hierarchy, from version 1, with one for each controller.
func findCgroups() (cgroups, error) {
	if _, err := os.Stat(filepath.Join(cgroupfs, "cgroup.controllers")); err == nil {
		return cgroups{v2: true, roots: []string{cgroupfs}}, nil
	}
	// Hybrid machines have version 2 besides, as "unified", without controllers.
	all, err := filepath.Glob(filepath.Join(cgroupfs, "*", "cgroup.clone_children"))
	if err != nil {
		return cgroups{}, err
	}
	var found cgroups
	for _, file := range all {
		root := filepath.Dir(file)
		if info, err := os.Lstat(root); err == nil && info.IsDir() { // "cpu" may be a link to "cpu,cpuacct".
			found.roots = append(found.roots, root)
		}
	}
	if len(found.roots) == 0 {
		return cgroups{}, fmt.Errorf("no cgroup hierarchy is mounted at %s: mount cgroup2 there", cgroupfs)
	}
	return found, nil
}

// make makes the group of a name in each hierarchy.
func (c cgroups) make(name string) error {
	for _, root := range c.roots {
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if c.v2 {
			const controllers = "+cpu +cpuset +memory +pids"
			if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte(controllers), 0); err != nil {
				return fmt.Errorf("enable controllers for cgroup %s: %w", dir, err)
			}
			continue
		}
		// A new group of version 1 has no processors and no memory, and nothing can run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			content, err := os.ReadFile(filepath.Join(root, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), content, 0)); err != nil {
				return fmt.Errorf("fill cgroup %s: %w", dir, err)
			}
		}
	}
	return nil
}

// remove removes the group of a name, with all below it, from each hierarchy. Its processes must be gone.
func (c cgroups) remove(name string) error {
	var failed []error
	// Container runtimes make groups in the unified hierarchy of a hybrid machine too.
	for _, root := range append(slices.Clone(c.roots), filepath.Join(cgroupfs, "unified")) {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			failed = append(failed, err)
		}
		slices.SortFunc(dirs, func(a, b string) int { return strings.Compare(b, a) }) // Inner ones first.
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}
