// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package components builds what a Kubernetes cluster consists of from Go modules, and keeps it.
//
// Each group of binaries has a folder beside this file with a go.mod that names the commands as tools and a go.sum that pins
// everything below them. A build needs the module proxy the first time and the network never again.
package components

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"github.com/plexus-cni/plexus/e2e/retry"
)

// plugins is the group that a node has for its container runtime, not on its search path.
const plugins = "cni-plugins"

// group is a set of binaries that one module gives.
type group struct {
	name    string
	module  string // Folder of its go.mod, relative to the folder of the module e2e.
	pkgs    []string
	tags    string
	version string // Module whose version the binaries show.
	ldflags string // {version} stands for that version without its "v", {minor} for its second number.
	cgo     bool
	output  string // Name of the only binary, where the package's last element is not it.
}

// groups lists every binary of the cluster. What has a version of its own to show is told it: nobody stamps what is built from a module.
func groups() []group {
	tool := []string{"tool"}
	var stamps strings.Builder
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		fmt.Fprintf(&stamps, " -X %[1]s.gitVersion=v{version} -X %[1]s.gitMajor=1 -X %[1]s.gitMinor={minor} -X %[1]s.gitTreeState=clean", pkg)
	}
	return []group{
		{
			name: "runc", module: "components/runc", pkgs: tool, cgo: true,
			// The kubelet asks for the default seccomp profile, which takes libseccomp, linked in.
			tags: "netgo,osusergo,seccomp", version: "github.com/opencontainers/runc",
			ldflags: " -X main.version={version} -linkmode external -extldflags -static",
		},
		{
			name: "containerd", module: "components/containerd", pkgs: tool,
			tags: "no_btrfs,no_devmapper,no_zfs,no_aufs,no_tracing", version: "github.com/containerd/containerd/v2",
			ldflags: " -X github.com/containerd/containerd/v2/version.Version=v{version}",
		},
		{name: "etcd", module: "components/etcd", pkgs: tool, output: "etcd"},
		{
			name: "kubernetes", module: "components/kubernetes", pkgs: tool,
			tags: "providerless,dockerless,grpcnotrace,selinux", version: "k8s.io/kubernetes",
			ldflags: stamps.String(),
		},
		{name: plugins, module: "../tools/cni-plugins", pkgs: tool},
	}
}

// Binaries are the folders with the binaries of a cluster.
type Binaries struct {
	dirs map[string]string // by group
}

// PATH is the search path of all binaries but the CNI plugins.
func (b *Binaries) PATH() string {
	var dirs []string
	for _, g := range groups() {
		if g.name != plugins {
			dirs = append(dirs, b.dirs[g.name])
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// Plugins is the folder of the reference CNI plugins.
func (b *Binaries) Plugins() string { return b.dirs[plugins] }

// Path is the absolute path of one binary, "kubectl" for example.
func (b *Binaries) Path(name string) (string, error) {
	for _, dir := range b.dirs {
		if path := filepath.Join(dir, name); isFile(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("component %s: no group of binaries has it", name)
}

// ErrMissing says that binaries are not built yet.
var ErrMissing = errors.New("cluster components are not built: run `make e2e-deps`")

// Builder says where binaries are built from and kept.
type Builder struct {
	Module string    // Folder of the module e2e.
	Cache  string    // Folder that is kept between runs. See CacheDir.
	Log    io.Writer // What is being built, and what the compiler says.

	download retry.Limits // Those of a download if empty.
}

// CacheDir is where binaries, and clusters, are kept: dir if it is not empty, else a folder in the user's cache folder.
func CacheDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for the cluster components: %w: set PLEXUS_E2E_CACHE to one", err)
	}
	return filepath.Join(base, "plexus-e2e"), nil
}

// Find returns the binaries if all are there, else ErrMissing.
func (b Builder) Find() (*Binaries, error) {
	found := &Binaries{dirs: map[string]string{}}
	for _, g := range groups() {
		dir, err := b.dir(g)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("%s: %w", g.name, ErrMissing)
		}
		found.dirs[g.name] = dir
	}
	return found, nil
}

// Build builds what is missing and returns all.
func (b Builder) Build(ctx context.Context) (*Binaries, error) {
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()

	for _, g := range groups() {
		if _, err := b.ensure(ctx, g); err != nil {
			return nil, err
		}
	}
	return b.Find()
}

// Plugins builds the reference CNI plugins alone, if they are missing, and returns their folder.
func (b Builder) Plugins(ctx context.Context) (string, error) {
	unlock, err := b.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	for _, g := range groups() {
		if g.name == plugins {
			return b.ensure(ctx, g)
		}
	}
	return "", ErrMissing
}

// ensure builds a group if it is missing and returns its folder. A folder under its final name is complete: it is built aside
// and renamed.
func (b Builder) ensure(ctx context.Context, g group) (string, error) {
	dir, err := b.dir(g)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := b.build(ctx, g, dir); err != nil {
		return "", fmt.Errorf("build %s: %w", g.name, err)
	}
	return dir, nil
}

func (b Builder) build(ctx context.Context, g group, dir string) error {
	aside := dir + ".new"
	if err := errors.Join(os.RemoveAll(aside), os.Mkdir(aside, 0o755)); err != nil {
		return err
	}
	fmt.Fprintf(b.Log, "building %s\n", filepath.Base(dir))
	// Apart from the build, which is not worth a second attempt.
	err := retry.Do(ctx, cmp.Or(b.download, retry.Fetch()), b.Log, func() error {
		cmd := exec.CommandContext(ctx, "go", "mod", "download")
		cmd.Dir = filepath.Join(b.Module, g.module)
		cmd.Env = append(os.Environ(), "GOWORK=off")
		cmd.Stdout, cmd.Stderr = b.Log, b.Log
		return cmd.Run()
	})
	if err != nil {
		return fmt.Errorf("download its modules: %w", err)
	}
	if err := b.goBuild(ctx, g, aside); err != nil {
		return err
	}
	return os.Rename(aside, dir)
}

// Tools builds the module's own small commands that run inside a cluster into dir, anew each time.
func (b Builder) Tools(ctx context.Context, dir string) error {
	return b.goBuild(ctx, group{name: "tools", module: ".", pkgs: []string{"./cmd/node", "./cmd/pause"}}, dir)
}

func (b Builder) goBuild(ctx context.Context, g group, dir string) error {
	ldflags := "-s -w"
	if g.version != "" {
		version, err := requiredVersion(filepath.Join(b.Module, g.module, "go.mod"), g.version)
		if err != nil {
			return err
		}
		ldflags += strings.NewReplacer("{version}", version, "{minor}", strings.Split(version, ".")[1]).Replace(g.ldflags)
	}
	args := []string{
		"build", "-C", filepath.Join(b.Module, g.module), "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-tags", g.tags, "-ldflags", ldflags, "-o", filepath.Join(dir, g.output) + trailing(g.output == ""),
	}
	cmd := exec.CommandContext(ctx, "go", append(args, g.pkgs...)...)
	cgo := "CGO_ENABLED=0"
	if g.cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), "GOWORK=off", cgo)
	cmd.Stdout, cmd.Stderr = b.Log, b.Log
	return cmd.Run()
}

// trailing makes `go build -o` take its argument for a folder.
func trailing(folder bool) string {
	if folder {
		return string(filepath.Separator)
	}
	return ""
}

// dir is where the binaries of a group are kept: its name has all that decides what a build gives.
func (b Builder) dir(g group) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(b.Module, g.module, name))
		if err != nil {
			return "", err
		}
		sum.Write(content)
	}
	fmt.Fprintf(sum, "%+v %s %s", g, runtime.Version(), runtime.GOARCH)
	return filepath.Join(b.Cache, g.name+"-"+hex.EncodeToString(sum.Sum(nil))[:12]), nil
}

// requiredVersion is the version, without its "v", that a go.mod requires of a module.
func requiredVersion(gomod, module string) (string, error) {
	content, err := os.ReadFile(gomod)
	if err != nil {
		return "", err
	}
	line := regexp.MustCompile(`(?m)^(?:require|\t)\s*` + regexp.QuoteMeta(module) + ` v(\d+\.\d+\.\d+)`)
	found := line.FindSubmatch(content)
	if found == nil {
		return "", fmt.Errorf("%s: no require line for %s", gomod, module)
	}
	return string(found[1]), nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// lock waits until no other process builds, and returns what lets others build.
func (b Builder) lock() (func(), error) {
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(b.Cache, "build.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil
}
