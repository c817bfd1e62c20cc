// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"encoding/json"
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// withMAC is a result of one interface and one address.
func withMAC(mac, cidr, gateway string) object {
	result := addresses(cidr, gateway)
	result["interfaces"] = []any{object{"sandbox": "self", "mac": mac}}
	result["ips"].([]any)[0].(object)["interface"] = 0
	return result
}

func TestResult(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"S1 three more networks do not change the result": func(w *world) {
			result := withMAC("02:00:00:00:00:01", "10.1.0.2/24", "10.1.0.1")
			result["routes"] = []any{object{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, object{"dst": "10.96.0.0/12"}}
			result["dns"] = object{"nameservers": []any{"10.96.0.10"}, "search": []any{"svc"}}
			w.cluster(object{"result": result})
			alone := w.must("ADD")
			w.expectJSON("result", `{
				"cniVersion": "1.0.0", "interfaces": [{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"`+w.netns+`"}],
				"ips": [{"interface":0,"address":"10.1.0.2/24","gateway":"10.1.0.1"}],
				"routes": [{"dst":"0.0.0.0/0","gw":"10.1.0.1"},{"dst":"10.96.0.0/12"}],
				"dns": {"nameservers":["10.96.0.10"],"search":["svc"]}
			}`, alone)
			w.must("DEL")
			w.annotate(networks, "a,b,other/c")
			w.expect("result with three more networks", alone, w.must("ADD"))
		},
	})
}

func TestResultVersions(t *testing.T) {
	t.Parallel()
	results := map[string]string{
		"0.3.1": `{"cniVersion":"0.3.1","interfaces":[{"name":"eth0","sandbox":"NETNS"}],"ips":[{"version":"4","address":"10.1.0.2/24","gateway":"10.1.0.1"}],"dns":{}}`,
		"0.4.0": `{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"NETNS"}],"ips":[{"version":"4","address":"10.1.0.2/24","gateway":"10.1.0.1"}],"dns":{}}`,
		"1.0.0": `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"NETNS"}],"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}],"dns":{}}`,
		"1.1.0": `{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"NETNS"}],"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}],"dns":{}}`,
	}
	for version, want := range results {
		for delegate := range results {
			t.Run("S2 conf "+version+", delegate "+delegate, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.conf["cniVersion"] = version
				w.cluster(object{"cniVersion": delegate})
				w.expectResult(want)
			})
		}
		t.Run("S2 conf "+version+", and a delegate that answers in another version than its configuration's", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.conf["cniVersion"] = version
			w.cluster(object{"resultVersion": "0.3.1"})
			w.expectResult(want)
		})
	}
}

// expectResult makes an ADD and checks its result, in which NETNS stands for the sandbox; empty dns may be left out.
func (w *world) expectResult(want string) {
	w.t.Helper()
	got := decode(w.t, w.must("ADD"))
	if _, ok := got["dns"]; !ok {
		got["dns"] = object{}
	}
	expected := decode(w.t, want)
	expected["interfaces"].([]any)[0].(object)["sandbox"] = w.netns
	w.expect("result", expected, got)
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	t.Run("S3 the exact text", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		result := withMAC("02:00:00:00:00:01", "10.1.0.2/24", "10.1.0.1")
		result["ips"] = append(result["ips"].([]any), object{"address": "fd00:1::2/64", "gateway": "fd00:1::1", "interface": 0})
		result["routes"] = []any{object{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, object{"dst": "::/0", "gw": "fd00:1::1"}}
		result["dns"] = object{"nameservers": []any{"10.96.0.10"}, "domain": "cluster.local", "search": []any{"svc"}, "options": []any{"ndots:5"}}
		w.cluster(object{"cniVersion": "1.1.0", "result": result})
		attached := withMAC("02:00:00:00:00:02", "10.2.0.2/24", "")
		attached["interfaces"].([]any)[0].(object)["mtu"] = 1400
		w.nad("default/a", w.recorder(object{"cniVersion": "1.1.0", "result": attached}))
		w.annotate(networks, "a,b")
		w.must("ADD")

		golden.Compare(t, "S3", w.statusText())
	})
}

func TestStatus(t *testing.T) {
	t.Parallel()
	const cluster = `{"name":"cluster","interface":"eth0","ips":["10.1.0.2"],"default":true,"dns":{}}`
	self := func(name, mac string) object { return object{"name": name, "mac": mac, "sandbox": "self"} }
	// Each is the status of default/a, whose delegate has this result.
	attached := map[string]struct {
		result object
		want   []string
	}{
		"S4 two interfaces in the sandbox": {
			result: object{
				"interfaces": []any{object{"name": "veth1"}, self("", "02:00:00:00:00:02"), self("net1b", "02:00:00:00:00:03")},
				"ips":        []any{object{"address": "10.2.0.2/24", "interface": 1}, object{"address": "10.2.1.2/24", "interface": 2}, object{"address": "fd00:2::2/64", "interface": 1}},
			},
			want: []string{
				`{"name":"default/a","interface":"net1","ips":["10.2.0.2","fd00:2::2"],"mac":"02:00:00:00:00:02","dns":{}}`,
				`{"name":"default/a","interface":"net1b","ips":["10.2.1.2"],"mac":"02:00:00:00:00:03","dns":{}}`,
			},
		},
		"S6 addresses without interface belong to the last": {
			result: object{
				"interfaces": []any{self("", "02:00:00:00:00:02"), self("net1b", "02:00:00:00:00:03")},
				"ips":        []any{object{"address": "10.2.0.2/24", "interface": 0}, object{"address": "10.2.1.2/24"}},
			},
			want: []string{
				`{"name":"default/a","interface":"net1","ips":["10.2.0.2"],"mac":"02:00:00:00:00:02","dns":{}}`,
				`{"name":"default/a","interface":"net1b","ips":["10.2.1.2"],"mac":"02:00:00:00:00:03","dns":{}}`,
			},
		},
		"S7 an interface outside the sandbox": {
			result: object{"interfaces": []any{object{"name": "veth1", "mac": "02:00:00:00:00:02"}}, "ips": []any{object{"address": "10.2.0.2/24", "interface": 0}}},
			want:   []string{`{"name":"default/a","interface":"net1","ips":["10.2.0.2"],"dns":{}}`},
		},
		"S7 no interface at all": {
			result: object{"interfaces": []any{}},
			want:   []string{`{"name":"default/a","interface":"net1","dns":{}}`},
		},
		"S9 a default route without gateway adds none": {
			result: object{"ips": []any{object{"address": "10.2.0.2/24"}}, "routes": []any{object{"dst": "0.0.0.0/0"}}},
			want:   []string{`{"name":"default/a","interface":"net1","ips":["10.2.0.2"],"dns":{}}`},
		},
		"S9 a default route with gateway": {
			result: object{"ips": []any{object{"address": "10.2.0.2/24"}}, "routes": []any{object{"dst": "0.0.0.0/0", "gw": "10.2.0.1"}, object{"dst": "10.0.0.0/8", "gw": "10.2.0.3"}}},
			want:   []string{`{"name":"default/a","interface":"net1","ips":["10.2.0.2"],"dns":{},"gateway":["10.2.0.1"]}`},
		},
		"S10 DNS and MTU": {
			result: object{
				"interfaces": []any{object{"sandbox": "self", "mac": "02:00:00:00:00:02", "mtu": 9000}},
				"dns":        object{"nameservers": []any{"10.2.0.53"}, "domain": "lan", "search": []any{"a.lan"}, "options": []any{"rotate"}},
			},
			want: []string{`{"name":"default/a","interface":"net1","mac":"02:00:00:00:00:02","mtu":9000,"dns":{"nameservers":["10.2.0.53"],"domain":"lan","search":["a.lan"],"options":["rotate"]}}`},
		},
	}
	for name, tc := range attached {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.nad("default/a", w.recorder(object{"cniVersion": "1.1.0", "result": tc.result}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectStatus(append([]string{cluster}, tc.want...)...)
		})
	}
	scenarios(t, map[string]func(*world){
		"S5 the default interface is the one whose address has a gateway": func(w *world) {
			w.cluster(object{"result": object{
				"interfaces": []any{self("", "02:00:00:00:00:01"), self("eth0b", "02:00:00:00:00:02")},
				"ips":        []any{object{"address": "10.1.0.2/24", "interface": 0}, object{"address": "10.1.1.2/24", "gateway": "10.1.1.1", "interface": 1}},
			}})
			w.must("ADD")
			w.expectStatus(
				`{"name":"cluster","interface":"eth0","ips":["10.1.0.2"],"mac":"02:00:00:00:00:01","dns":{}}`,
				`{"name":"cluster","interface":"eth0b","ips":["10.1.1.2"],"mac":"02:00:00:00:00:02","default":true,"dns":{}}`,
			)
		},
		"S5 without any gateway the default interface is the first": func(w *world) {
			w.cluster(object{"result": object{
				"interfaces": []any{self("", "02:00:00:00:00:01"), self("eth0b", "02:00:00:00:00:02")},
				"ips":        []any{object{"address": "10.1.1.2/24", "interface": 1}},
			}})
			w.must("ADD")
			w.expectStatus(
				`{"name":"cluster","interface":"eth0","mac":"02:00:00:00:00:01","default":true,"dns":{}}`,
				`{"name":"cluster","interface":"eth0b","ips":["10.1.1.2"],"mac":"02:00:00:00:00:02","dns":{}}`,
			)
		},
		"S7 a result of CNI 0.2.0": func(w *world) {
			w.nad("default/a", w.recorder(object{"cniVersion": "0.2.0", "result": object{
				"interfaces": []any{self("", "02:00:00:00:00:02")}, "ips": []any{object{"address": "10.2.0.2/24"}},
			}}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectStatus(cluster, `{"name":"default/a","interface":"net1","ips":["10.2.0.2"],"dns":{}}`)
		},
		"S10 device-info": func(w *world) {
			w.nad("default/a", w.recorder(object{
				"capabilities": object{"CNIDeviceInfoFile": true},
				"result":       object{"interfaces": []any{object{"sandbox": "self", "mac": "02:00:00:00:00:02"}}},
				"deviceInfo":   object{"type": "pci", "version": "1.1.0", "pci": object{"pci-address": "0000:03:02.1", "pf-pci-address": "0000:03:00.0"}},
			}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectStatus(cluster, `{"name":"default/a","interface":"net1","mac":"02:00:00:00:00:02","dns":{},`+
				`"device-info":{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.1","pf-pci-address":"0000:03:00.0"}}}`)
			w.must("DEL")
		},
		"S11 a pod of kube-system gets no status": func(w *world) {
			w.become("kube-system", "dns")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0")
			w.expect("network status", "", w.statusText())
		},
		"S11 a pod called kube-system gets one": func(w *world) {
			w.become("default", "kube-system")
			w.must("ADD")
			w.expectStatus(cluster)
		},
		"S11 systemNamespaces replaces kube-system": func(w *world) {
			w.conf["systemNamespaces"] = []string{"default"}
			w.must("ADD")
			w.expect("network status", "", w.statusText())
			w.must("DEL")
			w.become("kube-system", "dns")
			w.must("ADD")
			w.expectStatus(cluster)
		},
	})
}

func decode(t *testing.T, text string) object {
	t.Helper()
	var v object
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}
