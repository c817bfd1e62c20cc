// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// nestedPlexus are keys by which a plugin calls Plexus.
func nestedPlexus() []object {
	return []object{
		{"ipam": object{"type": "plexus"}, "delegates": []any{object{"type": "bash"}}, "binDir": "/bin"},
		{"delegate": object{"type": "x", "ipam": object{"TYPE": "plexus"}}},
		{"delegates": []any{object{"plugins": []any{object{"type": "plexus"}}}}},
	}
}

// TestTrust: what the authors of networks, and who writes files, cannot do.
func TestTrust(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"R23 what is the runtime's is not the NAD's": func(w *world) {
			for _, key := range []string{"runtimeConfig", "RuntimeConfig", "prevResult", "cni.dev/attachments"} {
				value := any(object{"mac": "02:00:00:00:00:01"})
				if key == "cni.dev/attachments" {
					value = []any{}
				}
				w.nad("default/a", w.recorder(object{"name": "a", key: value}))
				w.annotate(networks, "a")
				w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", key, "remove it")
			}
		},
		"R24 Plexus nested in a network": func(w *world) {
			for _, nested := range nestedPlexus() {
				w.nad("default/a", w.recorder(nested))
				w.annotate(networks, "a")
				w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"plexus"`)
			}
		},
		"R24 Plexus nested in the default network, by STATUS": func(w *world) {
			w.version11()
			for _, nested := range nestedPlexus() {
				nested["name"], nested["cniVersion"] = "nested", "1.1.0"
				w.conf["delegates"] = []any{w.recorder(nested)}
				w.mustFail("STATUS", notAvailable, "delegates[0]", `"plexus"`)
				w.nad("kube-system/x", w.recorder(nested))
				w.conf["clusterNetwork"] = "x"
				w.mustFail("STATUS", notAvailable, "kube-system/x", `"plexus"`)
				w.conf["clusterNetwork"] = w.write("file.conf", w.recorder(nested))
				w.mustFail("STATUS", notAvailable, w.path("file.conf"), `"plexus"`)
				delete(w.conf, "clusterNetwork")
			}
			w.expectCalls()
		},
		"R24 a nested type that is a path": func(w *world) {
			for _, nested := range []object{
				{"ipam": object{"type": "../../../../bin/sh"}}, {"delegate": object{"type": "/bin/sh"}}, {"delegates": []any{object{"ipam": object{"TYPE": "x/y"}}}},
			} {
				w.nad("default/a", w.recorder(nested))
				w.annotate(networks, "a")
				w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", "is no file name of a CNI plugin")
			}
		},
		"R24 a nested plugin behind a key that is there twice": func(w *world) {
			for _, nested := range []string{
				`"ipam":{"type":"evil","type":null}`, `"ipam":{"type":null}`, `"delegate":{"type":"b","ipam":{"type":"evil"},"IPAM":{}}`, `"delegates":[{"type":"x","Type":"y"}]`,
			} {
				w.nad("default/a", `{"cniVersion":"1.0.0","name":"a","type":"recorder","record":"`+w.path("calls")+`",`+nested+`}`)
				w.annotate(networks, "a")
				w.expectRefused(types.ErrInvalidNetworkConfig, "default/a")
			}
		},
		"R24 plugins nested without end": func(w *world) {
			conf := w.recorder(nil)
			for range 40 {
				conf = object{"type": "recorder", "delegate": conf}
			}
			w.nad("default/a", conf)
			w.annotate(networks, "a")
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", "call each other more than 8 deep")
		},
		"C6 cni-args that stand for what only a network's author decides": func(w *world) {
			for _, key := range []string{"guid", "mellanox.infiniband.app", "addroutes", "flushRoutes"} {
				w.annotate(networks, `[{"name":"a","cni-args":{"`+key+`":"x"}}]`)
				w.expectRefused(types.ErrInvalidNetworkConfig, key, "plexus-cni.io/allowed-cni-args")
			}
		},
		"R24 a delegate that runs Plexus, on every verb": func(w *world) {
			script := w.write("bin/wrapper", "#!/bin/sh\nexec "+filepath.Join(testenv.Build(w.t, "./cmd/plexus", "./conformance/recorder"), "plexus")+"\n")
			if err := os.Chmod(script, 0o755); err != nil {
				w.t.Fatal(err)
			}
			w.version11()
			wrapped := w.recorder(object{"type": "wrapper", "name": "wrapped", "cniVersion": "1.1.0"})
			wrapped["delegates"] = []any{w.recorder(object{"name": "inner", "cniVersion": "1.1.0"})}
			w.conf["delegates"] = []any{wrapped}
			w.mustFail("STATUS", types.ErrInvalidNetworkConfig, "called Plexus")
			w.identify()
			w.netns, w.ifName, w.containerID = testenv.NetNS(w.t), "eth0", "c1"
			w.mustFail("ADD", types.ErrInvalidNetworkConfig, "called Plexus")
			w.expectCalls()
		},
		"R24 under the program's own name": func(w *world) {
			w.conf["type"] = "renamed"
			w.nad("default/a", object{"name": "a", "type": "renamed"})
			w.annotate(networks, "a")
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"renamed"`)
		},
		"R25 allowedPlugins": func(w *world) {
			w.conf["allowedPlugins"] = []string{"recorder", "host-local"}
			w.nad("default/a", w.recorder(object{"ipam": object{"type": "host-local"}}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.must("DEL")
			w.calls()
			w.nad("default/a", w.recorder(object{"ipam": object{"type": "bash"}}))
			w.expectRefusedAgain("default/a", `"bash"`, `"allowedPlugins"`)
			w.nad("default/a", object{"name": "a", "plugins": []any{w.recorder(nil), object{"type": "tuning"}}})
			w.expectRefusedAgain("default/a", `"tuning"`, "recorder, host-local")
			// The operator's own networks are his word already.
			w.conf["allowedPlugins"] = []string{}
			w.annotate(networks, "")
			w.must("ADD")
		},
		"R26 the annotation that replaces the default network needs a key where the daemon tells it": func(w *world) {
			w.nad("kube-system/x", w.recorder(object{"name": "x"}))
			w.annotate(defaultNetwork, "x")
			w.conf["defaultNetworkAnnotation"] = false
			w.expectRefused(types.ErrInvalidNetworkConfig, "kube-system/x", `"defaultNetworkAnnotation" to true`)
			delete(w.conf, "defaultNetworkAnnotation")
			w.must("ADD")
			w.expectCalls("ADD x eth0")
		},
		"R27 loopback is nobody's default network": func(w *world) {
			w.conf["delegates"] = []any{object{"type": "loopback", "name": "lo", "cniVersion": "1.0.0"}}
			w.expectRefused(types.ErrInvalidNetworkConfig, "loopback", "install the cluster's network plugin")
		},
		"I5 files serve the namespaces that the operator named": func(w *world) {
			w.conf["namespaceIsolation"] = true
			w.write("conf/10-mgmt.conflist", object{"cniVersion": "1.0.0", "name": "mgmt", "plugins": []any{w.recorder(nil)}})
			w.become("tenant", "web")
			w.nad("tenant/mgmt", "")
			w.annotate(networks, "mgmt")
			w.expectRefused(types.ErrInvalidNetworkConfig, "pod tenant/web", "tenant/mgmt", "namespaceIsolation", "spec.config")
			w.conf["globalNamespaces"] = "tenant"
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD mgmt net1")
		},
		"S12 a pod of kube-system that selects networks has a status": func(w *world) {
			w.become("kube-system", "traefik")
			w.annotate(networks, "default/a")
			w.must("ADD")
			w.expectInterfaces("eth0 cluster default", "net1 default/a")
		},
		"S13 a result without cniVersion, and an empty one": func(w *world) {
			for _, printed := range []string{`{"ips":[{"address":"10.1.0.2/24"}]}`, `{}`} {
				w.cluster(object{"on": object{"ADD": object{"print": printed}}})
				w.must("ADD")
				w.must("DEL")
			}
			w.expectNothingLeft()
		},
		"S14 an interface whose sandbox is none": func(w *world) {
			w.cluster(object{"result": object{
				"interfaces": []any{object{"name": "eni1"}, object{"sandbox": "self"}, object{"name": "dummy1", "mac": "0", "sandbox": "0"}},
				"ips":        []any{object{"address": "10.24.136.194/32", "interface": 1}},
			}})
			w.must("ADD")
			w.expectStatus(`{"name":"cluster","interface":"eth0","ips":["10.24.136.194"],"default":true,"dns":{}}`)
		},
		"C15 a name without namespace, as Podman sends it": func(w *world) {
			w.args = "IgnoreUnknown=1;K8S_POD_NAME=web"
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD a net1")
			w.must("DEL")
			w.calls()
			w.args = "IgnoreUnknown=1;K8S_POD_NAME=unknown"
			w.must("ADD")
			w.expectCalls("ADD cluster eth0")
			w.must("DEL")
			w.calls()
			w.conf["podNamespace"] = "containers"
			w.become("containers", "web")
			w.args = "IgnoreUnknown=1;K8S_POD_NAME=web"
			w.annotate(networks, "default/a")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD a net1")
		},
		"C15 no pod at all, as nerdctl and cnitool call": func(w *world) {
			w.args = "IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=x"
			w.must("ADD")
			w.expectCalls("ADD cluster eth0")
		},
	})
}
