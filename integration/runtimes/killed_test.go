// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// gate is where a plugin waits in the middle of its ADD.
type gate struct {
	path string
	came chan net.Conn
}

func newGate(t *testing.T) *gate {
	t.Helper()
	l := testenv.Socket(t)
	g := &gate{path: l.Addr().String(), came: make(chan net.Conn, 10)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the end of the test
			}
			g.came <- conn
		}
	}()
	return g
}

// next is a plugin that has come.
func (g *gate) next(t *testing.T) net.Conn {
	t.Helper()
	select {
	case conn := <-g.came:
		return conn
	case <-time.After(patience):
		t.Fatal("no plugin comes")
		return nil
	}
}

// awaitWaiter waits until a call waits for the lock of a file, as /proc/locks tells: "1: -> FLOCK  ADVISORY  WRITE 77 fe:00:42 0 EOF".
func (n *node) awaitWaiter(file string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if info, err := os.Stat(n.path(file)); err == nil {
			inode := fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino)
			locks, err := os.ReadFile("/proc/locks")
			if err != nil {
				n.t.Fatal(err)
			}
			for line := range strings.Lines(string(locks)) {
				if strings.Contains(line, "->") && strings.Contains(line, inode) {
					return
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatalf("nobody waits for %s", file)
		}
	}
}

// gated is a node whose pods' second network waits at a gate after the first is attached.
func gated(t *testing.T) (*node, *gate) {
	t.Helper()
	n, g := newNode(t), newGate(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	n.nad("b", n.recorder(object{"link": true, "leases": n.path("leases/b"), "on": object{"ADD": object{"wait": g.path}}}))
	return n, g
}

// The runtime dies in the middle of an ADD: its plugin goes on, and the runtime that is started again stops the sandbox.
func TestRuntimeKilledDuringAnADD(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"containerd", "crio"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, g := gated(t)
			runtime := n.runtime(name)
			web := n.sandbox("web", "a,b")
			run := runtime.start("run", web)
			plugin := g.next(t)
			run.kill()
			stop := runtime.start("stop", web)
			n.awaitWaiter("state/records/" + web.id + "-eth0.lock")
			_ = plugin.Close()
			if resp := stop.response(); resp.Error != "" || resp.Teardown != "" {
				t.Errorf("%+v", resp)
			}
			web.expectLinks()
			web.end()
			n.expectNothingLeft()
		})
	}
}

// The kubelet has had enough of an ADD: libcni kills Plexus, whose plugin goes on, and the runtime tears down at once.
func TestRuntimeGivesUpAnADD(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"containerd", "crio"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, g := gated(t)
			runtime := n.runtime(name)
			web := n.sandbox("web", "a,b")
			run := runtime.start("run", web, func(r *request) { r.Timeout = 5 * time.Second })
			plugin := g.next(t)
			n.awaitWaiter("state/records/" + web.id + "-eth0.lock") // the DEL
			_ = plugin.Close()
			resp := run.response()
			if resp.Error == "" || resp.Teardown != "" {
				t.Errorf("%+v, want a failed ADD and its DEL", resp)
			}
			web.expectLinks()
			web.end()
			n.expectNothingLeft()
		})
	}
}
