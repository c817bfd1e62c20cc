// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"slices"
	"strings"

	"pault.ag/go/debian/dependency"
	"pault.ag/go/debian/version"
)

// debPackage is one version of a package in the archives.
type debPackage struct {
	name    string
	version version.Version
	depends dependency.Dependency
}

// String is how apt-get download takes it.
func (p debPackage) String() string { return p.name + "=" + p.version.String() }

// archive lists the packages that are to be had, each in any number of versions.
type archive map[string][]debPackage

// parseArchive reads what `apt-cache show --all-versions` prints: paragraphs as of deb822(5), of which it takes the fields
// Package, Version and Depends. One version of a package may be listed by several archives.
func parseArchive(listing string) (archive, error) {
	found := archive{}
	var p debPackage
	add := func() error {
		switch {
		case p.name == "" && p.version.Empty():
			return nil
		case p.name == "" || p.version.Empty():
			return fmt.Errorf("package %q, version %q: a paragraph needs both fields", p.name, p.version)
		}
		if found.find(p.name, p.version) == nil {
			found[p.name] = append(found[p.name], p)
		}
		p = debPackage{}
		return nil
	}
	for line := range strings.Lines(listing) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			if err := add(); err != nil {
				return nil, err
			}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch field {
		case "Package":
			p.name = value
		case "Version":
			parsed, err := version.Parse(value)
			if err != nil {
				return nil, fmt.Errorf("package %s: version %q: %w", p.name, value, err)
			}
			p.version = parsed
		case "Depends":
			parsed, err := dependency.Parse(value)
			if err != nil {
				return nil, fmt.Errorf("package %s: depends on %q: %w", p.name, value, err)
			}
			p.depends = *parsed
		}
	}
	return found, add()
}

// find returns a package in one version, or nil.
func (a archive) find(name string, v version.Version) *debPackage {
	for i, p := range a[name] {
		if version.Compare(p.version, v) == 0 {
			return &a[name][i]
		}
	}
	return nil
}

// satisfy returns the oldest version that a relation accepts, which is nearest to what the package that depends on it was built
// with, or nil.
func (a archive) satisfy(on dependency.Possibility) *debPackage {
	var oldest *debPackage
	for i, p := range a[on.Name] {
		accepted := on.Version == nil || on.Version.SatisfiedBy(p.version)
		if accepted && (oldest == nil || version.Compare(p.version, oldest.version) < 0) {
			oldest = &a[on.Name][i]
		}
	}
	return oldest
}

// dependsOn returns the relations of a package to those whose name starts with prefix.
func (p debPackage) dependsOn(prefix string) []dependency.Possibility {
	return slices.DeleteFunc(p.depends.GetAllPossibilities(), func(on dependency.Possibility) bool {
		return !strings.HasPrefix(on.Name, prefix)
	})
}

// relation is a possibility as people write it: "linux-kbuild-6.1 (>= 6.1.192-3)".
func relation(on dependency.Possibility) string {
	if on.Version == nil {
		return on.Name
	}
	return fmt.Sprintf("%s (%s %s)", on.Name, on.Version.Operator, on.Version.Number)
}
