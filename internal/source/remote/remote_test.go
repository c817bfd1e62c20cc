// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/wire"
	"github.com/plexus-cni/plexus/nad"
)

// limit bounds what is expected to happen; it is long only on a machine that is very busy.
const limit = 30 * time.Second

// TestMain makes the test binary the program plexusd for the tests of the one-shot client.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "lookup" {
		os.Exit(lookupChild(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// fake is a source that answers what it is told to, and keeps what was reported.
type fake struct {
	lookup func(ctx context.Context, q source.Query) (*source.Selection, error)
	ready  error

	mu      sync.Mutex
	reports []source.Report
}

func (f *fake) Lookup(ctx context.Context, q source.Query) (*source.Selection, error) {
	return f.lookup(ctx, q)
}

func (f *fake) Report(_ context.Context, r source.Report) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports = append(f.reports, r)
	return nil
}

func (f *fake) Ready(context.Context) error { return f.ready }

func (f *fake) reported() []source.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reports
}

func refuse(err error) *fake {
	return &fake{lookup: func(context.Context, source.Query) (*source.Selection, error) { return nil, err }}
}

// selection has one of everything that has to survive.
func selection() *source.Selection {
	return &source.Selection{
		Pod:             pod.Ref{Namespace: "default", Name: "web", UID: "u1"},
		Default:         &source.Network{Ref: nad.Ref{Namespace: "kube-system", Name: "x"}, Missing: true},
		DefaultNetworks: []source.Network{{Ref: nad.Ref{Namespace: "kube-system", Name: "y"}, Config: `{"type":"<a&b>"}`}},
		Networks: []source.Network{{
			Ref: nad.Ref{Namespace: "default", Name: "a"}, Config: "{}", Device: "0000:01:10.0",
			Element: annotations.Element{Namespace: "default", Name: "a", IPs: []string{"10.0.0.1/24"}},
		}},
	}
}

func answerWith(s *source.Selection) *fake {
	return &fake{lookup: func(context.Context, source.Query) (*source.Selection, error) { return s, nil }}
}

var web = source.Query{Pod: pod.Ref{Namespace: "default", Name: "web", UID: "u1"}, NetworksNamespace: "kube-system"}

func TestOneSession(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src := answerWith(selection())
	d := startDaemon(t, dir, src)
	c := client(t, dir)
	got, err := c.Lookup(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(selection(), got); diff != "" {
		t.Errorf("Lookup (-want +got):\n%s", diff)
	}
	want := source.Report{
		Pod:        web.Pod,
		Status:     []annotations.Status{{Name: "cluster", Interface: "eth0", IPs: []string{"10.1.0.2"}, Default: true}},
		Interfaces: []source.Interface{{Network: "cluster", Name: "eth0"}},
	}
	if err := c.Report(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]source.Report{want}, src.reported()); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
	if n := d.accepted(); n != 1 {
		t.Errorf("%d sessions for one call, want 1", n)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"try again": fmt.Errorf("%w: no pod", source.ErrTryAgain),
		"selection": fmt.Errorf("annotation x: %w: no", annotations.ErrInvalid),
		"not found": fmt.Errorf("%w: default/a", nad.ErrNotFound),
		"forbidden": fmt.Errorf("%w: other/a", nad.ErrForbidden),
		"invalid":   fmt.Errorf("%w: config", nad.ErrInvalid),
		"final":     errors.New("something else"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			startDaemon(t, dir, refuse(err))
			_, got := client(t, dir).Lookup(t.Context(), web)
			if got == nil || got.Error() != err.Error() {
				t.Fatalf("error %v, want the text %q", got, err)
			}
			for _, kind := range []error{source.ErrTryAgain, annotations.ErrInvalid, nad.ErrNotFound, nad.ErrForbidden, nad.ErrInvalid} {
				if errors.Is(got, kind) != errors.Is(err, kind) {
					t.Errorf("errors.Is(_, %q) = %v on this side of the wire", kind, errors.Is(got, kind))
				}
			}
		})
	}
}

func TestWorkThatTakesTooLongIsToBeTriedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startDaemon(t, dir, &fake{lookup: func(ctx context.Context, _ source.Query) (*source.Selection, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("wait for pod default/web: %w", ctx.Err())
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := client(t, dir).Lookup(ctx, web)
	// The daemon gives up a little earlier, so it is its reason that is told.
	if !errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), "wait for pod default/web") {
		t.Errorf("Lookup = %v, want the daemon's own words", err)
	}
}

func TestTheEndOfThePluginCancelsTheWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	working, cancelled := make(chan struct{}), make(chan struct{})
	startDaemon(t, dir, &fake{lookup: func(ctx context.Context, _ source.Query) (*source.Selection, error) {
		close(working)
		<-ctx.Done()
		close(cancelled)
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-working
		cancel()
	}()
	if _, err := client(t, dir).Lookup(ctx, web); !errors.Is(err, context.Canceled) {
		t.Errorf("Lookup = %v, want context.Canceled", err)
	}
	await(t, cancelled, "the daemon's work to be cancelled")
}

func TestADaemonThatComesLater(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"the folder is not there yet": func(*testing.T, string) {},
		"the socket is not there yet": func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"the socket is a dead daemon's": func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			listen(t, dir).Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "run")
			prepare(t, dir)
			c := client(t, dir)
			failed := make(chan struct{})
			dial := c.dial
			var once sync.Once
			c.dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
				stream, err := dial(ctx)
				if err != nil {
					once.Do(func() { close(failed) })
				}
				return stream, err
			}
			go func() {
				<-failed
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Error(err)
				}
				startDaemon(t, dir, answerWith(selection()))
			}()
			if _, err := c.Lookup(t.Context(), web); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestADaemonThatIsRestarted(t *testing.T) {
	t.Parallel()
	t.Run("while it works on the answer", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		working := make(chan struct{})
		first := startDaemon(t, dir, &fake{lookup: func(ctx context.Context, _ source.Query) (*source.Selection, error) {
			close(working)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		go func() {
			<-working
			first.stop()
			startDaemon(t, dir, answerWith(selection()))
		}()
		if _, err := client(t, dir).Lookup(t.Context(), web); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("between lookup and report", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		first := startDaemon(t, dir, answerWith(selection()))
		c := client(t, dir)
		if _, err := c.Lookup(t.Context(), web); err != nil {
			t.Fatal(err)
		}
		first.stop()
		second := answerWith(nil)
		startDaemon(t, dir, second)
		if err := c.Report(t.Context(), source.Report{Pod: web.Pod}); err != nil {
			t.Fatal(err)
		}
		if n := len(second.reported()); n != 1 {
			t.Errorf("the new daemon got %d reports, want 1", n)
		}
	})
}

func TestADaemonThatComesLaterWithoutAWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := client(t, dir)
	c.watch = func() (watcher, error) {
		startDaemon(t, dir, answerWith(selection()))
		return nil, errors.New("inotify: too many open files")
	}
	if _, err := c.Lookup(t.Context(), web); err != nil {
		t.Fatal(err)
	}
}

// ending is a stream that the other side ends at the moment when the caller's patience does.
type ending struct{ ctx context.Context }

func (e ending) Read([]byte) (int, error)    { <-e.ctx.Done(); return 0, io.EOF }
func (e ending) Write(p []byte) (int, error) { return len(p), nil }
func (e ending) Close() error                { return nil }

func TestBothEndTheSessionAtOnce(t *testing.T) {
	t.Parallel()
	for range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		c := newClient("daemon", func(context.Context) (io.ReadWriteCloser, error) { return ending{ctx}, nil })
		go cancel()
		if err := c.Ready(ctx); !errors.Is(err, source.ErrTryAgain) {
			t.Fatalf("Ready = %v, want ErrTryAgain", err)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	t.Parallel()
	t.Run("a lookup waits until its deadline and says what to look at", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := client(t, t.TempDir()).Lookup(ctx, web)
		if !errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), "is plexusd running on this node?") {
			t.Errorf("Lookup = %v", err)
		}
	})
	t.Run("readiness does not wait", func(t *testing.T) {
		t.Parallel()
		c := client(t, t.TempDir())
		dials := countDials(c)
		if err := c.Ready(t.Context()); !errors.Is(err, source.ErrTryAgain) || *dials != 1 {
			t.Errorf("Ready = %v after %d connections, want an ErrTryAgain after one", err, *dials)
		}
	})
}

func TestReadyTellsTheReason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startDaemon(t, dir, &fake{ready: fmt.Errorf("%w: not synced", source.ErrTryAgain)})
	if err := client(t, dir).Ready(t.Context()); !errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), "not synced") {
		t.Errorf("Ready = %v", err)
	}
}

// counting is a source that counts failed calls.
type counting struct {
	*fake

	failed chan Failure
}

func (c counting) Failed(f Failure) { c.failed <- f }

func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	t.Run("by a daemon that does", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		src := counting{&fake{}, make(chan Failure, 1)}
		startDaemon(t, dir, src)
		want := Failure{Verb: "DEL", Code: 999}
		if err := client(t, dir).Failed(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, <-src.failed); diff != "" {
			t.Errorf("failure (-want +got):\n%s", diff)
		}
	})
	t.Run("and by a child not", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		startDaemon(t, dir, &fake{})
		if err := client(t, dir).Failed(t.Context(), Failure{Verb: "DEL"}); err != nil {
			t.Error(err)
		}
	})
	t.Run("no daemon is waited for", func(t *testing.T) {
		t.Parallel()
		c := client(t, t.TempDir())
		dials := countDials(c)
		if err := c.Failed(t.Context(), Failure{Verb: "DEL"}); err == nil || *dials != 1 {
			t.Errorf("Failed = %v after %d connections", err, *dials)
		}
	})
}

func TestSocketsThatAreNotTrusted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		owner   uint32
		prepare func(t *testing.T, dir string)
		says    string
	}{
		"of another user": {
			owner:   uint32(os.Geteuid()) + 1,
			prepare: func(t *testing.T, dir string) { t.Helper(); startDaemon(t, dir, answerWith(selection())) },
			says:    "it belongs to user",
		},
		"that others can write to": {
			owner: uint32(os.Geteuid()),
			prepare: func(t *testing.T, dir string) {
				t.Helper()
				startDaemon(t, dir, answerWith(selection()))
				if err := os.Chmod(filepath.Join(dir, SocketName), 0o622); err != nil {
					t.Fatal(err)
				}
			},
			says: "chmod 0600",
		},
		"that are files": {
			owner: uint32(os.Geteuid()),
			prepare: func(t *testing.T, dir string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, SocketName), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			},
			says: "it is no socket",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tc.prepare(t, dir)
			c := NewSocketOf(dir, tc.owner)
			t.Cleanup(func() { _ = c.Close() })
			_, err := c.Lookup(t.Context(), web)
			if err == nil || errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Lookup = %v, want a final error saying %q", err, tc.says)
			}
		})
	}
}

func TestADaemonThatSendsNonsense(t *testing.T) {
	t.Parallel()
	frame := func(json string) string { return string([]byte{0, 0, 0, byte(len(json))}) + json }
	for name, tc := range map[string]struct{ says, want string }{
		"no message":      {frame("hello"), "malformed"},
		"another version": {frame(`{"version":7,"kind":"answer"}`), "speaks version 7"},
		"a request":       {frame(`{"version":1,"kind":"ready"}`), "ready instead of a response"},
		"another body":    {frame(`{"version":1,"kind":"answer","body":[]}`), "response to lookup"},
		"no body":         {frame(`{"version":1,"kind":"answer"}`), "response to lookup"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := listen(t, dir)
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = wire.Read(conn)
					_, _ = io.WriteString(conn, tc.says)
				}
			}()
			c := client(t, dir)
			dials := countDials(c)
			_, err := c.Lookup(t.Context(), web)
			if !errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Lookup = %v, want an ErrTryAgain saying %q", err, tc.want)
			}
			if *dials != 1 {
				t.Errorf("it was asked %d times", *dials)
			}
		})
	}
}

func TestServeRefusesNonsense(t *testing.T) {
	t.Parallel()
	for name, said := range map[string]string{
		"no message":      "\x00\x00\x00\x02hi",
		"another version": "\x00\x00\x00\x0d" + `{"version":2}`,
		"an answer":       "\x00\x00\x00\x1d" + `{"version":1,"kind":"answer"}`,
		"another query":   "\x00\x00\x00\x28" + `{"version":1,"kind":"lookup","body":"x"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here, there := net.Pipe()
			served := make(chan error, 1)
			go func() { served <- Serve(t.Context(), there, refuse(errors.New("not reached"))) }()
			go func() { _, _ = io.WriteString(here, said) }()
			reply, err := wire.Read(here)
			if err != nil || reply.Error == nil || reply.Error.Kind != wire.Final {
				t.Errorf("answer %+v, %v; want an error", reply, err)
			}
			here.Close()
			if err := <-served; name != "another query" && err == nil {
				t.Error("Serve has nothing to say about it")
			}
		})
	}
}

func TestASelectionThatDoesNotFit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := selection()
	s.Networks[0].Config = strings.Repeat("x", wire.MaxFrameBytes)
	startDaemon(t, dir, answerWith(s))
	if _, err := client(t, dir).Lookup(t.Context(), web); err == nil || errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), "select fewer") {
		t.Errorf("Lookup = %v", err)
	}
}

func TestAClientDoesNotSayHowLongTheDaemonWorks(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer here.Close()
	src := &fake{lookup: func(ctx context.Context, _ source.Query) (*source.Selection, error) {
		deadline, ok := ctx.Deadline()
		if most := time.Now().Add(2 * Timeout); !ok || deadline.After(most) {
			t.Errorf("deadline %v, %v; want one before %v", deadline, ok, most)
		}
		return &source.Selection{}, nil
	}}
	go func() { _ = Serve(t.Context(), there, src) }()
	for _, millis := range []int64{0, 1000, 1 << 40} {
		if err := wire.Write(here, wire.Message{Kind: wire.Lookup, TimeoutMillis: millis, Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		if m, err := wire.Read(here); err != nil || m.Error != nil {
			t.Errorf("response %+v, %v", m, err)
		}
	}
}

func TestTheContextOfARequestEndsWhenItsResponseIsWritten(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer here.Close()
	var request context.Context
	src := &fake{lookup: func(ctx context.Context, _ source.Query) (*source.Selection, error) {
		request = ctx
		return &source.Selection{}, nil
	}}
	go func() { _ = Serve(t.Context(), there, src) }()
	if err := wire.Write(here, wire.Message{Kind: wire.Lookup, Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Read(make([]byte, 1)); err != nil { // of a pipe: the response is not written as long as it is not read
		t.Fatal(err)
	}
	if request.Err() != nil {
		t.Error("it has ended while the response is being written")
	}
	go func() { _, _ = io.Copy(io.Discard, here) }()
	await(t, request.Done(), "the request's context to end")
}

func TestOneShot(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, ProgramName)); err != nil {
		t.Fatal(err)
	}
	t.Run("answers over its pipes", func(t *testing.T) {
		t.Parallel()
		c := oneShot(t, "good", dir)
		got, err := c.Lookup(t.Context(), web)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(selection(), got); diff != "" {
			t.Errorf("Lookup (-want +got):\n%s", diff)
		}
		if err := c.Report(t.Context(), source.Report{Pod: web.Pod}); err != nil {
			t.Error(err)
		}
	})
	t.Run("knows where the kubelet is", func(t *testing.T) {
		t.Parallel()
		_, err := oneShot(t, "tells its flags", dir).Lookup(t.Context(), web)
		want := "--pod-resources-socket /var/lib/k/pod-resources/kubelet.sock --device-checkpoint /var/lib/k/device-plugins/kubelet_internal_checkpoint"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Lookup = %v, want %s", err, want)
		}
	})
	t.Run("says why it ended", func(t *testing.T) {
		t.Parallel()
		_, err := oneShot(t, "missing", dir).Lookup(t.Context(), web)
		if !errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), "kubeconfig missing: no such file") {
			t.Errorf("Lookup = %v", err)
		}
	})
	t.Run("ends with its caller's patience", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := oneShot(t, "hangs", dir).Lookup(ctx, web); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, source.ErrTryAgain) {
			t.Errorf("Lookup = %v", err)
		}
	})
	t.Run("that is not installed is final", func(t *testing.T) {
		t.Parallel()
		_, err := oneShot(t, "good", t.TempDir()).Lookup(t.Context(), web)
		if err == nil || errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), "plexusd install") {
			t.Errorf("Lookup = %v", err)
		}
	})
}

// lookupChild is the program plexusd lookup, with what it does in the place of its kubeconfig.
func lookupChild(args []string) int {
	switch args[1] {
	case "good":
		if err := Serve(context.Background(), stdio{}, answerWith(selection())); err != nil {
			return 1
		}
		return 0
	case "tells its flags":
		fmt.Fprintln(os.Stderr, strings.Join(args[2:], " "))
		return 1
	case "hangs":
		select {} // without another goroutine this would be a deadlock that ends it
	}
	fmt.Fprintf(os.Stderr, "kubeconfig %s: no such file\n", args[1])
	return 1
}

type stdio struct{}

func (stdio) Read(p []byte) (int, error)  { return os.Stdin.Read(p) }
func (stdio) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (stdio) Close() error                { return os.Stdin.Close() }

func oneShot(t *testing.T, kubeconfig, dir string) *Client {
	t.Helper()
	c := NewOneShot(kubeconfig, "/var/lib/k", []string{filepath.Join(dir, "not there"), dir})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func client(t *testing.T, dir string) *Client {
	t.Helper()
	c := NewSocketOf(dir, uint32(os.Geteuid()))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// countDials counts how often c connects.
func countDials(c *Client) *int {
	dials, dial := 0, c.dial
	c.dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
		dials++
		return dial(ctx)
	}
	return &dials
}

// daemon serves a source on a socket.
type daemon struct {
	listener net.Listener
	cancel   context.CancelFunc
	all      sync.WaitGroup
	mu       sync.Mutex
	count    int
}

func startDaemon(t *testing.T, dir string, src source.Source) *daemon {
	t.Helper()
	return startDaemonOf(t, dir, src, wire.Spoken())
}

func startDaemonOf(t *testing.T, dir string, src source.Source, versions wire.Versions) *daemon {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	d := &daemon{listener: listen(t, dir), cancel: cancel}
	d.all.Go(func() {
		for {
			conn, err := d.listener.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.count++
			d.mu.Unlock()
			d.all.Go(func() { _ = serve(ctx, conn, src, versions) })
		}
	})
	t.Cleanup(d.stop)
	return d
}

func (d *daemon) accepted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

func (d *daemon) stop() {
	d.listener.Close()
	d.cancel()
	d.all.Wait()
}

// listen makes the socket as the daemon does: complete before it is there.
func listen(t *testing.T, dir string) net.Listener {
	t.Helper()
	tmp := filepath.Join(dir, "tmp")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", tmp)
	if err != nil {
		t.Error(err) // not Fatal: also called beside the test's own goroutine
		return nil
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(tmp, 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, SocketName)); err != nil {
		t.Error(err)
	}
	return l
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(limit):
		t.Fatalf("waited %v for %s", limit, what)
	}
}
