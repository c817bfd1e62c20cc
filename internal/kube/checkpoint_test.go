// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/pod"
)

func TestParseCheckpoint(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/checkpoint.json")
	if err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[string][]pod.Device{
		// Containers by name; sorted within, over NUMA nodes; what the app has of its init container once.
		"u1": {{Resource: "intel.com/vf", ID: "0000:03:02.1"}, {Resource: "intel.com/vf", ID: "0000:03:02.0"}, {Resource: "intel.com/vf", ID: "0000:03:02.2"}},
		"u2": {{Resource: "nvidia.com/gpu", ID: "GPU-1"}},
	} {
		got, err := parseCheckpoint(data, uid)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("devices of %s (-want +got):\n%s", uid, diff)
		}
	}
}

func TestParseCheckpointRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ data, says string }{
		"nothing":                     {"", "not a device checkpoint"},
		"half a file":                 {`{"Data":{"PodDeviceEntries":[{"PodUID":"u1",`, "not a device checkpoint"},
		"the format before 1.20":      {`{"Data":{"PodDeviceEntries":[{"PodUID":"u1","DeviceIDs":["a"]}]}}`, "1.20"},
		"an empty object":             {`{}`, "not in it"},
		"null in its lists":           {`{"Data":{"PodDeviceEntries":[null,{"PodUID":"u1","DeviceIDs":null}]}}`, "not in it"},
		"another pod alone":           {`{"Data":{"PodDeviceEntries":[{"PodUID":"u2","DeviceIDs":{"0":["a"]}}]}}`, "not in it"},
		"more than can be of any use": {strings.Repeat(" ", maxCheckpointBytes+1), "more than"},
	} {
		if got, err := parseCheckpoint([]byte(tc.data), "u1"); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: parseCheckpoint = %v, %v; want an error saying %q", name, got, err, tc.says)
		}
	}
}

// FuzzParseCheckpoint: what is accepted has a device, each once, and the same ones the next time.
func FuzzParseCheckpoint(f *testing.F) {
	golden, err := os.ReadFile("testdata/checkpoint.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"Data":{"PodDeviceEntries":[{"PodUID":"u1","ResourceName":"r","DeviceIDs":{"-1":["a","a"],"0":["b"]}}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		devices, err := parseCheckpoint(data, "u1")
		if err != nil {
			return
		}
		if len(devices) == 0 {
			t.Error("accepted without devices")
		}
		for i, d := range devices {
			if slices.Contains(devices[:i], d) {
				t.Errorf("%+v twice", d)
			}
		}
		again, err := parseCheckpoint(data, "u1")
		if err != nil || !slices.Equal(devices, again) {
			t.Errorf("first %v, then %v, %v", devices, again, err)
		}
	})
}
