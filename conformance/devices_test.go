// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// deviceInfoDir is fixed by the Device Information Specification 1.1.0.
const deviceInfoDir = "/var/run/k8s.cni.cncf.io/devinfo/cni"

// ofResource lets a network consume a device.
const ofResource = "k8s.v1.cni.cncf.io/resourceName=" + deviceNetwork

func TestDevices(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"X5 the device-info file lives from ADD to DEL": func(w *world) {
			file := filepath.Join(deviceInfoDir, "default-a-"+w.containerID+"_net1")
			w.t.Cleanup(func() { _ = os.Remove(file) }) // of a failed test
			if err := errors.Join(os.MkdirAll(deviceInfoDir, 0o755), os.WriteFile(file, []byte(`{"type":"memif","version":"1.1.0"}`), 0o600)); err != nil {
				w.t.Fatal(err) // what a crash left
			}
			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": object{"CNIDeviceInfoFile": true}}))
			w.annotate(networks, "a")
			w.must("ADD")
			add := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.expectJSON("runtimeConfig", `{"CNIDeviceInfoFile":"`+file+`"}`, add.Config["runtimeConfig"])
			w.expectStatus( // of the former, nothing
				`{"name":"cluster","interface":"eth0","ips":["10.1.0.2"],"default":true,"dns":{}}`,
				`{"name":"default/a","interface":"net1","dns":{}}`,
			)
			w.must("DEL")
			w.calls()

			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": object{"CNIDeviceInfoFile": true}, "deviceInfo": object{
				"type": "vdpa", "version": "1.1.0", "vdpa": object{"parent-device": "vdpa1", "driver": "vhost", "path": "/dev/vhost-vdpa1"},
			}}))
			w.must("ADD")
			if _, err := os.Stat(file); err != nil {
				w.t.Error(err)
			}
			w.expectStatus(
				`{"name":"cluster","interface":"eth0","ips":["10.1.0.2"],"default":true,"dns":{}}`,
				`{"name":"default/a","interface":"net1","dns":{},"device-info":{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa1","driver":"vhost","path":"/dev/vhost-vdpa1"}}}`,
			)
			w.must("DEL")
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				w.t.Errorf("after DEL %s is still there: %v", file, err)
			}
		},
		"X5 a plugin without the capability gets none": func(w *world) {
			w.annotate(networks, "a")
			w.must("ADD")
			for _, c := range w.expectCalls("ADD cluster eth0", "ADD a net1") {
				w.expect("runtimeConfig of "+c.String(), any(nil), c.Config["runtimeConfig"])
			}
		},
		"X6 a deviceID goes to the plugins that declare the capability, and nowhere else": func(w *world) {
			w.nad("default/a", object{"name": "a", "plugins": []any{
				w.recorder(object{"tag": "one", "capabilities": object{"deviceID": true}}), w.recorder(object{"tag": "two", "deviceID": "of the NAD"}),
			}})
			w.annotate(networks, `[{"name":"a","deviceID":"0000:03:02.1"},{"name":"b"}]`)
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD a/one net1", "ADD a/two net1", "ADD b net2")
			w.expect("devices", []any{nil, nil, "of the NAD", nil}, []any{calls[0].Config["deviceID"], calls[1].Config["deviceID"], calls[2].Config["deviceID"], calls[3].Config["deviceID"]})
			w.expectJSON("runtimeConfig", `{"deviceID":"0000:03:02.1"}`, calls[1].Config["runtimeConfig"])
			w.expect("runtimeConfig of the plugin without the capability", any(nil), calls[2].Config["runtimeConfig"])
		},
		"X6 a resourceName without device, of a plugin that takes one": func(w *world) {
			w.writeManifest("NetworkAttachmentDefinition", "default", "a", map[string]string{"k8s.v1.cni.cncf.io/resourceName": "vendor.com/vf"}, "",
				object{"config": asJSON(w.t, w.recorder(object{"capabilities": object{"deviceID": true}}))})
			w.annotate(networks, "a")
			w.failed(w.call("ADD"), types.ErrInvalidNetworkConfig, "pod default/web", "default/a", `"vendor.com/vf"`)
			w.expectCalls()
			w.expectNothingLeft()
		},
		"X1 three ids for two networks: each gets its own": func(w *world) {
			c := w.inCluster()
			c.nad("a", object{"name": "a", "plugins": []any{
				w.recorder(object{"tag": "one", "capabilities": object{"deviceID": true}}), w.recorder(object{"tag": "two"}),
			}}, ofResource)
			c.nad("b", w.recorder(object{"name": "b"}))
			c.gives("intel.com/vf=0000:03:02.3 intel.com/vf=0000:03:02.1 other.com/x=7 intel.com/vf=0000:03:02.2")
			c.selects("a,b,a")
			for range 2 { // the second time after a DEL, with the same answer
				w.must("ADD")
				calls := w.expectCalls("ADD cluster eth0", "ADD a/one net1", "ADD a/two net1", "ADD b net2", "ADD a/one net3", "ADD a/two net3")
				w.expect("devices", []any{nil, "0000:03:02.1", "0000:03:02.1", nil, "0000:03:02.2", "0000:03:02.2"}, devicesOf(w.t, calls))
				w.must("DEL")
				calls = w.expectCalls("DEL a/two net3", "DEL a/one net3", "DEL b net2", "DEL a/two net1", "DEL a/one net1", "DEL cluster eth0")
				w.expect("devices at DEL", []any{"0000:03:02.2", "0000:03:02.2", nil, "0000:03:02.1", "0000:03:02.1", nil}, devicesOf(w.t, calls))
			}
			w.expect("calls of the kubelet for two ADDs", 2, c.asked)
		},
		"X1 networks without a device ask the kubelet nothing": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a"}))
			c.selects("a")
			w.must("ADD")
			w.expect("calls of the kubelet", 0, c.asked)
		},
		"X3 more networks than ids": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a"}), ofResource)
			c.gives("intel.com/vf=0000:03:02.1", "intel.com/vf=0000:03:02.2 intel.com/vf=0000:03:02.1")
			c.selects("a,a,a")
			w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", "default/a", `"intel.com/vf"`, "want 3", "gave the pod 2 (0000:03:02.1, 0000:03:02.2)")
		},
		"X4 two containers with one id each, in their order": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a"}), ofResource)
			c.gives("intel.com/vf=0000:03:02.7", "", "intel.com/vf=0000:03:02.1")
			c.selects("a,a")
			w.must("ADD")
			w.expect("devices", []any{nil, "0000:03:02.7", "0000:03:02.1"}, devicesOf(w.t, w.expectCalls("ADD cluster eth0", "ADD a net1", "ADD a net2")))
		},
		"X5 what the device plugin wrote, from ADD to DEL": func(w *world) {
			c := w.inCluster()
			id := "id-" + w.containerID // the folder is the host's
			c.nad("a", w.recorder(object{"name": "a"}), ofResource)
			c.gives("intel.com/vf=" + id)
			c.selects("a")
			const info = `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:ff:02.1","rdma-device":"mlx5_2"}}`
			written := filepath.Join(filepath.Dir(deviceInfoDir), "dp", "intel.com-vf-"+id+"-device.json")
			file := filepath.Join(deviceInfoDir, "default-a-"+w.containerID+"_net1")
			w.t.Cleanup(func() { _, _ = os.Remove(file), os.Remove(written) })
			if err := errors.Join(os.MkdirAll(filepath.Dir(written), 0o755), os.WriteFile(written, []byte(info), 0o444)); err != nil {
				w.t.Fatal(err)
			}
			w.must("ADD")
			if got, err := os.ReadFile(file); string(got) != info {
				w.t.Errorf("%s: %s, %v", file, got, err)
			}
			w.expectStatus(
				`{"name":"cluster","interface":"eth0","ips":["10.1.0.2"],"default":true,"dns":{}}`,
				`{"name":"default/a","interface":"net1","dns":{},"device-info":`+info+`}`,
			)
			w.must("DEL")
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				w.t.Errorf("after DEL %s is still there: %v", file, err)
			}
			if _, err := os.Stat(written); err != nil {
				w.t.Errorf("the device plugin's own file: %v", err)
			}
		},
		"X7 a claim, one of whose devices is for no network": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a"}), ofResource)
			c.nad("b", w.recorder(object{"name": "b"}), "plexus-cni.io/claim-request=net/second")
			c.claims("a,b", []string{"gpu0=", "nic0=0000:03:02.1", "nic1=0000:03:02.2"}, []string{"gpu=gpu0", "second=nic0", "first=nic1"})
			w.must("ADD")
			w.expect("devices", []any{nil, "0000:03:02.2", "0000:03:02.1"}, devicesOf(w.t, w.expectCalls("ADD cluster eth0", "ADD a net1", "ADD b net2")))
		},
		"X7 a claim without a device for the network": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a", "capabilities": object{"deviceID": true}}), ofResource)
			c.claims("a", []string{"gpu0="}, []string{"gpu=gpu0"})
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"intel.com/vf"`, "want 1", "gave the pod 0")
		},
		"X7 a claim that is not allocated": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a"}), ofResource)
			c.claims("a", nil, nil)
			w.expectRefused(types.ErrTryAgainLater, "web-net", "not allocated")
		},
	})
}
