// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/remote"
	"github.com/plexus-cni/plexus/internal/wire"
)

// Metrics count what the daemon is asked, what it asks others, and how it went. Each series whose labels are known beforehand exists from
// the start, so that the first failure is an increase. docs/metrics.md lists them.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	failures *prometheus.CounterVec
	api      *prometheus.CounterVec
	kubelet  *prometheus.CounterVec
	events   *prometheus.CounterVec
	claims   *prometheus.CounterVec
}

// Outcomes.
const (
	outcomeOK       = "ok"
	outcomeTryAgain = "try_again"
	outcomeFailed   = "failed"
	outcomeCanceled = "canceled"
	outcomeDropped  = "dropped"
)

// NewMetrics returns Metrics that have counted nothing. version is the daemon's.
func NewMetrics(version string) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "plexus_build_info", Help: "Always 1. The label version is that of the daemon.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: counter("plexus_requests_total", "Requests of the plugin that were served, by verb (lookup, report, ready) and outcome (ok, try_again, failed, canceled).", "verb", "outcome"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "plexus_request_duration_seconds",
			Help:    "Time that a request of the plugin took, waiting included, by verb.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9), // half a millisecond, from memory, to half a minute, the deadline
		}, []string{"verb"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "plexus_requests_in_flight",
			Help: "Requests of the plugin that wait for their response now, by verb.",
		}, []string{"verb"}),
		failures: counter("plexus_cni_failures_total", "CNI calls that the plugin failed, as it told the daemon, by verb (ADD, DEL, CHECK, GC, STATUS) and outcome (try_again, failed).", "verb", "outcome"),
		api:      counter("plexus_api_requests_total", "Requests to the API server, by verb (get, list, watch, create, patch) and code (of HTTP, or none without a response).", "verb", "code"),
		kubelet:  counter("plexus_podresources_requests_total", "Requests to the kubelet for the devices of a pod, by call (Get, List, or checkpoint for its file) and code (of gRPC; OK for success).", "call", "code"),
		events:   counter("plexus_events_total", "Events about pods, by outcome (sent, suppressed: too many about the pod, dropped: too many waited, expired: the API server was away, refused).", "outcome"),
		claims:   counter("plexus_claim_status_writes_total", "Writes to the status of ResourceClaims, by outcome (ok, failed, dropped: too many waited).", "outcome"),
	}
	m.registry.MustRegister(build, m.requests, m.duration, m.inFlight, m.failures, m.api, m.kubelet, m.events, m.claims,
		collectors.NewGoCollector(), collectors.NewBuildInfoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.zero()
	return m
}

// zero makes the series that exist from the start.
func (m *Metrics) zero() {
	for _, verb := range []wire.Kind{wire.Lookup, wire.Report, wire.Ready} {
		m.duration.WithLabelValues(string(verb))
		m.inFlight.WithLabelValues(string(verb))
		for _, o := range []string{outcomeOK, outcomeTryAgain, outcomeFailed, outcomeCanceled} {
			m.requests.WithLabelValues(string(verb), o)
		}
	}
	for _, verb := range cniVerbs() {
		m.failures.WithLabelValues(verb, outcomeTryAgain)
		m.failures.WithLabelValues(verb, outcomeFailed)
	}
	for _, verb := range []string{"get", "list", "watch", "create", "patch"} {
		for _, code := range []string{"200", "201", "401", "403", "404", "409", "422", "429", "500", "503", kube.NoResponse} {
			m.api.WithLabelValues(verb, code)
		}
	}
	for _, call := range []string{"Get", "List", "checkpoint"} {
		m.kubelet.WithLabelValues(call, "OK")
	}
	for _, o := range []string{kube.EventSent, kube.EventSuppressed, kube.EventDropped, kube.EventExpired, kube.EventRefused} {
		m.events.WithLabelValues(o)
	}
	for _, o := range []string{outcomeOK, outcomeFailed, outcomeDropped} {
		m.claims.WithLabelValues(o)
	}
}

func cniVerbs() []string { return []string{"ADD", "DEL", "CHECK", "GC", "STATUS"} }

// Check is a part of the daemon's readiness, which /readyz and the metrics tell.
type Check struct {
	Name string
	// Error is why it is not ready; nil if it is.
	Error func() error
}

// Observe adds the series whose values are looked up at each scrape: of the API server, the watches, the queue of claims (claims is nil
// for none) and the checks.
func (m *Metrics) Observe(client *kube.Client, cache *kube.Cache, claims *Publisher, checks ...Check) {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
	}
	gauge("plexus_api_up", "1 if the API server served the last request (with anything but 429 and 5xx), else 0.", nil, func() float64 { return one(client.Serving()) })
	for resource := range cache.Watches() {
		labels := prometheus.Labels{"resource": resource}
		gauge("plexus_watch_open", "1 if the resource is being watched, else 0, by resource.", labels, func() float64 { return one(cache.Watches()[resource].Open) })
		gauge("plexus_watch_last_heard_timestamp_seconds", "When the API server last sent a list, or over the watch an event or a bookmark, of which there is one a minute, by resource; 0 for never.", labels, func() float64 {
			return seconds(cache.Watches()[resource].Heard)
		})
	}
	gauge("plexus_claim_status_queue_length", "Pods whose ResourceClaims wait for a write to their status.", nil, func() float64 {
		if claims == nil {
			return 0
		}
		return float64(claims.Len())
	})
	for _, c := range checks {
		gauge("plexus_ready", "1 if a part of the daemon is ready, else 0, by check; /readyz says why not.", prometheus.Labels{"check": c.Name}, func() float64 { return one(c.Error() == nil) })
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// CountKubelet counts a request to the kubelet; see [kube.KubeletOptions].
func (m *Metrics) CountKubelet(call, code string) { m.kubelet.WithLabelValues(call, code).Inc() }

// CountAPI counts a request to the API server; see [kube.ClientOptions].
func (m *Metrics) CountAPI(verb, code string) { m.api.WithLabelValues(verb, code).Inc() }

// CountEvent counts what became of an event; see [kube.Events].
func (m *Metrics) CountEvent(outcome string) { m.events.WithLabelValues(outcome).Inc() }

// CountClaim counts what became of a write to the status of a ResourceClaim; see [Publisher].
func (m *Metrics) CountClaim(outcome string) { m.claims.WithLabelValues(outcome).Inc() }

// Measure counts what src is asked, and which calls the plugin tells to have failed.
func (m *Metrics) Measure(src source.Source) source.Source { return &measured{src: src, metrics: m} }

func (m *Metrics) begin(verb wire.Kind) func(error) {
	start := time.Now()
	m.inFlight.WithLabelValues(string(verb)).Inc()
	return func(err error) {
		m.inFlight.WithLabelValues(string(verb)).Dec()
		m.duration.WithLabelValues(string(verb)).Observe(time.Since(start).Seconds())
		m.requests.WithLabelValues(string(verb), outcome(err)).Inc()
	}
}

func outcome(err error) string {
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, context.Canceled):
		return outcomeCanceled
	case errors.Is(err, source.ErrTryAgain), errors.Is(err, context.DeadlineExceeded):
		return outcomeTryAgain
	}
	return outcomeFailed
}

type measured struct {
	src     source.Source
	metrics *Metrics
}

func (m *measured) Lookup(ctx context.Context, q source.Query) (*source.Selection, error) {
	end := m.metrics.begin(wire.Lookup)
	s, err := m.src.Lookup(ctx, q)
	end(err)
	return s, err
}

func (m *measured) Report(ctx context.Context, r source.Report) error {
	end := m.metrics.begin(wire.Report)
	err := m.src.Report(ctx, r)
	end(err)
	return err
}

func (m *measured) Ready(ctx context.Context) error {
	end := m.metrics.begin(wire.Ready)
	err := m.src.Ready(ctx)
	end(err)
	return err
}

// Failed implements [remote.Failures].
func (m *measured) Failed(f remote.Failure) {
	if !slices.Contains(cniVerbs(), f.Verb) {
		return
	}
	outcome := outcomeFailed
	if slices.Contains([]uint{types.ErrTryAgainLater, codeNotAvailable, codeLimited}, f.Code) {
		outcome = outcomeTryAgain
	}
	m.metrics.failures.WithLabelValues(f.Verb, outcome).Inc()
}

// CNI's codes of STATUS (CNI 1.1.0 §5): the plugin cannot serve an ADD, or only with limited connectivity.
const (
	codeNotAvailable = 50
	codeLimited      = 51
)

// Handler serves /healthz, which says whether the daemon is alive, /readyz, whether it passes all checks, and /metrics.
func (m *Metrics) Handler(alive func() error, checks ...Check) http.Handler {
	ready := func() error {
		var all []error
		for _, c := range checks {
			if err := c.Error(); err != nil {
				all = append(all, fmt.Errorf("%s: %w", c.Name, err))
			}
		}
		return errors.Join(all...)
	}
	mux := http.NewServeMux()
	probe := func(check func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := check(); err != nil {
				say(w, http.StatusServiceUnavailable, err.Error())
				return
			}
			say(w, http.StatusOK, "ok")
		}
	}
	mux.HandleFunc("GET /healthz", probe(alive))
	mux.HandleFunc("GET /readyz", probe(ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}))
	return mux
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // a prober that has gone is not waited for
}

// Bounds of the HTTP server, which answers any program of the node, or anybody at all: probes and scrapes are short, and few.
const (
	httpTimeout     = 30 * time.Second
	httpHeaderTime  = 5 * time.Second
	httpHeaderBytes = 16 << 10
	maxHTTP         = 64 // connections
	maxScrapes      = 4  // at a time
)

// ServeHTTP serves h on l, which it takes over, until ctx ends.
func ServeHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: h, MaxHeaderBytes: httpHeaderBytes,
		ReadHeaderTimeout: httpHeaderTime, ReadTimeout: httpTimeout, WriteTimeout: httpTimeout, IdleTimeout: 2 * httpTimeout,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // probes are not waited for
	defer stop()
	if err := server.Serve(&crowded{Listener: l, most: maxHTTP}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}
