// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// TestThePageForHostsWithoutKubernetes runs the commands of docs/standalone.md, on a host of its own: with empty folders in the place of
// this one's, and a network namespace in which bridges may be made.
func TestThePageForHostsWithoutKubernetes(t *testing.T) {
	testenv.RequireRoot(t)
	if _, err := exec.LookPath("ip"); err != nil {
		testenv.Missing(t, "needs the program ip (iproute2)")
	}
	page, err := os.ReadFile("../docs/standalone.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := shellBlocks(string(page))
	if len(steps) < 7 || !strings.Contains(steps[0], "make build") {
		t.Fatalf("%d blocks of commands, the first is\n%s", len(steps), steps)
	}
	// The first builds and installs; here the programs are built already.
	programs := filepath.Join(t.TempDir(), "bin")
	for _, dir := range []string{testenv.Build(t, "./cmd/plexus", "github.com/containernetworking/cni/cnitool"), testenv.Plugins(t)} {
		if err = os.CopyFS(programs, os.DirFS(dir)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	const host = `set -eu
mount --make-rprivate /
for folder in /etc /opt /run /var/lib; do
	mkdir -p "$1/upper$folder" "$1/work$folder"
	mount -t tmpfs tmpfs "$folder"
done
mkdir -p /opt/cni /run/netns; ln -s /run /var/run 2>/dev/null || true
cp -r "$2" /opt/cni/bin; PATH=$PATH:/opt/cni/bin
ip link set lo up
`
	var script strings.Builder
	script.WriteString(host)
	for i, step := range steps[1:] {
		fmt.Fprintf(&script, "echo '== step %d'\n%s\n", i+1, step)
		if strings.Contains(step, "cnitool del") {
			script.WriteString("[ -z \"$(find /var/lib/cni/plexus/records -name '*.json')\" ] || { echo 'records are left'; exit 1; }\n")
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script.String(), "sh", t.TempDir(), programs)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"10.90.0.2/24", "10.91.0.2/24", "data0", "net1", `"interface":"data0"`} {
		if !strings.Contains(strings.ReplaceAll(string(out), ": ", ":"), want) {
			t.Errorf("nothing says %s:\n%s", want, out)
		}
	}
}

// shellBlocks are the blocks of commands of a page.
func shellBlocks(page string) []string {
	var found []string
	for i, part := range strings.Split(page, "\n```") {
		if text, ok := strings.CutPrefix(part, "sh\n"); ok && i > 0 {
			found = append(found, text)
		}
	}
	return found
}
