// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// gate is where plugins wait in the middle of an ADD.
type gate struct {
	path string
	came chan net.Conn

	mu           sync.Mutex
	inside, most int
}

// newGate makes a gate that any number of plugins may come to.
func newGate(t *testing.T) *gate {
	t.Helper()
	l := testenv.Socket(t)
	g := &gate{path: l.Addr().String(), came: make(chan net.Conn, 1000)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the end of the test
			}
			_, _ = conn.Read(make([]byte, 64)) // it says who it is
			g.mu.Lock()
			g.inside++
			g.most = max(g.most, g.inside)
			g.mu.Unlock()
			g.came <- conn
		}
	}()
	return g
}

// next is a plugin that has come, or soon will.
func (g *gate) next(t *testing.T) net.Conn {
	t.Helper()
	select {
	case conn := <-g.came:
		return conn
	case <-time.After(patience / 2):
		t.Fatalf("no plugin has come within %v", patience/2)
		return nil
	}
}

// release lets a plugin go on.
func (g *gate) release(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	_ = conn.Close() // it may have been killed
}

// counts are how many plugins wait, and the most that did so at a time.
func (g *gate) counts() (int, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside, g.most
}

// newGatedHost is a host whose default network, and two more of every pod, have plugins that come to a gate at ADD.
func newGatedHost(t *testing.T, atMost int) (*host, *gate) {
	t.Helper()
	h, g := newHost(t), newGate(t)
	h.conf["binDir"] = testenv.Build(t, "./conformance/recorder")
	delete(h.conf, "manifestDir")
	h.conf["maxParallelDelegates"] = atMost
	var delegates []any
	for i := range 3 {
		delegates = append(delegates, object{
			"cniVersion": "1.1.0", "name": fmt.Sprint("net-", i), "type": "recorder", "record": h.path("calls"), "on": object{"ADD": object{"wait": g.path}},
			"result": object{"ips": []any{object{"address": fmt.Sprintf("10.%d.0.2/24", i)}}},
		})
	}
	h.conf["delegates"] = delegates
	return h, g
}

func TestOf250ParallelCallsNoMorePluginsRunThanAllowed(t *testing.T) {
	t.Parallel()
	const pods, atMost = 250, 8
	h, g := newGatedHost(t, atMost)
	var all []*pod
	for i := range pods {
		p := &pod{host: h, name: fmt.Sprint("web-", i), sandbox: netNS(t)}
		all = append(all, p)
	}
	before := h.state()
	var calls []*process
	for _, p := range all {
		calls = append(calls, p.start("ADD"))
	}
	// One of the others waits for a slot, all further ones for their turn to do so.
	eventually(t, "all but those that are allowed wait", func() bool {
		inside, _ := g.counts()
		return inside == atMost && waiters(t, h.path("state/slots/.lock")) == pods-atMost-1
	})
	for range pods * 3 {
		g.release(g.next(t))
	}
	for _, c := range calls {
		c.mustSucceed()
	}
	if _, most := g.counts(); most != atMost {
		t.Errorf("%d plugins ran at a time, want %d", most, atMost)
	}
	together(all, "DEL")
	h.assertState(before)
}

// waiters is how many processes wait for the lock of a file.
func waiters(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return 0 // not yet
	}
	defer f.Close()
	return len(waitingFor(t, f))
}

func TestAKilledCallGivesItsPlaceToAnother(t *testing.T) {
	t.Parallel()
	h, g := newGatedHost(t, 1)
	first := &pod{host: h, name: "first", sandbox: netNS(t)}
	second := &pod{host: h, name: "second", sandbox: netNS(t)}
	before := h.state()
	killed := first.start("ADD")
	hangs := g.next(t)
	waits := second.start("ADD")
	eventually(t, "the second call waits", func() bool { return opened(waits, "inotify") })
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		g.release(g.next(t))
	}
	waits.mustSucceed()
	_ = killed.cmd.Process.Release() // its plugin lives on, and has its stderr
	g.release(hangs)
	first.must("DEL")
	second.must("DEL")
	h.assertState(before)
}

func TestAGCWaitsForAnADD(t *testing.T) {
	t.Parallel()
	h, g := newGatedHost(t, 0)
	h.conf["cniVersion"] = "1.1.0"
	p := &pod{host: h, name: "web", sandbox: netNS(t)}
	before := h.state()
	add := p.start("ADD")
	held := g.next(t)
	h.conf["cni.dev/valid-attachments"] = []any{object{"containerID": "id-of-web", "ifname": "eth0"}}
	gc := p.start("GC")
	eventually(t, "GC waits", func() bool { return waiters(t, h.path("state/records/.lock")) == 1 })
	g.release(held)
	for range 2 {
		g.release(g.next(t))
	}
	add.mustSucceed()
	gc.mustSucceed()
	p.must("CHECK")
	h.conf["cni.dev/valid-attachments"] = []any{}
	// Whoever comes first undoes it, and there is nothing to do for the other.
	del, gc := p.start("DEL"), p.start("GC")
	del.mustSucceed()
	gc.mustSucceed()
	h.assertState(before)
	calls, err := os.ReadFile(h.path("calls"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(calls), `"command":"DEL"`); n != 3 {
		t.Errorf("plugins were called for DEL %d times, want 3", n)
	}
}
