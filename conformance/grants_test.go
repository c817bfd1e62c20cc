// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// annotatedNAD writes the NAD default/name with annotations, as "key=value".
func (w *world) annotatedNAD(name string, config object, pairs ...string) {
	w.t.Helper()
	annotations := map[string]string{}
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		annotations[key] = value
	}
	w.writeManifest("NetworkAttachmentDefinition", "default", name, annotations, "", object{"config": asJSON(w.t, config)})
}

// TestRequestsAreVerified: what no plugin declares is asked for by CNI_ARGS, and has to be seen in the result.
func TestRequestsAreVerified(t *testing.T) {
	t.Parallel()
	const asked = `[{"name":"a","mac":"02:00:00:00:00:07","ips":["10.2.0.7/24"]}]`
	honoured := withMAC("02:00:00:00:00:07", "10.2.0.7/16", "") // the prefix is the network's business
	scenarios(t, map[string]func(*world){
		"C10 a plugin that honours what it does not declare": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "result": honoured}))
			w.annotate(networks, asked)
			w.must("ADD")
			a := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.expect("CNI_ARGS", w.cniArgs("MAC=02:00:00:00:00:07", "IP=10.2.0.7/24"), a.Args)
			w.expect("runtimeConfig", any(nil), a.Config["runtimeConfig"])
			w.must("CHECK")
			w.must("DEL")
			w.expectNothingLeft()
		},
		"C10 a plugin that does not honour the MAC": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "result": withMAC("02:00:00:00:00:99", "10.2.0.7/24", "")}))
			w.annotate(networks, asked)
			w.mustFail("ADD", types.ErrInvalidNetworkConfig, "pod default/web", "default/a", `"mac" 02:00:00:00:00:07`, "recorder", "02:00:00:00:00:99", "unsupportedRequests")
			w.expectCalls("ADD cluster eth0", "ADD a net1", "DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"C10 a plugin that does not honour an address": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "result": withMAC("02:00:00:00:00:07", "10.2.0.8/24", "")}))
			w.annotate(networks, asked)
			w.mustFail("ADD", types.ErrInvalidNetworkConfig, "default/a", `"ips" 10.2.0.7/24`, "there is 10.2.0.8")
			w.expectCalls("ADD cluster eth0", "ADD a net1", "DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"C10 who declares it is taken at his word": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "capabilities": object{"mac": true, "ips": true}}))
			w.annotate(networks, asked)
			w.must("ADD")
		},
		"C10 with ignore nobody looks": func(w *world) {
			w.conf["unsupportedRequests"] = "ignore"
			w.annotate(networks, asked)
			w.must("ADD")
			w.expect("CNI_ARGS", w.cniArgs("MAC=02:00:00:00:00:07", "IP=10.2.0.7/24"), w.expectCalls("ADD cluster eth0", "ADD a net1")[1].Args)
		},
		"C10 a NAD whose author insists on declared capabilities": func(w *world) {
			w.conf["unsupportedRequests"] = "ignore"
			w.annotatedNAD("a", w.recorder(object{"name": "a", "result": honoured}), "plexus-cni.io/unsupported-requests=refuse")
			w.annotate(networks, asked)
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"mac"`, `"capabilities": {"mac": true}`)
		},
		"C11 what cannot be seen afterwards needs its capability": func(w *world) {
			for request, capability := range map[string]string{
				`"bandwidth":{"ingressRate":1,"ingressBurst":1}`: "bandwidth", `"portMappings":[{"hostPort":1,"containerPort":1}]`: "portMappings",
				`"infiniband-guid":"02:00:00:00:00:00:00:01"`: "infinibandGUID", `"deviceID":"0000:03:02.1"`: "deviceID",
			} {
				w.annotate(networks, `[{"name":"a",`+request+`}]`)
				w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", fmt.Sprintf(`"capabilities": {%q: true}`, capability))
			}
		},
	})
}

// TestGrants: a pod chooses among what was granted, and grants itself nothing.
func TestGrants(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"C12 cni-args that stand for a request": func(w *world) {
			for _, key := range []string{"mac", "MAC", "ips", "IP", "sysctl", "ſysctl", "promisc", "allmulti", "mtu", "txQLen", "deviceID", "pciBusID", "bandwidth", "portMappings", "ovnPort"} {
				w.annotate(networks, `[{"name":"a","cni-args":{"`+key+`":"x"}}]`)
				w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"cni-args"`, "plexus-cni.io/allowed-cni-args")
			}
		},
		"C12 that the NAD's author allows": func(w *world) {
			w.annotatedNAD("a", w.recorder(object{"name": "a"}), "plexus-cni.io/allowed-cni-args=mtu, sysctl")
			w.annotate(networks, `[{"name":"a","cni-args":{"sysctl":{"net.ipv4.conf.all.forwarding":"1"},"logicNetworkName":"x"}}]`)
			w.must("ADD")
			w.expectJSON("args", `{"cni":{"sysctl":{"net.ipv4.conf.all.forwarding":"1"},"logicNetworkName":"x"}}`, w.expectCalls("ADD cluster eth0", "ADD a net1")[1].Config["args"])
			w.must("DEL")
			w.calls()
			w.annotate(networks, `[{"name":"a","cni-args":{"mac":"02:00:00:00:00:01"}}]`)
			w.expectRefusedAgain("default/a", `"mac"`)
		},
		"C13 requests to the default network are added to the runtime's": func(w *world) {
			w.conf["runtimeConfig"] = object{"portMappings": []any{object{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}, "bandwidth": object{"ingressRate": 1}}
			w.nad("kube-system/x", w.recorder(object{"name": "x", "capabilities": object{"portMappings": true, "bandwidth": true, "mac": true}}))
			w.annotate(defaultNetwork, `[{"name":"x","portMappings":[{"hostPort":22,"containerPort":22}]}]`)
			w.expectRefused(types.ErrInvalidNetworkConfig, "kube-system/x", `"portMappings"`, `"defaultNetworkPortMappings": true`)
			w.conf["defaultNetworkPortMappings"] = true
			w.must("ADD")
			w.expectJSON("runtimeConfig", `{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostPort":22,"containerPort":22,"protocol":"tcp"}],"bandwidth":{"ingressRate":1}}`,
				w.expectCalls("ADD x eth0")[0].Config["runtimeConfig"])
			w.must("DEL")
			w.calls()
			w.annotate(defaultNetwork, `[{"name":"x","bandwidth":{"ingressRate":9,"ingressBurst":9}}]`)
			w.expectRefusedAgain("kube-system/x", `"bandwidth"`, "runtime asks for")
		},
		"C14 maxNetworksPerPod": func(w *world) {
			w.annotate(networks, strings.TrimSuffix(strings.Repeat("a,", 32), ","))
			w.expectRefused(types.ErrInvalidNetworkConfig, "33 networks", "at most 32", `"maxNetworksPerPod"`)
			w.conf["maxNetworksPerPod"] = 2
			w.annotate(networks, "a,b")
			w.expectRefused(types.ErrInvalidNetworkConfig, "3 networks", "at most 2")
			w.annotate(networks, "a")
			w.must("ADD")
		},
		"P27 names that a shell or an option parser misreads": func(w *world) {
			for _, name := range []string{"-h", "--help", "$(id)", "`id`", ";id;", "*", "a=b", ".x"} {
				w.annotate(networks, `[{"name":"a","interface":`+asJSON(w.t, name)+`}]`)
				w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", "interface")
			}
		},
		"P28 known keys in other letters, and doubled ones": func(w *world) {
			for _, text := range []string{`[{"name":"a","NAME":"b"}]`, `[{"name":"a","Mac":"02:00:00:00:00:01"}]`, `[{"name":"a","name":"b"}]`, `[{"name":"a","CNI-ARGS":{"x":1}}]`} {
				w.annotate(networks, text)
				w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", networks, "element 1")
			}
		},
		"P29 what nobody heard is told in the log": func(w *world) {
			w.conf["logFile"] = w.path("log")
			w.annotate("k8s.v1.cni.cncf.io/network", "b")
			w.annotate(networks, `[{"name":"a","interfaceName":"x1"}]`)
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD a net1")
			for _, text := range []string{`interfaceName`, `did you mean \\\"interface\\\"`, "did you mean k8s.v1.cni.cncf.io/networks?"} {
				if !strings.Contains(w.read("log"), text) && !strings.Contains(w.read("log"), strings.ReplaceAll(text, `\\`, ``)) {
					w.t.Errorf("the log does not say %s:\n%s", text, w.read("log"))
				}
			}
		},
		"X8 a resource that steers the scheduler alone": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a"}), ofResource)
			c.gives("other.com/x=7")
			c.selects("a")
			w.must("ADD")
			a := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.expect("device", any(nil), a.Config["deviceID"])
		},
		"X8 a plugin that takes a device needs one": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a", "capabilities": object{"deviceID": true}}), ofResource)
			c.gives("other.com/x=7")
			c.selects(`[{"name":"a","deviceID":"7"}]`)
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"intel.com/vf"`, "gave the pod 0")
		},
		"X9 the device that was given goes before the NAD's, in any letters": func(w *world) {
			c := w.inCluster()
			c.nad("a", w.recorder(object{"name": "a", "PCIBusID": "0000:00:1f.6", "deviceID": "0000:00:1f.6"}), ofResource)
			c.gives("intel.com/vf=0000:03:02.1")
			c.selects(`[{"name":"a","deviceID":"0000:00:1f.6"}]`)
			w.must("ADD")
			a := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.expect("devices", []any{"0000:03:02.1", "0000:03:02.1", nil}, []any{a.Config["deviceID"], a.Config["pciBusID"], a.Config["PCIBusID"]})
		},
	})
}

// expectRefusedAgain is expectRefused for a pod that has a status of an earlier sandbox.
func (w *world) expectRefusedAgain(words ...string) {
	w.t.Helper()
	w.mustFail("ADD", types.ErrInvalidNetworkConfig, words...)
	w.expectCalls()
	w.expectNothingLeft()
}
