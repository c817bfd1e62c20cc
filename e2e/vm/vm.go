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
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
	layout = "2"
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
	kernel    string            // Folder with vmlinux and lib/modules.
	lacks     map[string]string // Modules that it should have, by name: why it does not.
}

// part is a folder in the cache.
type part struct {
	name string
	from []string // Packages.
	// fetch has the ways to make it, of which each is tried with each release of Debian before the next.
	fetch []fetcher
}

// fetcher makes a part in dir and returns what it took. Its error matches errNotServed if another release, or another way, may do.
type fetcher func(ctx context.Context, a *apt, dir string) (taken, error)

// taken says what a part is made of.
type taken struct {
	Packages []string          // Each "name version".
	Release  string            // Of Debian.
	Lacks    map[string]string `json:",omitempty"` // By what the part should have and does not, why.
}

// takenFile has it, in the folder of the part.
const takenFile = "taken.json"

func (t taken) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s, of Debian %s", strings.Join(t.Packages, ", "), t.Release)
	for _, name := range slices.Sorted(maps.Keys(t.Lacks)) {
		fmt.Fprintf(&text, "; without %s: %s", name, t.Lacks[name])
	}
	return text.String()
}

// readTaken reads it. A folder without it is no complete part.
func readTaken(dir string) (taken, error) {
	content, err := os.ReadFile(filepath.Join(dir, takenFile))
	if err != nil {
		return taken{}, err
	}
	var t taken
	return t, json.Unmarshal(content, &t)
}

func (b Builder) qemuPart() part {
	packages := []string{"qemu-system-x86"}
	return part{name: "qemu", from: packages, fetch: []fetcher{func(ctx context.Context, a *apt, dir string) (taken, error) {
		// QEMU has igb since 8.0: in bookworm, that of backports.
		got, err := a.install(ctx, dir, backports(a.release), packages...)
		if err != nil {
			return taken{}, err
		}
		// The release's own may be too old, if its backports are not there.
		if !unpackedQEMU(dir).fit(ctx) {
			return taken{}, fmt.Errorf("%w: QEMU %d or later with igb: Debian %s has %s", errNotServed, qemuVersion, a.release, strings.Join(got, ", "))
		}
		return taken{Packages: got}, nil
	}}}
}

func (b Builder) toolsPart() part {
	packages := []string{"busybox-static", "iproute2", "xz-utils"}
	return part{name: "tools", from: packages, fetch: []fetcher{func(ctx context.Context, a *apt, dir string) (taken, error) {
		got, err := a.install(ctx, dir, "", packages...)
		return taken{Packages: got}, err
	}}}
}

func (b Builder) kernelPart() part {
	t := tools{dir: b.dir(b.toolsPart())}
	var failed []string // Why no kernel of a release is whole.
	return part{name: "kernel", from: []string{"linux-image", "linux-source"}, fetch: []fetcher{
		func(ctx context.Context, a *apt, dir string) (taken, error) {
			got, err := fetchKernel(ctx, a, t, dir)
			if err != nil {
				reason, _, _ := strings.Cut(err.Error(), "\n")
				failed = append(failed, fmt.Sprintf("of Debian %s: %s", a.release, reason))
			}
			return got, err
		},
		func(ctx context.Context, a *apt, dir string) (taken, error) {
			return fetchKernelAlone(ctx, a, t, dir, strings.Join(failed, "; "))
		},
	}}
}

// dir is where a part is kept: its name has what decides what is in it.
func (b Builder) dir(p part) string {
	sum := sha256.Sum256(fmt.Append(nil, layout, releases(), architecture, p.name, p.from))
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
		has, err := readTaken(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(dir), ErrMissing)
		}
		if dir == m.kernel {
			m.lacks = has.Lacks
		}
	}
	return m, nil
}

// Build fetches the parts that are missing and returns the machine. ErrUnavailable says that this host cannot.
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
	stock := &archives{root: filepath.Join(b.home(), "apt"), log: b.Log}
	for _, p := range parts {
		if err := b.ensure(ctx, p, stock); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", p.name, err)
		}
	}
	if err := os.RemoveAll(stock.root); err != nil {
		return nil, err
	}
	return b.Find(ctx)
}

// ensure fetches a part that is missing, or tries again to fetch one that lacks something, and says what it is made of.
func (b Builder) ensure(ctx context.Context, p part, stock *archives) error {
	dir := b.dir(p)
	has, err := readTaken(dir)
	if err != nil || len(has.Lacks) > 0 {
		fmt.Fprintf(b.Log, "fetching %s\n", filepath.Base(dir))
		got, errFetch := fetch(ctx, p, stock, dir)
		switch {
		case errFetch == nil:
			has = got
		case err != nil || ctx.Err() != nil:
			return errFetch
		default:
			fmt.Fprintf(b.Log, "keeping %s as it is: %v\n", p.name, errFetch)
		}
	}
	fmt.Fprintf(b.Log, "%s: %s\n", p.name, has)
	return nil
}

// archives are those of all releases, each asked when it is first needed: that takes the network.
type archives struct {
	root    string
	log     io.Writer
	mirrors *mirrors
	byName  map[string]*apt
}

func (s *archives) release(ctx context.Context, name string) (*apt, error) {
	if a, ok := s.byName[name]; ok {
		return a, nil
	}
	if s.mirrors == nil {
		found, err := findHostMirrors(ctx)
		if err != nil {
			return nil, err
		}
		s.mirrors = &found
	}
	a, err := newApt(ctx, filepath.Join(s.root, name), name, *s.mirrors, s.log)
	if err != nil {
		return nil, fmt.Errorf("fetch the lists of packages of Debian %s: %w", name, err)
	}
	if s.byName == nil {
		s.byName = map[string]*apt{}
	}
	s.byName[name] = a
	return a, nil
}

// fetch makes a part aside and renames it: a folder under its final name is complete.
func fetch(ctx context.Context, p part, stock *archives, dir string) (taken, error) {
	var failed []error
	for _, way := range p.fetch {
		for _, release := range releases() {
			got, err := fetchFrom(ctx, way, stock, release, dir+".new")
			if err == nil {
				return got, errors.Join(os.RemoveAll(dir), os.Rename(dir+".new", dir))
			}
			if !errors.Is(err, errNotServed) {
				return taken{}, err
			}
			fmt.Fprintf(stock.log, "%s: not of Debian %s: %v\n", p.name, release, err)
			failed = append(failed, err)
		}
	}
	return taken{}, errors.Join(failed...)
}

func fetchFrom(ctx context.Context, way fetcher, stock *archives, release, dir string) (taken, error) {
	a, err := stock.release(ctx, release)
	if err != nil {
		return taken{}, err
	}
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return taken{}, err
	}
	got, err := way(ctx, a, dir)
	if err != nil {
		return taken{}, err
	}
	got.Release = release
	content, err := json.Marshal(got)
	return got, errors.Join(err, os.WriteFile(filepath.Join(dir, takenFile), content, 0o644))
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

// hostQEMU finds a QEMU of the host that is fit.
func hostQEMU(ctx context.Context) (string, bool) {
	path, err := exec.LookPath(qemuProgram)
	if err != nil {
		return "", false
	}
	return path, qemu{argv: []string{path}}.fit(ctx)
}

// fit tells whether it has igb and is recent enough.
func (q qemu) fit(ctx context.Context) bool {
	run := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, q.argv[0], slices.Concat(q.argv[1:], args)...)
		cmd.Env = append(os.Environ(), q.env...)
		return cmd
	}
	version, err := run("--version").Output()
	return err == nil && majorVersion(string(version)) >= qemuVersion && run("-device", "igb,help").Run() == nil
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
