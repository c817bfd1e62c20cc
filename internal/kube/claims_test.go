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
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
)

const (
	vf1 = "0000:03:02.1"
	vf2 = "0000:03:02.2"
)

// slice is a ResourceSlice of driver d, one of count in a generation of its pool. node "" stands for all nodes.
func slice(name, node, pool string, generation, count int, devices ...map[string]any) map[string]any {
	spec := map[string]any{
		"driver": "d", "pool": map[string]any{"name": pool, "generation": generation, "resourceSliceCount": count}, "devices": devices,
	}
	if node == "" {
		spec["allNodes"] = true
	} else {
		spec["nodeName"] = node
	}
	return map[string]any{
		"kind": "ResourceSlice", "apiVersion": "resource.k8s.io/v1",
		"metadata": map[string]any{"namespace": "", "name": name, "uid": "s-" + name}, "spec": spec,
	}
}

// device has attributes "name=value".
func device(name string, attributes ...string) map[string]any {
	a := map[string]any{"other": map[string]any{"int": 1}}
	for _, text := range attributes {
		key, value, _ := strings.Cut(text, "=")
		a[key] = map[string]any{"string": value}
	}
	return map[string]any{"name": name, "attributes": a}
}

func nic(name, id, resource string) map[string]any {
	return device(name, "k8s.cni.cncf.io/deviceID="+id, "k8s.cni.cncf.io/resourceName="+resource, "resource.kubernetes.io/pciBusID=0000:ff:00.0")
}

func claimed(pool, name string) pod.ClaimedDevice {
	return pod.ClaimedDevice{Claim: "web-net", Driver: "d", Pool: pool, Device: name}
}

func startSlices(t *testing.T, api *api, log *slog.Logger) *kube.Slices {
	t.Helper()
	s, err := kube.NewSlices(newClient(t, api), "n1", log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return s
}

func TestX7WhatDevicesOfClaimsAre(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		slices []map[string]any
		pool   string
		want   []pod.Device // but for Claimed
		says   string
	}{
		"a network device": {
			slices: []map[string]any{slice("a", "n1", "n1", 1, 1, nic("x", vf2, "r"), nic("nic", vf1, "intel.com/vf"))},
			want:   []pod.Device{{ID: vf1, Resource: "intel.com/vf"}},
		},
		"a PCI device": {
			slices: []map[string]any{slice("a", "n1", "n1", 1, 1, device("nic", "resource.kubernetes.io/pciBusID="+vf1))},
			want:   []pod.Device{{ID: vf1}},
		},
		"a device without ID is none of a network": {slices: []map[string]any{slice("a", "n1", "n1", 1, 1, device("nic", "k8s.cni.cncf.io/resourceName=r"))}},
		"an ID that is no string is none": {slices: []map[string]any{slice("a", "n1", "n1", 1, 1,
			map[string]any{"name": "nic", "attributes": map[string]any{"k8s.cni.cncf.io/deviceID": map[string]any{"int": 7}}})}},
		"the newest generation counts": {
			slices: []map[string]any{slice("a", "n1", "n1", 2, 1, nic("nic", vf2, "r")), slice("b", "n1", "n1", 1, 1, nic("nic", vf1, "r"))},
			want:   []pod.Device{{ID: vf2, Resource: "r"}},
		},
		"also where it is not complete yet": {
			slices: []map[string]any{slice("a", "n1", "n1", 1, 1, nic("nic", vf1, "r")), slice("b", "n1", "n1", 2, 3, nic("nic", vf2, "r"))},
			want:   []pod.Device{{ID: vf2, Resource: "r"}},
		},
		"a generation that lacks it, and is not complete": {
			slices: []map[string]any{slice("a", "n1", "n1", 1, 1, nic("nic", vf1, "r")), slice("b", "n1", "n1", 2, 2, nic("x", vf2, "r"))},
			says:   "a part of the pool",
		},
		"a generation that lacks it": {
			slices: []map[string]any{slice("a", "n1", "n1", 1, 1, nic("nic", vf1, "r")), slice("b", "n1", "n1", 2, 1)},
			says:   "d/n1/nic of ResourceClaim web-net",
		},
		"the second slice of two": {
			slices: []map[string]any{slice("a", "n1", "n1", 1, 2, nic("x", vf1, "r")), slice("b", "n1", "n1", 1, 2, nic("nic", vf2, "r"))},
			want:   []pod.Device{{ID: vf2, Resource: "r"}},
		},
		"another pool has a device of that name": {
			slices: []map[string]any{slice("a", "n1", "other", 9, 1, nic("nic", vf1, "r")), slice("b", "n1", "n1", 1, 1, nic("nic", vf2, "r"))},
			want:   []pod.Device{{ID: vf2, Resource: "r"}},
		},
		"a device of no node": {
			slices: []map[string]any{slice("a", "n1", "n1", 1, 1), slice("b", "", "fabric", 1, 1, nic("nic", "port7", "r"))}, pool: "fabric",
			want: []pod.Device{{ID: "port7", Resource: "r"}},
		},
		"a device of another node": {slices: []map[string]any{slice("a", "n2", "n2", 1, 1, nic("nic", vf1, "r"))}, pool: "n2", says: "no ResourceSlice"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t)
			for _, s := range tc.slices {
				api.put("resourceslices", s)
			}
			if tc.pool == "" {
				tc.pool = "n1"
			}
			of := claimed(tc.pool, "nic")
			for i := range tc.want {
				tc.want[i].Claimed = &of
			}
			client := newClient(t, api)
			watched := startSlices(t, api, slog.New(slog.DiscardHandler))
			for by, devices := range map[string]func() ([]pod.Device, error){
				"a watch":      func() ([]pod.Device, error) { return watched.Devices(t.Context(), []pod.ClaimedDevice{of}) },
				"lists":        func() ([]pod.Device, error) { return client.SliceDevices(t.Context(), "n1", []pod.ClaimedDevice{of}) },
				"a watch anew": func() ([]pod.Device, error) { return watched.Devices(t.Context(), []pod.ClaimedDevice{of}) },
			} {
				got, err := devices()
				if (err != nil) != (tc.says != "") || (err != nil && (!errors.Is(err, kube.ErrUnavailable) || !strings.Contains(err.Error(), tc.says))) {
					t.Errorf("by %s: %v, want an ErrUnavailable saying %q", by, err, tc.says)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("by %s (-want +got):\n%s", by, diff)
				}
			}
		})
	}
}

// TestWhatSlicesCost: nothing before a device is looked for, one list then, and nothing from then on.
func TestWhatSlicesCost(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	api.put("resourceslices", slice("a", "n1", "n1", 1, 1, nic("nic", vf1, "r"), nic("nic2", vf2, "r")))
	api.put("resourceslices", slice("b", "n2", "n2", 1, 1, nic("nic", vf1, "r")))
	s := startSlices(t, api, slog.New(slog.DiscardHandler))
	if got, err := s.Devices(t.Context(), nil); got != nil || err != nil || len(api.requests()) != 0 {
		t.Errorf("Devices of nothing = %v, %v with requests %v", got, err, api.requests())
	}
	for range 3 {
		got, err := s.Devices(t.Context(), []pod.ClaimedDevice{claimed("n1", "nic"), claimed("n1", "nic2")})
		if err != nil || len(got) != 2 {
			t.Fatalf("Devices = %v, %v", got, err)
		}
	}
	r := append(api.requests(), api.watches()...)
	if len(r) != 1 || r[0].query != "spec.nodeName=n1" || !strings.HasSuffix(r[0].path, "/resource.k8s.io/v1/resourceslices") {
		t.Errorf("requests %+v, want one watch of this node", r)
	}
	// A change comes by the watch.
	api.put("resourceslices", slice("a", "n1", "n1", 2, 1, nic("nic", vf2, "r")))
	eventually(t, "the new generation", func() bool {
		got, err := s.Devices(t.Context(), []pod.ClaimedDevice{claimed("n1", "nic")})
		return err == nil && got[0].ID == vf2
	})
	// What is no node's is asked for: one list of it for a driver.
	api.forget()
	api.put("resourceslices", slice("f", "", "fabric", 1, 1, nic("p1", "port1", "r"), nic("p2", "port2", "r")))
	if _, err := s.Devices(t.Context(), []pod.ClaimedDevice{claimed("fabric", "p1"), claimed("fabric", "p2")}); err != nil {
		t.Fatal(err)
	}
	if r := api.requests(); len(r) != 1 || r[0].query != "spec.driver=d,spec.nodeName=" {
		t.Errorf("requests %+v, want one list of those without node", r)
	}
}

func TestSlicesThatCanNotBeWatched(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		code      int
		says      string
		available bool
	}{
		"not allowed": {http.StatusForbidden, "deploy/components/dra", false},
		"not served":  {http.StatusNotFound, "resource.k8s.io/v1", false},
		"away":        {http.StatusServiceUnavailable, "Service Unavailable", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t)
			api.fail("GET", "/resourceslices", tc.code)
			s := startSlices(t, api, slog.New(slog.DiscardHandler))
			for range 2 {
				_, err := s.Devices(t.Context(), []pod.ClaimedDevice{claimed("n1", "nic")})
				if err == nil || errors.Is(err, kube.ErrUnavailable) != tc.available || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("Devices = %v", err)
				}
			}
		})
	}
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		s, err := kube.NewSlices(newClient(t, newAPI(t)), "n1", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := s.Devices(ctx, []pod.ClaimedDevice{claimed("n1", "nic")}); !errors.Is(err, kube.ErrUnavailable) {
			t.Errorf("Devices before a watch = %v", err)
		}
	})
}

// podWith is a pod of node n1 with a spec and a status of claims.
func podWith(claims []any, statuses []any, extended any) map[string]any {
	o := object("Pod", "default", "web", "u1", nil)
	o["spec"] = map[string]any{"nodeName": "n1", "resourceClaims": claims}
	o["status"] = map[string]any{"resourceClaimStatuses": statuses, "extendedResourceClaimStatus": extended}
	return o
}

func TestPodClaims(t *testing.T) {
	t.Parallel()
	net := map[string]any{"name": "net", "resourceClaimTemplateName": "t"}
	tests := map[string]struct {
		pod  map[string]any
		want *kube.PodClaims
		kind error
	}{
		"none": {pod: podWith(nil, nil, nil), want: &kube.PodClaims{Node: "n1"}},
		"one of a template and one that was there": {
			pod: podWith([]any{map[string]any{"name": "own", "resourceClaimName": "shared"}, net}, []any{map[string]any{"name": "net", "resourceClaimName": "web-net-x"}}, nil),
			want: &kube.PodClaims{Node: "n1", Claims: []kube.PodClaim{
				{Name: "shared", PodName: "own"}, {Name: "web-net-x", PodName: "net"},
			}},
		},
		"one that was not needed": {pod: podWith([]any{net}, []any{map[string]any{"name": "net"}}, nil), want: &kube.PodClaims{Node: "n1"}},
		"extended resources": {
			pod: podWith(nil, nil, map[string]any{"resourceClaimName": "web-ext", "requestMappings": []any{
				map[string]any{"containerName": "c", "resourceName": "intel.com/vf", "requestName": "container-0-request-0"},
			}}),
			want: &kube.PodClaims{Node: "n1", Claims: []kube.PodClaim{{Name: "web-ext", Extended: map[string]string{"container-0-request-0": "intel.com/vf"}}}},
		},
		"one that has not been created yet": {pod: podWith([]any{net}, nil, nil), kind: kube.ErrUnavailable},
		"a pod that is not there":           {kind: kube.ErrPodGone},
		"another pod of its name":           {pod: object("Pod", "default", "web", "u2", nil), kind: kube.ErrPodGone},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t)
			if tc.pod != nil {
				api.hide("pods", tc.pod)
			}
			got, err := newClient(t, api).PodClaims(t.Context(), web)
			if !errors.Is(err, tc.kind) {
				t.Fatalf("PodClaims = %v, want %v", err, tc.kind)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("PodClaims (-want +got):\n%s", diff)
			}
			if r := api.requests(); len(r) != 1 {
				t.Errorf("requests %+v, want one", r)
			}
		})
	}
}

func claimWith(results ...map[string]any) map[string]any {
	o := object("ResourceClaim", "default", "web-net", "c1", nil)
	o["apiVersion"] = "resource.k8s.io/v1"
	if results != nil {
		o["status"] = map[string]any{"allocation": map[string]any{"devices": map[string]any{"results": results}}}
	}
	return o
}

func TestClaimedDevices(t *testing.T) {
	t.Parallel()
	result := func(request, name string, more ...any) map[string]any {
		r := map[string]any{"request": request, "driver": "d", "pool": "n1", "device": name}
		for i := 0; i < len(more); i += 2 {
			r[more[i].(string)] = more[i+1]
		}
		return r
	}
	of := func(request, name, share string) pod.ClaimedDevice {
		return pod.ClaimedDevice{Claim: "web-net", PodClaim: "net", Request: request, Driver: "d", Pool: "n1", Device: name, Share: share}
	}
	tests := map[string]struct {
		claim map[string]any
		code  int
		want  []pod.ClaimedDevice
		kind  error
		says  string
	}{
		"in the order of the allocation": {claim: claimWith(result("vf", "b"), result("gpu/small", "a")), want: []pod.ClaimedDevice{of("vf", "b", ""), of("gpu/small", "a", "")}},
		"a share of a device":            {claim: claimWith(result("vf", "b", "shareID", "s1")), want: []pod.ClaimedDevice{of("vf", "b", "s1")}},
		"one that is somebody else's":    {claim: claimWith(result("vf", "b", "adminAccess", true), result("vf", "c", "adminAccess", false)), want: []pod.ClaimedDevice{of("vf", "c", "")}},
		"X7 not allocated yet":           {claim: claimWith(), kind: kube.ErrUnavailable, says: "not allocated yet"},
		"not there yet":                  {kind: kube.ErrUnavailable, says: "default/web-net"},
		"not allowed":                    {code: http.StatusForbidden, says: "deploy/components/dra"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t)
			if tc.claim != nil {
				api.hide("resourceclaims", tc.claim)
			}
			if tc.code != 0 {
				api.fail("GET", "/resourceclaims/web-net", tc.code)
			}
			got, err := newClient(t, api).ClaimedDevices(t.Context(), "default", kube.PodClaim{Name: "web-net", PodName: "net"})
			if (err != nil) != (tc.says != "") || !errors.Is(err, tc.kind) && tc.kind != nil || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("ClaimedDevices = %v, want %v saying %q", err, tc.kind, tc.says)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ClaimedDevices (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNameExtended(t *testing.T) {
	t.Parallel()
	const class = "deviceclass.resource.kubernetes.io/vf"
	for name, tc := range map[string]struct {
		extended, request, published string
		want                         string // "" for an error
	}{
		"a driver that says nothing":            {"intel.com/vf", "r0", "", "intel.com/vf"},
		"a driver that says the same":           {"intel.com/vf", "r0", "intel.com/vf", "intel.com/vf"},
		"a driver that says something else":     {"intel.com/vf", "r0", "intel.com/other", ""},
		"a name that Kubernetes made":           {class, "r0", "intel.com/vf", "intel.com/vf"},
		"such a name where the driver has none": {class, "r0", "", class},
		"a request with alternatives":           {"intel.com/vf", "r0/a", "", "intel.com/vf"},
		"another request":                       {"intel.com/vf", "r1", "intel.com/other", "intel.com/other"},
	} {
		claim := kube.PodClaim{Name: "web-ext", Extended: map[string]string{"r0": tc.extended}}
		devices := []pod.Device{{ID: vf1, Resource: tc.published, Claimed: &pod.ClaimedDevice{Claim: "web-ext", Driver: "d", Pool: "p", Device: "nic", Request: tc.request}}}
		if err := (kube.PodClaim{Name: "other", Extended: map[string]string{"r0": "x"}}).NameExtended(devices); err != nil || devices[0].Resource != tc.published {
			t.Errorf("%s: another claim named the device %q, %v", name, devices[0].Resource, err)
		}
		err := claim.NameExtended(devices)
		switch {
		case tc.want == "" && (err == nil || !strings.Contains(err.Error(), tc.extended) || !strings.Contains(err.Error(), tc.published) || !strings.Contains(err.Error(), "d/p/nic")):
			t.Errorf("%s: %v", name, err)
		case tc.want != "" && (err != nil || devices[0].Resource != tc.want):
			t.Errorf("%s: %q, %v; want %q", name, devices[0].Resource, err, tc.want)
		}
	}
}

func TestApplyClaimStatus(t *testing.T) {
	t.Parallel()
	nic := claimed("n1", "nic")
	nic.Share = "s1"
	addresses := []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")}
	attached := []kube.Attached{{Device: nic, Network: "default/a", IfName: "net1", Addresses: addresses, MAC: "02:00:00:00:00:01"}}
	api := newAPI(t)
	api.put("resourceclaims", claimWith(map[string]any{"request": "vf", "driver": "d", "pool": "n1", "device": "nic", "shareID": "s1"}))
	client := newClient(t, api)
	if err := client.ApplyClaimStatus(t.Context(), web, "web-net", attached); err != nil {
		t.Fatal(err)
	}
	if len(addresses) != 3 || addresses[2].String() != "fd00::2/64" {
		t.Errorf("the caller's addresses are %v now", addresses)
	}
	if err := client.ApplyClaimStatus(t.Context(), web, "web-net", nil); err != nil {
		t.Fatal(err)
	}
	r := api.requests()
	if len(r) != 2 {
		t.Fatalf("requests %+v, want one to write and one to take back", r)
	}
	const path = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/web-net/status"
	const manager = "plexusd-u1"
	for _, r := range r {
		if r.path != path || r.contentType != "application/apply-patch+yaml" || r.manager != manager {
			t.Errorf("%s of type %s by %q, want %s by %q", r.path, r.contentType, r.manager, path, manager)
		}
	}
	var got any
	if err := json.Unmarshal([]byte(r[0].body), &got); err != nil {
		t.Fatal(err)
	}
	devices := got.(map[string]any)["status"].(map[string]any)["devices"].([]any)
	condition := devices[0].(map[string]any)["conditions"].([]any)[0].(map[string]any)
	if since, err := time.Parse(time.RFC3339, fmt.Sprint(condition["lastTransitionTime"])); err != nil || time.Since(since) > limit {
		t.Errorf("lastTransitionTime: %v, %v", condition["lastTransitionTime"], err)
	}
	delete(condition, "lastTransitionTime")
	want := map[string]any{
		"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": map[string]any{"namespace": "default", "name": "web-net"},
		"status": map[string]any{"devices": []any{map[string]any{
			"driver": "d", "pool": "n1", "device": "nic", "shareID": "s1",
			"conditions":  []any{map[string]any{"type": "Ready", "status": "True", "reason": "NetworkAttached", "message": "attached to network default/a as net1"}},
			"networkData": map[string]any{"interfaceName": "net1", "ips": []any{"10.1.0.2/24", "fd00::2/64"}, "hardwareAddress": "02:00:00:00:00:01"},
		}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	if !strings.Contains(r[1].body, `"status":{"devices":[]}`) {
		t.Errorf("taken back by %s", r[1].body)
	}
}

// A device may have more addresses than the API server takes, and somebody else may have written about it: a driver, or an administrator.
func TestApplyClaimStatusOfADevice(t *testing.T) {
	t.Parallel()
	var many []netip.Prefix
	for i := range 20 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 24))
	}
	attached := []kube.Attached{{Device: claimed("n1", "nic"), Network: "default/a", IfName: "net1", Addresses: many}}
	api := newAPI(t)
	api.put("resourceclaims", claimWith(map[string]any{"request": "vf", "driver": "d", "pool": "n1", "device": "nic"}))
	api.owners["d/n1/nic/"] = "the-driver"
	ctx, cancel := context.WithTimeout(t.Context(), limit) // a conflict would be tried again for ever
	defer cancel()
	if err := newClient(t, api).ApplyClaimStatus(ctx, web, "web-net", attached); err != nil {
		t.Fatal(err)
	}
	if owner := api.owners["d/n1/nic/"]; owner != "plexusd-u1" {
		t.Errorf("the device's status is %s's", owner)
	}
	if n := strings.Count(api.requests()[0].body, "/24"); n != 16 {
		t.Errorf("%d addresses written, want 16", n)
	}
	// What is another pod's stays when this one's is taken back.
	other := web
	other.UID = "u2"
	if err := newClient(t, api).ApplyClaimStatus(t.Context(), other, "web-net", nil); err != nil {
		t.Fatal(err)
	}
	if owner := api.owners["d/n1/nic/"]; owner != "plexusd-u1" {
		t.Errorf("another pod took it back: it is %s's", owner)
	}
}

func TestApplyClaimStatusThatFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		codes    []int
		gone     bool
		requests int
		says     string
	}{
		"busy twice":            {codes: []int{503, 409}, requests: 3},
		"more than it takes":    {codes: slices.Repeat([]int{429}, 11), requests: 12},
		"a claim that is gone":  {gone: true, requests: 1},
		"not allowed":           {codes: []int{403}, requests: 1, says: "deploy/components/dra-status"},
		"refused as it is":      {codes: []int{422}, requests: 1, says: "default/web-net"},
		"nothing wrong with it": {requests: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newAPI(t)
			if !tc.gone {
				api.put("resourceclaims", claimWith())
			}
			api.fail("PATCH", "/resourceclaims/web-net/status", tc.codes...)
			err := newClient(t, api).ApplyClaimStatus(t.Context(), web, "web-net", nil)
			if (err != nil) != (tc.says != "") || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("ApplyClaimStatus = %v", err)
			}
			if r := api.requests(); len(r) != tc.requests {
				t.Errorf("%d requests, want %d", len(r), tc.requests)
			}
		})
	}
}

// TestADriverThatIsNotNamed: the refusal is one of a field, as Kubernetes 1.36 words it.
func TestADriverThatIsNotNamed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, http.StatusUnprocessableEntity, map[string]any{"causes": []any{map[string]any{"reason": "FieldValueForbidden", "field": "status.devices"}}})
	}))
	t.Cleanup(server.Close)
	client, err := kube.NewClient(&rest.Config{Host: server.URL}, kube.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.ApplyClaimStatus(t.Context(), web, "web-net", nil); err == nil || !strings.Contains(err.Error(), "deploy/components/dra-status") {
		t.Errorf("ApplyClaimStatus = %v", err)
	}
}

func TestPodsThatAreGone(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	api.put("pods", object("Pod", "default", "web", "u1", nil))
	api.put("pods", object("Pod", "default", "stays", "u3", nil))
	c, err := kube.NewCache(newClient(t, api), "n1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan pod.Ref, 10)
	if err := c.OnGone(func(ref pod.Ref) { gone <- ref }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	if err := c.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	api.put("pods", object("Pod", "default", "stays", "u3", map[string]string{"x": "y"}))
	api.put("pods", object("Pod", "default", "web", "u2", nil)) // replaced, and the watch missed that it was deleted
	api.remove("pods", "default", "web")
	for _, uid := range []string{"u1", "u2"} {
		want := pod.Ref{Namespace: "default", Name: "web", UID: uid}
		select {
		case got := <-gone:
			if got != want {
				t.Errorf("gone: %+v, want %+v", got, want)
			}
		case <-time.After(limit):
			t.Fatalf("%+v is not told to be gone", want)
		}
	}
}
