// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pause"
	"github.com/plexus-cni/plexus/nad"
)

// server is an API server that is a function.
type server func(*http.Request) (int, string, error)

func (s server) RoundTrip(r *http.Request) (*http.Response, error) {
	code, body, err := s(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Request: r, Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"Content-Type": {"application/json"}},
	}, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// run runs f until the test ends.
func run(t *testing.T, f func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func TestAnOutageIsLogged(t *testing.T) {
	t.Parallel()
	refused := errors.New("connect: connection refused")
	for name, away := range map[string]server{
		"connections are refused": func(*http.Request) (int, string, error) { return 0, "", refused },
		"there are too many":      func(*http.Request) (int, string, error) { return http.StatusTooManyRequests, "", nil },
		"it does not serve":       func(*http.Request) (int, string, error) { return http.StatusServiceUnavailable, "", nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				said := &strings.Builder{}
				now := away
				client, err := kube.NewClient(&rest.Config{Host: "http://api", Transport: server(func(r *http.Request) (int, string, error) { return now(r) })},
					kube.ClientOptions{Log: slog.New(slog.NewTextHandler(said, nil))})
				if err != nil {
					t.Fatal(err)
				}
				ask := func() { _ = client.Ping(t.Context()) }
				ask()
				if said.Len() > 0 || client.Serving() {
					t.Errorf("after one failure: serving %v, log %q", client.Serving(), said)
				}
				for range 10 {
					pause.For(t.Context(), time.Second)
					ask()
				}
				if n := strings.Count(said.String(), "the API server is away"); n != 1 || !strings.Contains(said.String(), "fix=") {
					t.Errorf("%d lines say so: %s", n, said)
				}
				now = func(*http.Request) (int, string, error) { return http.StatusOK, "ok", nil }
				ask()
				ask()
				if n := strings.Count(said.String(), "the API server serves again"); n != 1 || !client.Serving() {
					t.Errorf("%d lines say that it is back: %s", n, said)
				}
			})
		})
	}
}

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	var mu sync.Mutex
	counted := map[string]int{}
	client, err := kube.NewClient(&rest.Config{Host: api.server.URL}, kube.ClientOptions{Count: func(verb, code string) {
		mu.Lock()
		defer mu.Unlock()
		counted[verb+" "+code]++
	}})
	if err != nil {
		t.Fatal(err)
	}
	api.put("pods", object("Pod", "default", "web", "u1", nil))
	_, _ = client.Definition(t.Context(), nad.Ref{Namespace: "default", Name: "none"})
	_ = client.PatchAnnotations(t.Context(), web, nil)
	_ = client.SendEvent(t.Context(), "n1", web, kube.Event{})
	api.stop()
	_ = client.Ping(t.Context())
	want := map[string]int{"get 404": 1, "patch 200": 1, "create 201": 1, "get none": 1}
	if diff := cmp.Diff(want, counted); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestTheStateOfWatches(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	c := startCache(t, api)
	open := func(want bool) func() bool {
		return func() bool {
			for _, w := range c.Watches() {
				if w.Open != want || w.Since.IsZero() || w.Heard.IsZero() {
					return false
				}
			}
			return len(c.Watches()) == 2
		}
	}
	eventually(t, "both watches to be open", open(true))
	before := c.Watches()["pods"].Heard
	api.put("pods", object("Pod", "default", "web", "u1", nil))
	eventually(t, "an event to be heard", func() bool { return c.Watches()["pods"].Heard.After(before) })
	api.stop()
	eventually(t, "both watches to be closed", open(false))
}

// TestAWatchThatIsAwayForLongIsNotBelieved: the deletion of a definition takes access away.
func TestAWatchThatIsAwayForLongIsNotBelieved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		list := `{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"namespace":"default","name":"a","uid":"u"},"spec":{"config":"{}"}}]}`
		pipe, end := io.Pipe()
		var away atomic.Bool
		client, err := kube.NewClient(&rest.Config{Host: "http://api", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			watch := r.URL.Query().Get("watch") != ""
			switch {
			case away.Load():
				return nil, errors.New("connection refused")
			case r.URL.Query().Get("sendInitialEvents") != "":
				return server(func(*http.Request) (int, string, error) { return http.StatusUnprocessableEntity, "", nil }).RoundTrip(r)
			case watch && strings.HasSuffix(r.URL.Path, "definitions"):
				return &http.Response{StatusCode: http.StatusOK, Body: pipe, Header: http.Header{"Content-Type": {"application/json"}}}, nil
			case watch:
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return server(func(*http.Request) (int, string, error) { return http.StatusOK, list, nil }).RoundTrip(r)
		})}, kube.ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := kube.NewCache(client, "n1", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		run(t, c.Run)
		if err := c.WaitSynced(t.Context()); err != nil {
			t.Fatal(err)
		}
		ref := nad.Ref{Namespace: "default", Name: "a"}
		pause.For(t.Context(), time.Hour) // with a watch that has nothing to say
		if _, err := c.KnownDefinition(ref); err != nil {
			t.Errorf("with a watch: %v", err)
		}
		away.Store(true)
		_ = end.Close()
		pause.For(t.Context(), time.Minute)
		if _, err := c.KnownDefinition(ref); err != nil {
			t.Errorf("a minute without a watch: %v", err)
		}
		pause.For(t.Context(), 10*time.Minute)
		if _, err := c.KnownDefinition(ref); !errors.Is(err, kube.ErrUnavailable) {
			t.Errorf("eleven minutes without a watch: %v, want ErrUnavailable", err)
		}
	})
}

func TestEventsAreNotTriedForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, err := kube.NewClient(&rest.Config{Host: "http://api", Transport: server(func(*http.Request) (int, string, error) {
			return 0, "", errors.New("connection refused")
		})}, kube.ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var became outcomes
		events := client.NewEvents("n1", slog.New(slog.DiscardHandler), became.add)
		run(t, events.Run)
		for range 10 {
			events.Emit(web, kube.Event{Reason: "AddedInterface"})
		}
		pause.For(t.Context(), 3*time.Minute)
		synctest.Wait()
		if got := became.of[kube.EventExpired]; got != 10 {
			t.Errorf("%d events given up after three minutes, want all 10", got)
		}
	})
}
