// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// everything asks for all that an element can ask a plugin for.
const everything = `[{
	"name": "a", "mac": "02:00:00:00:00:0A", "ips": ["10.2.0.9/24", "fd00::9/64"], "infiniband-guid": "02:00:00:00:00:00:00:01",
	"bandwidth": {"ingressRate": 2048, "ingressBurst": 1600, "egressRate": 4096, "egressBurst": 1600},
	"portMappings": [{"hostPort": 9090, "containerPort": 80, "protocol": "TCP"}], "deviceID": "0000:03:02.1"
}]`

func TestRequests(t *testing.T) {
	t.Parallel()
	capabilities := object{"mac": true, "ips": true, "infinibandGUID": true, "bandwidth": true, "portMappings": true, "deviceID": true}
	scenarios(t, map[string]func(*world){
		"C1 a plugin with all capabilities gets all requests, and nothing else": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": capabilities}))
			w.annotate(networks, everything)
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD a net1")
			w.expect("runtimeConfig of the default network", any(nil), calls[0].Config["runtimeConfig"])
			w.expectJSON("runtimeConfig", `{
				"mac": "02:00:00:00:00:0a", "ips": ["10.2.0.9/24", "fd00::9/64"], "infinibandGUID": "02:00:00:00:00:00:00:01",
				"bandwidth": {"ingressRate": 2048, "ingressBurst": 1600, "egressRate": 4096, "egressBurst": 1600},
				"portMappings": [{"hostPort": 9090, "containerPort": 80, "protocol": "tcp"}], "deviceID": "0000:03:02.1"
			}`, calls[1].Config["runtimeConfig"])
			w.expect("CNI_ARGS", w.cniArgs("MAC=02:00:00:00:00:0a"), calls[1].Args)
		},
		"C1 several addresses go into CNI_ARGS only where no plugin takes them as runtimeConfig": func(w *world) {
			w.conf["unsupportedRequests"] = "ignore"
			w.nad("default/a", w.recorder(object{"name": "a"}))
			w.nad("default/b", w.recorder(object{"name": "b", "capabilities": object{"ips": true}}))
			w.annotate(networks, `[{"name":"a","ips":["10.2.0.9/24","fd00::9"]},{"name":"b","ips":["10.2.0.9/24","fd00::9"]}]`)
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD a net1", "ADD b net2")
			w.expect("CNI_ARGS of a", w.cniArgs("IP=10.2.0.9/24,fd00::9"), calls[1].Args)
			w.expect("CNI_ARGS of b", w.cniArgs(), calls[2].Args)
		},
		"C1 CHECK and DEL get what ADD got": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": capabilities}))
			w.annotate(networks, everything)
			w.must("ADD")
			add := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.annotate(networks, "b") // which must not matter any more
			w.args = ""
			w.conf["checkNetworks"] = "all"
			w.must("CHECK")
			check := w.expectCalls("CHECK cluster eth0", "CHECK a net1")[1]
			w.must("DEL")
			del := w.expectCalls("DEL a net1", "DEL cluster eth0")[0]
			for _, c := range []recorded{check, del} {
				w.expect("CNI_ARGS at "+c.Command, add.Args, c.Args)
				delete(c.Config, "prevResult")
				w.expect("configuration at "+c.Command, add.Config, c.Config)
			}
		},
		"C2 requests that no plugin supports fail": func(w *world) {
			w.conf["unsupportedRequests"] = "refuse"
			w.annotate(networks, everything)
			w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", "default/a", `"mac"`, "recorder", `"capabilities": {"mac": true}`, `"unsupportedRequests": "ignore"`)
		},
		"C2 requests that no plugin supports are dropped on demand": func(w *world) {
			w.conf["unsupportedRequests"] = "ignore"
			w.annotate(networks, everything)
			w.must("ADD")
			a := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.expect("runtimeConfig", any(nil), a.Config["runtimeConfig"])
		},
		"C2 a capability that is false is none": func(w *world) {
			w.conf["unsupportedRequests"] = "fail" // as it was called
			w.nad("default/a", w.recorder(object{"capabilities": object{"mac": false}}))
			w.annotate(networks, `[{"name":"a","mac":"02:00:00:00:00:01"}]`)
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"mac"`)
		},
		"C3 of a list only the plugin with the capability gets the request": func(w *world) {
			w.nad("default/a", object{"name": "a", "plugins": []any{
				w.recorder(object{"tag": "one"}), w.recorder(object{"tag": "two", "capabilities": object{"mac": true}}),
			}})
			w.annotate(networks, `[{"name":"a","mac":"02:00:00:00:00:01"}]`)
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD a/one net1", "ADD a/two net1")
			w.expect("runtimeConfig of the first", any(nil), calls[1].Config["runtimeConfig"])
			w.expectJSON("runtimeConfig of the second", `{"mac":"02:00:00:00:00:01"}`, calls[2].Config["runtimeConfig"])
		},
		"C5 the runtime's port mappings are the default network's, the element's its own": func(w *world) {
			w.cluster(object{"capabilities": object{"portMappings": true, "bandwidth": true}})
			w.conf["capabilities"] = object{"portMappings": true, "bandwidth": true}
			w.conf["runtimeConfig"] = object{
				"portMappings": []any{object{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
				"bandwidth":    object{"ingressRate": 1000, "ingressBurst": 1000, "egressRate": 0, "egressBurst": 0},
			}
			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": object{"portMappings": true, "bandwidth": true}}))
			w.nad("default/b", w.recorder(object{"name": "b", "capabilities": object{"portMappings": true, "bandwidth": true}}))
			w.annotate(networks, `[{"name":"a","portMappings":[{"hostPort":9090,"containerPort":90}]},{"name":"b"}]`)
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD a net1", "ADD b net2")
			w.expectJSON("runtimeConfig of the default network", `{
				"portMappings": [{"hostPort":8080,"containerPort":80,"protocol":"tcp"}],
				"bandwidth": {"ingressRate":1000,"ingressBurst":1000,"egressRate":0,"egressBurst":0}
			}`, calls[0].Config["runtimeConfig"])
			w.expectJSON("runtimeConfig of a", `{"portMappings":[{"hostPort":9090,"containerPort":90,"protocol":"tcp"}]}`, calls[1].Config["runtimeConfig"])
			w.expect("runtimeConfig of b", any(nil), calls[2].Config["runtimeConfig"])
		},
		"C6 cni-args are merged over args.cni": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "args": object{"cni": object{"keep": 1, "change": "nad"}, "vendor": "x"}}))
			w.annotate(networks, `[{"name":"a","cni-args":{"change":"pod","add":{"deep":[1,2]}}}]`)
			w.must("ADD")
			a := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.expectJSON("args", `{"cni":{"keep":1,"change":"pod","add":{"deep":[1,2]}},"vendor":"x"}`, a.Config["args"])
		},
		"C7 cni-args reach every plugin of a list": func(w *world) {
			w.nad("default/a", object{"name": "a", "plugins": []any{
				w.recorder(object{"tag": "one"}), w.recorder(object{"tag": "two", "args": object{"cni": object{"own": true}}}),
			}})
			w.annotate(networks, `[{"name":"a","cni-args":{"x":"y"}}]`)
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD a/one net1", "ADD a/two net1")
			w.expectJSON("args of the first", `{"cni":{"x":"y"}}`, calls[1].Config["args"])
			w.expectJSON("args of the second", `{"cni":{"x":"y","own":true}}`, calls[2].Config["args"])
			w.expect("args of the default network", any(nil), calls[0].Config["args"])
		},
		"C8 CNI_ARGS have their order, and each key once": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": object{"mac": true, "ips": true}}))
			w.annotate(networks, `[{"name":"a","mac":"02:00:00:00:00:01","ips":["10.2.0.9/24"]},{"name":"b"}]`)
			w.args = "B=1;A=2;K8S_POD_UID=" + w.uid + ";K8S_POD_INFRA_CONTAINER_ID=" + w.containerID +
				";K8S_POD_NAME=web;K8S_POD_NAMESPACE=default;IgnoreUnknown=1;B=3;MAC=02:00:00:00:00:99;IP=10.1.0.99"
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD a net1", "ADD b net2")
			w.expect("CNI_ARGS of the default network", w.cniArgs("B=3", "A=2", "MAC=02:00:00:00:00:99", "IP=10.1.0.99"), calls[0].Args)
			w.expect("CNI_ARGS of a", w.cniArgs("B=3", "A=2", "MAC=02:00:00:00:00:01", "IP=10.2.0.9/24"), calls[1].Args)
			w.expect("CNI_ARGS of b", w.cniArgs("B=3", "A=2"), calls[2].Args)
		},
		"C9 a value may have an equals sign": func(w *world) {
			w.annotate(networks, "a")
			w.args += ";FOO=a=b"
			w.must("ADD")
			for _, c := range w.expectCalls("ADD cluster eth0", "ADD a net1") {
				w.expect("CNI_ARGS of "+c.String(), w.cniArgs("FOO=a=b"), c.Args)
			}
		},
		"C9 delegates get the sandbox, and both folders of plugins": func(w *world) {
			w.annotate(networks, "a")
			w.must("ADD")
			for _, c := range w.expectCalls("ADD cluster eth0", "ADD a net1") {
				w.expect("sandbox of "+c.String(), []string{w.containerID, w.netns, w.path("bin") + ":" + w.cniPath}, []string{c.ContainerID, c.NetNS, c.Path})
			}
		},
	})
}
