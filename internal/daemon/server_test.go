// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/wire"
	"github.com/plexus-cni/plexus/nad"
)

func newServer(src source.Source) *daemon.Server {
	return &daemon.Server{Source: src, Log: slog.New(slog.DiscardHandler), Peer: uint32(os.Geteuid())}
}

func TestASilentSessionEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newServer(newCluster(nil).source())
	s.Idle = 50 * time.Millisecond
	start(t, dir, s)
	if _, err := dial(t, dir).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read = %v, want the end", err)
	}
}

// TestASessionThatIsNotReadEnds: the other side goes on to send, byte by byte, and reads nothing of a response that is larger than the
// kernel's buffers.
func TestASessionThatIsNotReadEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newCluster(map[string]string{annotations.NetworksKey: "a"})
	c.nads[nad.Ref{Namespace: "default", Name: "a"}] = strings.Repeat("x", 2<<20)
	s := newServer(c.source())
	s.Idle = time.Second
	start(t, dir, s)
	conn := dial(t, dir)
	if err := wire.Write(conn, wire.Message{Kind: wire.Lookup, Body: []byte(`{"pod":{"namespace":"default","name":"web"}}`)}); err != nil {
		t.Fatal(err)
	}
	next := append(binary.BigEndian.AppendUint32(nil, wire.MaxFrameBytes), slices.Repeat([]byte(" "), 4096)...)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range next {
		_, err := conn.Write(next[i : i+1])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return // it has ended
		}
		<-tick.C
	}
	t.Error("the session goes on")
}

// counted is a source that tells whether it was asked.
type counted struct {
	source.Source

	ready func()
}

func (c *counted) Ready(context.Context) error {
	c.ready()
	return nil
}

func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var left atomic.Bool
	var asked atomic.Int32
	const rounds = 20
	s := newServer(&counted{ready: func() {
		if asked.Add(1) == 2+rounds+1 && !left.Load() {
			t.Error("a third session is served while two are open")
		}
	}})
	s.Sessions = 2
	start(t, dir, s)
	ready := func(conn net.Conn) {
		t.Helper()
		if err := wire.Write(conn, wire.Message{Kind: wire.Ready}); err != nil {
			t.Fatal(err)
		}
	}
	answered := func(conn net.Conn) {
		t.Helper()
		if _, err := wire.Read(conn); err != nil {
			t.Fatal(err)
		}
	}
	first, second := dial(t, dir), dial(t, dir)
	for _, conn := range []net.Conn{first, second} {
		ready(conn)
		answered(conn)
	}
	third := dial(t, dir) // the kernel takes it
	ready(third)
	for range rounds { // time enough for the third, if it were served
		ready(second)
		answered(second)
	}
	left.Store(true)
	first.Close()
	answered(third)
}

func TestTheSocketsFolderIsClosedToOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // as a mount has it that another program made
		t.Fatal(err)
	}
	l, err := daemon.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%s: %v, %v", dir, info.Mode(), err)
	}
}

func TestThereIsASocketWhileItIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := daemon.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	var all sync.WaitGroup
	var over atomic.Bool
	for range 4 {
		all.Go(func() {
			for !over.Load() {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(dir, "plexus.sock"))
				if errors.Is(err, fs.ErrNotExist) {
					t.Errorf("connect: %v", err)
					return
				}
				if err == nil {
					conn.Close()
				}
			}
		})
	}
	for range 300 {
		l, err := daemon.Listen(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
	}
	over.Store(true)
	all.Wait()
}

func TestPublicationsThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	dropped := 0
	p := daemon.NewPublisher(nil, nil, func(outcome string) {
		if outcome == "dropped" {
			dropped++
		}
	}, slog.New(slog.DiscardHandler))
	for range 1010 { // nothing works them off
		p.Publish(web, []source.Interface{{Name: "net1", Claimed: &pod.ClaimedDevice{Claim: "c"}}})
	}
	if dropped != 10 || p.Len() != 1000 {
		t.Errorf("%d dropped and %d waiting, want 10 and 1000", dropped, p.Len())
	}
}
