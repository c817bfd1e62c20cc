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
		"X6 a deviceID without resourceName": func(w *world) {
			w.nad("default/a", object{"name": "a", "plugins": []any{
				w.recorder(object{"tag": "one", "capabilities": object{"deviceID": true}}), w.recorder(object{"tag": "two", "deviceID": "of the NAD"}),
			}})
			w.annotate(networks, `[{"name":"a","deviceID":"0000:03:02.1"},{"name":"b"}]`)
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD a/one net1", "ADD a/two net1", "ADD b net2")
			for _, c := range calls[1:3] {
				w.expect("device of "+c.String(), []any{"0000:03:02.1", "0000:03:02.1"}, []any{c.Config["deviceID"], c.Config["pciBusID"]})
			}
			w.expectJSON("runtimeConfig", `{"deviceID":"0000:03:02.1"}`, calls[1].Config["runtimeConfig"])
			w.expect("runtimeConfig of the plugin without the capability", any(nil), calls[2].Config["runtimeConfig"])
			for _, c := range []recorded{calls[0], calls[3]} {
				w.expect("device of "+c.String(), []any{nil, nil}, []any{c.Config["deviceID"], c.Config["pciBusID"]})
			}
		},
		"X6 a resourceName without device": func(w *world) {
			w.writeManifest("NetworkAttachmentDefinition", "default", "a", map[string]string{"k8s.v1.cni.cncf.io/resourceName": "vendor.com/vf"}, "",
				object{"config": asJSON(w.t, w.recorder(nil))})
			w.annotate(networks, "a")
			w.failed(w.call("ADD"), types.ErrInvalidNetworkConfig, "pod default/web", "default/a", `"vendor.com/vf"`, `"deviceID"`)
			w.expectCalls()
			w.expectNothingLeft()
		},
	})
}
