// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/wire"
)

// Metrics count what the daemon is asked, and how it went.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	kubelet  *prometheus.CounterVec
}

// NewMetrics returns Metrics that have counted nothing.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "plexus_requests_total",
			Help: "Questions of the plugin that were answered, by verb (lookup, report, ready) and outcome (ok, try_again, failed, canceled).",
		}, []string{"verb", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "plexus_request_duration_seconds",
			Help:    "Time to answer a question of the plugin, waiting included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9), // half a millisecond, from memory, to half a minute, the deadline
		}, []string{"verb"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "plexus_requests_in_flight",
			Help: "Questions of the plugin that wait for their answer now.",
		}, []string{"verb"}),
		kubelet: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "plexus_podresources_requests_total",
			Help: "Questions to the kubelet which devices it gave a pod, by call (Get, List, or checkpoint for its file) and code (of gRPC; OK for success).",
		}, []string{"call", "code"}),
	}
	m.registry.MustRegister(m.requests, m.duration, m.inFlight, m.kubelet, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// CountKubelet counts a question to the kubelet; see [kube.KubeletOptions].
func (m *Metrics) CountKubelet(call, code string) { m.kubelet.WithLabelValues(call, code).Inc() }

// Measure counts what src is asked.
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
		return "ok"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, source.ErrTryAgain), errors.Is(err, context.DeadlineExceeded):
		return "try_again"
	}
	return "failed"
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

// Handler serves /healthz and /readyz, which are the words of alive and ready, and /metrics.
func (m *Metrics) Handler(alive, ready func(context.Context) error) http.Handler {
	mux := http.NewServeMux()
	answer := func(check func(context.Context) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := check(r.Context()); err != nil {
				say(w, http.StatusServiceUnavailable, err.Error())
				return
			}
			say(w, http.StatusOK, "ok")
		}
	}
	mux.HandleFunc("GET /healthz", answer(alive))
	mux.HandleFunc("GET /readyz", answer(ready))
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
