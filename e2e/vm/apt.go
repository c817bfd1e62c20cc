// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

const (
	// release is the release of Debian that the machine is made of, whatever the release of the host.
	release = "bookworm"
	// backports has a QEMU with igb, which came with 8.0.
	backports = release + "-backports"
	// keyring has the keys of Debian's archive. It is there on every Debian.
	keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// ErrUnavailable says that this host has no way to the Debian packages of the machine.
var ErrUnavailable = errors.New("the virtual machine is made of Debian packages: prepare it on Debian 12 or later, with apt-get and dpkg-deb")

// apt downloads and unpacks Debian packages by the host's apt-get, with a state of its own in which nothing is installed: that of
// the host is neither read nor changed. Mirrors and proxies are the host's.
type apt struct {
	root string
	log  io.Writer
}

// newApt makes the state in root and fetches the lists of packages.
func newApt(ctx context.Context, root string, log io.Writer) (*apt, error) {
	if runtime.GOARCH != architecture {
		return nil, fmt.Errorf("%w, on %s", ErrUnavailable, architecture)
	}
	for _, program := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	targets, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return nil, fmt.Errorf("list the host's package sources: %w", err)
	}
	found, err := findMirrors(string(targets))
	if err != nil {
		return nil, err
	}
	a := &apt{root: root, log: log}
	if err := os.RemoveAll(root); err != nil {
		return nil, err
	}
	for _, dir := range []string{"etc/sources.list.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, err
		}
	}
	for file, content := range map[string]string{"etc/sources.list": found.sources(), "etc/preferences": "", "status": ""} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	_, err = a.run(ctx, root, "apt-get", "update")
	return a, err
}

// mirrors are the addresses of Debian's archives.
type mirrors struct {
	archive  string
	security string // Empty if the host takes no security updates.
}

// findMirrors finds them among the host's sources of packages: each line has an address, a release and a component.
// Others than Debian offer packages for its releases, but no updates of a release beside it.
func findMirrors(targets string) (mirrors, error) {
	var found mirrors
	offered := map[string]bool{}
	for line := range strings.Lines(targets) {
		if address, release, ok := mainSource(line); ok {
			offered[address+" "+release] = true
		}
	}
	for line := range strings.Lines(targets) {
		address, release, ok := mainSource(line)
		if !ok {
			continue
		}
		if found.security == "" && strings.HasSuffix(release, "-security") {
			found.security = address
		}
		if found.archive == "" && offered[address+" "+release+"-updates"] {
			found.archive = address
		}
	}
	if found.archive == "" {
		return mirrors{}, fmt.Errorf("%w: none of this host's package sources has a release of Debian with its updates", ErrUnavailable)
	}
	return found, nil
}

// mainSource splits a line into address and release if its component is main.
func mainSource(line string) (string, string, bool) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[2] != "main" {
		return "", "", false
	}
	return fields[0], fields[1], true
}

// sources is the list of sources as of sources.list(5).
func (m mirrors) sources() string {
	var list strings.Builder
	add := func(address, suite string) {
		fmt.Fprintf(&list, "deb [signed-by=%s] %s %s main\n", keyring, address, suite)
	}
	add(m.archive, release)
	add(m.archive, backports)
	if m.security != "" {
		add(m.security, release+"-security")
	}
	return list.String()
}

// options make apt use the state in root.
func (a *apt) options() []string {
	path := func(name string) string { return filepath.Join(a.root, name) }
	var options []string
	for _, o := range [][2]string{
		{"Dir::Etc::sourcelist", path("etc/sources.list")},
		{"Dir::Etc::sourceparts", path("etc/sources.list.d")},
		{"Dir::Etc::preferences", path("etc/preferences")},
		{"Dir::Etc::preferencesparts", path("etc/preferences.d")},
		{"Dir::State", path("state")},
		{"Dir::State::status", path("status")},
		{"Dir::Cache", path("cache")},
		{"APT::Architecture", architecture},
		{"APT::Architectures", architecture},
		{"APT::Default-Release", ""},
		{"APT::Get::Assume-Yes", "true"},
		{"APT::Sandbox::User", ""},
		{"Acquire::Languages", "none"},
		{"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"},
		{"Debug::NoLocking", "true"},
		{"quiet", "1"},
	} {
		options = append(options, "-o", o[0]+"="+o[1])
	}
	return options
}

func (a *apt) run(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, append(a.options(), args...)...)
	cmd.Dir = dir
	var out, failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, a.log), io.MultiWriter(&failure, a.log)
	if program == "apt-cache" {
		cmd.Stdout = &out
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(failure.Bytes()))
	}
	return out.Bytes(), nil
}

// install unpacks packages, and all that they depend on, into dir. suite, if not empty, goes before other suites.
func (a *apt) install(ctx context.Context, dir, suite string, packages ...string) error {
	archives := filepath.Join(a.root, "cache", "archives")
	if err := errors.Join(os.RemoveAll(archives), os.MkdirAll(filepath.Join(archives, "partial"), 0o755)); err != nil {
		return err
	}
	args := []string{"install", "--download-only", "--no-install-recommends"}
	if suite != "" {
		args = append(args, "--target-release", suite)
	}
	if _, err := a.run(ctx, a.root, "apt-get", append(args, packages...)...); err != nil {
		return err
	}
	return a.unpack(ctx, dir, archives)
}

// download unpacks packages alone into dir. Each may be "name=version".
func (a *apt) download(ctx context.Context, dir string, packages ...string) error {
	archives, err := os.MkdirTemp(a.root, "download-")
	if err != nil {
		return err
	}
	if _, err := a.run(ctx, archives, "apt-get", append([]string{"download"}, packages...)...); err != nil {
		return err
	}
	return errors.Join(a.unpack(ctx, dir, archives), os.RemoveAll(archives))
}

func (a *apt) unpack(ctx context.Context, dir, archives string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := command(ctx, "dpkg-deb", "--extract", file, dir); err != nil {
			return err
		}
	}
	return nil
}

// kernel is the name and version of the package with the release's newest kernel.
func (a *apt) kernel(ctx context.Context) (kernelPackage, error) {
	const meta = "linux-image-" + architecture
	depends, err := a.run(ctx, a.root, "apt-cache", "depends", meta)
	if err != nil {
		return kernelPackage{}, err
	}
	name := regexp.MustCompile(`(?m)^\s*Depends: (linux-image-\S+)$`).FindSubmatch(depends)
	if name == nil {
		return kernelPackage{}, fmt.Errorf("package %s depends on no kernel", meta)
	}
	show, err := a.run(ctx, a.root, "apt-cache", "show", "--no-all-versions", string(name[1]))
	if err != nil {
		return kernelPackage{}, err
	}
	version := regexp.MustCompile(`(?m)^Version: (\S+)$`).FindSubmatch(show)
	if version == nil {
		return kernelPackage{}, fmt.Errorf("package %s has no version", name[1])
	}
	return parseKernelPackage(string(name[1]), string(version[1]))
}

// command runs a program that says nothing unless it fails.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, lastLines(out, errorLines))
	}
	return nil
}
