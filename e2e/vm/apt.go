// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/e2e/retry"
)

// keyring has the keys of Debian's archive. It is there on every Debian.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// releases are those of Debian that the machine is made of, whatever the release of the host: what the first does not have any
// more, or not at the moment, comes from the next.
func releases() []string { return []string{"bookworm", "trixie"} }

var (
	// ErrUnavailable says that this host has no way to the Debian packages of the machine.
	ErrUnavailable = errors.New("the virtual machine is made of Debian packages: prepare it on Debian 12 or later, with apt-get and dpkg-deb")
	// errNotServed says that the archives of a release do not have what was asked for, or do not hand it out.
	errNotServed = errors.New("not available")
)

// apt downloads and unpacks Debian packages by the host's apt-get, with a state of its own in which nothing is installed: that of
// the host is neither read nor changed. Mirrors and proxies are the host's.
type apt struct {
	root    string
	release string
	log     io.Writer
	suites  []string // Of the release and beside it, what the mirror has.
}

// findHostMirrors returns the mirrors of a host that has all that apt takes, else ErrUnavailable.
func findHostMirrors(ctx context.Context) (mirrors, error) {
	if runtime.GOARCH != architecture {
		return mirrors{}, fmt.Errorf("%w, on %s", ErrUnavailable, architecture)
	}
	for _, program := range []string{"apt-get", "apt-cache", "bash", "dpkg-deb", "tar"} {
		if _, err := exec.LookPath(program); err != nil {
			return mirrors{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return mirrors{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	targets, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return mirrors{}, fmt.Errorf("list the host's package sources: %w", err)
	}
	return findMirrors(string(targets))
}

// newApt makes the state in root and fetches the lists of packages of a release. What comes beside the release, its security updates
// and its backports, is left out if the mirror does not have it.
func newApt(ctx context.Context, root, release string, from mirrors, log io.Writer) (*apt, error) {
	a := &apt{root: root, release: release, log: log}
	if err := os.RemoveAll(root); err != nil {
		return nil, err
	}
	for _, dir := range []string{"etc/sources.list.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, err
		}
	}
	for _, file := range []string{"etc/preferences", "status"} {
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o644); err != nil {
			return nil, err
		}
	}
	var served []string
	for _, suite := range from.suites(release) {
		// Each alone: of several, apt-get does not tell which failed.
		if err := a.setSources(suite.source()); err != nil {
			return nil, err
		}
		_, err := a.run(ctx, root, "apt-get", "update", "--no-list-cleanup", "--error-on=any")
		switch {
		case err == nil:
			served = append(served, suite.source())
			a.suites = append(a.suites, suite.name)
		case suite.name == release || !errors.Is(err, errNotServed) || ctx.Err() != nil:
			return nil, err
		default:
			fmt.Fprintf(log, "going without %s: %v\n", suite.name, err)
		}
	}
	return a, a.setSources(strings.Join(served, ""))
}

// setSources writes the list of sources, as of sources.list(5).
func (a *apt) setSources(list string) error {
	return os.WriteFile(filepath.Join(a.root, "etc", "sources.list"), []byte(list), 0o644)
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

// suite is one of the lists of packages that an archive offers.
type suite struct{ address, name string }

// source is its line of sources.list(5).
func (s suite) source() string {
	return fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, s.address, s.name)
}

// suites are those of a release, the release itself first.
func (m mirrors) suites(release string) []suite {
	all := []suite{{m.archive, release}, {m.archive, backports(release)}}
	if m.security != "" {
		all = append(all, suite{m.security, release + "-security"})
	}
	return all
}

func backports(release string) string { return release + "-backports" }

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
		{"Acquire::Retries", "3"}, // Of a transfer; with a delay that grows.
		{"Acquire::http::Timeout", "30"},
		{"Acquire::https::Timeout", "30"},
		{"quiet", "1"},
	} {
		options = append(options, "-o", o[0]+"="+o[1])
	}
	return options
}

// run runs a program of apt with the state in root, several times until it succeeds if it uses the network. Its error matches
// errNotServed if it ran and failed.
func (a *apt) run(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	var out []byte
	err := retry.Do(ctx, retry.Fetch(), a.log, func() error {
		var err error
		out, err = a.runOnce(ctx, dir, program, args...)
		if err != nil && (program != "apt-get" || !errors.Is(err, errNotServed)) {
			return retry.Final(err)
		}
		return err
	})
	return out, err
}

func (a *apt) runOnce(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, append(a.options(), args...)...)
	cmd.Dir = dir
	var out, failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, a.log), io.MultiWriter(&failure, a.log)
	if program == "apt-cache" {
		cmd.Stdout, cmd.Stderr = &out, &failure
	}
	err := cmd.Run()
	if _, ran := errors.AsType[*exec.ExitError](err); ran {
		return nil, fmt.Errorf("%w: %s %s: %w: %s", errNotServed, program, lastArgs(args), err, lastLines(failure.Bytes(), errorLines))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", program, lastArgs(args), err)
	}
	return out.Bytes(), nil
}

// lastArgs is a command line cut short: with it a person finds the call in the log.
func lastArgs(args []string) string {
	const most = 8
	if len(args) > most {
		return strings.Join(args[:most], " ") + " …"
	}
	return strings.Join(args, " ")
}

// install unpacks packages, and all that they depend on, into dir: those of suite before others, if it is not empty and the mirror has
// it. It returns what it took of the packages named, each "name version".
func (a *apt) install(ctx context.Context, dir, suite string, packages ...string) ([]string, error) {
	archives := filepath.Join(a.root, "cache", "archives")
	if err := errors.Join(os.RemoveAll(archives), os.MkdirAll(filepath.Join(archives, "partial"), 0o755)); err != nil {
		return nil, err
	}
	args := []string{"install", "--download-only", "--no-install-recommends"}
	if slices.Contains(a.suites, suite) {
		args = append(args, "--target-release", suite)
	}
	if _, err := a.run(ctx, a.root, "apt-get", append(args, packages...)...); err != nil {
		return nil, err
	}
	files, err := a.unpack(ctx, dir, archives)
	if err != nil {
		return nil, err
	}
	var taken []string
	for _, file := range files {
		if name, version, ok := debFile(file); ok && slices.Contains(packages, name) {
			taken = append(taken, name+" "+version)
		}
	}
	return taken, nil
}

// debFile takes the name and the version from the name that apt gives to a package's file.
func debFile(file string) (string, string, bool) {
	parts := strings.Split(strings.TrimSuffix(filepath.Base(file), ".deb"), "_")
	if len(parts) != 3 {
		return "", "", false
	}
	version, err := url.PathUnescape(parts[1]) // The colon of an epoch is "%3a".
	return parts[0], version, err == nil
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
	_, err = a.unpack(ctx, dir, archives)
	return errors.Join(err, os.RemoveAll(archives))
}

// unpack unpacks all packages of a folder into dir and returns their files. /bin, /lib and /sbin are links into /usr there, as on
// every Debian: a package has its files on either side, that of the next release on the other.
func (a *apt) unpack(ctx context.Context, dir, archives string) ([]string, error) {
	for _, name := range []string{"bin", "lib", "lib64", "sbin"} {
		link := filepath.Join(dir, name)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "usr", name), 0o755), os.Symlink(filepath.Join("usr", name), link)); err != nil {
			return nil, err
		}
	}
	files, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		// dpkg-deb --extract would put a folder in the place of such a link.
		const extract = `dpkg-deb --fsys-tarfile "$1" | tar --extract --directory "$2" --keep-directory-symlink --warning=no-timestamp`
		if err := command(ctx, "bash", "-o", "pipefail", "-c", extract, "bash", file, dir); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// list returns all versions of the packages whose names match.
func (a *apt) list(ctx context.Context, prefix string, match *regexp.Regexp) (archive, error) {
	out, err := a.run(ctx, a.root, "apt-cache", "pkgnames", prefix)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool { return !match.MatchString(name) })
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: %s has no package %s…", errNotServed, a.release, prefix)
	}
	slices.Sort(names)
	listing, err := a.run(ctx, a.root, "apt-cache", append([]string{"show", "--all-versions"}, names...)...)
	if err != nil {
		return nil, err
	}
	return parseArchive(string(listing))
}

// command runs a program that says nothing unless it fails.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, lastLines(out, errorLines))
	}
	return nil
}
