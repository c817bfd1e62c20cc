// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package components

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/e2e/retry"
)

func TestVersionsThatAreShownAreThoseThatAreBuilt(t *testing.T) {
	t.Parallel()
	for _, g := range groups() {
		if g.version == "" {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			version, err := requiredVersion(filepath.Join("..", g.module, "go.mod"), g.version)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(version, ".") != 2 || strings.HasPrefix(version, "v") {
				t.Errorf("version of %s: got %q, want three numbers", g.name, version)
			}
			for _, placeholder := range []string{"{version}"} {
				if !strings.Contains(g.ldflags, placeholder) {
					t.Errorf("ldflags of %s have no %s: %s", g.name, placeholder, g.ldflags)
				}
			}
		})
	}
}

func TestRequiredVersion(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		gomod, module, want string
	}{
		"on a line of its own":            {"require example.org/m v1.2.3\n", "example.org/m", "1.2.3"},
		"in a block":                      {"require (\n\texample.org/m v1.2.3\n)\n", "example.org/m", "1.2.3"},
		"not of a module of a like name":  {"require (\n\texample.org/m/v2 v2.0.0\n\texample.org/m v1.2.3\n)\n", "example.org/m", "1.2.3"},
		"not where it is only replaced":   {"replace example.org/m => example.org/m v1.2.3\n", "example.org/m", ""},
		"not where another is required":   {"require example.org/n v1.2.3\n", "example.org/m", ""},
		"not by a dot that means any one": {"require examplexorg/m v1.2.3\n", "example.org/m", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "go.mod")
			if err := os.WriteFile(file, []byte(test.gomod), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := requiredVersion(file, test.module)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// module lays out a folder as Builder finds the module e2e, with the names of groups and nothing to build.
func module(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "e2e")
	for _, g := range groups() {
		for _, file := range []string{"go.mod", "go.sum"} {
			path := filepath.Join(root, g.module, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(g.name), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestFind(t *testing.T) {
	t.Parallel()
	b := Builder{Module: module(t), Cache: t.TempDir(), Log: io.Discard}
	if _, err := b.Find(); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "make e2e-deps") {
		t.Fatalf("with nothing built: got %v, want %v", err, ErrMissing)
	}
	for _, g := range groups() {
		dir, err := b.dir(g)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Mkdir(dir, 0o750), os.WriteFile(filepath.Join(dir, g.name), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := b.Find()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := found.Path("etcd"); err != nil || filepath.Base(got) != "etcd" {
		t.Errorf("path of etcd: got %q, %v", got, err)
	}
	if got, err := found.Path("no-such"); err == nil {
		t.Errorf("path of what no group has: got %q", got)
	}
	if strings.Contains(found.PATH(), plugins) {
		t.Errorf("CNI plugins are on the search path: %s", found.PATH())
	}

	// Another version of one group.
	if err := os.WriteFile(filepath.Join(b.Module, "components/etcd/go.sum"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Find(); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "etcd") {
		t.Errorf("with a pin of etcd changed: got %v, want %v", err, ErrMissing)
	}
}

func TestABuildThatFailsLeavesNothingThatCountsAsBuilt(t *testing.T) {
	t.Parallel()
	b := Builder{Module: module(t), Cache: t.TempDir(), Log: io.Discard, download: retry.Limits{Attempts: 1}}
	if _, err := b.Build(t.Context()); err == nil {
		t.Fatal("a folder without a module was built")
	}
	if _, err := b.Find(); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want %v", err, ErrMissing)
	}
}

func TestCacheDir(t *testing.T) {
	t.Parallel()
	if got, err := CacheDir("some/where"); err != nil || !filepath.IsAbs(got) || !strings.HasSuffix(got, "some/where") {
		t.Errorf("a folder that was named: got %q, %v", got, err)
	}
}
