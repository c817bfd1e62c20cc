// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/bench/fakeapi"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/remote"
	"github.com/plexus-cni/plexus/internal/testenv"
	"github.com/plexus-cni/plexus/internal/wire"
	"github.com/plexus-cni/plexus/nad"
)

// limit bounds what is expected to happen; it is long only on a machine that is very busy.
const limit = 30 * time.Second

// front is an API server, whose requests are noted. Its hook serves a request in the place of the server behind it if it returns true.
type front struct {
	*fakeapi.Server
	http *httptest.Server
	hook func(w http.ResponseWriter, r *http.Request) bool

	mu   sync.Mutex
	seen []string // method, path and body
}

func newFront(t *testing.T, hook func(http.ResponseWriter, *http.Request) bool) *front {
	t.Helper()
	f := &front{Server: fakeapi.New("n1", 0), hook: hook}
	f.http = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		f.Close() // ends the watches, for which the other would wait
		f.http.CloseClientConnections()
		f.http.Close()
	})
	return f
}

func (f *front) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	f.seen = append(f.seen, r.Method+" "+r.URL.Path+" "+string(body))
	f.mu.Unlock()
	if f.hook == nil || !f.hook(w, r) {
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		f.ServeHTTP(w, r)
	}
}

// requests are those that begin so.
func (f *front) requests(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.seen), func(s string) bool { return !strings.HasPrefix(s, prefix) })
}

func (f *front) kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, path, fmt.Sprintf(`{"clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`, f.http.URL))
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// running is a daemon that serves, with the flags that it has.
type running struct {
	*remote.Client
	dir, address string
}

// start serves with the flags of args, beside those that a test needs.
func start(t *testing.T, f *front, args ...string) *running {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &running{dir: t.TempDir(), address: l.Addr().String()}
	l.Close()
	cmd, o := serveCommand()
	o.peer, o.retry = uint32(os.Geteuid()), 10*time.Millisecond
	args = append([]string{
		"--node-name=n1", "--kubeconfig=" + f.kubeconfig(t), "--socket-dir=" + d.dir, "--listen=" + d.address,
		"--pod-resources-socket=" + filepath.Join(d.dir, "kubelet.sock"),
	}, args...)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if err := serve(ctx, *o); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	d.Client = d.client(t)
	return d
}

// client is a plugin's.
func (d *running) client(t *testing.T) *remote.Client {
	t.Helper()
	c := remote.NewSocketOf(d.dir, uint32(os.Geteuid()))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// get asks by HTTP; the code is 0 while nobody listens.
func (d *running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// await waits until path says so.
func (d *running) await(t *testing.T, path string, code int, says string) {
	t.Helper()
	var is int
	var body string
	eventually(t, func() bool {
		is, body = d.get(t, path)
		return is == code && strings.Contains(body, says)
	}, func() string { return fmt.Sprintf("%s to be %d %q, is %d %s", path, code, says, is, body) })
}

func eventually(t *testing.T, ok func() bool, what func() string) {
	t.Helper()
	testenv.Eventually(t, limit, ok, what)
}

func refOf(name string) pod.Ref {
	return pod.Ref{Namespace: fakeapi.Namespace, Name: name, UID: "u-" + name}
}

func podOf(name, networks string) fakeapi.Pod {
	return fakeapi.Pod{Name: name, UID: "u-" + name, Networks: networks}
}

// attach looks up and reports as an ADD does.
func (d *running) attach(t *testing.T, name string, claimed *pod.ClaimedDevice) {
	t.Helper()
	if _, err := d.Lookup(t.Context(), source.Query{Pod: refOf(name)}); err != nil {
		t.Fatal(err)
	}
	err := d.Report(t.Context(), source.Report{
		Pod: refOf(name), Status: []annotations.Status{{Name: "cluster", Interface: "eth0", Default: true}},
		Interfaces: []source.Interface{{Network: "cluster", Name: "eth0", Claimed: claimed}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.AddDefinitions(fakeapi.Definition{Name: "a", Config: `{"type":"x"}`})
	f.AddPods(podOf("plain", ""), podOf("selects", "a"))
	d := start(t, f)
	got, err := d.Lookup(t.Context(), source.Query{Pod: refOf("selects")})
	if err != nil || len(got.Networks) != 1 || got.Networks[0].Ref != (nad.Ref{Namespace: fakeapi.Namespace, Name: "a"}) || got.Networks[0].Config != `{"type":"x"}` {
		t.Errorf("Lookup = %+v, %v", got, err)
	}
	d.attach(t, "plain", nil)
	if f.Annotation("plain", annotations.NetworkStatusKey) == "" || f.Annotation("plain", annotations.LegacyNetworkStatusKey) != "" {
		t.Error("a pod that selects nothing has no status, or one under the old name too")
	}
	eventually(t, func() bool { return len(f.requests("POST /api/v1/namespaces/bench/events")) > 0 }, func() string { return "an event" })
	d.await(t, "/readyz", http.StatusOK, "ok")
	d.await(t, "/metrics", http.StatusOK, `plexus_events_total{outcome="sent"} 1`)
	_, series := d.get(t, "/metrics")
	for _, want := range []string{
		`plexus_requests_total{outcome="ok",verb="lookup"} 2`, `plexus_api_requests_total{code="200",verb="patch"} 1`,
		`plexus_api_up 1`, `plexus_watch_open{resource="network-attachment-definitions"} 1`, `plexus_watch_open{resource="pods"} 1`, `plexus_ready{check="cluster"} 1`,
	} {
		if !strings.Contains(series, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

func TestStatusForAllSwitchedOff(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.AddDefinitions(fakeapi.Definition{Name: "a", Config: `{"type":"x"}`})
	f.AddPods(podOf("plain", ""), podOf("selects", "a"))
	d := start(t, f, "--status-for-all=false", "--legacy-status")
	d.attach(t, "plain", nil)
	d.attach(t, "selects", nil)
	if got := f.requests("PATCH "); len(got) != 1 || !strings.Contains(got[0], "/pods/selects/status") {
		t.Errorf("patches %q, want one, of the pod that selects", got)
	}
	if status := f.Annotation("selects", annotations.NetworkStatusKey); status == "" || status != f.Annotation("selects", annotations.LegacyNetworkStatusKey) {
		t.Error("the status is not under both names")
	}
}

// TestAClaimOfAPodThatTheWatchHasNotDelivered is written all the same.
func TestAClaimOfAPodThatTheWatchHasNotDelivered(t *testing.T) {
	t.Parallel()
	f := newFront(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/api/v1/pods") {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	f.AddPods(podOf("web", ""))
	d := start(t, f, "--publish-claim-status")
	d.attach(t, "web", &pod.ClaimedDevice{Claim: "web-nic", Driver: "d", Pool: "p", Device: "vf"})
	eventually(t, func() bool { return len(f.requests("PATCH /apis/resource.k8s.io/")) == 1 }, func() string { return "a write to the claim" })
}

func TestClaimsAreTakenBackWhenThePodIsGone(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.AddPods(podOf("web", ""))
	d := start(t, f, "--publish-claim-status")
	const path = "PATCH /apis/resource.k8s.io/v1/namespaces/bench/resourceclaims/web-nic/status "
	d.await(t, "/readyz", http.StatusOK, "ok") // the watch knows the pod
	d.attach(t, "web", &pod.ClaimedDevice{Claim: "web-nic", Driver: "d", Pool: "p", Device: "vf"})
	eventually(t, func() bool { return len(f.requests(path)) == 1 }, func() string { return "a write to the claim" })
	f.RemovePods("web")
	eventually(t, func() bool {
		all := f.requests(path)
		return len(all) == 2 && strings.Contains(all[1], `"devices":[]`)
	}, func() string { return "the claim to be taken back" })
	d.await(t, "/metrics", http.StatusOK, `plexus_claim_status_writes_total{outcome="ok"} 2`)
}

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	patching, proceed := make(chan struct{}), make(chan struct{})
	f := newFront(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			close(patching)
			<-proceed
		}
		return false
	})
	f.AddPods(podOf("first", ""), podOf("second", ""))
	d := start(t, f, "--max-in-flight=1")
	var reported sync.WaitGroup
	reported.Go(func() { d.attach(t, "first", nil) })
	<-patching
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := d.client(t).Lookup(ctx, source.Query{Pod: refOf("second")}); err == nil || !strings.Contains(err.Error(), "busy with 1 other") {
		t.Errorf("Lookup = %v while another request is worked on", err)
	}
	close(proceed)
	reported.Wait()
	if _, err := d.client(t).Lookup(t.Context(), source.Query{Pod: refOf("second")}); err != nil {
		t.Errorf("Lookup = %v", err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	d := start(t, newFront(t, nil))
	d.await(t, "/healthz", http.StatusOK, "ok")
	if err := os.Remove(filepath.Join(d.dir, remote.SocketName)); err != nil {
		t.Fatal(err)
	}
	d.await(t, "/healthz", http.StatusServiceUnavailable, "the socket has been removed")
}

func TestNotReadyBeforeTheClusterIsKnown(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	refused := true
	f := newFront(t, func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if refused && strings.HasSuffix(r.URL.Path, "/network-attachment-definitions") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	d := start(t, f)
	d.await(t, "/readyz", http.StatusServiceUnavailable, "cluster: API server not available: the NetworkAttachmentDefinitions have not been listed yet")
	d.await(t, "/metrics", http.StatusOK, `plexus_ready{check="cluster"} 0`)
	mu.Lock()
	refused = false
	mu.Unlock()
	d.await(t, "/readyz", http.StatusOK, "ok")
}

// node is a host's folders, and the flags that name them.
func node(t *testing.T) (string, []string) {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"net.d", "bin", "image"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir, []string{
		"--install", "--conf-dir=" + filepath.Join(dir, "net.d"), "--bin-dir=" + filepath.Join(dir, "bin"), "--bin-source=" + filepath.Join(dir, "image"),
		"--plugin-conf=" + filepath.Join(dir, "plugin.json"),
	}
}

const primary = `{"cniVersion":"1.0.0","name":"cluster","plugins":[{"type":"ptp"}]}`

func TestReadinessTellsOfTheInstallation(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	dir, flags := node(t)
	write(t, filepath.Join(dir, "image", "plexus"), "program")
	d := start(t, f, flags...)
	d.await(t, "/readyz", http.StatusServiceUnavailable, "installation: ")
	write(t, filepath.Join(dir, "net.d", "10-primary.conflist"), primary)
	d.await(t, "/readyz", http.StatusOK, "ok")
	d.await(t, "/metrics", http.StatusOK, `plexus_ready{check="installation"} 1`)
	if _, err := os.Stat(filepath.Join(dir, "net.d", "00-plexus.conflist")); err != nil {
		t.Error(err)
	}
}

// TestOptionalPartsDoNotEndTheDaemon: lookups are served, /readyz says what is wrong, and all is well once that is fixed.
func TestOptionalPartsDoNotEndTheDaemon(t *testing.T) {
	t.Parallel()
	serves := func(t *testing.T, f *front, d *running) {
		t.Helper()
		f.AddPods(podOf("web", ""))
		d.attach(t, "web", nil)
	}
	t.Run("keys of the plugin's configuration that are no JSON", func(t *testing.T) {
		t.Parallel()
		f := newFront(t, nil)
		dir, flags := node(t)
		write(t, filepath.Join(dir, "image", "plexus"), "program")
		write(t, filepath.Join(dir, "net.d", "10-primary.conflist"), primary)
		write(t, filepath.Join(dir, "plugin.json"), "{")
		d := start(t, f, flags...)
		serves(t, f, d)
		d.await(t, "/readyz", http.StatusServiceUnavailable, "installation: --plugin-conf")
		write(t, filepath.Join(dir, "plugin.json"), "{}")
		d.await(t, "/readyz", http.StatusOK, "ok")
	})
	t.Run("a program that cannot be installed", func(t *testing.T) {
		t.Parallel()
		f := newFront(t, nil)
		dir, flags := node(t)
		write(t, filepath.Join(dir, "net.d", "10-primary.conflist"), primary)
		d := start(t, f, flags...)
		serves(t, f, d)
		d.await(t, "/readyz", http.StatusServiceUnavailable, filepath.Join(dir, "image", "plexus"))
		if _, err := os.Stat(filepath.Join(dir, "net.d", "00-plexus.conflist")); err == nil {
			t.Error("the configuration is there before the program that it needs")
		}
		write(t, filepath.Join(dir, "image", "plexus"), "program")
		d.await(t, "/readyz", http.StatusOK, "ok")
	})
	t.Run("a port that is taken", func(t *testing.T) {
		t.Parallel()
		f := newFront(t, nil)
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		d := start(t, f, "--listen="+l.Addr().String())
		d.address = l.Addr().String()
		serves(t, f, d)
		l.Close()
		d.await(t, "/readyz", http.StatusOK, "ok")
	})
}

// TestTheMetricsAreDocumented holds docs/metrics.md to what there is.
func TestTheMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	d := start(t, newFront(t, nil), "--publish-claim-status")
	d.await(t, "/metrics", http.StatusOK, "plexus_build_info")
	_, text := d.get(t, "/metrics")
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if name := strings.Trim(cells[0], "`"); strings.HasPrefix(name, "plexus_") && len(cells) == 3 {
			documented[name] = cells[1] + " " + cells[2]
		}
	}
	exported := map[string]bool{}
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if len(fields) < 4 || fields[0] != "#" || !strings.HasPrefix(fields[2], "plexus_") {
			continue
		}
		name, rest := fields[2], fields[3]
		exported[name] = true
		if !strings.Contains(strings.ReplaceAll(documented[name], "`", ""), rest) {
			t.Errorf("docs/metrics.md says of %s %q, want %q", name, documented[name], rest)
		}
	}
	for name := range documented {
		if !exported[name] {
			t.Errorf("docs/metrics.md has %s, which there is not", name)
		}
	}
}

// TestARequestThatIsNoneEndsItsSessionOnly: another program on the socket is no reason to stop.
func TestARequestThatIsNoneEndsItsSessionOnly(t *testing.T) {
	t.Parallel()
	d := start(t, newFront(t, nil))
	d.await(t, "/healthz", http.StatusOK, "ok")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(d.dir, remote.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := wire.Write(conn, wire.Message{Kind: wire.Failed, Body: json.RawMessage(`"x"`)}); err != nil {
		t.Fatal(err)
	}
	if m, err := wire.Read(conn); err != nil || m.Error == nil {
		t.Errorf("response %+v, %v", m, err)
	}
	if err := d.Failed(t.Context(), remote.Failure{Verb: "DEL", Code: 999}); err != nil {
		t.Error(err)
	}
	d.await(t, "/metrics", http.StatusOK, `plexus_cni_failures_total{outcome="failed",verb="DEL"} 1`)
}
