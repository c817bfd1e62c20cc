// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// installer is `plexusd install` onto a node of its own, and the files that it puts there.
func installer(ctx context.Context, t *testing.T) (*exec.Cmd, []string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"source/plexus": "the plugin", "bin/.keep": "", "conf/10-n.conflist": `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"}]}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	cmd := exec.CommandContext(ctx, filepath.Join(testenv.Build(t, "./cmd/plexusd"), "plexusd"), "install", "--host-links",
		"--conf-dir="+path("conf"), "--bin-dir="+path("bin"), "--bin-source="+path("source"))
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
	return cmd, []string{path("bin/plexus"), path("conf/00-plexus.conflist")}
}

// TestAnInstallationThatFailsSaysSo fails each call by which files come to be, one after the other: the error names the file, what was
// there stays, and nothing temporary is left.
func TestAnInstallationThatFailsSaysSo(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		call  string
		errno syscall.Errno
		says  string
	}{
		"disk full":                {"openat", syscall.ENOSPC, "no space left on device"},
		"the disk fails":           {"fsync", syscall.EIO, "input/output error"},
		"a rename that is refused": {"rename", syscall.EROFS, "read-only file system"},
	} {
		for i, file := range []string{"plexus", "00-plexus.conflist"} {
			t.Run(name+", "+file, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				cmd, files := installer(ctx, t)
				if err := os.WriteFile(files[i], []byte("before"), 0o600); err != nil {
					t.Fatal(err)
				}
				err := (&node{t: t}).supervised(ctx, cmd, func(e event) syscall.Errno {
					if strings.HasPrefix(e.name, tc.call) && strings.Contains(e.about, "/."+file+".") {
						return tc.errno
					}
					return 0
				})
				said := cmd.Stderr.(*bytes.Buffer)
				if err == nil || !strings.Contains(said.String(), tc.says) || !strings.Contains(said.String(), files[i]) {
					t.Errorf("plexusd install: %v, says %q, want %q about %s", err, said, tc.says, files[i])
				}
				left, err := filepath.Glob(filepath.Join(filepath.Dir(files[i]), ".*.tmp"))
				if data, readErr := os.ReadFile(files[i]); err != nil || len(left) > 0 || readErr != nil || string(data) != "before" {
					t.Errorf("left %v, %v; %s has %q, %v", left, err, files[i], data, readErr)
				}
			})
		}
	}
}
