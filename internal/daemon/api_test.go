// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
)

// requestsOf serves one pod, and notes what it is asked.
func requestsOf(t *testing.T) (*kube.Client, func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"default","name":"web","uid":"u-1"}}`)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := kube.LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kube.NewClient(config, kube.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return client, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

func TestAOneShotCallAsksForItsPodOnce(t *testing.T) {
	t.Parallel()
	client, seen := requestsOf(t)
	c := &daemon.Cluster{API: &daemon.Direct{Client: client}, Emit: func(pod.Ref, kube.Event) {}, Log: slog.New(slog.DiscardHandler)}
	ref := pod.Ref{Namespace: "default", Name: "web", UID: "u-1"}
	if _, err := c.Lookup(t.Context(), source.Query{Pod: ref}); err != nil {
		t.Fatal(err)
	}
	c.StatusForAll = true
	if err := c.Report(t.Context(), source.Report{Pod: ref, Status: []annotations.Status{{Name: "cluster"}}}); err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /api/v1/namespaces/default/pods/web", "PATCH /api/v1/namespaces/default/pods/web/status"}
	if diff := cmp.Diff(want, seen()); diff != "" {
		t.Error("requests (-want +got):", diff)
	}
}
