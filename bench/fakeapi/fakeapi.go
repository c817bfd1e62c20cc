// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fakeapi is an API server for measurements: as much of one as the network components of a node speak with. It has the pods
// of one node and NetworkAttachmentDefinitions (get, list, watch with field selectors), takes patches and updates of pods, and events, and
// counts every request. It speaks HTTP/2 over TLS and JSON, and ends a watch that it cannot serve as the real one does; it checks no
// permissions.
package fakeapi

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Request is a kind of request, as audit logs name them.
type Request struct {
	// Verb is get, list, watch, create, update, patch or delete.
	Verb string
	// Resource is pods, pods/status, network-attachment-definitions, events, or the path of what is none.
	Resource string
}

func (r Request) String() string { return r.Verb + " " + r.Resource }

// The resources that are stored.
const (
	pods        = "pods"
	definitions = "network-attachment-definitions"
)

// keepEvents is how many changes a watch can be behind when it begins.
const keepEvents = 4096

// maxBodyBytes bounds what a client sends; the API server takes 3 MiB.
const maxBodyBytes = 3 << 20

// Server is the API server.
type Server struct {
	node    string
	latency time.Duration
	http    *httptest.Server
	stopped chan struct{}

	mu       sync.Mutex
	version  int64
	objects  map[string]map[string]*object // by resource, by name
	history  []change
	watchers map[chan struct{}]bool
	requests map[Request]int
}

// change is one event of a watch: what an object was, and what it is, with what selectors look at.
type change struct {
	resource string
	version  int64
	// before and after are nil for an object that there was, or is, none of.
	before, after map[string]string
	// whole and meta are the object as it is, or as it was at last.
	whole, meta []byte
}

// frame is one event of a watch, "" for none: an object that a selector does not select any more is DELETED for who uses it.
func (c change) frame(selected func(map[string]string) bool) string {
	switch before, after := selected(c.before), selected(c.after); {
	case before && after:
		return "MODIFIED"
	case after:
		return "ADDED"
	case before:
		return "DELETED"
	}
	return ""
}

// New starts an API server for the pods of a node. Each answer takes latency longer than it has to.
func New(node string, latency time.Duration) *Server {
	s := &Server{
		node: node, latency: latency, stopped: make(chan struct{}),
		objects:  map[string]map[string]*object{pods: {}, definitions: {}},
		watchers: map[chan struct{}]bool{}, requests: map[Request]int{},
	}
	s.http = httptest.NewUnstartedServer(s)
	s.http.EnableHTTP2 = true
	s.http.StartTLS()
	return s
}

// Close ends all watches, and the server.
func (s *Server) Close() {
	close(s.stopped)
	s.http.CloseClientConnections()
	s.http.Close()
}

// Kubeconfig is the text of a kubeconfig for the server.
func (s *Server) Kubeconfig() string {
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw}))
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: bench, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: bench, user: {token: bench}}]
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
current-context: bench
`, s.http.URL, ca)
}

// AddPods creates pods, and tells the watches. A pod whose name another one has, of another UID, takes its place: that one is deleted.
func (s *Server) AddPods(all ...Pod) {
	for _, p := range all {
		s.put(pods, podObject(p, s.node))
	}
}

// RemovePods deletes pods, and tells the watches.
func (s *Server) RemovePods(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if o, ok := s.objects[pods][name]; ok {
			s.remove(pods, o)
		}
	}
}

// EndPod sets the phase of a pod: Succeeded or Failed for one that has ended.
func (s *Server) EndPod(name, phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[pods][name]; ok {
		before := o.fields()
		o.rest["status"] = map[string]any{"phase": phase}
		s.changed(pods, before, o)
	}
}

// AddDefinitions creates NetworkAttachmentDefinitions, and tells the watches.
func (s *Server) AddDefinitions(all ...Definition) {
	for _, d := range all {
		s.put(definitions, definitionObject(d))
	}
}

func (s *Server) put(resource string, o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, ok := s.objects[resource][o.name]
	if ok && before.uid != o.uid {
		s.remove(resource, before) // the API server has no other way for a name to get another UID
		ok = false
	}
	s.objects[resource][o.name] = o
	if !ok {
		s.changed(resource, nil, o)
		return
	}
	s.changed(resource, before.fields(), o)
}

// remove deletes an object and tells the watches. The caller has the lock.
func (s *Server) remove(resource string, o *object) {
	delete(s.objects[resource], o.name)
	s.version++
	o.version = s.version
	s.tell(change{resource: resource, version: s.version, before: o.fields(), whole: o.encode(false), meta: o.encode(true)})
}

// changed gives an object, of which a selector saw before, a new version and tells the watches. The caller has the lock.
func (s *Server) changed(resource string, before map[string]string, o *object) {
	s.version++
	o.version = s.version
	s.tell(change{resource: resource, version: o.version, before: before, after: o.fields(), whole: o.encode(false), meta: o.encode(true)})
}

func (s *Server) tell(c change) {
	s.history = append(s.history, c)
	if len(s.history) > keepEvents {
		s.history = slices.Clone(s.history[len(s.history)-keepEvents/2:])
	}
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default: // it has been woken already
		}
	}
}

// Annotation returns an annotation of a pod, "" if it has none.
func (s *Server) Annotation(pod, key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[pods][pod]; ok {
		return o.annotations[key]
	}
	return ""
}

// Requests counts what was asked so far, by kind.
func (s *Server) Requests() map[Request]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.requests)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes))
	if err != nil {
		return // the client has gone
	}
	t, known := parsePath(r.URL.Path)
	watch := r.URL.Query().Get("watch")
	watching := watch == "true" || watch == "1"
	s.count(t.request(r.Method, watching, known))
	if !s.wait(r) {
		return
	}
	metadataOnly := strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
	switch {
	case !known:
		writeJSON(w, http.StatusOK, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	case t.resource == "events":
		answerEvent(w, body)
	case s.objects[t.resource] == nil:
		writeError(w, http.StatusNotFound)
	case watching:
		s.watch(w, r, t.resource, metadataOnly)
	case r.Method == http.MethodGet && t.name == "":
		writeJSON(w, http.StatusOK, s.list(r, t.resource, metadataOnly))
	case r.Method == http.MethodGet, r.Method == http.MethodPatch, r.Method == http.MethodPut:
		object, code := s.one(r.Method, t, body, metadataOnly)
		if object == nil {
			writeError(w, code)
			return
		}
		writeJSON(w, code, object)
	default:
		writeError(w, http.StatusMethodNotAllowed)
	}
}

func (s *Server) count(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[r]++
}

// wait lets the latency pass, and reports whether the client is still there.
func (s *Server) wait(r *http.Request) bool {
	if s.latency == 0 {
		return true
	}
	timer := time.NewTimer(s.latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// target is what a path names.
type target struct{ resource, name, subresource string }

// parsePath reads /api/v1/… and /apis/GROUP/VERSION/…; other paths name no resource.
func parsePath(path string) (target, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		parts = parts[3:]
	default:
		return target{resource: path}, false
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	parts = append(parts, "", "")
	return target{parts[0], parts[1], parts[2]}, true
}

// request names what is asked of a target.
func (t target) request(method string, watch, resource bool) Request {
	verb := strings.ToLower(method)
	switch {
	case watch:
		verb = "watch"
	case method == http.MethodGet && t.name == "" && resource:
		verb = "list"
	case method == http.MethodPost:
		verb = "create"
	case method == http.MethodPut:
		verb = "update"
	}
	name := t.resource
	if t.subresource != "" {
		name += "/" + t.subresource
	}
	return Request{verb, name}
}

// answerEvent takes an event and answers with it, or, if it came in another encoding, with an empty one.
func answerEvent(w http.ResponseWriter, body []byte) {
	if len(body) == 0 || body[0] != '{' {
		body = []byte(`{"kind":"Event","apiVersion":"v1","metadata":{"name":"event","namespace":"` + Namespace + `"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body) // a client that has gone is not waited for
}

// one gets or changes one object, and returns it as it is then; nil with a code if it could not.
func (s *Server) one(method string, t target, body []byte, metadataOnly bool) (json.RawMessage, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[t.resource][t.name]
	if !ok {
		return nil, http.StatusNotFound
	}
	if method != http.MethodGet {
		if !o.merge(body) {
			return nil, http.StatusUnprocessableEntity
		}
		s.changed(t.resource, o.fields(), o)
	}
	return o.encode(metadataOnly), http.StatusOK
}

// list answers with all objects, sorted by name.
func (s *Server) list(r *http.Request, resource string, metadataOnly bool) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []any{}
	selected := selector(r)
	for _, name := range slices.Sorted(maps.Keys(s.objects[resource])) {
		if o := s.objects[resource][name]; selected(o.fields()) {
			items = append(items, o.encode(metadataOnly))
		}
	}
	kind, version := "NetworkAttachmentDefinitionList", "k8s.cni.cncf.io/v1"
	switch {
	case metadataOnly:
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	case resource == pods:
		kind, version = "PodList", "v1"
	}
	return map[string]any{
		"kind": kind, "apiVersion": version, "items": items,
		"metadata": map[string]any{"resourceVersion": strconv.FormatInt(s.version, 10)},
	}
}

// selector is the field selector of a request, all of whose terms have to hold for the fields of an object; nil fields are no object's.
func selector(r *http.Request) func(map[string]string) bool {
	terms := strings.Split(r.URL.Query().Get("fieldSelector"), ",")
	return func(fields map[string]string) bool {
		if fields == nil {
			return false
		}
		for _, term := range terms {
			field, want, isTerm := strings.Cut(term, "=")
			field, negated := strings.CutSuffix(field, "!")
			if isTerm && (fields[field] == want) == negated {
				return false
			}
		}
		return true
	}
}

// watch streams what changes after a version, or, if that is asked for, what there is and then what changes (KEP-3157).
func (s *Server) watch(w http.ResponseWriter, r *http.Request, resource string, metadataOnly bool) {
	query := r.URL.Query()
	wake := make(chan struct{}, 1)
	selected := selector(r)
	since, begin, ok := s.startWatch(resource, query.Get("resourceVersion"), query.Get("sendInitialEvents") == "true", metadataOnly, selected, wake)
	defer s.stopWatch(wake)
	if !ok {
		begin = expired()
	}
	seconds, err := strconv.Atoi(query.Get("timeoutSeconds"))
	if err != nil || seconds <= 0 {
		seconds = 300
	}
	timeout := time.NewTimer(time.Duration(seconds) * time.Second)
	defer timeout.Stop()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for {
		if _, err := w.Write(begin); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil || !ok {
			return
		}
		select {
		case <-wake:
		case <-timeout.C:
			return
		case <-r.Context().Done():
			return
		case <-s.stopped:
			return
		}
		if begin, since, ok = s.changesSince(resource, since, metadataOnly, selected); !ok {
			begin = expired()
		}
	}
}

// expired ends a watch that is too far behind: the client lists anew. The answer's code is 200 (apiserver 0.37.2, cacher.go newErrWatcher).
func expired() []byte { return watchEvent("ERROR", mustEncode(status(http.StatusGone))) }

// startWatch registers a watch and returns the version that it is at, and what it is told first. It returns false for a version that is
// too old.
func (s *Server) startWatch(resource, from string, initial, metadataOnly bool, selected func(map[string]string) bool, wake chan struct{}) (int64, []byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[wake] = true
	since, err := strconv.ParseInt(from, 10, 64)
	if err == nil && since > 0 && !initial {
		wake <- struct{}{}
		return since, nil, s.remembers(since)
	}
	var first []byte
	for _, name := range slices.Sorted(maps.Keys(s.objects[resource])) {
		if o := s.objects[resource][name]; selected(o.fields()) {
			first = append(first, watchEvent("ADDED", o.encode(metadataOnly))...)
		}
	}
	if initial {
		first = append(first, watchEvent("BOOKMARK", mustEncode(bookmark(resource, s.version, metadataOnly)))...)
	}
	return s.version, first, true
}

// bookmark ends the initial events of a watch.
func bookmark(resource string, version int64, metadataOnly bool) map[string]any {
	kind, apiVersion := "NetworkAttachmentDefinition", "k8s.cni.cncf.io/v1"
	switch {
	case metadataOnly:
		kind, apiVersion = "PartialObjectMetadata", "meta.k8s.io/v1"
	case resource == pods:
		kind, apiVersion = "Pod", "v1"
	}
	return map[string]any{"kind": kind, "apiVersion": apiVersion, "metadata": map[string]any{
		"resourceVersion": strconv.FormatInt(version, 10), "annotations": map[string]string{"k8s.io/initial-events-end": "true"},
	}}
}

func (s *Server) stopWatch(wake chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, wake)
}

// remembers reports whether all changes after a version are known. The caller has the lock.
func (s *Server) remembers(since int64) bool {
	return len(s.history) == 0 || since >= s.history[0].version-1
}

// changesSince returns what changed after a version, and the version that it leads to; false if not all of it is known.
func (s *Server) changesSince(resource string, since int64, metadataOnly bool, selected func(map[string]string) bool) ([]byte, int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.remembers(since) {
		return nil, since, false
	}
	var events []byte
	for _, c := range s.history {
		if c.resource != resource || c.version <= since {
			continue
		}
		object := c.whole
		if metadataOnly {
			object = c.meta
		}
		if kind := c.frame(selected); kind != "" {
			events = append(events, watchEvent(kind, object)...)
		}
	}
	return events, max(since, s.version), true
}

func watchEvent(kind string, object []byte) []byte {
	return fmt.Appendf(nil, "{\"type\":%q,\"object\":%s}\n", kind, object)
}

func writeError(w http.ResponseWriter, code int) { writeJSON(w, code, status(code)) }

// status is a failure. What is unprocessable is a UID that is not the object's: the only condition that is checked.
func status(code int) map[string]any {
	reason := map[int]string{
		http.StatusNotFound: "NotFound", http.StatusGone: "Expired", http.StatusUnprocessableEntity: "Invalid", http.StatusMethodNotAllowed: "MethodNotAllowed",
	}[code]
	failure := map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": http.StatusText(code)}
	if code == http.StatusUnprocessableEntity {
		failure["details"] = map[string]any{"causes": []any{map[string]any{"field": "metadata.uid"}}}
	}
	return failure
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(mustEncode(v)) // a client that has gone is not waited for
}
