// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/testenv"
	"github.com/plexus-cni/plexus/nad"
)

// limit bounds what is expected to happen; it is long only on a machine that is very busy.
const limit = 30 * time.Second

var web = pod.Ref{Namespace: "default", Name: "web", UID: "u1"}

func TestAPodThatTheWatchDeliveredTakesNoRequest(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	api.put("pods", object("Pod", "default", "web", "u1", map[string]string{annotations.NetworksKey: "a", "other": "x"}))
	c := startCache(t, api)
	api.forget()
	got, err := c.Pod(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	want := kube.Pod{Ref: web, Annotations: map[string]string{annotations.NetworksKey: "a"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Pod (-want +got):\n%s", diff)
	}
	if r := api.requests(); len(r) != 0 {
		t.Errorf("requests %v, want none", r)
	}
}

// servers are an API server of today, and one that does not stream lists.
func servers(t *testing.T, test func(*testing.T, *api)) {
	t.Helper()
	for name, noWatchList := range map[string]bool{"lists as watches": false, "lists": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t)
			api.noWatchList = noWatchList
			test(t, api)
		})
	}
}

func TestOnlyPodsOfTheNodeThatHaveNotEndedAreWatched(t *testing.T) {
	t.Parallel()
	pod := func(name, node, phase string) map[string]any {
		o := object("Pod", "default", name, "uid-of-"+name, nil)
		o["spec"], o["status"] = map[string]any{"nodeName": node}, map[string]any{"phase": phase}
		return o
	}
	servers(t, func(t *testing.T, api *api) {
		t.Helper()
		for _, p := range []map[string]any{pod("runs", "n1", "Running"), pod("ended", "n1", "Succeeded"), pod("failed", "n1", "Failed"), pod("elsewhere", "n2", "Running")} {
			api.put("pods", p)
		}
		c := startCache(t, api)
		known := func(name string) bool {
			_, ok := c.Known(refOf(name))
			return ok
		}
		for name, want := range map[string]bool{"runs": true, "ended": false, "failed": false, "elsewhere": false} {
			if got := known(name); got != want {
				t.Errorf("pod %s: known is %t, want %t", name, got, want)
			}
		}
		api.put("pods", pod("runs", "n1", "Succeeded"))
		eventually(t, "a pod that has ended to be forgotten", func() bool { return !known("runs") })
	})
}

// refOf is a pod of the namespace default.
func refOf(name string) pod.Ref {
	return pod.Ref{Namespace: "default", Name: name, UID: "uid-of-" + name}
}

// The API server forgets what happened longer ago than a few minutes: a watch that was cut off then begins with a list.
func TestAWatchThatHasExpiredBeginsAnew(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, api *api) {
		t.Helper()
		for _, name := range []string{"stays", "goes"} {
			api.put("pods", object("Pod", "default", name, "uid-of-"+name, nil))
		}
		c := startCache(t, api)
		api.take("pods", "default", "goes") // it was not told
		api.hide("pods", object("Pod", "default", "comes", "uid-of-comes", nil))
		api.expire()
		eventually(t, "the pods of the new list", func() bool {
			_, stays := c.Known(refOf("stays"))
			_, goes := c.Known(refOf("goes"))
			_, comes := c.Known(refOf("comes"))
			return stays && !goes && comes
		})
		api.put("pods", object("Pod", "default", "later", "uid-of-later", nil))
		eventually(t, "what the new watch tells", func() bool {
			_, ok := c.Known(refOf("later"))
			return ok
		})
	})
}

func TestAPodThatTheWatchHasNotDelivered(t *testing.T) {
	t.Parallel()
	t.Run("is asked for, once", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		c := startCache(t, api)
		api.hide("pods", object("Pod", "default", "web", "u1", nil)) // there, but the watch lags
		api.forget()
		if p, err := c.Pod(t.Context(), web); err != nil || p.Ref != web {
			t.Errorf("Pod = %+v, %v", p, err)
		}
		if n := len(api.requests()); n != 1 {
			t.Errorf("%d requests, want one GET", n)
		}
	})
	t.Run("is waited for, and not asked for again", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		c := startCache(t, api)
		api.forget()
		asked := api.onRequest()
		go func() {
			<-asked
			api.put("pods", object("Pod", "default", "other", "u9", nil)) // wakes, and is not the one
			api.put("pods", object("Pod", "default", "web", "u1", nil))
		}()
		if p, err := c.Pod(t.Context(), web); err != nil || p.Ref != web {
			t.Errorf("Pod = %+v, %v", p, err)
		}
		if n := len(api.requests()); n != 1 {
			t.Errorf("%d requests, want one GET", n)
		}
	})
	t.Run("is waited for while the API server is away", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		c := startCache(t, api)
		api.fail("GET", "/pods/web", http.StatusServiceUnavailable)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := c.Pod(ctx, web); !errors.Is(err, kube.ErrUnavailable) {
			t.Errorf("Pod = %v, want ErrUnavailable", err)
		}
	})
	t.Run("and that the API server denies is an error in time", func(t *testing.T) {
		t.Parallel()
		c := startCache(t, newAPI(t))
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if _, err := c.Pod(ctx, web); !errors.Is(err, kube.ErrPodGone) || ctx.Err() != nil {
			t.Errorf("Pod = %v, want ErrPodGone before the deadline", err)
		}
	})
	t.Run("and may not be read is an error at once", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		c := startCache(t, api)
		api.fail("GET", "/pods/web", http.StatusForbidden)
		if _, err := c.Pod(t.Context(), web); err == nil || errors.Is(err, kube.ErrUnavailable) || !strings.Contains(err.Error(), "ClusterRole") {
			t.Errorf("Pod = %v", err)
		}
	})
}

func TestAnotherPodOfTheSameName(t *testing.T) {
	t.Parallel()
	server := newAPI(t)
	server.put("pods", object("Pod", "default", "web", "older", map[string]string{annotations.NetworksKey: "of the older"}))
	c := startCache(t, server)
	t.Run("the API server has no other", func(t *testing.T) {
		t.Parallel()
		got, err := c.Pod(t.Context(), web)
		if err != nil || got.Ref.UID != "older" {
			t.Errorf("Pod = %+v, %v; want the pod that has the name", got, err)
		}
	})
	// A pod of a StatefulSet was made anew, and the watch lags: its networks are not those of the pod before it.
	t.Run("the API server has the one that is asked for", func(t *testing.T) {
		t.Parallel()
		servers(t, func(t *testing.T, api *api) {
			t.Helper()
			api.put("pods", object("Pod", "default", "web", "older", map[string]string{annotations.NetworksKey: "of the older"}))
			c := startCache(t, api)
			api.hide("pods", object("Pod", "default", "web", "u1", map[string]string{annotations.NetworksKey: "a"}))
			api.forget()
			if got, known := c.Known(web); known {
				t.Errorf("Known = %+v, which is another pod", got)
			}
			got, err := c.Pod(t.Context(), web)
			if err != nil || got.Ref != web || got.Annotations[annotations.NetworksKey] != "a" {
				t.Errorf("Pod = %+v, %v; want the newer", got, err)
			}
			if n := len(api.requests()); n != 1 {
				t.Errorf("%d requests, want one GET", n)
			}
		})
	})
	t.Run("static pods have their mirror's UID", func(t *testing.T) {
		t.Parallel()
		static := newAPI(t)
		static.put("pods", object("Pod", "kube-system", "etcd-n1", "mirror", map[string]string{annotations.MirrorKey: "of the file"}))
		cache := startCache(t, static)
		static.forget()
		got, err := cache.Pod(t.Context(), pod.Ref{Namespace: "kube-system", Name: "etcd-n1", UID: "of the file"})
		if err != nil || got.Ref.UID != "mirror" || len(static.requests()) != 0 {
			t.Errorf("Pod = %+v, %v with %d requests", got, err, len(static.requests()))
		}
	})
}

func TestDefinition(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	d := definition("default", "a", `{"type":"x"}`, "intel.com/vf")
	meta(d)["annotations"].(map[string]string)[annotations.ClaimRequestKey] = "net/vf"
	api.put("network-attachment-definitions", d)
	c := startCache(t, api)
	direct := newClient(t, api)
	want := &nad.Definition{Ref: nad.Ref{Namespace: "default", Name: "a"}, Config: `{"type":"x"}`, ResourceName: "intel.com/vf", ClaimRequest: "net/vf"}
	for name, find := range map[string]func(nad.Ref) (*nad.Definition, error){
		"from memory":         func(r nad.Ref) (*nad.Definition, error) { return c.KnownDefinition(r) },
		"from the API server": func(r nad.Ref) (*nad.Definition, error) { return direct.Definition(t.Context(), r) },
	} {
		got, err := find(want.Ref)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if _, err := find(nad.Ref{Namespace: "default", Name: "missing"}); !errors.Is(err, nad.ErrNotFound) || !strings.Contains(err.Error(), "default/missing") {
			t.Errorf("%s: a definition that is not there: %v", name, err)
		}
	}
}

func TestADefinitionThatIsTooLargeIsNotKept(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	large := `{"type":"x","pad":"` + strings.Repeat("x", 500<<10) + `"}`
	api.put("network-attachment-definitions", definition("default", "large", large, "intel.com/vf"))
	api.put("network-attachment-definitions", definition("default", "small", `{"type":"x"}`, ""))
	c := startCache(t, api)
	small := nad.Ref{Namespace: "default", Name: "small"}
	for range 2 { // the one that was listed, and the one that the watch delivers
		if d, err := c.KnownDefinition(nad.Ref{Namespace: "default", Name: "large"}); !errors.Is(err, kube.ErrUnavailable) {
			t.Fatalf("KnownDefinition = %.80v, %v; want ErrUnavailable", d, err)
		}
		api.put("network-attachment-definitions", definition("default", "large", large, "intel.com/vf"))
		api.put("network-attachment-definitions", definition("default", "small", `{"type":"y"}`, ""))
		eventually(t, "the watch to deliver", func() bool {
			d, err := c.KnownDefinition(small)
			return err == nil && d.Config == `{"type":"y"}`
		})
	}
}

func TestWhatIsNotKnownBeforeAllIsListed(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	api.hide("network-attachment-definitions", definition("kube-system", "cluster", `{"type":"x"}`, ""))
	api.fail("GET", "/network-attachment-definitions", http.StatusInternalServerError)
	c := runCache(t, api, slog.New(slog.DiscardHandler))
	if _, err := c.KnownDefinition(nad.Ref{Namespace: "kube-system", Name: "cluster"}); !errors.Is(err, kube.ErrUnavailable) {
		t.Errorf("KnownDefinition = %v: a file would be taken in its place", err)
	}
}

func TestNotSyncedUntilBothAreListed(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	api.fail("GET", "/network-attachment-definitions", http.StatusNotFound)
	said := &logs{}
	c := runCache(t, api, slog.New(slog.NewTextHandler(said, nil)))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	said.await(t, "install the CustomResourceDefinition")
	if err := c.Synced(); !errors.Is(err, kube.ErrUnavailable) {
		t.Errorf("Synced = %v without the definitions", err)
	}
	api.heal()
	if err := c.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Synced(); err != nil {
		t.Error(err)
	}
}

func TestTheCacheServesWhileTheAPIServerIsAway(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	api.put("pods", object("Pod", "default", "web", "u1", nil))
	c := startCache(t, api)
	api.stop()
	if _, err := c.Pod(t.Context(), web); err != nil {
		t.Error(err)
	}
	if err := c.Synced(); err != nil {
		t.Error(err)
	}
}

func TestPatchAnnotations(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		codes []int // of the API server's first answers
		uid   string
		kind  error
		calls int
	}{
		"one patch of one annotation":             {calls: 1, uid: "u1"},
		"busy three times":                        {codes: []int{503, 500, 504}, calls: 4, uid: "u1"},
		"a conflict that the server did not mend": {codes: []int{409}, calls: 2, uid: "u1"},
		"a token that has just been rotated":      {codes: []int{401}, calls: 2, uid: "u1"},
		// client-go tries eleven times by itself.
		"more than the server takes":   {codes: slices.Repeat([]int{429}, 11), calls: 12, uid: "u1"},
		"a pod that is gone":           {codes: []int{404}, calls: 1, uid: "u1", kind: kube.ErrPodGone},
		"another pod of the same name": {calls: 1, uid: "older", kind: kube.ErrPodGone},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t)
			api.put("pods", object("Pod", "default", "web", "u1", map[string]string{annotations.NetworksKey: "a"}))
			api.fail("PATCH", "/pods/web/status", tc.codes...)
			ref := web
			ref.UID = tc.uid
			err := newClient(t, api).PatchAnnotations(t.Context(), ref, map[string]string{"key": "value"})
			if !errors.Is(err, tc.kind) {
				t.Fatalf("PatchAnnotations = %v, want %v", err, tc.kind)
			}
			requests := api.requests()
			if len(requests) != tc.calls {
				t.Errorf("%d requests, want %d", len(requests), tc.calls)
			}
			for _, r := range requests {
				if r.path != "/api/v1/namespaces/default/pods/web/status" {
					t.Errorf("patch of %s", r.path)
				}
				if want := fmt.Sprintf(`{"metadata":{"uid":%q,"annotations":{"key":"value"}}}`, tc.uid); r.body != want || r.contentType != "application/merge-patch+json" {
					t.Errorf("patch %s of type %s, want %s", r.body, r.contentType, want)
				}
			}
		})
	}
}

func TestPatchAnnotationsGivesUp(t *testing.T) {
	t.Parallel()
	t.Run("at its deadline, for what may mend", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		api.stop()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := newClient(t, api).PatchAnnotations(ctx, web, map[string]string{"key": "value"}); !errors.Is(err, kube.ErrUnavailable) {
			t.Errorf("PatchAnnotations = %v, want ErrUnavailable", err)
		}
	})
	t.Run("at once, for what may not", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		api.fail("PATCH", "/pods/web/status", http.StatusForbidden)
		err := newClient(t, api).PatchAnnotations(t.Context(), web, map[string]string{"key": "value"})
		if err == nil || errors.Is(err, kube.ErrUnavailable) || len(api.requests()) != 1 {
			t.Errorf("PatchAnnotations = %v after %d requests", err, len(api.requests()))
		}
	})
}

func TestEvents(t *testing.T) {
	t.Parallel()
	missing := kube.Event{Warning: true, Reason: "NoNetworkFound", Text: "xx" + strings.Repeat("é", 1000)}
	check := func(t *testing.T, r request) {
		t.Helper()
		var e struct {
			Reason, Message, Type string
			InvolvedObject        struct{ Kind, Namespace, Name, UID string }
			Source                struct{ Host string }
		}
		if err := json.Unmarshal([]byte(r.body), &e); err != nil {
			t.Fatal(err)
		}
		if e.Reason != missing.Reason || e.Type != "Warning" || len(e.Message) > 1024 || strings.ContainsRune(e.Message, utf8.RuneError) || e.InvolvedObject.UID != "u1" || e.InvolvedObject.Kind != "Pod" || e.Source.Host != "n1" {
			t.Errorf("event %+v", e)
		}
		if r.path != "/api/v1/namespaces/default/events" {
			t.Errorf("event sent to %s", r.path)
		}
	}
	t.Run("in the background, what repeats is counted in one", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		events, became := startEvents(t, api)
		events.Emit(web, missing)
		events.Emit(web, missing)
		first, second := api.await(t, "POST", "/events"), api.await(t, "PATCH", "/events/")
		check(t, first)
		if !strings.Contains(second.body, `"count":2`) {
			t.Errorf("the second event is %s, want a count of 2", second.body)
		}
		became.await(t, kube.EventSent, 2)
	})
	t.Run("now", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		if err := newClient(t, api).SendEvent(t.Context(), "n1", web, missing); err != nil {
			t.Fatal(err)
		}
		check(t, api.await(t, "POST", "/events"))
	})
	t.Run("never wait, and are counted when they are dropped", func(t *testing.T) {
		t.Parallel()
		became := &outcomes{}
		events := newClient(t, newAPI(t)).NewEvents("n1", slog.New(slog.DiscardHandler), became.add)
		for range 1010 { // nothing sends them
			events.Emit(web, missing)
		}
		became.await(t, kube.EventDropped, 10)
	})
	t.Run("wait for the API server", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		api.fail("POST", "/events", http.StatusServiceUnavailable, http.StatusTooManyRequests, 0)
		events, became := startEvents(t, api)
		events.Emit(web, missing)
		became.await(t, kube.EventSent, 1)
	})
	t.Run("that are refused are not tried again", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		api.fail("POST", "/events", http.StatusForbidden)
		events, became := startEvents(t, api)
		events.Emit(web, missing)
		became.await(t, kube.EventRefused, 1)
	})
	t.Run("about one pod are bounded", func(t *testing.T) {
		t.Parallel()
		events, became := startEvents(t, newAPI(t))
		for range 30 {
			events.Emit(web, missing)
		}
		became.await(t, kube.EventSent, 25)
		became.await(t, kube.EventSuppressed, 5)
	})
	t.Run("show no control characters", func(t *testing.T) {
		t.Parallel()
		api := newAPI(t)
		events, _ := startEvents(t, api)
		events.Emit(web, kube.Event{Reason: "AddedInterface", Text: "é \x1b[31m\u202e\n\u009b\xff end"})
		if body := api.await(t, "POST", "/events").body; !strings.Contains(body, `"é \\x1b[31m\\u202e\\n\\u009b\\ufffd end"`) {
			t.Errorf("event %s", body)
		}
	})
}

// outcomes counts what became of events.
type outcomes struct {
	mu sync.Mutex
	of map[string]int
}

func (o *outcomes) add(outcome string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = map[string]int{}
	}
	o.of[outcome]++
}

func (o *outcomes) await(t *testing.T, outcome string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events %s", n, outcome), func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.of[outcome] == n
	})
}

func startEvents(t *testing.T, api *api) (*kube.Events, *outcomes) {
	t.Helper()
	o := &outcomes{}
	events := newClient(t, api).NewEvents("n1", slog.New(slog.DiscardHandler), o.add)
	run(t, events.Run)
	return events, o
}

func TestLoadConfig(t *testing.T) {
	t.Parallel()
	if _, err := kube.LoadConfig(t.TempDir() + "/none"); err == nil || !strings.Contains(err.Error(), "kubeconfig") {
		t.Errorf("LoadConfig of no file = %v", err)
	}
}

func newClient(t *testing.T, api *api) *kube.Client {
	t.Helper()
	c, err := kube.NewClient(&rest.Config{Host: api.server.URL}, kube.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func startCache(t *testing.T, api *api) *kube.Cache {
	t.Helper()
	c := runCache(t, api, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := c.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

func runCache(t *testing.T, api *api, log *slog.Logger) *kube.Cache {
	t.Helper()
	c, err := kube.NewCache(newClient(t, api), "n1", log)
	if err != nil {
		t.Fatal(err)
	}
	run(t, c.Run)
	return c
}

// logs is a log to wait for lines in.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) await(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the log to say "+text, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return strings.Contains(l.text.String(), text)
	})
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	testenv.Eventually(t, limit, ok, func() string { return what })
}
