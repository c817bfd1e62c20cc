// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// api is as much of an API server as the package speaks with: lists, watches, GET, and merge patches of one annotation; and it
// fails when it is told to. The real one is met in the end-to-end tests.
type api struct {
	server *httptest.Server

	mu       sync.Mutex
	version  int
	objects  map[string]map[string]any // by resource, then by namespace/name
	events   []event
	watchers []chan event
	failures map[string][]int // by "METHOD suffix"; one code is for ever, several are for one request each
	seen     []request
	asked    chan struct{}

	stop    func()
	stopped chan struct{}
}

type request struct{ method, path, query, contentType, body, manager string }

type event struct {
	resource string
	kind     string // ADDED or DELETED
	version  int
	object   map[string]any
}

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{objects: map[string]map[string]any{}, failures: map[string][]int{}, stopped: make(chan struct{})}
	a.server = httptest.NewServer(a)
	a.stop = sync.OnceFunc(func() {
		close(a.stopped) // or the server would wait for the watches to end
		a.server.Close()
	})
	t.Cleanup(a.stop)
	return a
}

func object(kind, namespace, name, uid string, annotations map[string]string) map[string]any {
	return map[string]any{
		"kind": kind, "apiVersion": "v1",
		"metadata": map[string]any{"namespace": namespace, "name": name, "uid": uid, "annotations": annotations},
	}
}

func definition(namespace, name, config, resource string) map[string]any {
	o := object("NetworkAttachmentDefinition", namespace, name, "d-"+name, map[string]string{"k8s.v1.cni.cncf.io/resourceName": resource, "other": "x"})
	o["apiVersion"] = "k8s.cni.cncf.io/v1"
	o["spec"] = map[string]any{"config": config}
	return o
}

func meta(o any) map[string]any { return o.(map[string]any)["metadata"].(map[string]any) }

// put creates an object, and tells the watches.
func (a *api) put(resource string, o map[string]any) {
	a.hide(resource, o)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tell(event{resource: resource, kind: "ADDED", version: a.version, object: o})
}

// remove deletes an object, and tells the watches.
func (a *api) remove(resource, namespace, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	o := a.objects[resource][namespace+"/"+name].(map[string]any)
	delete(a.objects[resource], namespace+"/"+name)
	a.tell(event{resource: resource, kind: "DELETED", version: a.version, object: o})
}

func (a *api) tell(e event) {
	a.events = append(a.events, e)
	for _, w := range a.watchers {
		w <- e
	}
}

// hide creates an object, and does not tell the watches.
func (a *api) hide(resource string, o map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	meta(o)["resourceVersion"] = strconv.Itoa(a.version)
	if a.objects[resource] == nil {
		a.objects[resource] = map[string]any{}
	}
	a.objects[resource][meta(o)["namespace"].(string)+"/"+meta(o)["name"].(string)] = o
}

// fail lets requests fail whose path ends in suffix: for ever with one code, once each with several.
func (a *api) fail(method, suffix string, codes ...int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(codes) > 0 {
		a.failures[method+" "+suffix] = codes
	}
}

func (a *api) heal() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.failures)
}

// requests are those that were answered, without the watches'.
func (a *api) requests() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.seen)
}

func (a *api) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = nil
}

// onRequest is closed at the next request.
func (a *api) onRequest() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = make(chan struct{})
	return a.asked
}

// await waits for a request.
func (a *api) await(t *testing.T, method, path string) request {
	t.Helper()
	var found request
	eventually(t, method+" of "+path, func() bool {
		i := slices.IndexFunc(a.requests(), func(r request) bool { return r.method == method && strings.Contains(r.path, path) })
		if i >= 0 {
			found = a.requests()[i]
		}
		return i >= 0
	})
	return found
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.note(r, string(body))
	if code := a.failure(r); code != 0 {
		writeStatus(w, code, nil)
		return
	}
	resource, key := parsePath(r.URL.Path)
	switch {
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r, resource)
	case r.Method == http.MethodPost, resource == "events":
		writeJSON(w, http.StatusCreated, json.RawMessage(body))
	case r.Method == http.MethodPatch:
		a.patch(w, resource, key, body)
	case key == "":
		a.list(w, r, resource)
	default:
		a.mu.Lock()
		o, ok := a.objects[resource][key]
		a.mu.Unlock()
		if !ok {
			writeStatus(w, http.StatusNotFound, nil)
			return
		}
		writeJSON(w, http.StatusOK, o)
	}
}

func (a *api) note(r *http.Request, body string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.URL.Query().Get("watch") != "" {
		return
	}
	a.seen = append(a.seen, request{r.Method, r.URL.Path, r.URL.Query().Get("fieldSelector"), r.Header.Get("Content-Type"), body, r.URL.Query().Get("fieldManager")})
	if a.asked != nil {
		close(a.asked)
		a.asked = nil
	}
}

func (a *api) failure(r *http.Request) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for rule, codes := range a.failures {
		method, suffix, _ := strings.Cut(rule, " ")
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) {
			continue
		}
		if len(codes) > 1 || method == http.MethodPatch {
			if a.failures[rule] = codes[1:]; len(codes) == 1 {
				delete(a.failures, rule)
			}
		}
		return codes[0]
	}
	return 0
}

// parsePath returns the resource, and namespace/name if it is about one object.
func parsePath(path string) (string, string) {
	_, rest, _ := strings.Cut(path, "/v1/")
	parts := strings.Split(rest, "/")
	if parts[0] != "namespaces" {
		return parts[0], ""
	}
	if len(parts) < 4 {
		return parts[2], ""
	}
	return parts[2], parts[1] + "/" + parts[3]
}

func (a *api) patch(w http.ResponseWriter, resource, key string, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.objects[resource][key]
	if !ok {
		writeStatus(w, http.StatusNotFound, nil)
		return
	}
	var p struct{ Metadata struct{ UID string } }
	_ = json.Unmarshal(body, &p)
	if p.Metadata.UID != "" && p.Metadata.UID != meta(o)["uid"] {
		writeStatus(w, http.StatusUnprocessableEntity, map[string]any{"causes": []any{map[string]any{"field": "metadata.uid"}}})
		return
	}
	writeJSON(w, http.StatusOK, o)
}

func (a *api) list(w http.ResponseWriter, r *http.Request, resource string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	items := []any{}
	for _, o := range a.objects[resource] {
		if selects(r, o) {
			items = append(items, o)
		}
	}
	list := map[string]any{
		"kind": "NetworkAttachmentDefinitionList", "apiVersion": "k8s.cni.cncf.io/v1",
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(a.version)}, "items": items,
	}
	switch resource {
	case "pods":
		list["kind"], list["apiVersion"] = "PartialObjectMetadataList", "meta.k8s.io/v1"
	case "resourceslices":
		list["kind"], list["apiVersion"] = "ResourceSliceList", "resource.k8s.io/v1"
	}
	writeJSON(w, http.StatusOK, list)
}

// selects applies the field selectors of ResourceSlices. Those of other objects are looked at in the requests.
func selects(r *http.Request, o any) bool {
	spec, _ := o.(map[string]any)["spec"].(map[string]any)
	for term := range strings.SplitSeq(r.URL.Query().Get("fieldSelector"), ",") {
		field, want, _ := strings.Cut(strings.TrimPrefix(term, "spec."), "=")
		if value, _ := spec[field].(string); strings.Contains(r.URL.Path, "resourceslices") && value != want {
			return false
		}
	}
	return true
}

// watch streams events. Lists as watches (sendInitialEvents) are not understood, as by older API servers.
func (a *api) watch(w http.ResponseWriter, r *http.Request, resource string) {
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		writeStatus(w, http.StatusUnprocessableEntity, nil)
		return
	}
	since, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	events := make(chan event, 100)
	a.mu.Lock()
	for _, e := range a.events {
		events <- e
	}
	a.watchers = append(a.watchers, events)
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := w.(http.Flusher).Flush
	flush()
	for {
		select {
		case e := <-events:
			if e.resource != resource || e.version <= since || !selects(r, e.object) {
				continue
			}
			o := e.object
			if resource == "pods" {
				o = map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta(o)}
			}
			if err := json.NewEncoder(w).Encode(map[string]any{"type": e.kind, "object": o}); err != nil {
				return
			}
			flush()
		case <-r.Context().Done():
			return
		case <-a.stopped:
			return
		}
	}
}

func writeStatus(w http.ResponseWriter, code int, details map[string]any) {
	reason := map[int]string{
		http.StatusNotFound: "NotFound", http.StatusForbidden: "Forbidden", http.StatusConflict: "Conflict",
		http.StatusUnprocessableEntity: "Invalid", http.StatusUnauthorized: "Unauthorized",
	}[code]
	writeJSON(w, code, map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": http.StatusText(code), "details": details,
	})
}

func writeJSON(w http.ResponseWriter, code int, o any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}
