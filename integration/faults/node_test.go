// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// patience is far more than a call takes on a busy machine.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

// object is a JSON object.
type object = map[string]any

// node is a host with one sandbox and two networks, which are in the configuration.
type node struct {
	t       *testing.T
	dir     string
	sandbox string
	// container is the ID of the calls' container, and alive are those that GC is told of.
	container string
	alive     []string
	plexus    string
	fabric    string // the built plugin
	conf      object
	// decide is what becomes of the calls' system calls; nil lets them be.
	decide func(event) syscall.Errno
}

// newNode makes a node. Any number of nodes may share a network namespace, which costs more than all else.
func newNode(t *testing.T, sandbox string) *node {
	t.Helper()
	n := &node{
		t: t, dir: t.TempDir(), sandbox: sandbox, container: "c1",
		plexus: filepath.Join(testenv.Build(t, "./cmd/plexus"), "plexus"),
		fabric: filepath.Join(testenv.Build(t, "./integration/crash/fabric"), "fabric"),
	}
	for _, dir := range []string{"state", "log", "fabric/links/" + filepath.Base(n.sandbox), "fabric/faults", "bin"} {
		n.mkdir(dir)
	}
	n.install()
	n.conf = object{
		"cniVersion": "1.1.0", "name": "plexus", "type": "plexus",
		"binDir": n.path("bin"), "cniDir": n.path("state"), "legacyCNIDir": n.path("legacy"),
	}
	n.networks(2)
	return n
}

func (n *node) mkdir(name string) {
	n.t.Helper()
	if err := os.MkdirAll(n.path(name), 0o755); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// networks sets how many networks the sandbox gets.
func (n *node) networks(count int) {
	var delegates []any
	for i := range count {
		delegates = append(delegates, object{"cniVersion": "1.1.0", "name": fmt.Sprint("fab", i), "type": "fabric", "dir": n.path("fabric")})
	}
	n.conf["delegates"] = delegates
}

const program = "bin/fabric"

// install puts the plugin into the node's folder of plugins, in place of whatever is there.
func (n *node) install() {
	n.t.Helper()
	n.remove(program)
	// A copy could be "text file busy": a process that another test starts meanwhile has it open for writing for a moment.
	if err := os.Symlink(n.fabric, n.path(program)); err != nil {
		n.t.Fatal(err)
	}
}

// script puts a shell script into the plugin's place, in which `real` runs the plugin.
func (n *node) script(body string) {
	n.t.Helper()
	n.remove(program)
	n.write("bin/new", "#!/bin/sh\nreal() { "+n.fabric+"; }\n"+body+"\n")
	n.chmod("bin/new", 0o755)
	n.rename("bin/new", program)
}

func (n *node) remove(name string) {
	n.t.Helper()
	if err := os.RemoveAll(n.path(name)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) rename(from, to string) {
	n.t.Helper()
	if err := os.Rename(n.path(from), n.path(to)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) chmod(name string, mode fs.FileMode) {
	n.t.Helper()
	if err := os.Chmod(n.path(name), mode); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) read(name string) string {
	n.t.Helper()
	data, err := os.ReadFile(n.path(name))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(data)
}

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(n.path(name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// outcome is how a call ended.
type outcome struct {
	// err is the CNI error, nil when it went well; killed by a signal it has none.
	err    *types.Error
	killed bool
}

func (o outcome) ok() bool { return o.err == nil && !o.killed }

func (o outcome) String() string {
	switch {
	case o.killed:
		return "killed"
	case o.err != nil:
		return fmt.Sprintf("error %d: %s", o.err.Code, o.err.Msg)
	}
	return "well"
}

// command is one call of the plugin.
func (n *node) command(ctx context.Context, verb string) *exec.Cmd {
	n.t.Helper()
	valid := []any{}
	for _, id := range n.alive {
		valid = append(valid, object{"containerID": id, "ifname": "eth0"})
	}
	n.conf["cni.dev/valid-attachments"] = valid
	stdin, err := json.Marshal(n.conf)
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, n.plexus)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + n.container, "CNI_IFNAME=eth0", "CNI_NETNS=" + n.sandbox, "CNI_PATH=" + n.path("bin")}
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.WaitDelay = time.Second // plugins that outlive a killed call have its stderr
	return cmd
}

func (n *node) call(verb string) outcome {
	n.t.Helper()
	if n.decide != nil {
		return n.inject(verb, n.decide)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	cmd := n.command(ctx, verb)
	return n.ended(cmd, cmd.Run())
}

// ended judges how a call ended. It must be well, by a CNI error of one line (CNI 1.1.0 §5), or by SIGKILL.
func (n *node) ended(cmd *exec.Cmd, err error) outcome {
	n.t.Helper()
	stdout, stderr := cmd.Stdout.(*bytes.Buffer).String(), cmd.Stderr.(*bytes.Buffer).String()
	for _, text := range []string{"panic:", "goroutine 1", "SIGSEGV:"} {
		if strings.Contains(stdout+stderr, text) {
			n.t.Fatalf("it panicked: %q, stderr: %.4000s", stdout, stderr)
		}
	}
	o := outcome{}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return o
	case ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		o.killed = true
		return o
	}
	o.err = new(types.Error)
	if jsonErr := json.Unmarshal([]byte(stdout), o.err); jsonErr != nil || o.err.Code == 0 || o.err.Msg == "" || strings.Contains(o.err.Msg, "\n") {
		n.t.Fatalf("%v, and no CNI error: %q, stderr: %.4000s", err, stdout, stderr)
	}
	return o
}

// as is the node for the calls of another container.
func (n *node) as(container string) *node {
	other := *n
	other.container = container
	return &other
}

// secondSandbox makes another network namespace.
func (n *node) secondSandbox() string {
	n.t.Helper()
	if err := os.Symlink(testenv.NetNS(n.t), n.path("second")); err != nil {
		n.t.Fatal(err)
	}
	n.mkdir("fabric/links/second")
	return n.path("second")
}

func (n *node) must(verb string) {
	n.t.Helper()
	if o := n.call(verb); !o.ok() {
		n.t.Fatalf("%s: %v", verb, o)
	}
}

// held are what the sandbox has: links and addresses.
func (n *node) held() []string {
	n.t.Helper()
	return n.files("fabric/links", "fabric/leases")
}

// files lists those that stand for something: not locks that stay, and not Plexus' mark of the boot.
func (n *node) files(dirs ...string) []string {
	n.t.Helper()
	var all []string
	for _, dir := range dirs {
		err := filepath.WalkDir(n.path(dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			name := filepath.Base(path)
			if err != nil || d.IsDir() && !strings.Contains(name, ".json") || name == ".lock" || name == "lock" || name == ballast || name == "boot-id" || name == "source-seen" || name == "slots" {
				return err
			}
			all = append(all, strings.TrimPrefix(path, n.dir+"/"))
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
	slices.Sort(all)
	return all
}

// assertNothing fails the test if anything is left.
func (n *node) assertNothing() {
	n.t.Helper()
	if diff := cmp.Diff([]string(nil), n.files("state", "fabric/links", "fabric/leases")); diff != "" {
		n.t.Errorf("something is left (+):\n%s", diff)
	}
}

// assertHeld fails the test unless so many networks are attached.
func (n *node) assertHeld(networks int) {
	n.t.Helper()
	if got := n.held(); len(got) != 2*networks {
		n.t.Errorf("there are %q, want a link and an address of each of %d networks", got, networks)
	}
}
