// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// maxBinaryBytes is what the plugin may take on disk. It is read from there for each call, so its size is time.
const maxBinaryBytes = 6 << 20

// allowed says what the plugin may be linked with beside the standard library, directly or not: paths, and all that is below them.
func allowed() []string {
	return []string{
		"github.com/plexus-cni/plexus",
		"github.com/containernetworking/cni",
		"github.com/vishvananda/netlink",
		"github.com/vishvananda/netns",
		"golang.org/x/sys",
		// The manifest source, and what its parser is built on.
		"sigs.k8s.io/yaml",
		"go.yaml.in/yaml/v2",
	}
}

// forbidden is what would make the plugin large and slow to start, be it otherwise allowed or not, with what to do instead.
func forbidden() []rule {
	return []rule{
		{path: "net/http", fix: "speak internal/wire's messages over a socket"},
		// Since CNI 1.3.1 they bring OpenTelemetry, and that net/http.
		{path: "github.com/containernetworking/cni/libcni", fix: "call plugins with package delegate"},
		{path: "github.com/containernetworking/cni/pkg/invoke", fix: "call plugins with package delegate"},
		{path: "k8s.io", fix: "leave the API server to the daemon, and Kubernetes' types to nad/v1"},
		{path: "google.golang.org/grpc", fix: "leave the kubelet to the daemon"},
		{path: "github.com/spf13", fix: "the plugin has no flags"},
		{path: "github.com/prometheus", fix: "leave metrics to the daemon"},
		{path: "github.com/plexus-cni/plexus/internal/daemon", fix: "speak internal/wire's messages to it"},
		{path: "github.com/plexus-cni/plexus/internal/kube", fix: "leave the API server to the daemon"},
		{path: "github.com/plexus-cni/plexus/nad/v1", fix: "use package nad, which needs no apimachinery"},
	}
}

type rule struct{ path, fix string }

// pkg is a package that is linked in.
type pkg struct {
	path     string
	standard bool
	imports  []string
}

// violations names each import that breaks a rule: who imports what, and what to do. Imports among the standard library's own
// packages are none.
func violations(deps []pkg) []string {
	standard := map[string]bool{}
	for _, p := range deps {
		standard[p.path] = p.standard
	}
	var found []string
	for _, p := range deps {
		if p.standard {
			continue
		}
		for _, path := range p.imports {
			if fix, ok := judge(p.path, path, standard[path]); !ok {
				found = append(found, fmt.Sprintf("%s imports %s: %s", p.path, path, fix))
			}
		}
	}
	return found
}

// judge returns whether the importer may import the path, and if not what to do.
func judge(importer, path string, standard bool) (string, bool) {
	for _, r := range forbidden() {
		if within(path, r.path) && !within(importer, r.path) {
			return r.fix, false
		}
	}
	if standard || slices.ContainsFunc(allowed(), func(a string) bool { return within(path, a) }) {
		return "", true
	}
	return "not on this test's list of allowed imports; if the plugin needs it, argue for it in the commit that adds it there", false
}

// within says whether path is parent or below it.
func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

func TestImports(t *testing.T) {
	t.Parallel()
	deps := listDeps(t)
	if got := len(deps); got < 50 {
		t.Fatalf("go list found only %d packages", got)
	}
	for _, v := range violations(deps) {
		t.Error(v)
	}
}

func TestViolations(t *testing.T) {
	t.Parallel()
	const self = "github.com/plexus-cni/plexus/cmd/plexus"
	for _, tc := range []struct {
		name string
		deps []pkg
		want []string // importer and import
	}{
		{name: "the standard library is allowed", deps: []pkg{{path: self, imports: []string{"os"}}, {path: "os", standard: true}}},
		{name: "a listed module is allowed", deps: []pkg{{path: self, imports: []string{"sigs.k8s.io/yaml", "github.com/containernetworking/cni/pkg/skel"}}}},
		{name: "what the standard library imports itself is not looked at", deps: []pkg{{path: "expvar", standard: true, imports: []string{"net/http"}}}},
		{name: "another module is not", deps: []pkg{{path: self, imports: []string{"example.com/x"}}}, want: []string{self + " imports example.com/x"}},
		{
			name: "nor is one with a listed name at its start", deps: []pkg{{path: self, imports: []string{"github.com/vishvananda/netlinkx"}}},
			want: []string{self + " imports github.com/vishvananda/netlinkx"},
		},
		{
			name: "nor is net/http", deps: []pkg{{path: self, imports: []string{"net/http"}}, {path: "net/http", standard: true}},
			want: []string{self + " imports net/http"},
		},
		{
			name: "nor is libcni", deps: []pkg{{path: self, imports: []string{"github.com/containernetworking/cni/libcni"}}},
			want: []string{self + " imports github.com/containernetworking/cni/libcni"},
		},
		{
			name: "nor is Kubernetes, found where it comes in",
			deps: []pkg{{path: self, imports: []string{"github.com/plexus-cni/plexus/nad/v1"}}, {path: "github.com/plexus-cni/plexus/nad/v1", imports: []string{"k8s.io/apimachinery/pkg/runtime"}}},
			want: []string{self + " imports github.com/plexus-cni/plexus/nad/v1", "github.com/plexus-cni/plexus/nad/v1 imports k8s.io/apimachinery/pkg/runtime"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, v := range violations(tc.deps) {
				imports, _, _ := strings.Cut(v, ": ")
				got = append(got, imports)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBinarySize(t *testing.T) {
	t.Parallel()
	if size := binarySize(t, buildPlugin(t)); size > maxBinaryBytes {
		t.Errorf("the plugin has %d bytes, %d more than it may: see with `go tool nm -size -sort size` what is new", size, size-maxBinaryBytes)
	}
}

// BenchmarkVersion is what a call costs before it does anything, and the binary's size.
func BenchmarkVersion(b *testing.B) {
	binary := buildPlugin(b)
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), binary)
		cmd.Env = []string{"CNI_COMMAND=VERSION"}
		cmd.Stdin = strings.NewReader(`{"cniVersion":"1.1.0"}`)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	b.ReportMetric(float64(binarySize(b, binary)), "binary-bytes")
}

// listDeps returns all packages that the plugin is linked with.
func listDeps(t *testing.T) []pkg {
	t.Helper()
	out := goCommand(t, "list", "-deps", "-f", `{{.ImportPath}} {{.Standard}}{{range .Imports}} {{.}}{{end}}`, ".")
	var deps []pkg
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		deps = append(deps, pkg{path: fields[0], standard: fields[1] == "true", imports: fields[2:]})
	}
	return deps
}

// buildPlugin builds the plugin as it is released.
func buildPlugin(tb testing.TB) string {
	tb.Helper()
	binary := filepath.Join(tb.TempDir(), "plexus")
	goCommand(tb, "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".")
	return binary
}

func binarySize(tb testing.TB, binary string) int64 {
	tb.Helper()
	fi, err := os.Stat(binary)
	if err != nil {
		tb.Fatal(err)
	}
	return fi.Size()
}

// goCommand runs the go command as for a release, and returns its output.
func goCommand(tb testing.TB, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}
