// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package fakeapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/plexus-cni/plexus/bench/fakeapi"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
)

// limit is far more than anything here takes.
const limit = 30 * time.Second

func start(t *testing.T) (*fakeapi.Server, *rest.Config) {
	t.Helper()
	s := fakeapi.New("node", 0)
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(s.Kubeconfig()), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := kube.LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	return s, config
}

func ref(name string) pod.Ref {
	return pod.Ref{Namespace: fakeapi.Namespace, Name: name, UID: "u-" + name}
}

// newCache is the daemon's watch, which does not run yet.
func newCache(t *testing.T, config *rest.Config) (*kube.Client, *kube.Cache) {
	t.Helper()
	client, err := kube.NewClient(config, kube.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := kube.NewCache(client, "node", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return client, cache
}

func TestTheDaemonsClientIsServed(t *testing.T) {
	t.Parallel()
	s, config := start(t)
	s.AddPods(fakeapi.Pod{Name: "before", UID: "u-before", Networks: "a"})
	s.AddDefinitions(fakeapi.Definition{Name: "a", Config: `{"type":"x"}`})
	client, cache := newCache(t, config)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	go cache.Run(ctx)
	if err := cache.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	s.AddPods(fakeapi.Pod{Name: "after", UID: "u-after"})
	for name, networks := range map[string]string{"before": "a", "after": ""} {
		p, podErr := cache.Pod(ctx, ref(name))
		if podErr != nil || p.Annotations["k8s.v1.cni.cncf.io/networks"] != networks {
			t.Errorf("pod %s: %+v, %v", name, p, podErr)
		}
	}
	want := &nad.Definition{Ref: nad.Ref{Namespace: fakeapi.Namespace, Name: "a"}, Config: `{"type":"x"}`}
	cached, err := cache.KnownDefinition(want.Ref)
	if diff := cmp.Diff(want, cached); diff != "" || err != nil {
		t.Errorf("definition of the watch (-want +got), %v:\n%s", err, diff)
	}
	got, err := client.Definition(ctx, want.Ref)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("definition of a get (-want +got), %v:\n%s", err, diff)
	}
	if err = client.PatchAnnotations(ctx, ref("before"), map[string]string{"status": "done"}); err != nil {
		t.Error(err)
	}
	if got := s.Annotation("before", "status"); got != "done" {
		t.Errorf("annotation %q after the patch", got)
	}
	other := ref("before")
	other.UID = "another"
	if err = client.PatchAnnotations(ctx, other, map[string]string{"status": "wrong"}); !errors.Is(err, kube.ErrPodGone) {
		t.Errorf("patch of another pod of the same name: %v", err)
	}
	if err = client.SendEvent(ctx, "node", ref("before"), kube.Event{Reason: "Test", Text: "x"}); err != nil {
		t.Error(err)
	}
	counted := s.Requests()
	wantRequests := map[fakeapi.Request]int{
		{Verb: "watch", Resource: "pods"}: 1, {Verb: "watch", Resource: "network-attachment-definitions"}: 1,
		{Verb: "get", Resource: "network-attachment-definitions"}: 1,
		{Verb: "patch", Resource: "pods/status"}:                  2,
		{Verb: "create", Resource: "events"}:                      1,
	}
	delete(counted, fakeapi.Request{Verb: "get", Resource: "pods"}) // of a pod that the watch had not delivered yet, perhaps
	if diff := cmp.Diff(wantRequests, counted); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// ask sends one request and returns the code and the body.
func ask(t *testing.T, config *rest.Config, method, path, accept, body string) (int, string) {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s, config := start(t)
	s.AddPods(fakeapi.Pod{Name: "b", UID: "u"}, fakeapi.Pod{Name: "a", UID: "u"})
	s.AddDefinitions(fakeapi.Definition{Name: "n", Config: "{}"})
	const (
		ns       = "/api/v1/namespaces/bench"
		metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	)
	for name, tc := range map[string]struct {
		method, path, accept, body string
		code                       int
		kind                       string
		items                      []string
	}{
		"a list is sorted":                          {method: "GET", path: "/api/v1/pods", code: 200, kind: "PodList", items: []string{"a", "b"}},
		"of our node":                               {method: "GET", path: "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode", code: 200, kind: "PodList", items: []string{"a", "b"}},
		"of another node is empty":                  {method: "GET", path: "/api/v1/pods?fieldSelector=spec.nodeName%3Dother", code: 200, kind: "PodList"},
		"of metadata":                               {method: "GET", path: "/api/v1/pods", accept: metadata, code: 200, kind: "PartialObjectMetadataList", items: []string{"a", "b"}},
		"of definitions":                            {method: "GET", path: "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions", code: 200, kind: "NetworkAttachmentDefinitionList", items: []string{"n"}},
		"one pod, whole":                            {method: "GET", path: ns + "/pods/a", code: 200, kind: "Pod"},
		"a pod that is not there":                   {method: "GET", path: ns + "/pods/none", code: 404, kind: "Status"},
		"a resource that is not there":              {method: "GET", path: ns + "/secrets/a", code: 404, kind: "Status"},
		"an update in another encoding is accepted": {method: "PUT", path: ns + "/pods/a/status", body: "k8s\x00…", code: 200, kind: "Pod"},
		"an event in another encoding is too":       {method: "POST", path: ns + "/events", body: "k8s\x00…", code: 201, kind: "Event"},
		"deletion is not for us":                    {method: "DELETE", path: ns + "/pods/a", code: 405, kind: "Status"},
		"probes":                                    {method: "GET", path: "/readyz", code: 200, kind: "Status"},
		"of a phase":                                {method: "GET", path: "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode,status.phase!%3DPending", code: 200, kind: "PodList"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, body := ask(t, config, tc.method, tc.path, tc.accept, tc.body)
			var got struct {
				Kind  string
				Items []struct{ Metadata struct{ Name string } }
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			var items []string
			for _, i := range got.Items {
				items = append(items, i.Metadata.Name)
			}
			if code != tc.code || got.Kind != tc.kind {
				t.Errorf("code %d, kind %s: %s", code, got.Kind, body)
			}
			if diff := cmp.Diff(tc.items, items); diff != "" {
				t.Errorf("items (-want +got):\n%s", diff)
			}
		})
	}
}

// A watch from before what is remembered is answered, and then ended by an event.
func TestAWatchThatIsTooFarBehind(t *testing.T) {
	t.Parallel()
	s, config := start(t)
	for i := range 6000 {
		s.AddPods(fakeapi.Pod{Name: fmt.Sprint(i % 10)})
	}
	code, body := ask(t, config, "GET", "/api/v1/pods?watch=true&resourceVersion=1&timeoutSeconds=60", "", "")
	var e struct {
		Type   string
		Object struct {
			Code   int
			Reason string
		}
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || code != http.StatusOK || e.Type != "ERROR" || e.Object.Code != http.StatusGone || e.Object.Reason != "Expired" {
		t.Errorf("code %d, %v: %s", code, err, body)
	}
}

// A pod that is deleted, has ended, or whose name another one has got is gone for the daemon's watch.
func TestPodsGo(t *testing.T) {
	t.Parallel()
	s, config := start(t)
	for _, name := range []string{"deleted", "ended", "replaced", "stays"} {
		s.AddPods(fakeapi.Pod{Name: name, UID: "u-" + name})
	}
	_, cache := newCache(t, config)
	gone := make(chan pod.Ref, 10)
	if err := cache.OnGone(func(r pod.Ref) { gone <- r }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	go cache.Run(ctx)
	if err := cache.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	s.RemovePods("deleted")
	s.EndPod("ended", "Succeeded")
	s.AddPods(fakeapi.Pod{Name: "replaced", UID: "u-new"})
	for _, name := range []string{"deleted", "ended", "replaced"} {
		select {
		case got := <-gone:
			if got != ref(name) {
				t.Errorf("gone: %+v, want %+v", got, ref(name))
			}
		case <-ctx.Done():
			t.Fatalf("%s is not gone", name)
		}
	}
	for r, want := range map[pod.Ref]bool{ref("stays"): true, ref("replaced"): false, {Namespace: fakeapi.Namespace, Name: "replaced", UID: "u-new"}: true} {
		if p, err := cache.Pod(ctx, r); err != nil || (p.Ref == r) != want {
			t.Errorf("%+v: %+v, %v", r, p, err)
		}
	}
}

func TestLatencyIsAddedToEachAnswer(t *testing.T) {
	t.Parallel()
	const latency = 50 * time.Millisecond
	s := fakeapi.New("node", latency)
	t.Cleanup(s.Close)
	config := &rest.Config{Host: hostOf(t, s), TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	begin := time.Now()
	if code, _ := ask(t, config, "GET", "/readyz", "", ""); code != http.StatusOK {
		t.Errorf("code %d", code)
	}
	if took := time.Since(begin); took < latency {
		t.Errorf("took %v", took)
	}
}

func hostOf(t *testing.T, s *fakeapi.Server) string {
	t.Helper()
	_, rest, _ := strings.Cut(s.Kubeconfig(), `server: "`)
	host, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatalf("no server in the kubeconfig:\n%s", s.Kubeconfig())
	}
	return host
}
