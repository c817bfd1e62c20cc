// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// withoutInotify in the environment makes the test take all inotify instances of its user, of whom there is no other process.
const withoutInotify = "PLEXUS_TEST_WITHOUT_INOTIFY"

func TestReadinessFileWithoutInotify(t *testing.T) {
	t.Parallel()
	if os.Getenv(withoutInotify) == "" {
		testenv.RequireRoot(t)
		own, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("", "readiness") //nolint:usetesting // The folders of tests and of go are for nobody else.
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		program := filepath.Join(dir, "test")
		if err = os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err = os.WriteFile(program, own, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestReadinessFileWithoutInotify$", "-test.v")
		cmd.Env = []string{withoutInotify + "=1", "CI="}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65431, Gid: 65431}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for {
		if _, err := syscall.InotifyInit1(syscall.IN_CLOEXEC); err != nil {
			break
		}
	}
	file := filepath.Join(t.TempDir(), "ready")
	waited := make(chan error, 1)
	go func() { waited <- waitForFile(t.Context(), file) }()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
}
