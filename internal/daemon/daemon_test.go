// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/remote"
	"github.com/plexus-cni/plexus/internal/wire"
	"github.com/plexus-cni/plexus/nad"
)

// limit bounds what is expected to happen; it is long only on a machine that is very busy.
const limit = 30 * time.Second

var web = pod.Ref{Namespace: "default", Name: "web", UID: "u1"}

// cluster is a stateful API.
type cluster struct {
	mu      sync.Mutex
	pods    map[string]kube.Pod
	nads    map[nad.Ref]string // what the watch has delivered
	created map[nad.Ref]string // what only the API server has yet
	// definitions of networks that consume devices, by name.
	definitions map[string]nad.Definition
	asked       int   // definitions that the API server was asked for
	err         error // of all calls
	patches     []patch
	events      []event
}

type patch struct {
	Ref    pod.Ref
	Values map[string]string
}

type event struct {
	Ref   pod.Ref
	Event kube.Event
}

func (c *cluster) Pod(_ context.Context, ref pod.Ref) (kube.Pod, error) {
	if c.err != nil {
		return kube.Pod{}, c.err
	}
	p, ok := c.pods[ref.String()]
	if !ok {
		return kube.Pod{}, fmt.Errorf("%w: no pod %s", kube.ErrPodGone, ref)
	}
	return p, nil
}

func (c *cluster) KnownPod(_ context.Context, ref pod.Ref) (kube.Pod, bool) {
	p, ok := c.pods[ref.String()]
	return p, ok && (ref.UID == p.Ref.UID || ref.UID == "" || annotations.IsMirror(p.Annotations, ref.UID))
}

func (c *cluster) KnownDefinition(ref nad.Ref) (*nad.Definition, error) { return c.find(c.nads, ref) }

func (c *cluster) Definition(_ context.Context, ref nad.Ref) (*nad.Definition, error) {
	c.asked++
	return c.find(c.created, ref)
}

func (c *cluster) find(in map[nad.Ref]string, ref nad.Ref) (*nad.Definition, error) {
	if d, ok := c.definitions[ref.Name]; ok {
		d.Ref = ref
		return &d, nil
	}
	if config, ok := in[ref]; ok {
		return &nad.Definition{Ref: ref, Config: config}, nil
	}
	return nil, fmt.Errorf("%w: %s", nad.ErrNotFound, ref)
}

func (c *cluster) PatchAnnotations(_ context.Context, ref pod.Ref, values map[string]string) error {
	if c.err != nil {
		return c.err
	}
	if p, ok := c.pods[ref.String()]; !ok || p.Ref.UID != ref.UID {
		return fmt.Errorf("%w: %s", kube.ErrPodGone, ref)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.patches = append(c.patches, patch{ref, values})
	return nil
}

func (c *cluster) Ready(context.Context) error { return c.err }

func (c *cluster) emit(ref pod.Ref, e kube.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, event{ref, e})
}

func newCluster(ann map[string]string) *cluster {
	return &cluster{
		pods: map[string]kube.Pod{web.String(): {Ref: web, Annotations: ann}},
		nads: map[nad.Ref]string{{Namespace: "default", Name: "a"}: "config-a"},
	}
}

func (c *cluster) source() *daemon.Cluster {
	return &daemon.Cluster{API: c, Emit: c.emit, Log: slog.New(slog.DiscardHandler), StatusForAll: true}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	refA, refB := nad.Ref{Namespace: "default", Name: "a"}, nad.Ref{Namespace: "default", Name: "b"}
	network := func(ref nad.Ref) source.Network {
		return source.Network{Ref: ref, Config: "config-" + ref.Name, Element: annotations.Element{Namespace: ref.Namespace, Name: ref.Name}}
	}
	t.Run("of what the watch delivered asks nobody", func(t *testing.T) {
		t.Parallel()
		c := newCluster(map[string]string{annotations.NetworksKey: "a"})
		got, err := c.source().Lookup(t.Context(), source.Query{Pod: web, ClusterNetwork: "file", NetworksNamespace: "kube-system"})
		if err != nil {
			t.Fatal(err)
		}
		want := &source.Selection{
			Pod: web, Networks: []source.Network{network(refA)},
			Default: &source.Network{Ref: nad.Ref{Namespace: "kube-system", Name: "file"}, Missing: true},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Lookup (-want +got):\n%s", diff)
		}
		if c.asked != 0 || len(c.events) != 0 {
			t.Errorf("%d requests, events %v; want none", c.asked, c.events)
		}
	})
	t.Run("of a network that was created just now", func(t *testing.T) {
		t.Parallel()
		c := newCluster(map[string]string{annotations.NetworksKey: "b,a,b"})
		c.created = map[nad.Ref]string{refB: "config-b"}
		got, err := c.source().Lookup(t.Context(), source.Query{Pod: web})
		if err != nil {
			t.Fatal(err)
		}
		want := &source.Selection{Pod: web, Networks: []source.Network{network(refB), network(refA), network(refB)}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Lookup (-want +got):\n%s", diff)
		}
		if c.asked != 1 {
			t.Errorf("%d requests, want 1", c.asked)
		}
	})
}

func TestLookupThatFails(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		ann    map[string]string
		query  source.Query
		err    error
		kind   error
		reason string // of the event; "" for none
	}{
		"P26 a missing network": {
			ann: map[string]string{annotations.NetworksKey: "missing"}, query: source.Query{Pod: web},
			kind: nad.ErrNotFound, reason: "NoNetworkFound",
		},
		"I1 isolation": {
			ann: map[string]string{annotations.NetworksKey: "other/a"}, query: source.Query{Pod: web, Isolation: nad.Policy{Isolate: true}},
			kind: nad.ErrForbidden, reason: "NetworkForbidden",
		},
		"P12 a broken selection": {
			ann: map[string]string{annotations.NetworksKey: "a,"}, query: source.Query{Pod: web},
			kind: annotations.ErrInvalid, reason: "InvalidNetworkSelection",
		},
		"D17 another pod of the same name": {
			query: source.Query{Pod: pod.Ref{Namespace: "default", Name: "web", UID: "older"}}, kind: source.ErrTryAgain,
		},
		"a pod that is not known": {
			query: source.Query{Pod: pod.Ref{Namespace: "default", Name: "other"}}, kind: source.ErrTryAgain,
		},
		"an API server that is away": {query: source.Query{Pod: web}, err: kube.ErrUnavailable, kind: source.ErrTryAgain},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(tc.ann)
			c.err = tc.err
			s, err := c.source().Lookup(t.Context(), tc.query)
			if err == nil || s != nil || (tc.kind != nil && !errors.Is(err, tc.kind)) {
				t.Fatalf("Lookup = %+v, %v; want an error of kind %v", s, err, tc.kind)
			}
			if tc.reason == "" {
				if len(c.events) > 0 {
					t.Errorf("events %v, want none", c.events)
				}
				return
			}
			want := []event{{web, kube.Event{Warning: true, Reason: tc.reason, Text: err.Error()}}}
			if diff := cmp.Diff(want, c.events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	report := source.Report{
		Pod:    web,
		Status: []annotations.Status{{Name: "cluster", Interface: "eth0", Default: true}},
		Interfaces: []source.Interface{
			{Network: "cluster", Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")}},
			{Network: "default/a", Name: "net1"},
		},
	}
	text, err := annotations.FormatStatus(report.Status)
	if err != nil {
		t.Fatal(err)
	}
	written := func(ref pod.Ref) []patch {
		return []patch{{ref, map[string]string{annotations.NetworkStatusKey: text}}}
	}
	told := func(ref pod.Ref) []event {
		return []event{
			{ref, kube.Event{Reason: "AddedInterface", Text: "Add eth0 [10.1.0.2/24 fd00::2/64] from cluster"}},
			{ref, kube.Event{Reason: "AddedInterface", Text: "Add net1 [] from default/a"}},
		}
	}
	mirror := pod.Ref{Namespace: "default", Name: "web", UID: "mirror"}
	selects := map[string]string{annotations.NetworksKey: "a"}
	tests := map[string]struct {
		prepare func(*cluster, *daemon.Cluster)
		patches []patch
		events  []event
		kind    error
	}{
		"one patch, and an event for each interface": {patches: written(web), events: told(web)},
		"a pod that selects nothing, if only others are asked for": {
			prepare: func(_ *cluster, s *daemon.Cluster) { s.StatusForAll = false },
		},
		"a pod that selects, if only such are asked for": {
			prepare: func(c *cluster, s *daemon.Cluster) {
				s.StatusForAll = false
				c.pods[web.String()] = kube.Pod{Ref: web, Annotations: selects}
			},
			patches: written(web), events: told(web),
		},
		"the legacy name too, in the same patch": {
			prepare: func(_ *cluster, s *daemon.Cluster) { s.LegacyStatus = true },
			patches: []patch{{web, map[string]string{annotations.NetworkStatusKey: text, annotations.LegacyNetworkStatusKey: text}}}, events: told(web),
		},
		"a static pod, by its mirror": {
			prepare: func(c *cluster, _ *daemon.Cluster) {
				c.pods[web.String()] = kube.Pod{Ref: mirror, Annotations: map[string]string{annotations.MirrorKey: web.UID}}
			},
			patches: written(mirror), events: told(mirror),
		},
		"S14 a pod that is gone is no error": {prepare: func(c *cluster, _ *daemon.Cluster) { clear(c.pods) }},
		"another pod of the same name is left alone": {
			prepare: func(c *cluster, _ *daemon.Cluster) { c.pods[web.String()] = kube.Pod{Ref: mirror} },
		},
		"an API server that is away": {
			prepare: func(c *cluster, _ *daemon.Cluster) { c.err = kube.ErrUnavailable }, kind: source.ErrTryAgain,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(nil)
			s := c.source()
			if tc.prepare != nil {
				tc.prepare(c, s)
			}
			if err := s.Report(t.Context(), report); !errors.Is(err, tc.kind) {
				t.Fatalf("Report = %v, want %v", err, tc.kind)
			}
			if diff := cmp.Diff(tc.patches, c.patches); diff != "" {
				t.Errorf("patches (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.events, c.events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOverTheSocket(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	serve(t, dir, newCluster(map[string]string{annotations.NetworksKey: "a"}).source())
	for path, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, filepath.Join(dir, remote.SocketName): fs.ModeSocket | 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	c := remote.NewSocketOf(dir, uint32(os.Geteuid()))
	t.Cleanup(func() { _ = c.Close() })
	got, err := c.Lookup(t.Context(), source.Query{Pod: web})
	if err != nil || len(got.Networks) != 1 {
		t.Errorf("Lookup = %+v, %v", got, err)
	}
}

func TestOneSocketAtAnyTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stopFirst := serve(t, dir, newCluster(nil).source())
	serve(t, dir, newCluster(nil).source()) // a rolling update: the new one is there before the old one goes
	stopFirst()
	if m := ask(t, dir, wire.Message{Kind: wire.Ready}); m.Error != nil {
		t.Errorf("answer %+v after the first daemon has stopped", m)
	}
}

func TestASocketThatNobodyFindsIsNotAlive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := daemon.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
	if err = first.Check(); err != nil {
		t.Errorf("Check = %v", err)
	}
	second, err := daemon.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })
	if err = first.Check(); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("Check of the one that was replaced = %v", err)
	}
	if err = os.Remove(filepath.Join(dir, remote.SocketName)); err != nil {
		t.Fatal(err)
	}
	if err = second.Check(); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("Check of the one that was removed = %v", err)
	}
}

func TestConnectionsThatAreHeldOpenKeepNobodyOut(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		if serveErr := daemon.ServeHTTP(ctx, l, daemon.NewMetrics("v0").Handler(func() error { return nil })); serveErr != nil {
			t.Error(serveErr)
		}
	})
	var held []net.Conn
	for range 500 {
		var conn net.Conn
		if conn, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-"); err != nil && len(held) == 0 {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if err = held[0].SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil { // before its headers would have to be there
		t.Fatal(err)
	}
	if _, err = held[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read of the oldest connection = %v: it is still open", err)
	}
}

func TestOtherUsersAreNotAnswered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	said := &strings.Builder{}
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return said.Write(p)
	}), nil))
	stop := start(t, dir, &daemon.Server{Source: newCluster(nil).source(), Log: log, Peer: uint32(os.Geteuid()) + 1})
	conn := dial(t, dir)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read = %v, want the end", err)
	}
	stop()
	if !strings.Contains(said.String(), "may not ask") {
		t.Errorf("log: %s", said)
	}
}

func TestStopEndsSessions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stop := serve(t, dir, newCluster(nil).source())
	conn := dial(t, dir)
	if err := wire.Write(conn, wire.Message{Kind: wire.Ready}); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Read(conn); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read = %v, want the end", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src := newCluster(map[string]string{annotations.NetworksKey: "a"}).source()
	src.InFlight = daemon.NewSlots(4)
	serve(t, dir, src)
	var all sync.WaitGroup
	for range 50 { // T9
		all.Go(func() {
			m := ask(t, dir, wire.Message{Kind: wire.Lookup, Body: []byte(`{"pod":{"namespace":"default","name":"web"}}`)})
			if m.Error != nil {
				t.Errorf("answer %+v", m.Error)
			}
		})
	}
	all.Wait()
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	c := newCluster(nil)
	metrics := daemon.NewMetrics("v1.2.3")
	src := metrics.Measure(c.source())
	var dead error
	server := httptest.NewServer(metrics.Handler(func() error { return dead },
		daemon.Check{Name: "cluster", Error: func() error { return src.Ready(t.Context()) }}, daemon.Check{Name: "node", Error: func() error { return nil }}))
	t.Cleanup(server.Close)
	get := func(path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz = %d %s", code, body)
	}
	c.err = fmt.Errorf("%w: the pods of node n1 have not been listed yet", kube.ErrUnavailable)
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "cluster: ") || !strings.Contains(body, "node n1") {
		t.Errorf("/readyz = %d %s, want the reason", code, body)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz = %d: alive is not ready", code)
	}
	dead = errors.New("the socket has been removed")
	if code, body := get("/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, dead.Error()) {
		t.Errorf("/healthz = %d %s, want the reason", code, body)
	}
	metrics.CountKubelet("Get", "Unavailable")
	failures := src.(remote.Failures)
	for _, f := range []remote.Failure{{Verb: "DEL", Code: 999}, {Verb: "ADD", Code: 11}, {Verb: "STATUS", Code: 50}, {Verb: "forged", Code: 1}} {
		failures.Failed(f)
	}
	_, body := get("/metrics")
	for _, want := range []string{
		`plexus_requests_total{outcome="ok",verb="ready"} 1`,
		`plexus_requests_total{outcome="try_again",verb="ready"} 1`,
		`plexus_request_duration_seconds_count{verb="ready"} 2`,
		`plexus_requests_in_flight{verb="ready"} 0`,
		`plexus_podresources_requests_total{call="Get",code="Unavailable"} 1`,
		`plexus_cni_failures_total{outcome="failed",verb="DEL"} 1`,
		`plexus_cni_failures_total{outcome="try_again",verb="ADD"} 1`,
		`plexus_cni_failures_total{outcome="try_again",verb="STATUS"} 1`,
		`plexus_build_info{version="v1.2.3"} 1`,
		// What nobody has asked for yet.
		`plexus_requests_total{outcome="failed",verb="lookup"} 0`,
		`plexus_request_duration_seconds_count{verb="report"} 0`,
		`plexus_cni_failures_total{outcome="failed",verb="ADD"} 0`,
		`plexus_api_requests_total{code="403",verb="patch"} 0`,
		`plexus_events_total{outcome="dropped"} 0`,
		`plexus_claim_status_writes_total{outcome="failed"} 0`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if strings.Contains(body, "forged") {
		t.Error("a verb that is none has a series")
	}
}

func serve(t *testing.T, dir string, src source.Source) func() {
	t.Helper()
	return start(t, dir, &daemon.Server{Source: src, Log: slog.New(slog.DiscardHandler), Peer: uint32(os.Geteuid())})
}

func start(t *testing.T, dir string, s *daemon.Server) func() {
	t.Helper()
	l, err := daemon.Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, dir string) net.Conn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "unix", filepath.Join(dir, remote.SocketName))
	if err != nil {
		t.Error(err) // not Fatal: also called beside the test's own goroutine
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Error(err)
	}
	return conn
}

func ask(t *testing.T, dir string, m wire.Message) *wire.Message {
	t.Helper()
	conn := dial(t, dir)
	if err := wire.Write(conn, m); err != nil {
		t.Error(err)
	}
	answer, err := wire.Read(conn)
	if err != nil {
		t.Error(err)
		return &wire.Message{}
	}
	return answer
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
