// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheArchitectureHasAllPackages holds the table of packages to the tree, both ways.
func TestTheArchitectureHasAllPackages(t *testing.T) {
	t.Parallel()
	page := pages(t)["architecture.md"]
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z0-9/-]+)/`").FindAllStringSubmatch(page, -1) {
		named[m[1]] = true
		if files, err := filepath.Glob(filepath.Join("..", m[1], "*.go")); err != nil || len(files) == 0 {
			t.Errorf("there is no package %s (%v)", m[1], err)
		}
	}
	for _, top := range []string{"annotations", "cmd", "delegate", "internal", "nad", "sriov"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			if e.Name() == "testdata" {
				return fs.SkipDir
			}
			files, err := filepath.Glob(filepath.Join(path, "*.go"))
			if name := strings.TrimPrefix(filepath.ToSlash(path), "../"); len(files) > 0 && !named[name] {
				t.Errorf("docs/architecture.md does not name package `%s/`", name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheArchitecturesFiguresAreTheCodes holds what the page says about limits to the constants.
func TestTheArchitecturesFiguresAreTheCodes(t *testing.T) {
	t.Parallel()
	page := pages(t)["architecture.md"]
	for _, tc := range []struct{ said, file, declares string }{
		{"at most 40 s", "internal/plugin/gc.go", "gcTimeout = 40 * time.Second"},
		{"at most 10 s", "internal/plugin/repair.go", "repairTimeout    = 10 * time.Second"},
		{"5 s for one", "internal/plugin/repair.go", "repairOneTimeout = repairTimeout / 2"},
		{"every ten minutes", "internal/plugin/repair.go", "repairInterval = 10 * time.Minute"},
		{"after 10 s", "delegate/undo.go", "goneAfter = 10 * time.Second"},
		{"for five minutes", "delegate/undo.go", "giveUpAfter = 5 * time.Minute"},
		{"bounded by 40 s", "internal/plugin/lock.go", "lockTimeout = 40 * time.Second"},
		{"up to 30 s", "internal/source/remote/remote.go", "Timeout = 30 * time.Second"},
		{"up to 16 KiB", "internal/kube/cache.go", "maxKeptBytes = 16 << 10"},
		{"most 512 sessions", "internal/daemon/server.go", "maxSessions = 512"},
		{"up to 16 MiB of all together", "internal/kube/cache.go", "maxKeptSum = 16 << 20"},
		{"closed for 5 minutes", "internal/kube/cache.go", "staleAfter = 5 * time.Minute"},
		{"Four lookups at a time", "cmd/plexusd/serve.go", "largeAtOnce = 4"},
		{"more than 128 KiB of configurations", "internal/daemon/cluster.go", "largeConfigBytes = 128 << 10"},
		{"each up to 2 MiB", "internal/daemon/cluster.go", "maxConfigBytes = 2 << 20"},
		{"64 lookups and reports at a time", "cmd/plexusd/serve.go", `"max-in-flight", 64`},
		{"256 MiB in the manifests", "deploy/base/daemonset.yaml", "memory: 256Mi"},
	} {
		source, err := os.ReadFile(filepath.Join("..", tc.file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(page, tc.said) || !strings.Contains(string(source), tc.declares) {
			t.Errorf("docs/architecture.md says %q if %s has %q: one of both has changed", tc.said, tc.file, tc.declares)
		}
	}
}
