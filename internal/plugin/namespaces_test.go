// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// recorded puts a plugin in the place of the node's networks that writes down how it is called.
func (n *node) recorded() {
	n.t.Helper()
	var conf map[string]any
	if err := json.Unmarshal(n.conf, &conf); err != nil {
		n.t.Fatal(err)
	}
	delete(conf, "manifestDir")
	conf["binDir"] = testenv.Build(n.t, "./conformance/recorder")
	conf["delegates"] = []any{map[string]any{
		"cniVersion": "1.1.0", "name": "cluster", "type": "recorder", "record": n.path("calls"),
		"result": map[string]any{"ips": []any{map[string]any{"address": "10.1.0.2/24"}}},
	}}
	var err error
	if n.conf, err = json.Marshal(conf); err != nil {
		n.t.Fatal(err)
	}
}

// recordedCalls are the calls since the last time, as "VERB container" and, for DEL, the namespace.
func (n *node) recordedCalls() []string {
	n.t.Helper()
	text, err := os.ReadFile(n.path("calls"))
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	_ = os.Remove(n.path("calls"))
	var all []string
	for line := range strings.Lines(string(text)) {
		var c struct{ Command, ContainerID, NetNS string }
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			n.t.Fatal(err)
		}
		call := strings.TrimSpace(c.Command + " " + c.ContainerID)
		if c.Command == "DEL" {
			call += fmt.Sprintf(" in %q", c.NetNS)
		}
		all = append(all, call)
	}
	return all
}

func (n *node) expectCalls(want ...string) {
	n.t.Helper()
	if diff := cmp.Diff(want, n.recordedCalls()); diff != "" {
		n.t.Errorf("calls of the plugin (-want +got):\n%s", diff)
	}
}

// process starts a process in a network namespace of its own; the function ends it.
func process(t *testing.T) (string, func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), func() {
		_ = stdin.(io.Closer).Close()
		_ = cmd.Wait()
	}
}

// The recorded path of a sandbox that is gone may lead nowhere, to a file, or to somebody else's namespace. Plugins are told none then: a
// DEL in another sandbox would take its interfaces away.
func TestGCTellsPluginsNoNamespaceThatMayBeAnothers(t *testing.T) {
	t.Parallel()
	t.Run("of a process that has ended", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.recorded()
		path, end := process(t)
		n.sandbox = path
		n.mustCall("ADD", "")
		n.recordedCalls()
		end()
		n.valid()
		n.mustCall("GC", "")
		n.expectCalls(`DEL c1 in ""`, "GC")
	})
	t.Run("a file that was left when the namespace was closed", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.recorded()
		path, end := process(t)
		n.sandbox = n.path("netns")
		n.write("netns", "")
		if err := unix.Mount(path, n.sandbox, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		n.mustCall("ADD", "")
		n.recordedCalls()
		end()
		if err := unix.Unmount(n.sandbox, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		n.valid()
		n.mustCall("GC", "")
		n.expectCalls(`DEL c1 in ""`, "GC")
	})
	t.Run("one that is open is told", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.recorded()
		n.mustCall("ADD", "")
		n.recordedCalls()
		n.valid()
		// Whether the runtime's word or the namespace's life counts is GC's own choice; DEL undoes what is left.
		n.mustCall("GC", "")
		n.mustCall("DEL", "")
		if calls := n.recordedCalls(); !strings.Contains(strings.Join(calls, "\n"), fmt.Sprintf("DEL c1 in %q", n.sandbox)) {
			t.Errorf("calls of the plugin: %q, want a DEL in %s", calls, n.sandbox)
		}
	})
}

// Paths of namespaces come again after a reboot: that of an earlier boot's sandbox is by now the new one's.
func TestAnEarlierBootsSandboxIsUndoneWithoutItsNamespace(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.recorded()
	n.bootID = "boot-1"
	n.mustCall("ADD", "")
	n.recordedCalls()
	later := *n // another container, and the path is open: it is the later one's
	later.containerID, later.bootID = "c2", "boot-2"
	later.mustCall("ADD", "")
	n.expectCalls(`DEL c1 in ""`, "ADD c2")
	later.mustCall("DEL", "")
}

// As long as not all that lives is known, nothing is stale for a delegate's GC: the address of the sandbox whose record cannot be read is
// in use.
func TestGCCallsNoDelegateWhileOneOfTheRecordsCanNotBeUnderstood(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.recorded()
	n.mustCall("ADD", "")
	other := *n
	other.containerID = "c2"
	other.sandbox = testenv.NetNS(t)
	other.mustCall("ADD", "")
	file := n.path("state/records/c2-eth0.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n.write("state/records/c2-eth0.json", unsealed(string(bytes.Replace(text, []byte(`"version":1`), []byte(`"version":99`), 1))))
	n.recordedCalls()
	n.valid("c1", "c2")
	if out, err := n.call("GC", ""); err == nil || !bytes.Contains(out, []byte("c2")) {
		t.Errorf("GC: %v %s, want an error that names the record", err, out)
	}
	n.expectCalls()
	n.write("state/records/c2-eth0.json", string(text))
	n.mustCall("GC", "")
	n.expectCalls("GC")
	n.mustCall("DEL", "")
	other.mustCall("DEL", "")
}
