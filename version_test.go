// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plexus

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func TestReleaseIsASemanticVersion(t *testing.T) {
	t.Parallel()
	if !regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`).MatchString(Release()) {
		t.Errorf("VERSION is %q, want a semantic version without v and without build metadata", Release())
	}
}

func TestVersionNamesTheCommit(t *testing.T) {
	t.Parallel()
	const commit = "7a218f7c2d5dd32a0d3b2d8a4d5e6f708192a3b4"
	for want, settings := range map[string][]debug.BuildSetting{
		"1.2.3":                    nil,
		"1.2.3+7a218f7c2d5d":       {{Key: "vcs.revision", Value: commit}, {Key: "vcs.modified", Value: "false"}},
		"1.2.3+7a218f7c2d5d.dirty": {{Key: "vcs.revision", Value: commit}, {Key: "vcs.modified", Value: "true"}},
	} {
		if got := withCommit("1.2.3", settings); got != want {
			t.Errorf("version %q, want %q", got, want)
		}
	}
}

// TestEachProgramReportsTheRelease asks the programs as people do: with --version, and the plugin by running it by hand.
func TestEachProgramReportsTheRelease(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, program := range []string{"plexus", "plexusd", "plexusctl", "kubectl-plexus"} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, program), "--version")
		cmd.Env = []string{"PATH=/usr/bin:/bin"} // no CNI_COMMAND
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), Version()) && !strings.Contains(string(out), Release()+"+") {
			t.Errorf("%s --version: %v, says %q, want %s", program, err, out, Release())
		}
	}
}
