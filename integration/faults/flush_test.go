// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// What has to outlive a loss of power is flushed in an order: the file before it gets its name, and the folder after that. No test can turn
// the power off, so these look at the system calls.

// assertOrder checks that system calls "name about" were made in an order, others between them; about is a path's end.
func assertOrder(t *testing.T, events []event, want ...string) {
	t.Helper()
	var all []string
	for _, e := range events {
		all = append(all, e.name+" "+e.about)
		if len(want) == 0 {
			continue
		}
		name, about, _ := strings.Cut(want[0], " ")
		if strings.HasPrefix(e.name, name) && strings.HasSuffix(e.about, about) {
			want = want[1:]
		}
	}
	if len(want) > 0 {
		t.Errorf("no %q in its place among\n\t%s", want[0], strings.Join(all, "\n\t"))
	}
}

// The record is the intent: it is on disk, with the folders above it, before the first plugin runs.
func TestARecordIsFlushedBeforeTheFirstPluginRuns(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	n := newNode(t, testenv.NetNS(t))
	n.conf["cniDir"] = n.path("state/cni") // neither is there yet
	assertOrder(t, n.seen("ADD"),
		"mkdirat /state/cni", "fsync /state",
		"mkdirat /state/cni/records", "fsync /state/cni",
		"openat .c1-eth0.tmp", "write .c1-eth0.tmp", "fsync .c1-eth0.tmp", "renameat .c1-eth0.tmp", "fsync /records",
		"execve fabric",
		// It is complete before the runtime is told.
		"openat .c1-eth0.tmp", "write .c1-eth0.tmp", "fsync .c1-eth0.tmp", "renameat .c1-eth0.tmp",
	)
}

// A record that cannot be read is set aside, and must not be back, in place of a later one, after a loss of power.
func TestASetAsideRecordIsFlushed(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	n := newNode(t, testenv.NetNS(t))
	n.must("ADD")
	const name = "c1-eth0.json"
	n.write("state/records/"+name, `{"version":1,"sandb`)
	assertOrder(t, n.seen("DEL"), "renameat "+name, "fsync /records", "execve fabric")
}

// An empty program, or an empty configuration that the runtime finds first, would keep each pod of the node from starting.
func TestWhatIsInstalledIsFlushed(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	n := newNode(t, testenv.NetNS(t))
	n.mkdir("net.d")
	n.write("net.d/10-cluster.conflist", `{"cniVersion":"1.0.0","name":"cluster","plugins":[{"type":"fabric"}]}`)
	bin := testenv.Build(t, "./cmd/plexus", "./cmd/plexusd")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "plexusd"), "install", "--conf-dir", n.path("net.d"), "--bin-source", bin, "--bin-dir", n.path("bin"))
	cmd.Env = append(os.Environ(), "TMPDIR="+n.path("log"))
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
	var events []event
	err := n.supervised(ctx, cmd, func(e event) syscall.Errno {
		events = append(events, e)
		return 0
	})
	if err != nil {
		t.Fatalf("%v: %s", err, fmt.Sprint(cmd.Stdout, cmd.Stderr))
	}
	for name, folder := range map[string]string{"plexus": "/bin", "00-plexus.conflist": "/net.d"} {
		var of []event // the events of the file; its temporary name is random
		for _, e := range events {
			if strings.Contains(e.about, "/."+name+".") {
				e.about = name
			}
			of = append(of, e)
		}
		assertOrder(t, of, "openat "+name, "fsync "+name, "renameat "+name, "fsync "+folder)
	}
}
