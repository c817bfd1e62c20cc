// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// TestProgramAttachesManifestsOfAFileOrBelowAFolder: Plexus reads a folder, whatever -f names.
func TestProgramAttachesManifestsOfAFileOrBelowAFolder(t *testing.T) {
	t.Parallel()
	for name, arrange := range map[string]func(t *testing.T, n *node) []string{
		"a file": func(t *testing.T, n *node) []string {
			t.Helper()
			files, err := filepath.Glob(filepath.Join(n.manifests(), "*.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			var all []byte
			for _, file := range files {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				all = append(append(all, "\n---\n"...), data...)
			}
			one := filepath.Join(n.manifests(), "all.yml")
			write(t, one, string(all))
			return []string{"-f", one}
		},
		"folders below": func(t *testing.T, n *node) []string {
			t.Helper()
			files, err := filepath.Glob(filepath.Join(n.manifests(), "*.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				below := filepath.Join(n.manifests(), strings.TrimSuffix(filepath.Base(file), ".yaml"))
				if err := errors.Join(os.Mkdir(below, 0o750), os.Rename(file, filepath.Join(below, "x.yaml"))); err != nil {
					t.Fatal(err)
				}
			}
			return []string{"-R", "-f", n.manifests()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "dual-stack")
			args := append([]string{"web"}, arrange(t, n)...)
			stdout, stderr, code := n.run(t, append(append([]string{"attach"}, args...), "--netns", testenv.NetNS(t), "-o", "json")...)
			var status []podStatus
			if err := json.Unmarshal([]byte(stdout), &status); err != nil || code != 0 || len(status) != 1 || len(status[0].Networks) != 2 {
				t.Fatalf("attach: code %d, %v, stdout %s, stderr %s", code, err, stdout, stderr)
			}
			if stdout, stderr, code = n.run(t, append([]string{"detach"}, args...)...); code != 0 || stdout != "pod default/web detached\n" {
				t.Errorf("detach: code %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			for _, dir := range []string{filepath.Join(n.manifests(), "network-status"), filepath.Join(n.state(), "plexusctl", "manifests", "*")} {
				if left, err := filepath.Glob(dir); err != nil || left != nil {
					t.Errorf("left: %q, %v", left, err)
				}
			}
		})
	}
}

func TestDetachSaysWhereElsePodsAreAttached(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if got := l.elsewhere("/x"); got != ", by the records in "+l.stateDir {
		t.Errorf("without a sandbox: %q", got)
	}
	if _, err := l.attach(t.Context(), l.requests("a")); err != nil {
		t.Fatal(err)
	}
	if got, want := l.elsewhere("/x"), "; attached are default/a from "+l.dir; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

// TestDetachByForce: a pod whose networks cannot be undone can be forgotten, and that is told.
func TestDetachByForce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if _, err := l.attach(t.Context(), l.requests("a")); err != nil {
		t.Fatal(err)
	}
	l.host.fail = func(s string) error {
		if strings.HasPrefix(s, "DEL") {
			return &types.Error{Code: 999, Msg: "pod default/a: invalid CIDR"}
		}
		return nil
	}
	if _, err := l.detached(t); err == nil {
		t.Fatal("detach without force")
	}
	var warnings []string
	l.force, l.warn = true, func(text string) { warnings = append(warnings, text) }
	told, err := l.detached(t)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "told", []string{"default/a true"}, told)
	equal(t, "left", nil, l.left(t))
	want := []string{"pod default/a: forgotten although its networks could not be undone; they may still hold addresses or devices: invalid CIDR (CNI code 999)"}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestManifestPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, file := range []string{"a.yaml", "b.json", "c.txt", ".d.yaml", "below/e.yml", ".git/f.yaml", "empty/g.txt"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o750); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, file), "")
	}
	for name, tc := range map[string]struct {
		path      string
		recursive bool
		want      []string
		says      string
	}{
		"a file, whatever its name": {path: "c.txt", want: []string{"c.txt"}},
		"a folder":                  {path: ".", want: []string{"a.yaml", "b.json"}},
		"a folder and those below":  {path: ".", recursive: true, want: []string{"a.yaml", "b.json", "below/e.yml"}},
		"a folder without any":      {path: "empty", says: "no file .yaml, .yml or .json: name a folder that has some, or read the folders below it with -R"},
		"none":                      {path: "absent", says: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := manifestPaths(filepath.Join(dir, tc.path), tc.recursive)
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("error %v; want %q", err, tc.says)
			}
			for i := range found {
				if found[i], err = filepath.Rel(dir, found[i]); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tc.want, found); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLintReadsWhatKubectlWould(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "below"), 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "sound.yaml"), definition("a", `{"type":"loopback"}`))
	write(t, filepath.Join(dir, "below", "bad.yaml"), definition("b", `{`))
	for args, want := range map[string]bool{"-f " + dir: true, "-R -f " + dir: false, dir: false, "-f " + dir + "/sound.yaml": true} {
		if _, err := nadRun(t, "", append([]string{"lint"}, strings.Fields(args)...)...); (err == nil) != want {
			t.Errorf("lint %s: %v", args, err)
		}
	}
}
