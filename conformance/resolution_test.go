// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func TestResolution(t *testing.T) {
	t.Parallel()
	const cluster = "eth0 cluster default"
	scenarios(t, map[string]func(*world){
		"R1 a NAD without name and version gets its own name and the plugin's version, on DEL too": func(w *world) {
			w.conf["cniVersion"] = "0.4.0"
			w.nad("default/a", w.recorder(nil))
			w.annotate(networks, "a")
			w.must("ADD")
			add := w.expectCalls("ADD cluster eth0", "ADD a net1")[1]
			w.expect("version at ADD", any("0.4.0"), add.Config["cniVersion"])
			w.must("DEL")
			del := w.expectCalls("DEL a net1", "DEL cluster eth0")[0]
			w.expect("version at DEL", any("0.4.0"), del.Config["cniVersion"])
		},
		"R3 each plugin of a list gets the list's name and version": func(w *world) {
			w.nad("default/a", object{"cniVersion": "0.4.0", "name": "list", "plugins": []any{
				w.recorder(object{"tag": "one"}), w.recorder(object{"tag": "two"}),
			}})
			w.annotate(networks, "a")
			w.must("ADD")
			calls := w.expectCalls("ADD cluster eth0", "ADD list/one net1", "ADD list/two net1")
			w.must("DEL")
			calls = append(calls, w.expectCalls("DEL list/two net1", "DEL list/one net1", "DEL cluster eth0")[:2]...)
			for _, c := range calls[1:] {
				w.expect("version for "+c.String(), any("0.4.0"), c.Config["cniVersion"])
			}
			w.expectInterfaces(cluster, "net1 default/a")
		},
		"R3 a list without name and version": func(w *world) {
			w.nad("default/a", object{"plugins": []any{w.recorder(object{"tag": "one"}), w.recorder(object{"tag": "two"})}})
			w.annotate(networks, "a")
			w.must("ADD")
			for _, c := range w.expectCalls("ADD cluster eth0", "ADD a/one net1", "ADD a/two net1") {
				w.expect("version for "+c.String(), any("1.0.0"), c.Config["cniVersion"])
			}
		},
		"R4 a NAD without config is a file of its name": func(w *world) {
			w.nad("default/onfile", "")
			w.write("conf/10.conf", w.recorder(object{"name": "onfile"}))
			w.annotate(networks, "onfile")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD onfile net1")
			w.expectInterfaces(cluster, "net1 default/onfile")
			w.remove("conf")
			w.must("DEL")
			w.expectCalls("DEL onfile net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"R4 an unrelated broken file is passed over": func(w *world) {
			w.nad("default/onfile", "")
			w.write("conf/00.conf", "{")
			w.write("conf/10.json", w.recorder(object{"name": "onfile"}))
			w.annotate(networks, "onfile")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD onfile net1")
		},
		"R5 a .conflist comes before a .conf of the same name": func(w *world) {
			w.nad("default/onfile", "")
			w.write("conf/00.conf", w.recorder(object{"name": "onfile", "tag": "conf"}))
			w.write("conf/20.conflist", object{"name": "onfile", "plugins": []any{w.recorder(object{"tag": "conflist"})}})
			w.annotate(networks, "onfile")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD onfile/conflist net1")
		},
		"R7 a config that is not JSON": func(w *world) {
			w.nad("default/a", "type: recorder")
			w.annotate(networks, "a")
			w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", "default/a", "not JSON", "line 1")
		},
		"R8 neither config nor file": func(w *world) {
			w.nad("default/onfile", "")
			w.annotate(networks, "onfile")
			w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", "default/onfile", w.path("conf"), "add one")
		},
		"R9 clusterNetwork is a NAD of kube-system": func(w *world) {
			w.byReference("x")
			w.nad("kube-system/x", w.recorder(object{"name": "x-net", "result": addresses("10.9.0.2/24", "")}))
			w.must("ADD")
			w.expectCalls("ADD x-net eth0")
			w.expectStatus(`{"name":"kube-system/x","interface":"eth0","ips":["10.9.0.2"],"default":true,"dns":{}}`)
		},
		"R9 clusterNetwork is a NAD of multusNamespace": func(w *world) {
			w.byReference("x")
			w.conf["multusNamespace"] = "nets"
			w.nad("kube-system/x", w.recorder(object{"name": "wrong"}))
			w.nad("nets/x", w.recorder(object{"name": "right"}))
			w.must("ADD")
			w.expectCalls("ADD right eth0")
			w.expectInterfaces("eth0 nets/x default")
		},
		"R10 clusterNetwork is a name in a file": func(w *world) {
			w.byReference("onfile")
			w.write("conf/10.conf", w.recorder(object{"name": "onfile"}))
			w.must("ADD")
			w.expectCalls("ADD onfile eth0")
			w.expectInterfaces("eth0 onfile default")
		},
		"R10 the NAD comes before the file": func(w *world) {
			w.byReference("x")
			w.write("conf/10.conf", w.recorder(object{"name": "x", "tag": "file"}))
			w.nad("kube-system/x", w.recorder(object{"tag": "nad"}))
			w.must("ADD")
			w.expectCalls("ADD x/nad eth0")
		},
		"R11 clusterNetwork is a directory: its first usable file": func(w *world) {
			w.byReference(w.path("net.d"))
			w.write("net.d/00-broken.conf", "{")
			w.write("net.d/05-readme.txt", "not a configuration")
			w.write("net.d/10-first.conflist", object{"name": "first", "cniVersion": "1.0.0", "plugins": []any{w.recorder(nil)}})
			w.write("net.d/20-second.conf", w.recorder(object{"name": "second"}))
			w.must("ADD")
			w.expectCalls("ADD first eth0")
			w.expectInterfaces("eth0 first default")
		},
		"R12 clusterNetwork is the path of a .conf": func(w *world) {
			w.byReference(w.write("net.d/x.conf", w.recorder(object{"name": "x"})))
			w.must("ADD")
			w.expectCalls("ADD x eth0")
		},
		"R12 clusterNetwork is the path of a .conflist": func(w *world) {
			w.byReference(w.write("net.d/x.conflist", object{"name": "x", "plugins": []any{w.recorder(object{"tag": "one"}), w.recorder(object{"tag": "two"})}}))
			w.must("ADD")
			w.expectCalls("ADD x/one eth0", "ADD x/two eth0")
		},
		"R12 a .conf without type": func(w *world) {
			file := w.write("net.d/x.conf", object{"name": "x"})
			w.byReference(file)
			w.expectRefused(types.ErrInvalidNetworkConfig, "clusterNetwork", file, `"type"`)
		},
		"R13 clusterNetwork is nowhere": func(w *world) {
			w.byReference("nowhere")
			w.expectRefused(types.ErrInvalidNetworkConfig, "clusterNetwork", `"nowhere"`, "kube-system", w.path("conf"))
		},
		"R13 clusterNetwork is a path with nothing there": func(w *world) {
			w.byReference(w.path("nowhere.conf"))
			w.expectRefused(types.ErrInvalidNetworkConfig, "clusterNetwork", w.path("nowhere.conf"), "create it, or correct the path")
		},
		"R14 defaultNetworks come between the default network and the pod's": func(w *world) {
			w.conf["defaultNetworks"] = []string{"d1"}
			w.nad("kube-system/d1", w.recorder(nil))
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD d1 net1", "ADD a net2")
			w.expectInterfaces(cluster, "net1 kube-system/d1", "net2 default/a")
			w.must("DEL")
			w.expectCalls("DEL a net2", "DEL d1 net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"R14 a defaultNetwork can be a file": func(w *world) {
			w.conf["defaultNetworks"] = []string{w.write("net.d/d1.conf", w.recorder(object{"name": "d1"})), "d2"}
			w.write("conf/d2.conf", w.recorder(object{"name": "d2"}))
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD d1 net1", "ADD d2 net2")
			w.expectInterfaces(cluster, "net1 d1", "net2 d2")
		},
		"R14 inline delegates after the first": func(w *world) {
			w.conf["delegates"] = append(w.conf["delegates"].([]any), w.recorder(object{"name": "second"}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD second net1", "ADD a net2")
		},
		"R15 a pod of kube-system gets no defaultNetworks": func(w *world) {
			w.conf["defaultNetworks"] = []string{"d1"}
			w.nad("kube-system/d1", w.recorder(nil))
			w.nad("kube-system/a", w.recorder(nil))
			w.become("kube-system", "dns")
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD a net1")
		},
		"R16 the default-network annotation replaces the default network": func(w *world) {
			w.nad("kube-system/x", w.recorder(nil))
			w.annotate(defaultNetwork, "x")
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectCalls("ADD x eth0", "ADD a net1")
			w.expectInterfaces("eth0 kube-system/x default", "net1 default/a")
			w.must("DEL")
			w.expectCalls("DEL a net1", "DEL x eth0")
			w.expectNothingLeft()
		},
		"R16 the default-network annotation replaces clusterNetwork": func(w *world) {
			w.byReference("y")
			w.nad("kube-system/y", w.recorder(nil))
			w.nad("kube-system/x", w.recorder(nil))
			w.annotate(defaultNetwork, "x")
			w.must("ADD")
			w.expectCalls("ADD x eth0")
		},
		"R17 two default networks": func(w *world) {
			w.nad("kube-system/x", w.recorder(nil))
			w.nad("kube-system/y", w.recorder(nil))
			w.annotate(defaultNetwork, "x,y")
			w.expectRefused(types.ErrInvalidNetworkConfig, "pod default/web", defaultNetwork, "exactly one")
		},
		"R18 a default network with requests": func(w *world) {
			w.nad("kube-system/x", w.recorder(object{"capabilities": object{"mac": true, "ips": true}}))
			w.annotate(defaultNetwork, `[{"name":"x","mac":"02:00:00:00:00:01","ips":["10.9.0.9/24"]}]`)
			w.must("ADD")
			x := w.expectCalls("ADD x eth0")[0]
			w.expectJSON("runtimeConfig", `{"mac":"02:00:00:00:00:01","ips":["10.9.0.9/24"]}`, x.Config["runtimeConfig"])
			w.expect("CNI_ARGS", w.cniArgs("MAC=02:00:00:00:00:01", "IP=10.9.0.9/24"), x.Args)
		},
		"R19 clusterNetwork wins over delegates": func(w *world) {
			w.conf["clusterNetwork"] = "x"
			w.nad("kube-system/x", w.recorder(nil))
			w.must("ADD")
			w.expectCalls("ADD x eth0")
		},
		"R21 plugins of the subdirectory are chained, on ADD, CHECK and DEL": func(w *world) {
			w.byReference(w.write("net.d/x.conflist", object{"name": "x", "cniVersion": "1.0.0", "plugins": []any{w.recorder(object{"tag": "inline"})}}))
			w.write("net.d/x/20.conf", w.recorder(object{"tag": "20"}))
			w.write("net.d/x/10.conf", w.recorder(object{"tag": "10"}))
			w.write("net.d/x/30.json", w.recorder(object{"tag": "no .conf"}))
			w.must("ADD")
			w.expectCalls("ADD x/inline eth0", "ADD x/10 eth0", "ADD x/20 eth0")
			w.remove("net.d/x/10.conf") // what was attached counts, not what is there now
			w.must("CHECK")
			w.expectCalls("CHECK x/inline eth0", "CHECK x/10 eth0", "CHECK x/20 eth0")
			w.must("DEL")
			w.expectCalls("DEL x/20 eth0", "DEL x/10 eth0", "DEL x/inline eth0")
			w.expectNothingLeft()
		},
		"R21 loadOnlyInlinedPlugins": func(w *world) {
			w.byReference(w.write("net.d/x.conflist", object{"name": "x", "cniVersion": "1.0.0", "loadOnlyInlinedPlugins": true, "plugins": []any{w.recorder(object{"tag": "inline"})}}))
			w.write("net.d/x/10.conf", w.recorder(object{"tag": "10"}))
			w.must("ADD")
			w.expectCalls("ADD x/inline eth0")
		},
		"R22 an auxiliary chain is the last network": func(w *world) {
			w.byReference(w.write("net.d/x.conf", w.recorder(object{"name": "x"})))
			w.conf["auxiliaryCNIChainName"] = "aux"
			w.write("net.d/aux/10.conf", w.recorder(object{"tag": "10"}))
			w.write("net.d/aux/20.conf", w.recorder(object{"tag": "20"}))
			w.annotate(networks, "a")
			w.must("ADD")
			first := w.expectCalls("ADD x eth0", "ADD a net1", "ADD aux/10 net2", "ADD aux/20 net2")[2]
			w.expectJSON("previous result, of the pass-through plugin", `{"cniVersion":"1.0.0"}`, first.Config["prevResult"])
			w.expectInterfaces("eth0 x default", "net1 default/a", "net2 aux")
			w.conf["checkNetworks"] = "all"
			w.must("CHECK")
			w.expectCalls("CHECK x eth0", "CHECK a net1", "CHECK aux/10 net2", "CHECK aux/20 net2")
			w.must("DEL")
			w.expectCalls("DEL aux/20 net2", "DEL aux/10 net2", "DEL a net1", "DEL x eth0")
			w.expectNothingLeft()
		},
		"R22 an auxiliary chain beside a directory": func(w *world) {
			w.write("net.d/x.conf", w.recorder(object{"name": "x"}))
			w.byReference(w.path("net.d"))
			w.conf["auxiliaryCNIChainName"] = "aux"
			w.write("net.d/aux/10.conf", w.recorder(nil))
			w.must("ADD")
			w.expectCalls("ADD x eth0", "ADD aux net1")
		},
		"R22 an auxiliary chain without files is none": func(w *world) {
			w.byReference(w.write("net.d/x.conf", w.recorder(object{"name": "x"})))
			w.conf["auxiliaryCNIChainName"] = "aux"
			w.mkdir("net.d/aux")
			w.must("ADD")
			w.expectCalls("ADD x eth0")
			w.expectInterfaces("eth0 x default")
		},
		"R22 an auxiliary chain without a path": func(w *world) {
			w.conf["auxiliaryCNIChainName"] = "aux"
			w.expectRefused(types.ErrInvalidNetworkConfig, "auxiliaryCNIChainName", `"aux"`, "clusterNetwork", "path")
		},
	})
}

func TestResolutionWithoutADefaultNetwork(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"ADD", "DEL", "CHECK", "GC", "STATUS"} {
		t.Run("R20 neither delegates nor clusterNetwork, "+verb, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			delete(w.conf, "delegates")
			w.conf["cniVersion"] = "1.1.0"
			w.conf["cni.dev/valid-attachments"] = []any{}
			w.mustFail(verb, types.ErrInvalidNetworkConfig, "at least one delegate/clusterNetwork must be specified")
			w.expectCalls()
			w.expectNothingLeft()
		})
	}
}

// byReference makes clusterNetwork name the default network.
func (w *world) byReference(clusterNetwork string) {
	delete(w.conf, "delegates")
	w.conf["clusterNetwork"] = clusterNetwork
}

func TestIsolation(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		podNamespace string
		global       *string
		annotation   string // of the networks annotation, else of the default network's
		defaults     string
		calls        []string
		says         []string
	}{
		"I1 a network of another namespace": {
			podNamespace: "blue", annotation: "kube-system/net1", says: []string{`"blue"`, `"kube-system"`, `"kube-system/net1"`, "globalNamespaces"},
		},
		"I1 a default network of another namespace": {
			podNamespace: "blue", defaults: "kube-system/net1", says: []string{defaultNetwork, `"blue"`, `"kube-system"`},
		},
		"I1 a default network of the namespace for networks": {
			podNamespace: "blue", defaults: "net1", says: []string{defaultNetwork, `"blue"`, `"kube-system"`},
		},
		"I1 a network of the pod's own namespace": {
			podNamespace: "blue", annotation: "own", calls: []string{"ADD cluster eth0", "ADD own net1"},
		},
		"I2 a namespace that is listed": {
			podNamespace: "blue", global: new("kube-system,donkey-kong"), annotation: "kube-system/net1", calls: []string{"ADD cluster eth0", "ADD net1 net1"},
		},
		"I2 a default network of a namespace that is listed": {
			podNamespace: "blue", global: new("kube-system,donkey-kong"), defaults: "net1", calls: []string{"ADD net1 eth0"},
		},
		"I3 default is global when nothing is listed": {
			podNamespace: "blue", annotation: "default/a", calls: []string{"ADD cluster eth0", "ADD a net1"},
		},
		"I3 default is not global when others are listed": {
			podNamespace: "blue", global: new("foo"), annotation: "default/a", says: []string{`"blue"`, `"default"`},
		},
		"I4 the list is trimmed": {
			podNamespace: "blue", global: new(" foo,bar ,default"), annotation: "default/a", calls: []string{"ADD cluster eth0", "ADD a net1"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.nad("kube-system/net1", w.recorder(nil))
			w.nad("blue/own", w.recorder(nil))
			w.conf["namespaceIsolation"] = true
			if tc.global != nil {
				w.conf["globalNamespaces"] = *tc.global
			}
			w.become(tc.podNamespace, "web")
			if tc.annotation != "" {
				w.annotate(networks, tc.annotation)
			}
			if tc.defaults != "" {
				w.annotate(defaultNetwork, tc.defaults)
			}
			if tc.says != nil {
				w.expectRefused(types.ErrInvalidNetworkConfig, append(tc.says, "pod "+tc.podNamespace+"/web")...)
				return
			}
			w.must("ADD")
			w.expectCalls(tc.calls...)
		})
	}
}
