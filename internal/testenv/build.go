// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// builds is what this test process has built so far. It lives as long as the process, because the binaries do.
var builds = &builder{done: map[string]string{}}

// builder builds each set of packages once.
type builder struct {
	mu   sync.Mutex
	done map[string]string // directory by set of packages
}

// Build builds main packages of this module, named as for `go build` at its root ("./cmd/plexus"), and returns the directory
// with the binaries. A test process builds each set once; the directory is its own, so that an edit while another test runs
// can not change the binaries under it.
func Build(tb testing.TB, packages ...string) string {
	tb.Helper()
	slices.Sort(packages)
	dir, err := builds.once(strings.Join(packages, " "), func() (string, error) { return buildPackages(packages) })
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// Plugins returns a directory with the reference CNI plugins, built from the module tools/cni-plugins. It is kept in the user's
// cache directory under a key of the module's exact versions and the compiler, so that only the first run of all builds.
func Plugins(tb testing.TB) string {
	tb.Helper()
	dir, err := builds.once("reference CNI plugins", buildPlugins)
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

func (b *builder) once(set string, build func() (string, error)) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if dir, ok := b.done[set]; ok {
		return dir, nil
	}
	dir, err := build()
	if err != nil {
		return "", err
	}
	b.done[set] = dir
	return dir, nil
}

func buildPackages(packages []string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	dir, err := processDir(cache)
	if err != nil {
		return "", fmt.Errorf("make directory for binaries: %w", err)
	}
	if err := showSources(root); err != nil {
		return "", fmt.Errorf("read sources: %w", err)
	}
	return dir, goBuild(root, dir, packages)
}

// showSources opens every folder of sources. `go test` notes what a test opens in its module, and so sees that its cached result
// is no longer worth anything when one of them changes: it does not know of the programs that a test builds.
func showSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin") {
			return fs.SkipDir
		}
		return err
	})
}

func buildPlugins() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "tools", "cni-plugins")
	key, err := moduleKey(module)
	if err != nil {
		return "", fmt.Errorf("reference CNI plugins: %w", err)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	unlock, err := lock(filepath.Join(cache, "cni-plugins.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	dir := filepath.Join(cache, "cni-plugins-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// Built aside and renamed, so that a directory under the final name is complete.
	aside := dir + ".new"
	if err := errors.Join(os.RemoveAll(aside), os.Mkdir(aside, 0o755)); err != nil {
		return "", err
	}
	if err := goBuild(module, aside, []string{"tool"}); err != nil {
		return "", err
	}
	return dir, os.Rename(aside, dir)
}

// goBuild builds packages of the module at root into dir, without cgo as the product is.
func goBuild(root, dir string, packages []string) error {
	args := append([]string{"build", "-C", root, "-trimpath", "-o", dir + string(filepath.Separator)}, packages...)
	cmd := exec.Command("go", args...) //nolint:noctx // `go test -timeout` bounds it.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// moduleRoot is the directory of the go.mod that the running test belongs to: `go test` starts it in its package's directory.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output() //nolint:noctx // It reads a few files; `go test -timeout` bounds it.
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	file := string(bytes.TrimSpace(out))
	if file == "" || file == os.DevNull {
		return "", errors.New("go env GOMOD: the test does not run inside the module's tree")
	}
	return filepath.Dir(file), nil
}

// moduleKey is one word for everything that decides what a build of the module's tools gives.
func moduleKey(module string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		sum.Write(content)
	}
	sum.Write([]byte(runtime.Version() + runtime.GOARCH))
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// cacheDir is where binaries outlive a test process.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		// No home directory: a place of our own among the temporary files.
		base = filepath.Join(os.TempDir(), "cache-"+strconv.Itoa(os.Getuid()))
	}
	dir := filepath.Join(base, "plexus-test")
	return dir, os.MkdirAll(dir, 0o755)
}

// processDir makes a directory in cache that belongs to this process and removes those whose process is gone: a test process has no
// moment of its own at which to clean up. Whose process lives is told by a lock in the directory, which the kernel lets go at
// its end, however it ends.
func processDir(cache string) (string, error) {
	unlock, err := lock(filepath.Join(cache, "builds.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	old, err := filepath.Glob(filepath.Join(cache, "build-*"))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		if err = sweep(dir); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", err
	}
	// Plugins run from it, perhaps as another user.
	if err = os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", dir, err)
	}
	// The descriptor stays open to the end of the process: it is the lock.
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", fmt.Errorf("lock %s: %w", dir, err)
	}
	return dir, nil
}

// sweep removes dir unless the process that built in it is alive.
func sweep(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil
		}
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	return os.RemoveAll(dir)
}

// lock waits for the exclusive lock of a file and returns what releases it.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
