// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pault.ag/go/debian/version"
)

// listing is what the archives of bookworm listed on 2026-11-29, cut down to the fields that are read and to the kernels for any PC, but
// for one: linux 6.1.192-3 was there, its signed image was not, and of 6.1.192-2 there was all but linux-kbuild-6.1.
func listing(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("testdata/archives/bookworm-2026-11-29")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// without drops the paragraphs that start so.
func without(listing string, starts ...string) string {
	return strings.Join(slices.DeleteFunc(strings.SplitAfter(listing, "\n\n"), func(paragraph string) bool {
		return slices.ContainsFunc(starts, func(start string) bool { return strings.HasPrefix(paragraph, start) })
	}), "")
}

// kernel is a paragraph for each package of one kernel, as bookworm has them.
func kernel(release, version string) string {
	var all strings.Builder
	for _, p := range [][2]string{
		{"image-" + release + "-amd64", "kmod"},
		{"headers-" + release + "-amd64", fmt.Sprintf("linux-headers-%s-common (= %s), linux-kbuild-6.1 (>= %s), gcc-12", release, version, version)},
		{"headers-" + release + "-common", ""},
		{"kbuild-6.1", "libc6"},
		{"source-6.1", "xz-utils"},
	} {
		fmt.Fprintf(&all, "Package: linux-%s\nVersion: %s\nDepends: %s\n\n", p[0], version, p[1])
	}
	return all.String()
}

func TestTheNewestKernelIsTakenWhosePackagesAreAllToBeHad(t *testing.T) {
	t.Parallel()
	recorded := listing(t)
	for name, test := range map[string]struct {
		listing string
		passed  []string // Sets that lack something, before the first that does not.
		want    string   // All packages of that.
	}{
		"an image that is not signed yet": {
			recorded,
			[]string{"linux-image-6.1.0-57-amd64 6.1.192-3 lacks linux-image-6.1.0-57-amd64 (= 6.1.192-3)"},
			"linux-image-6.1.0-56-amd64 6.1.192-2, linux-headers-6.1.0-56-amd64 6.1.192-2, linux-headers-6.1.0-56-common 6.1.192-2, " +
				"linux-kbuild-6.1 6.1.192-3, linux-source-6.1 6.1.192-2",
		},
		"sources that are gone": {
			without(recorded, "Package: linux-headers-6.1.0-56-common\n", "Package: linux-source-6.1\nVersion: 6.1.192-1\n"),
			[]string{
				"linux-image-6.1.0-57-amd64 6.1.192-3 lacks linux-image-6.1.0-57-amd64 (= 6.1.192-3)",
				"linux-image-6.1.0-56-amd64 6.1.192-2 lacks linux-headers-6.1.0-56-common (= 6.1.192-2)",
				"linux-image-6.1.0-55-amd64 6.1.192-1 lacks linux-source-6.1 (= 6.1.192-1)",
			},
			"linux-image-6.1.0-54-amd64 6.1.190-1, linux-headers-6.1.0-54-amd64 6.1.190-1, linux-headers-6.1.0-54-common 6.1.190-1, " +
				"linux-kbuild-6.1 6.1.192-3, linux-source-6.1 6.1.190-1",
		},
		"the release's own kernel alone": {
			kernel("6.1.0-50", "6.1.176-1") + "Package: linux-image-amd64\nVersion: 6.1.176-1\n", nil,
			"linux-image-6.1.0-50-amd64 6.1.176-1, linux-headers-6.1.0-50-amd64 6.1.176-1, linux-headers-6.1.0-50-common 6.1.176-1, " +
				"linux-kbuild-6.1 6.1.176-1, linux-source-6.1 6.1.176-1",
		},
		"the same from two archives": {
			kernel("6.1.0-50", "6.1.176-1") + kernel("6.1.0-50", "6.1.176-1"), nil,
			"linux-image-6.1.0-50-amd64 6.1.176-1, linux-headers-6.1.0-50-amd64 6.1.176-1, linux-headers-6.1.0-50-common 6.1.176-1, " +
				"linux-kbuild-6.1 6.1.176-1, linux-source-6.1 6.1.176-1",
		},
		"versions are not words": {
			kernel("6.1.0-9", "6.1.99-1") + kernel("6.1.0-10", "6.1.100-1"), nil,
			"linux-image-6.1.0-10-amd64 6.1.100-1, linux-headers-6.1.0-10-amd64 6.1.100-1, linux-headers-6.1.0-10-common 6.1.100-1, " +
				"linux-kbuild-6.1 6.1.100-1, linux-source-6.1 6.1.100-1",
		},
		"another series, if the release's own has none": {
			without(recorded, "Package: linux-source-6.1\n"),
			[]string{
				"linux-image-6.1.0-57-amd64 6.1.192-3 lacks linux-image-6.1.0-57-amd64 (= 6.1.192-3), linux-source-6.1 (= 6.1.192-3)",
				"linux-image-6.1.0-56-amd64 6.1.192-2 lacks linux-source-6.1 (= 6.1.192-2)",
				"…",
			},
			"linux-image-6.12.117+deb12-amd64 6.12.117-1~deb12u1, linux-headers-6.12.117+deb12-amd64 6.12.117-1~deb12u1, " +
				"linux-headers-6.12.117+deb12-common 6.12.117-1~deb12u1, linux-kbuild-6.12.117+deb12 6.12.117-1~deb12u1, " +
				"linux-source-6.12 6.12.117-1~deb12u1",
		},
		"none at all": {
			"Package: linux-image-6.1.0-50-amd64\nVersion: 6.1.176-1\n",
			[]string{"linux-image-6.1.0-50-amd64 6.1.176-1 lacks linux-headers-6.1.0-50-amd64 (= 6.1.176-1), linux-source-6.1 (= 6.1.176-1)"},
			"",
		},
		"headers that say not what they need": {
			"Package: linux-headers-6.1.0-50-amd64\nVersion: 6.1.176-1\n",
			[]string{"linux-image-6.1.0-50-amd64 6.1.176-1 lacks linux-image-6.1.0-50-amd64 (= 6.1.176-1), linux-source-6.1 (= 6.1.176-1), " +
				"linux-headers-… among what linux-headers-6.1.0-50-amd64 depends on, linux-kbuild-… among what linux-headers-6.1.0-50-amd64 depends on"},
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := parseArchive(test.listing)
			if err != nil {
				t.Fatal(err)
			}
			var passed []string
			var got string
			for _, set := range kernelSets(found) {
				if len(set.missing) == 0 {
					got = strings.Join(set.packages(), ", ")
					break
				}
				passed = append(passed, fmt.Sprintf("%s lacks %s", set, strings.Join(set.missing, ", ")))
			}
			if n := len(test.passed); n > 0 && test.passed[n-1] == "…" && len(passed) > n-1 {
				passed = append(passed[:n-1], "…")
			}
			if diff := cmp.Diff(test.passed, passed); diff != "" {
				t.Errorf("passed over (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("taken (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSpecialKernelsAndPackagesThatOnlyNameOneAreNone(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{
		"6.1.0-56-amd64": true, "6.12.117+deb12-amd64": true, "6.12.90+deb12.1-amd64": true, "6.16.3+deb14-amd64": true,
		"amd64": false, "6.12-amd64": false, "6.1.0-56-rt-amd64": false, "6.1.0-56-cloud-amd64": false,
		"6.1.0-56-amd64-dbg": false, "6.1.0-56-amd64-unsigned": false, "6.1.0-56-arm64": false, "6.12-amd64-signed-template": false,
	} {
		if got := isKernelRelease(release); got != want {
			t.Errorf("%s: got %t", release, got)
		}
	}
}

func TestListingThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	for listing, want := range map[string]string{
		"Package: a\n":                  "needs both fields",
		"Version: 1\n":                  "needs both fields",
		"Package: a\nVersion: of old\n": "package a: version",
	} {
		if got, err := parseArchive(listing); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want %q", listing, got, err, want)
		}
	}
}

func FuzzKernelSets(f *testing.F) {
	f.Add(kernel("6.1.0-50", "6.1.176-1") + "Package: linux-image-amd64\nVersion: 6.1.176-1\n")
	f.Add("Package: linux-headers-6.1.0-50-amd64\nVersion: 1:6.1~rc1\nDepends: linux-headers-x | linux-kbuild-y (<< 2)\n\n\n")
	f.Fuzz(func(t *testing.T, listing string) {
		found, err := parseArchive(listing)
		if err != nil {
			return
		}
		for _, set := range kernelSets(found) {
			parts := []*debPackage{set.image, set.headers, set.common, set.kbuild, set.source}
			if whole := !slices.Contains(parts, nil); whole != (len(set.missing) == 0) {
				t.Errorf("%s lacks %q, its packages are %v", set, set.missing, parts)
			}
			for _, p := range parts {
				if p != nil && found.find(p.name, p.version) == nil {
					t.Errorf("%s has %s, which the archives do not", set, p)
				}
			}
			if set.image != nil && version.Compare(set.image.version, set.version) != 0 {
				t.Errorf("%s has the image %s", set, set.image)
			}
		}
	})
}

// stock is one whose archives are not asked.
func stock(log io.Writer) *archives {
	s := &archives{log: log, byName: map[string]*apt{}}
	for _, release := range releases() {
		s.byName[release] = &apt{release: release, log: log}
	}
	return s
}

func TestWhatOneReleaseDoesNotHaveComesFromTheNext(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is full")
	notServed := fmt.Errorf("fetch it: %w", errNotServed)
	for name, test := range map[string]struct {
		first, second map[string]error // Of both ways, by release.
		want          string           // Way and release, or the error.
	}{
		"the first has it":               {nil, nil, "first bookworm"},
		"the second has it":              {map[string]error{"bookworm": notServed}, nil, "first trixie"},
		"none has all of it":             {map[string]error{"bookworm": notServed, "trixie": notServed}, nil, "second bookworm"},
		"none has anything":              {map[string]error{"bookworm": notServed, "trixie": notServed}, map[string]error{"bookworm": notServed, "trixie": notServed}, "not available"},
		"this host fails, not a release": {map[string]error{"bookworm": broken}, nil, "the disk is full"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "part")
			way := func(name string, failures map[string]error) fetcher {
				return func(_ context.Context, a *apt, dir string) (taken, error) {
					left, err := os.ReadDir(dir)
					if err != nil || len(left) > 0 {
						t.Errorf("the folder to fill has %v, %v", left, err)
					}
					err = os.WriteFile(filepath.Join(dir, name), nil, 0o600)
					return taken{Packages: []string{name}}, errors.Join(err, failures[a.release])
				}
			}
			p := part{name: "part", fetch: []fetcher{way("first", test.first), way("second", test.second)}}
			got, err := fetch(t.Context(), p, stock(t.Output()), dir)
			if err != nil {
				if !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
				if _, err := os.Stat(dir); err == nil {
					t.Error("the part is there")
				}
				return
			}
			kept, err := readTaken(dir)
			if diff := cmp.Diff(got, kept); err != nil || diff != "" {
				t.Errorf("%v: what is kept differs from what was fetched (-fetched +kept):\n%s", err, diff)
			}
			if said := strings.Join(got.Packages, "") + " " + got.Release; said != test.want {
				t.Errorf("got %s, want %s", said, test.want)
			}
		})
	}
}

func TestAPartThatLacksSomethingIsFetchedAgainAndKeptIfThatFails(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	b := Builder{Cache: t.TempDir(), Log: &log}
	lacks := map[string]string{netdevsim: "no sources"}
	give := func(times *int, got taken, err error) part {
		return part{name: "part", fetch: []fetcher{func(context.Context, *apt, string) (taken, error) {
			*times++
			return got, err
		}}}
	}
	for i, step := range []struct {
		got   taken
		err   error
		times int
		want  string // The last that is said.
	}{
		{taken{Packages: []string{"kernel 1"}, Lacks: lacks}, nil, 1, "part: kernel 1, of Debian bookworm; without netdevsim: no sources\n"},
		{taken{}, errNotServed, len(releases()), "part: kernel 1, of Debian bookworm; without netdevsim: no sources\n"},
		{taken{Packages: []string{"kernel 2"}}, nil, 1, "part: kernel 2, of Debian bookworm\n"},
		{taken{}, errNotServed, 0, "part: kernel 2, of Debian bookworm\n"},
	} {
		log.Reset()
		var times int
		if err := errors.Join(os.MkdirAll(b.home(), 0o750), b.ensure(t.Context(), give(&times, step.got, step.err), stock(&log))); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if times != step.times || !strings.HasSuffix(log.String(), step.want) {
			t.Errorf("step %d: fetched %d times, want %d; said:\n%swant at its end:\n%s", i, times, step.times, &log, step.want)
		}
	}
}

func TestVersionsOfDownloadedPackages(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"/a/qemu-system-x86_1%3a10.0.2+ds-2~bpo12+1_amd64.deb": "qemu-system-x86 1:10.0.2+ds-2~bpo12+1",
		"debconf_1.5.82_all.deb":                               "debconf 1.5.82",
		"other.deb":                                            "",
	} {
		name, version, ok := debFile(file)
		if got := strings.TrimSpace(name + " " + version); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %t", file, got, ok)
		}
	}
}

func TestPackagesOfEitherLayoutAreUnpackedIntoOneTree(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip(err)
	}
	archives, dir := t.TempDir(), t.TempDir()
	for name, file := range map[string]string{"before": "lib/x/of-before", "after": "usr/lib/x/of-after"} {
		tree := filepath.Join(t.TempDir(), name)
		control := fmt.Sprintf("Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\n", name)
		for path, content := range map[string]string{"DEBIAN/control": control, file: name} {
			path = filepath.Join(tree, path)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--build", tree, archives).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	files, err := (&apt{}).unpack(t.Context(), dir, archives)
	if err != nil || len(files) != 2 {
		t.Fatalf("got %q, %v", files, err)
	}
	for _, file := range []string{"lib/x/of-before", "usr/lib/x/of-before", "lib/x/of-after", "usr/lib/x/of-after"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
	}
}
