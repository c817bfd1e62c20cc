// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"io"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// outagePatience is how long every request has to fail before the log says that the API server is away. One that restarts, or a
// connection that breaks, is not worth a line on each node.
const outagePatience = 5 * time.Second

// NoResponse stands in for the HTTP status code of a request that got no response.
const NoResponse = "none"

// observer sees all requests to the API server. client-go retries most failures without a word to anybody, so this is where an outage is
// noticed.
type observer struct {
	next  http.RoundTripper
	log   *slog.Logger
	count func(verb, code string)

	mu      sync.Mutex
	failing time.Time // of the first request that failed since one succeeded; zero if the last one succeeded
	told    bool      // the log knows of it
	watches map[string]*WatchState
}

// WatchState says how the watch of one resource fares.
type WatchState struct {
	// Open is set while there is a watch.
	Open bool
	// Since is when it was opened or ended; if there has been a list since, the time of that.
	Since time.Time
	// Heard is when the API server last sent something: the list, or over the watch an event, or a bookmark, of which there is one a minute.
	Heard time.Time
}

func newObserver(log *slog.Logger, count func(verb, code string)) *observer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if count == nil {
		count = func(string, string) {}
	}
	return &observer{log: log, count: count, watches: map[string]*WatchState{}}
}

// wrap is a [k8s.io/client-go/transport.WrapperFunc].
func (o *observer) wrap(next http.RoundTripper) http.RoundTripper {
	o.next = next
	return o
}

// RoundTrip implements [http.RoundTripper].
func (o *observer) RoundTrip(r *http.Request) (*http.Response, error) {
	verb := verbOf(r)
	response, err := o.next.RoundTrip(r)
	switch {
	case err == nil:
		o.count(verb, strconv.Itoa(response.StatusCode))
	case r.Context().Err() != nil: // the request was given up, which says nothing about the API server
		return response, err
	default:
		o.count(verb, NoResponse)
	}
	o.note(response, err)
	if err == nil && response.StatusCode == http.StatusOK {
		switch resource := path.Base(r.URL.Path); verb {
		case "list":
			o.listed(resource)
		case "watch":
			response.Body = o.follow(resource, response.Body)
		}
	}
	return response, err
}

// verbOf names a request as RBAC and audit logs do.
func verbOf(r *http.Request) string {
	switch r.Method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodGet:
		if watch := r.URL.Query().Get("watch"); watch != "" && watch != "false" && watch != "0" {
			return "watch"
		}
		if _, named, _ := strings.Cut(r.URL.Path, "/v1/"); strings.Count(named, "/") == 0 && named != "" {
			return "list" // of all namespaces, the only lists that there are
		}
		return "get"
	}
	return strings.ToLower(r.Method)
}

// note keeps whether the API server serves, and tells when that changes.
func (o *observer) note(response *http.Response, err error) {
	failed := err != nil || response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= http.StatusInternalServerError
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !failed:
		if o.told {
			o.log.Info("the API server serves again", "away", now.Sub(o.failing).Round(time.Second))
		}
		o.failing, o.told = time.Time{}, false
	case o.failing.IsZero():
		o.failing = now
	case !o.told && now.Sub(o.failing) >= outagePatience:
		o.told = true
		why := any(err)
		if err == nil {
			why = response.Status
		}
		o.log.Error("the API server is away: what the watches delivered is served meanwhile, but no ADD ends before it is back", "since", o.failing.Format(time.RFC3339), "error", why,
			"fix", "see that the API server runs and that this node reaches it")
	}
}

// serving reports whether the last request was served.
func (o *observer) serving() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failing.IsZero()
}

func (o *observer) watch(resource string) WatchState {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.watches[resource]; s != nil {
		return *s
	}
	return WatchState{}
}

// listed is for a list, which the watch goes on from.
func (o *observer) listed(resource string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.watches[resource] = &WatchState{Since: now, Heard: now}
}

// follow keeps the state of a watch, which is that of its resource until another one is opened.
func (o *observer) follow(resource string, stream io.ReadCloser) io.ReadCloser {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	s := &WatchState{Open: true, Since: now, Heard: now}
	o.watches[resource] = s
	return &watchBody{
		ReadCloser: stream,
		heard: func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			s.Heard = time.Now()
		},
		ended: sync.OnceFunc(func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			s.Open, s.Since = false, time.Now()
		}),
	}
}

// watchBody is the stream of a watch.
type watchBody struct {
	io.ReadCloser

	heard, ended func()
}

func (b *watchBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.heard()
	}
	if err != nil {
		b.ended()
	}
	return n, err
}

func (b *watchBody) Close() error {
	b.ended()
	return b.ReadCloser.Close()
}
