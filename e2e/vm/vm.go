// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package vm runs a program in a virtual machine whose network cards have virtual functions: real ones to the kernel and its
// drivers, igb and igbvf, emulated by QEMU. It takes neither such hardware nor KVM, nor root.
//
// Builder fetches what the machine is made of, once; Machine.Run boots one for each program, in a few seconds.
package vm

import (
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// architecture is that of the machine, in Debian's words and Go's.
	architecture = "amd64"
	// libraries is the folder of Debian's shared libraries, in /lib and /usr/lib.
	libraries = "x86_64-linux-gnu"
	// loader is the program that starts those with shared libraries.
	loader = "ld-linux-x86-64.so.2"
	// qemuProgram is the emulator.
	qemuProgram = "qemu-system-x86_64"
	// qemuVersion is the least major version of QEMU that is taken from the host. The VFs of earlier ones have defects.
	qemuVersion = 10
	// layout is to be changed with what the folders in the cache have in them.
	layout = "1"
)

// ErrMissing says that the parts of the machine are not there yet.
var ErrMissing = errors.New("the virtual machine's parts are not in the cache: run `go run ./cmd/vm deps` in the folder e2e")

// Builder says what the machine is made from, and where.
type Builder struct {
	Module string    // Folder of the module e2e.
	Cache  string    // Folder that is kept between runs. See components.CacheDir.
	Log    io.Writer // What is being fetched, and what apt-get says.
}

// Machine is a virtual machine that can be run.
type Machine struct {
	module    string
	log       io.Writer
	bootLimit time.Duration // Until the program starts.
	qemu      qemu
	tools     tools
	kernel    string // Folder with vmlinux and lib/modules.
}

// part is a folder in the cache.
type part struct {
	name  string
	from  []string // Packages.
	fetch func(ctx context.Context, a *apt, dir string) error
}

func (b Builder) qemuPart() part {
	packages := []string{"qemu-system-x86"}
	return part{name: "qemu", from: packages, fetch: func(ctx context.Context, a *apt, dir string) error {
		return a.install(ctx, dir, backports, packages...)
	}}
}

func (b Builder) toolsPart() part {
	packages := []string{"busybox-static", "iproute2", "xz-utils"}
	return part{name: "tools", from: packages, fetch: func(ctx context.Context, a *apt, dir string) error {
		return a.install(ctx, dir, "", packages...)
	}}
}

func (b Builder) kernelPart() part {
	return part{name: "kernel", from: []string{"linux-image", "linux-source"}, fetch: func(ctx context.Context, a *apt, dir string) error {
		return fetchKernel(ctx, a, tools{dir: b.dir(b.toolsPart())}, dir)
	}}
}

// dir is where a part is kept: its name has what decides what is in it.
func (b Builder) dir(p part) string {
	sum := sha256.Sum256(fmt.Append(nil, layout, release, architecture, p.name, p.from))
	return filepath.Join(b.home(), p.name+"-"+hex.EncodeToString(sum[:])[:12])
}

func (b Builder) home() string { return filepath.Join(b.Cache, "vm") }

// Find returns the machine if all its parts are there, else ErrMissing.
func (b Builder) Find(ctx context.Context) (*Machine, error) {
	m := &Machine{
		module: b.Module, log: b.Log, bootLimit: bootLimit,
		tools: tools{dir: b.dir(b.toolsPart())}, kernel: b.dir(b.kernelPart()),
	}
	needed := []string{m.tools.dir, m.kernel}
	if path, ok := hostQEMU(ctx); ok {
		m.qemu = qemu{argv: []string{path}}
	} else {
		tree := b.dir(b.qemuPart())
		m.qemu = unpackedQEMU(tree)
		needed = append(needed, tree)
	}
	for _, dir := range needed {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(dir), ErrMissing)
		}
	}
	return m, nil
}

// Build fetches the parts that are missing and returns the machine. ErrUnavailable says that this host can not.
func (b Builder) Build(ctx context.Context) (*Machine, error) {
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()

	parts := []part{b.toolsPart(), b.kernelPart()}
	if _, ok := hostQEMU(ctx); !ok {
		parts = append(parts, b.qemuPart())
	}
	var packages *apt // Made when the first part is found missing: it takes the network.
	root := filepath.Join(b.home(), "apt")
	for _, p := range parts {
		dir := b.dir(p)
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		if packages == nil {
			if packages, err = newApt(ctx, root, b.Log); err != nil {
				return nil, fmt.Errorf("prepare to fetch packages: %w", err)
			}
		}
		fmt.Fprintf(b.Log, "fetching %s\n", filepath.Base(dir))
		if err := fetch(ctx, p, packages, dir); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", p.name, err)
		}
	}
	if err := os.RemoveAll(root); err != nil {
		return nil, err
	}
	return b.Find(ctx)
}

// fetch makes a part aside and renames it: a folder under its final name is complete.
func fetch(ctx context.Context, p part, a *apt, dir string) error {
	aside := dir + ".new"
	if err := errors.Join(os.RemoveAll(aside), os.Mkdir(aside, 0o755)); err != nil {
		return err
	}
	if err := p.fetch(ctx, a, aside); err != nil {
		return err
	}
	return os.Rename(aside, dir)
}

// lock waits until no other process fetches, and returns what lets others fetch.
func (b Builder) lock() (func(), error) {
	if err := os.MkdirAll(b.home(), 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(b.home(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file.Name(), err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// qemu is how to start the emulator.
type qemu struct {
	argv []string // Program, and the arguments by which it finds what it is made of.
	env  []string
}

// hostQEMU finds a QEMU of the host that has igb and is recent enough.
func hostQEMU(ctx context.Context) (string, bool) {
	path, err := exec.LookPath(qemuProgram)
	if err != nil {
		return "", false
	}
	version, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil || majorVersion(string(version)) < qemuVersion {
		return "", false
	}
	return path, exec.CommandContext(ctx, path, "-device", "igb,help").Run() == nil
}

// majorVersion is 10 for what QEMU 10.0.2 says of itself, and 0 for what is no QEMU.
func majorVersion(says string) int {
	found := regexp.MustCompile(`^QEMU emulator version (\d+)\.`).FindStringSubmatch(says)
	if found == nil {
		return 0
	}
	major, err := strconv.Atoi(found[1])
	if err != nil {
		return 0
	}
	return major
}

// unpackedQEMU is a QEMU that is not installed.
func unpackedQEMU(tree string) qemu {
	return qemu{
		argv: append(unpacked(tree, "usr/bin/"+qemuProgram),
			"-L", filepath.Join(tree, "usr", "share", "qemu"), "-L", filepath.Join(tree, "usr", "share", "seabios")),
		env: []string{"QEMU_MODULE_DIR=" + filepath.Join(tree, "usr", "lib", libraries, "qemu")},
	}
}

// unpacked is how to start a program of packages that are unpacked in tree: by the loader, with the C library and all others, that
// came with it, whatever those of the host.
func unpacked(tree, program string) []string {
	lib, usrLib := filepath.Join(tree, "lib", libraries), filepath.Join(tree, "usr", "lib", libraries)
	return []string{
		filepath.Join(lib, loader), "--library-path", strings.Join([]string{lib, usrLib}, ":"),
		filepath.Join(tree, program),
	}
}
