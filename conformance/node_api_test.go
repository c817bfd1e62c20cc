// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
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
	c.objects["/namespaces/default/"+resource+"/"+name] = o
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

func (c *cluster) Get(context.Context, *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	return &podresources.GetPodResourcesResponse{PodResources: &podresources.PodResources{Namespace: "default", Name: "web", Containers: c.containers}}, nil
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	o, ok := c.objects[r.URL.Path[strings.Index(r.URL.Path, "/v1/")+len("/v1"):]]
	switch {
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
		return
	case r.Method == http.MethodPatch:
		o, ok = object{"kind": "Pod", "apiVersion": "v1", "metadata": object{"name": c.w.name}}, true
		c.writeStatus(body)
	case strings.HasSuffix(r.URL.Path, "/resourceslices"):
		o, ok = object{"kind": "ResourceSliceList", "apiVersion": "resource.k8s.io/v1", "items": c.slicesOf(r.URL.Query().Get("fieldSelector"))}, true
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		o = object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound}
	}
	_ = json.NewEncoder(w).Encode(o)
}

// writeStatus keeps the network status where the tests look for it.
func (c *cluster) writeStatus(patch []byte) {
	var p struct {
		Metadata struct{ Annotations map[string]string }
	}
	_ = json.Unmarshal(patch, &p)
	file := c.w.path("manifests/network-status/" + c.w.namespace + "_" + c.w.name + ".json")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(p.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]), 0o600)); err != nil {
		c.w.t.Error(err)
	}
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
