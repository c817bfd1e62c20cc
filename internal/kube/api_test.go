// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
)

// api is as much of an API server as the package speaks with: lists, watches, also as lists, GET, merge patches of a pod's metadata, and
// server-side apply of a claim's status. It refuses what the real one refuses (Kubernetes 1.37.2), and fails when it is told to. The real
// one is met in the end-to-end tests.
type api struct {
	server *httptest.Server
	// noWatchList makes it an API server that does not stream lists, as those before 1.32.
	noWatchList bool
	// hangs makes it one that takes requests and does not answer.
	hangs bool

	mu       sync.Mutex
	version  int
	objects  map[string]map[string]any // by resource, then by namespace/name
	events   []event
	expired  int // the version that watches can start from at the earliest
	watchers []chan event
	failures map[string][]int  // by "METHOD suffix"; one code is for ever, several are for one request each
	owners   map[string]string // of the devices in a claim's status: field managers
	seen     []request
	asked    chan struct{}

	stop    func()
	stopped chan struct{}
}

type request struct {
	method, path, query, contentType, body, manager string
	watch                                           bool
}

// event is what happened to an object: before is nil for a new one, object for one that is deleted.
type event struct {
	resource       string
	version        int
	before, object map[string]any
	// failure ends the watch, as an event of type ERROR, with a code.
	failure int
}

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{objects: map[string]map[string]any{}, failures: map[string][]int{}, owners: map[string]string{}, stopped: make(chan struct{})}
	a.server = httptest.NewServer(a)
	a.stop = sync.OnceFunc(func() {
		close(a.stopped) // or the server would wait for the watches to end
		a.server.Close()
	})
	t.Cleanup(a.stop)
	return a
}

// object is an object; a pod runs on the node n1.
func object(kind, namespace, name, uid string, annotations map[string]string) map[string]any {
	o := map[string]any{
		"kind": kind, "apiVersion": "v1",
		"metadata": map[string]any{"namespace": namespace, "name": name, "uid": uid, "annotations": annotations},
	}
	if kind == "Pod" {
		o["spec"], o["status"] = map[string]any{"nodeName": "n1"}, map[string]any{"phase": "Running"}
	}
	return o
}

func definition(namespace, name, config, resource string) map[string]any {
	o := object("NetworkAttachmentDefinition", namespace, name, "d-"+name, map[string]string{"k8s.v1.cni.cncf.io/resourceName": resource, "other": "x"})
	o["apiVersion"] = "k8s.cni.cncf.io/v1"
	o["spec"] = map[string]any{"config": config}
	return o
}

func meta(o any) map[string]any { return o.(map[string]any)["metadata"].(map[string]any) }

// put creates an object or replaces it, and tells the watches.
func (a *api) put(resource string, o map[string]any) {
	before := a.hide(resource, o)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tell(event{resource: resource, version: a.version, before: before, object: o})
}

// remove deletes an object, and tells the watches.
func (a *api) remove(resource, namespace, name string) {
	before := a.take(resource, namespace, name)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tell(event{resource: resource, version: a.version, before: before})
}

// take deletes an object, and does not tell the watches.
func (a *api) take(resource, namespace, name string) map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	o := a.objects[resource][namespace+"/"+name].(map[string]any)
	delete(a.objects[resource], namespace+"/"+name)
	return o
}

func (a *api) tell(e event) {
	if e.failure == 0 {
		a.events = append(a.events, e)
	}
	for _, w := range a.watchers {
		w <- e
	}
}

// expire ends all watches, as when the API server no longer knows what happened since they began: with an event of type ERROR in an
// answer of code 200 (apiserver 0.37.2, cacher.go newErrWatcher), also when they try to go on from where they were.
func (a *api) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.expired = a.version
	a.tell(event{failure: http.StatusGone})
	a.events, a.watchers = nil, nil
}

// hide creates an object or replaces it, does not tell the watches, and returns what was there.
func (a *api) hide(resource string, o map[string]any) map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	meta(o)["resourceVersion"] = strconv.Itoa(a.version)
	if a.objects[resource] == nil {
		a.objects[resource] = map[string]any{}
	}
	key := meta(o)["namespace"].(string) + "/" + meta(o)["name"].(string)
	before, _ := a.objects[resource][key].(map[string]any)
	a.objects[resource][key] = o
	return before
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
	return slices.DeleteFunc(slices.Clone(a.seen), func(r request) bool { return r.watch })
}

// watches are those requests that began a watch.
func (a *api) watches() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.seen), func(r request) bool { return !r.watch })
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
	if a.hangs {
		select {
		case <-r.Context().Done():
		case <-a.stopped:
		}
		return
	}
	if code := a.failure(r); code != 0 {
		if code == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "0") // really a second and more, for which client-go waits
		}
		writeStatus(w, code, nil)
		return
	}
	resource, key := parsePath(r.URL.Path)
	switch {
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r, resource)
	case r.Method == http.MethodPost, resource == "events":
		writeJSON(w, http.StatusCreated, json.RawMessage(body))
	case r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/"+key[strings.Index(key, "/")+1:]+"/status"):
		a.patch(w, r, resource, key, body)
	case r.Method == http.MethodPatch: // Plexus has no permission to
		writeStatus(w, http.StatusForbidden, nil)
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
	watch := r.URL.Query().Get("watch") != ""
	a.seen = append(a.seen, request{r.Method, r.URL.Path, r.URL.Query().Get("fieldSelector"), r.Header.Get("Content-Type"), body, r.URL.Query().Get("fieldManager"), watch})
	if a.asked != nil && !watch {
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

func (a *api) patch(w http.ResponseWriter, r *http.Request, resource, key string, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.objects[resource][key].(map[string]any)
	switch kind := r.Header.Get("Content-Type"); {
	case kind == "application/apply-patch+yaml" && resource == "resourceclaims":
		a.applyClaim(w, r, o, body)
	case kind != "application/merge-patch+json":
		writeStatus(w, http.StatusUnsupportedMediaType, nil)
	case !ok:
		writeStatus(w, http.StatusNotFound, nil)
	default:
		a.merge(w, o, body)
	}
}

// merge is a merge patch of metadata.
func (a *api) merge(w http.ResponseWriter, o map[string]any, body []byte) {
	var p struct {
		Metadata struct {
			UID         string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(body, &p); err != nil {
		writeStatus(w, http.StatusBadRequest, nil)
		return
	}
	if p.Metadata.UID != "" && p.Metadata.UID != meta(o)["uid"] { // apimachinery 0.37.2, ValidateObjectMetaAccessorUpdate
		writeStatus(w, http.StatusUnprocessableEntity, causes("FieldValueInvalid", "metadata.uid"))
		return
	}
	annotations, _ := meta(o)["annotations"].(map[string]string)
	annotations = maps.Clone(annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	maps.Copy(annotations, p.Metadata.Annotations)
	meta(o)["annotations"] = annotations
	writeJSON(w, http.StatusOK, o)
}

// applyClaim is a server-side apply of a claim's status.devices, a list with a key (validateDeviceStatus of
// kubernetes 1.37.2, pkg/apis/resource/validation). What another manager has applied is a conflict, unless it is forced.
func (a *api) applyClaim(w http.ResponseWriter, r *http.Request, claim map[string]any, body []byte) {
	var p struct {
		Metadata struct{ Namespace, Name string }
		Status   struct {
			Devices []struct {
				Driver, Pool, Device, ShareID string
				Conditions                    []any
				NetworkData                   struct {
					InterfaceName, HardwareAddress string
					IPs                            []string
				}
			}
		}
	}
	manager := r.URL.Query().Get("fieldManager")
	if err := json.Unmarshal(body, &p); err != nil || manager == "" {
		writeStatus(w, http.StatusBadRequest, nil)
		return
	}
	if claim == nil { // apply to a status creates nothing
		writeStatus(w, http.StatusNotFound, nil)
		return
	}
	allocated := map[string]bool{}
	status, _ := claim["status"].(map[string]any)
	if allocation, ok := status["allocation"].(map[string]any); ok {
		for _, r := range allocation["devices"].(map[string]any)["results"].([]map[string]any) {
			share, _ := r["shareID"].(string)
			allocated[fmt.Sprint(r["driver"], "/", r["pool"], "/", r["device"], "/", share)] = true
		}
	}
	applied := map[string]bool{}
	for i, d := range p.Status.Devices {
		device := d.Driver + "/" + d.Pool + "/" + d.Device + "/" + d.ShareID
		field := fmt.Sprintf("status.devices[%d]", i)
		switch unique := slices.Compact(slices.Sorted(slices.Values(d.NetworkData.IPs))); {
		case !allocated[device]:
			writeStatus(w, http.StatusUnprocessableEntity, causes("FieldValueInvalid", field))
			return
		case len(d.Conditions) > resourcev1.AllocatedDeviceStatusMaxConditions, len(d.NetworkData.IPs) > resourcev1.NetworkDeviceDataMaxIPs,
			len(unique) < len(d.NetworkData.IPs), len(d.NetworkData.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength,
			len(d.NetworkData.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength:
			writeStatus(w, http.StatusUnprocessableEntity, causes("FieldValueTooMany", field))
			return
		case a.owners[device] != "" && a.owners[device] != manager && r.URL.Query().Get("force") != "true":
			writeStatus(w, http.StatusConflict, causes("FieldManagerConflict", field))
			return
		}
		applied[device] = true
	}
	for device, owner := range a.owners {
		if owner == manager && !applied[device] {
			delete(a.owners, device) // what a manager no longer applies is removed
		}
	}
	for device := range applied {
		a.owners[device] = manager
	}
	writeJSON(w, http.StatusOK, claim)
}

func causes(reason, field string) map[string]any {
	return map[string]any{"causes": []any{map[string]any{"reason": reason, "field": field}}}
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

// selects applies a field selector, all of its terms, to an object; a nil object is none.
func selects(r *http.Request, object any) bool {
	o, _ := object.(map[string]any)
	if o == nil {
		return false
	}
	for term := range strings.SplitSeq(r.URL.Query().Get("fieldSelector"), ",") {
		if term == "" {
			continue
		}
		path, want, _ := strings.Cut(term, "=")
		path, negated := strings.CutSuffix(path, "!")
		part, field, _ := strings.Cut(path, ".")
		values, _ := o[part].(map[string]any)
		if value, _ := values[field].(string); (value == want) == negated {
			return false
		}
	}
	return true
}

// frame is the type of a watch event for those who watch with a selector, "" for none: what it does not select any more is DELETED.
func (e event) frame(r *http.Request) (string, map[string]any) {
	switch before, now := selects(r, e.before), selects(r, e.object); {
	case before && now:
		return "MODIFIED", e.object
	case now:
		return "ADDED", e.object
	case before:
		return "DELETED", e.before
	}
	return "", nil
}

// watch streams events; with sendInitialEvents, first what there is, up to a bookmark that says so.
func (a *api) watch(w http.ResponseWriter, r *http.Request, resource string) {
	q := r.URL.Query()
	asList := q.Get("sendInitialEvents") == "true"
	if asList && (a.noWatchList || q.Get("resourceVersionMatch") != "NotOlderThan" || q.Get("allowWatchBookmarks") != "true") {
		writeStatus(w, http.StatusUnprocessableEntity, nil)
		return
	}
	since, _ := strconv.Atoi(q.Get("resourceVersion"))
	events := make(chan event, 100)
	var initial []map[string]any
	a.mu.Lock()
	switch {
	case asList:
		since = a.version
		for _, o := range a.objects[resource] {
			if selects(r, o) {
				initial = append(initial, o.(map[string]any))
			}
		}
	case since < a.expired:
		events <- event{failure: http.StatusGone}
	default:
		for _, e := range a.events {
			events <- e
		}
	}
	a.watchers = append(a.watchers, events)
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	send := func(kind string, o map[string]any) bool {
		if resource == "pods" && kind != "ERROR" {
			o = map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta(o)}
		}
		err := json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": o})
		w.(http.Flusher).Flush()
		return err == nil
	}
	w.(http.Flusher).Flush()
	for _, o := range initial {
		send("ADDED", o)
	}
	if asList {
		end := object(kinds[resource][1], "", "", "", nil)
		end["apiVersion"] = kinds[resource][0]
		end["metadata"] = map[string]any{"resourceVersion": strconv.Itoa(since), "annotations": map[string]string{"k8s.io/initial-events-end": "true"}}
		send("BOOKMARK", end)
	}
	for {
		select {
		case e := <-events:
			if e.failure != 0 {
				send("ERROR", failure(e.failure, nil))
				return
			}
			kind, o := e.frame(r)
			if e.resource != resource || e.version <= since || kind == "" {
				continue
			}
			if !send(kind, o) {
				return
			}
		case <-r.Context().Done():
			return
		case <-a.stopped:
			return
		}
	}
}

// kinds are the API version and the kind of what is watched.
var kinds = map[string][2]string{
	"pods":                           {"v1", "Pod"},
	"network-attachment-definitions": {"k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"},
	"resourceslices":                 {"resource.k8s.io/v1", "ResourceSlice"},
}

func writeStatus(w http.ResponseWriter, code int, details map[string]any) {
	writeJSON(w, code, failure(code, details))
}

func failure(code int, details map[string]any) map[string]any {
	reason := map[int]string{
		http.StatusNotFound: "NotFound", http.StatusForbidden: "Forbidden", http.StatusConflict: "Conflict",
		http.StatusUnprocessableEntity: "Invalid", http.StatusUnauthorized: "Unauthorized", http.StatusGone: "Expired",
		http.StatusTooManyRequests: "TooManyRequests", http.StatusUnsupportedMediaType: "UnsupportedMediaType",
	}[code]
	return map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": http.StatusText(code), "details": details,
	}
}

func writeJSON(w http.ResponseWriter, code int, o any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}
