// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// cluster is what a node of a cluster has besides the plugin: as much of an API server as `plexusd lookup` speaks with, and a kubelet
// that tells which devices it gave to pods.
type cluster struct {
	podresources.UnimplementedPodResourcesListerServer

	w *world

	mu         sync.Mutex
	objects    map[string]any // by the end of their path
	slices     []any
	containers []*podresources.ContainerResources
	asked      int // of the kubelet
}

const deviceNetwork = "intel.com/vf"

// inCluster puts a cluster in the place of the folder of manifests. The base is the same.
func (w *world) inCluster() *cluster {
	w.t.Helper()
	if err := os.Symlink(filepath.Join(testenv.Build(w.t, "./cmd/plexusd"), "plexusd"), w.path("bin/plexusd")); err != nil {
		w.t.Fatal(err)
	}
	c := &cluster{w: w, objects: map[string]any{}}
	server := httptest.NewServer(c)
	w.t.Cleanup(server.Close)
	delete(w.conf, "manifestDir")
	w.conf["kubeconfig"] = w.write("kubeconfig", object{
		"clusters":        []any{object{"name": "c", "cluster": object{"server": server.URL}}},
		"contexts":        []any{object{"name": "c", "context": object{"cluster": "c"}}},
		"current-context": "c",
	})
	// Paths of sockets have at most 108 bytes, and folders of tests are named after the tests.
	root, err := os.MkdirTemp("", "kubelet")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(root) })
	w.conf["kubeletRootDir"] = root
	if err = os.Mkdir(filepath.Join(root, "pod-resources"), 0o750); err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(root, "pod-resources", "kubelet.sock")) //nolint:noctx // It does not wait.
	if err != nil {
		w.t.Fatal(err)
	}
	kubelet := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(kubelet, c)
	go func() { _ = kubelet.Serve(l) }()
	w.t.Cleanup(kubelet.Stop)
	c.selects("")
	return c
}

// selects writes the pod anew.
func (c *cluster) selects(selection string) {
	c.pod(selection, nil, nil)
}

func (c *cluster) pod(selection string, spec, status object) {
	c.put("pods", c.w.name, object{"kind": "Pod", "apiVersion": "v1", "spec": spec, "status": status, "metadata": object{
		"namespace": c.w.namespace, "name": c.w.name, "uid": c.w.uid, "annotations": object{networks: selection},
	}})
}

// nad writes a NAD of the namespace default with annotations "key=value".
func (c *cluster) nad(name string, config any, annotations ...string) {
	kept := object{}
	for _, a := range annotations {
		key, value, _ := strings.Cut(a, "=")
		kept[key] = value
	}
	c.put("network-attachment-definitions", name, object{
		"kind": "NetworkAttachmentDefinition", "apiVersion": "k8s.cni.cncf.io/v1", "spec": object{"config": asJSON(c.w.t, config)},
		"metadata": object{"namespace": "default", "name": name, "annotations": kept},
	})
}

func (c *cluster) put(resource, name string, o object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.objects[fmt.Sprintf("/namespaces/%s/%s/%s", o["metadata"].(object)["namespace"], resource, name)] = o
}

// gives is what the kubelet gave the pod's containers: devices "resource=id", separated by blanks.
func (c *cluster) gives(containers ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.containers = nil
	for _, text := range containers {
		container := &podresources.ContainerResources{}
		for d := range strings.FieldsSeq(text) {
			resource, id, _ := strings.Cut(d, "=")
			container.Devices = append(container.Devices, &podresources.ContainerDevices{ResourceName: resource, DeviceIds: []string{id}})
		}
		c.containers = append(c.containers, container)
	}
}

// Get knows the world's pod alone (kubernetes 1.37.2, pkg/kubelet/apis/podresources/server_v1.go).
func (c *cluster) Get(_ context.Context, r *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if r.PodNamespace != c.w.namespace || r.PodName != c.w.name {
		return nil, fmt.Errorf("pod %s in namespace %s not found", r.PodName, r.PodNamespace)
	}
	return &podresources.GetPodResourcesResponse{PodResources: &podresources.PodResources{Namespace: r.PodNamespace, Name: r.PodName, Containers: c.containers}}, nil
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	_, path, _ := strings.Cut(r.URL.Path, "/v1/")
	code, o := c.answer(r, "/"+path, body)
	if o == nil {
		reason := map[int]string{http.StatusNotFound: "NotFound", http.StatusUnprocessableEntity: "Invalid", http.StatusForbidden: "Forbidden"}[code]
		status := object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": http.StatusText(code)}
		if code == http.StatusUnprocessableEntity {
			status["details"] = object{"causes": []any{object{"reason": "FieldValueInvalid", "field": "metadata.uid"}}}
		}
		o = status
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o) // a client that has gone is not waited for
}

// answer is a code, and the object if it went well. It takes what Plexus has permissions for, as the API server does.
func (c *cluster) answer(r *http.Request, path string, body []byte) (int, any) {
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(path, "/events"):
		var e struct {
			Metadata       struct{ Namespace string }
			InvolvedObject struct{ Namespace string }
		}
		// An event is in the namespace of what it is about (legacyValidateEvent of pkg/apis/core/validation).
		if err := json.Unmarshal(body, &e); err != nil || path != "/namespaces/"+e.InvolvedObject.Namespace+"/events" {
			return http.StatusUnprocessableEntity, nil
		}
		return http.StatusCreated, json.RawMessage(body)
	case r.Method == http.MethodPatch:
		return c.patch(r.Header.Get("Content-Type"), path, body)
	case r.Method != http.MethodGet:
		return http.StatusForbidden, nil
	case path == "/resourceslices":
		return http.StatusOK, object{"kind": "ResourceSliceList", "apiVersion": "resource.k8s.io/v1", "items": c.slicesOf(r.URL.Query().Get("fieldSelector"))}
	}
	if o, ok := c.objects[path]; ok {
		return http.StatusOK, o
	}
	return http.StatusNotFound, nil
}

// patch is of a status alone: a merge patch of a pod's metadata, whose UID is a condition, or an apply of a claim.
func (c *cluster) patch(contentType, path string, body []byte) (int, any) {
	path, isStatus := strings.CutSuffix(path, "/status")
	if !isStatus {
		return http.StatusForbidden, nil
	}
	o, ok := c.objects[path].(object)
	want := "application/merge-patch+json"
	if strings.Contains(path, "/resourceclaims/") {
		want = "application/apply-patch+yaml"
	}
	if contentType != want {
		return http.StatusUnsupportedMediaType, nil
	}
	if !ok {
		return http.StatusNotFound, nil
	}
	var p struct {
		Metadata struct {
			UID         string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return http.StatusBadRequest, nil
	}
	meta := o["metadata"].(object)
	if p.Metadata.UID != "" && p.Metadata.UID != meta["uid"] {
		return http.StatusUnprocessableEntity, nil
	}
	if status, ok := p.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]; ok {
		// Where the tests look for it.
		file := c.w.path(fmt.Sprintf("manifests/network-status/%s_%s.json", meta["namespace"], meta["name"]))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(status), 0o600)); err != nil {
			c.w.t.Error(err)
		}
	}
	return http.StatusOK, o
}

func (c *cluster) slicesOf(selector string) []any {
	if !strings.Contains(selector, "spec.nodeName=n1") {
		return []any{}
	}
	return c.slices
}

// claims is what the pod's claim "net" asks for and was given, as "request=device" each, of devices "name=id" that are all of the
// resource. Without results, it is not allocated.
func (c *cluster) claims(selection string, devices, results []string) {
	c.pod(selection, object{"nodeName": "n1", "resourceClaims": []any{object{"name": "net", "resourceClaimTemplateName": "t"}}},
		object{"resourceClaimStatuses": []any{object{"name": "net", "resourceClaimName": "web-net"}}})
	var published, allocated []any
	for _, text := range devices {
		name, id, _ := strings.Cut(text, "=")
		attributes := object{"kind": object{"string": "x"}}
		if id != "" {
			attributes["k8s.cni.cncf.io/deviceID"], attributes["k8s.cni.cncf.io/resourceName"] = object{"string": id}, object{"string": deviceNetwork}
		}
		published = append(published, object{"name": name, "attributes": attributes})
	}
	for _, text := range results {
		request, name, _ := strings.Cut(text, "=")
		allocated = append(allocated, object{"request": request, "driver": "d", "pool": "n1", "device": name})
	}
	claim := object{"kind": "ResourceClaim", "apiVersion": "resource.k8s.io/v1", "metadata": object{"namespace": "default", "name": "web-net"}}
	if results != nil {
		claim["status"] = object{"allocation": object{"devices": object{"results": allocated}}}
	}
	c.put("resourceclaims", "web-net", claim)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slices = []any{object{"metadata": object{"name": "s"}, "spec": object{
		"driver": "d", "nodeName": "n1", "pool": object{"name": "n1", "generation": 1, "resourceSliceCount": 1}, "devices": published,
	}}}
}

// devicesOf are the devices in the calls' configurations: deviceID, which pciBusID and runtimeConfig repeat.
func devicesOf(t *testing.T, calls []recorded) []any {
	t.Helper()
	var devices []any
	for _, c := range calls {
		id := c.Config["deviceID"]
		if c.Config["pciBusID"] != id {
			t.Errorf("%s: deviceID %v, pciBusID %v", c, id, c.Config["pciBusID"])
		}
		if rc, ok := c.Config["runtimeConfig"].(object); ok && rc["deviceID"] != id {
			t.Errorf("%s: deviceID %v, runtimeConfig %v", c, id, rc)
		}
		devices = append(devices, id)
	}
	return devices
}
