// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

func TestNode(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"T6 in a directory the own configuration is passed over": func(w *world) {
			w.byReference(w.path("net.d"))
			w.write("net.d/00-plexus.conf", w.conf)
			w.write("net.d/01-plexus.conflist", object{"name": "own", "cniVersion": "1.0.0", "plugins": []any{w.conf}})
			w.write("net.d/10-real.conf", w.recorder(object{"name": "real"}))
			w.must("ADD")
			w.expectCalls("ADD real eth0")
		},
		"T6 a directory with the own configuration alone": func(w *world) {
			w.byReference(w.path("net.d"))
			w.write("net.d/00-plexus.conf", w.conf)
			w.expectRefused(types.ErrInvalidNetworkConfig, "clusterNetwork", w.path("net.d"), "install the cluster's network there")
		},
		"T6 the own configuration by its path": func(w *world) {
			w.byReference(w.write("net.d/00-plexus.conf", w.conf))
			w.expectRefused(types.ErrInvalidNetworkConfig, "clusterNetwork", w.path("net.d/00-plexus.conf"), `"plexus"`)
		},
		"T6 the own configuration inline": func(w *world) {
			w.conf["delegates"] = []any{object{"type": "plexus", "name": "own"}}
			w.expectRefused(types.ErrInvalidNetworkConfig, "delegates[0]", `"plexus"`)
		},
		"T6 the own configuration as a NAD": func(w *world) {
			w.nad("default/a", object{"type": "plexus", "name": "own"})
			w.annotate(networks, "a")
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"plexus"`)
		},
		"T6 the own configuration chained in a list": func(w *world) {
			w.nad("default/a", object{"name": "own", "plugins": []any{w.recorder(nil), object{"type": "plexus"}}})
			w.annotate(networks, "a")
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"plexus"`)
		},
		"T13 a runtime runs it as a plugin and as the first of a list alike": func(w *world) {
			w.annotate(networks, "a")
			// libcni is the runtime's side of most runtimes.
			runtime := libcni.NewCNIConfigWithCacheDir([]string{w.cniPath}, w.path("runtime"), nil)
			sandbox := &libcni.RuntimeConf{ContainerID: w.containerID, NetNS: w.netns, IfName: "eth0", Args: [][2]string{
				{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_UID", w.uid},
			}}
			run := func(config object) string {
				w.t.Helper()
				list, err := libcni.NetworkConfFromBytes([]byte(asJSON(w.t, config)))
				if err != nil {
					w.t.Fatal(err)
				}
				result, err := runtime.AddNetworkList(w.t.Context(), list, sandbox)
				if err != nil {
					w.t.Fatal(err)
				}
				if err := runtime.CheckNetworkList(w.t.Context(), list, sandbox); err != nil {
					w.t.Fatal(err)
				}
				if err := runtime.DelNetworkList(w.t.Context(), list, sandbox); err != nil {
					w.t.Fatal(err)
				}
				w.expectNothingLeft()
				return asJSON(w.t, result)
			}
			conf := run(object{"name": "plexus", "cniVersion": "1.0.0", "plugins": []any{w.conf}})
			w.expectCalls("ADD cluster eth0", "ADD a net1", "CHECK cluster eth0", "DEL a net1", "DEL cluster eth0")
			conflist := run(object{"name": "plexus", "cniVersion": "1.0.0", "plugins": []any{w.conf, w.recorder(object{"tag": "chained"})}})
			calls := w.expectCalls("ADD cluster eth0", "ADD a net1", "ADD plexus/chained eth0",
				"CHECK cluster eth0", "CHECK plexus/chained eth0", "DEL plexus/chained eth0", "DEL a net1", "DEL cluster eth0")
			w.expectJSON("result of the list", conf, conflist)
			w.expectJSON("previous result of the chained plugin", conf, calls[2].Config["prevResult"])
		},
		"binDir comes before CNI_PATH": func(w *world) {
			// Of a plugin that is in both folders, the first is taken: here one that can not be run.
			w.write("bin/recorder", "#!"+filepath.Join(w.dir, "no-interpreter")+"\n")
			w.mustFail("ADD", types.ErrInvalidNetworkConfig, "cluster", w.path("bin/recorder"), "not executable")
			w.expectCalls()
			w.remove("bin/recorder")
			w.expectNothingLeft()
		},
	})
}
