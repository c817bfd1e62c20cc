// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// failing makes a verb fail like a plugin does.
func failing(verb string) object {
	return object{verb: object{"error": object{"code": 123, "msg": "no carrier", "details": "link 7"}}}
}

// recordFile is the file of the sandbox's record.
func (w *world) recordFile() string {
	return "state/records/" + w.containerID + "-" + w.ifName + ".json"
}

func TestFailureOfADD(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"D1 the second of three networks fails": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "on": failing("ADD")}))
			w.annotate(networks, "a,b")
			details := w.mustFail("ADD", 123, "pod default/web", "default/a", "net1", "no carrier")
			w.expect("details", "link 7", details)
			w.expectCalls("ADD cluster eth0", "ADD a net1", "DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
			w.expect("network status", "", w.statusText())
			w.must("DEL")
			w.expectCalls()
		},
		"D1 the default network fails": func(w *world) {
			w.cluster(object{"on": failing("ADD")})
			w.annotate(networks, "a,b")
			w.mustFail("ADD", 123, "pod default/web", "cluster", "eth0", "no carrier")
			w.expectCalls("ADD cluster eth0", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"D1 the last of three networks fails": func(w *world) {
			w.nad("default/b", w.recorder(object{"name": "b", "on": failing("ADD")}))
			w.annotate(networks, "a,b")
			w.mustFail("ADD", 123, "default/b", "net2")
			w.expectCalls("ADD cluster eth0", "ADD a net1", "ADD b net2", "DEL b net2", "DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"D1 the second plugin of a list fails": func(w *world) {
			w.nad("default/a", object{"name": "a", "plugins": []any{
				w.recorder(object{"tag": "one"}), w.recorder(object{"tag": "two", "on": failing("ADD")}), w.recorder(object{"tag": "three"}),
			}})
			w.annotate(networks, "a")
			w.mustFail("ADD", 123, "default/a", "no carrier")
			w.expectCalls("ADD cluster eth0", "ADD a/one net1", "ADD a/two net1", "DEL a/three net1", "DEL a/two net1", "DEL a/one net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"D1 what can not be undone is kept for DEL, and does not hide the cause": func(w *world) {
			heal := w.write("broken", "")
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{
				"ADD": object{"while": heal, "error": object{"code": 123, "msg": "no carrier"}},
				"DEL": object{"while": heal, "error": object{"code": 124, "msg": "device busy"}},
			}}))
			w.annotate(networks, "a,b")
			w.mustFail("ADD", 123, "no carrier", "device busy", "the next DEL tries again")
			w.expectCalls("ADD cluster eth0", "ADD a net1", "DEL a net1", "DEL cluster eth0")
			w.expect("state", []string{w.recordFile()}, w.left())
			w.remove("broken")
			w.must("DEL")
			w.expectCalls("DEL a net1")
			w.expectNothingLeft()
		},
		"a plugin that is not there fails before any runs": func(w *world) {
			w.nad("default/a", object{"name": "a", "type": "absent"})
			w.annotate(networks, "b,a")
			w.expectRefused(types.ErrInvalidNetworkConfig, "default/a", `"absent"`, w.path("bin"), "install it there")
		},
		"D13 an ADD that is repeated undoes the first": func(w *world) {
			w.annotate(networks, "a")
			w.must("ADD")
			w.expectCalls("ADD cluster eth0", "ADD a net1")
			w.annotate(networks, "b")
			w.must("ADD")
			w.expectCalls("DEL a net1", "DEL cluster eth0", "ADD cluster eth0", "ADD b net1")
			w.must("DEL")
			w.expectCalls("DEL b net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"D17 another UID at ADD": func(w *world) {
			w.uid = "uid-of-the-former"
			w.identify()
			w.expectRefused(types.ErrTryAgainLater, "pod default/web", "uid-of-web", "uid-of-the-former")
		},
		"D17 a static pod has a mirror with another UID": func(w *world) {
			w.annotate("kubernetes.io/config.mirror", "uid-of-the-file")
			w.uid = "uid-of-the-file"
			w.identify()
			w.must("ADD")
			w.expectCalls("ADD cluster eth0")
		},
		"D17 a pod that says that it is static is none": func(w *world) {
			w.annotate("kubernetes.io/config.source", "file")
			w.annotate("kubernetes.io/config.mirror", "uid-of-a-file")
			w.uid = "uid-of-the-former"
			w.identify()
			w.expectRefused(types.ErrTryAgainLater, "uid-of-the-former")
		},
		"a pod that is not known is tried again": func(w *world) {
			w.remove("manifests/Pod-default-web.yaml")
			w.expectRefused(types.ErrTryAgainLater, "pod default/web", w.path("manifests"))
		},
	})
}

func TestDEL(t *testing.T) {
	t.Parallel()
	all := []string{"DEL b net2", "DEL a net1", "DEL cluster eth0"}
	// Each changes something between ADD and DEL of three networks, which then has to go well all the same.
	tests := map[string]func(*world){
		"D2 pod and NADs are gone": func(w *world) {
			w.remove("manifests")
			w.remove("conf")
		},
		"D9 without a sandbox":                    func(w *world) { w.netns = "" },
		"D9 the sandbox is gone":                  func(w *world) { w.netns = w.path("gone") },
		"D9 the sandbox is no namespace":          func(w *world) { w.netns = w.write("gone", "") },
		"D10 another UID":                         func(w *world) { w.uid = "uid-of-the-next"; w.identify() },
		"D10 without CNI_ARGS":                    func(w *world) { w.args = "" },
		"D4 the record is gone":                   func(w *world) { w.remove(w.recordFile()) },
		"D4 libcni's cache is gone":               func(w *world) { w.remove("state/results") },
		"the configuration's delegate is another": func(w *world) { w.cluster(object{"name": "new", "on": failing("DEL")}) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.annotate(networks, "a,b")
			w.must("ADD")
			adds := w.expectCalls("ADD cluster eth0", "ADD a net1", "ADD b net2")
			sandbox := w.netns
			change(w)
			w.must("DEL")
			dels := w.expectCalls(all...)
			for i, d := range dels {
				add := adds[len(adds)-1-i]
				w.expect("CNI_ARGS of "+d.String(), add.Args, d.Args)
				if strings.HasPrefix(name, "D9") {
					w.netns = "" // what is no namespace, or no longer, is none: plugins fail on it for ever
				}
				w.expect("CNI_NETNS of "+d.String(), w.netns, d.NetNS)
			}
			w.netns = sandbox
			w.expectNothingLeft()
		})
	}
	scenarios(t, map[string]func(*world){
		"D3 twice": func(w *world) {
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			w.must("DEL")
			w.expectCalls(all...)
			w.must("DEL")
			w.expectCalls()
			w.expectNothingLeft()
		},
		"D5 nothing is known": func(w *world) {
			w.must("DEL")
			w.expectCalls()
			w.expectNothingLeft()
		},
		"D5 all state is gone": func(w *world) {
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			w.remove("state")
			w.must("DEL")
			w.expectCalls()
			w.expectNothingLeft()
		},
		"D8 the middle one fails": func(w *world) {
			w.write("broken", "")
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{
				"DEL": object{"while": w.path("broken"), "error": object{"code": 123, "msg": "device busy", "details": "link 7"}},
			}}))
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			details := w.mustFail("DEL", 123, "pod default/web", "default/a", "net1", "device busy")
			w.expect("details", "link 7", details)
			w.expectCalls(all...)
			w.expect("state", []string{w.recordFile(), "state/results/a-" + w.containerID + "-net1"}, w.left())
			w.mustFail("DEL", 123, "device busy")
			w.expectCalls("DEL a net1")
			w.remove("broken")
			w.must("DEL")
			w.expectCalls("DEL a net1")
			w.expectNothingLeft()
		},
		"D8 two fail, the code is one's and the text both's": func(w *world) {
			for _, n := range []string{"a", "b"} {
				w.nad("default/"+n, w.recorder(object{"name": n, "on": failing("DEL")}))
			}
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			w.mustFail("DEL", 123, "default/a", "default/b")
			w.expectCalls(all...)
		},
		"a delegate gets the result of its own ADD": func(w *world) {
			w.annotate(networks, "a")
			w.must("ADD")
			w.calls()
			w.must("DEL")
			a := w.expectCalls("DEL a net1", "DEL cluster eth0")[0]
			w.expectJSON("prevResult", `{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"`+w.netns+`"}],"ips":[{"address":"10.2.0.2/24"}]}`, a.Config["prevResult"])
		},
	})
}

// legacyState writes what the meta-plugin that was here before leaves of a sandbox with three networks: a bare plugin, a list as its
// older versions have it, and one as its newer ones do.
func (w *world) legacyState() {
	w.t.Helper()
	plugin := func(name, tag string) object {
		return w.recorder(object{"cniVersion": "0.4.0", "name": name, "tag": tag})
	}
	bytes := func(v any) []byte { return []byte(asJSON(w.t, v)) }
	list := func(name string, plugins ...any) object {
		return object{"cniVersion": "0.4.0", "name": name, "plugins": plugins}
	}
	first, old, recent := plugin("flannel", "bare"), list("old", plugin("", "one"), plugin("", "two")), list("recent", plugin("", "one"))
	w.write("legacy/"+w.containerID, []any{
		object{"Conf": first, "ConfList": object{}, "Name": "flannel", "MasterPlugin": true, "Bytes": bytes(first)},
		object{"Conf": object{}, "ConfList": old, "Name": "default/old", "ifnameRequest": "x1", "Bytes": bytes(old), "macRequest": "02:00:00:00:00:09"},
		object{"Conf": object{}, "ConfList": recent, "Name": "default/recent", "Bytes": bytes(recent), "CNINetworkConfigList": object{
			"Name": "recent", "CNIVersion": "0.4.0", "DisableCheck": false, "Bytes": bytes(recent),
			// The second plugin is of the list's folder, and only here.
			"Plugins": []any{object{"Bytes": bytes(plugin("", "one"))}, object{"Bytes": bytes(plugin("", "chained"))}},
		}},
	})
	for _, a := range []struct {
		network, ifName string
		config          object
	}{{"flannel", "eth0", first}, {"old", "x1", old}, {"recent", "net2", recent}} {
		w.write("legacy/results/"+a.network+"-"+w.containerID+"-"+a.ifName, object{
			"kind": "cniCacheV1", "containerId": w.containerID, "config": bytes(a.config), "ifName": a.ifName, "networkName": a.network,
			"netns": w.netns, "cniArgs": [][2]string{{"IgnoreUnknown", "true"}, {"OF", a.network}},
			"result": object{"cniVersion": "0.4.0", "interfaces": []any{object{"name": a.ifName, "sandbox": w.netns}}, "dns": object{}},
		})
	}
}

func TestStateOfTheFormerMetaPlugin(t *testing.T) {
	t.Parallel()
	dels := []string{"DEL recent/chained net2", "DEL recent/one net2", "DEL old/two x1", "DEL old/one x1", "DEL flannel/bare eth0"}
	scenarios(t, map[string]func(*world){
		"D12 DEL": func(w *world) {
			w.legacyState()
			w.must("DEL")
			calls := w.expectCalls(dels...)
			w.expect("CNI_ARGS", "IgnoreUnknown=true;OF=recent", calls[0].Args)
			w.expectJSON("prevResult", `{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"`+w.netns+`"}],"dns":{}}`, calls[4].Config["prevResult"])
			w.expectNothingLeft()
			w.must("DEL")
			w.expectCalls()
		},
		"D12 CHECK": func(w *world) {
			w.legacyState()
			w.conf["checkNetworks"] = "all"
			w.must("CHECK")
			w.expectCalls("CHECK flannel/bare eth0", "CHECK old/one x1", "CHECK old/two x1", "CHECK recent/one net2", "CHECK recent/chained net2")
		},
		"D12 GC": func(w *world) {
			netns := w.netns
			w.netns = w.path("gone") // that of the state
			w.legacyState()
			w.netns = netns
			w.conf["cniVersion"] = "1.1.0"
			w.conf["cni.dev/valid-attachments"] = []any{}
			w.must("GC")
			w.expectCalls(dels...)
			w.expectNothingLeft()
		},
		"D12 GC of a container that another runtime may run": func(w *world) {
			w.legacyState() // its namespace lives
			before := w.left()
			w.conf["cniVersion"] = "1.1.0"
			w.conf["cni.dev/valid-attachments"] = []any{}
			w.must("GC")
			w.expectCalls()
			w.expect("state", before, w.left())
		},
		"D12 GC of a living container": func(w *world) {
			w.legacyState()
			before := w.left()
			w.conf["cniVersion"] = "1.1.0"
			w.conf["cni.dev/valid-attachments"] = []any{object{"containerID": w.containerID, "ifname": "eth0"}}
			w.must("GC")
			w.expectCalls()
			w.expect("state", before, w.left())
		},
		"D12 a repeated ADD undoes it": func(w *world) {
			w.legacyState()
			w.must("ADD")
			w.expectCalls(append(dels, "ADD cluster eth0")...)
			w.must("DEL")
			w.expectCalls("DEL cluster eth0")
			w.expectNothingLeft()
		},
		"D12 a state file that can not be read is made up for from libcni's cache": func(w *world) {
			w.legacyState()
			w.write("legacy/"+w.containerID, "[{")
			w.must("DEL")
			w.expectCalls("DEL old/two x1", "DEL old/one x1", "DEL recent/one net2", "DEL flannel/bare eth0")
			w.expectNothingLeft()
		},
		"D12 what can not be undone is kept": func(w *world) {
			w.write("broken", "")
			conf := w.recorder(object{"cniVersion": "0.4.0", "name": "flannel", "on": object{
				"DEL": object{"while": w.path("broken"), "error": object{"code": 123, "msg": "device busy"}},
			}})
			w.write("legacy/"+w.containerID, []any{object{"Name": "flannel", "Bytes": []byte(asJSON(w.t, conf))}})
			w.mustFail("DEL", 123, "device busy")
			w.expectCalls("DEL flannel eth0")
			w.remove("broken")
			w.must("DEL")
			w.expectCalls("DEL flannel eth0")
			w.expectNothingLeft()
		},
	})
}

func TestCrash(t *testing.T) {
	t.Parallel()
	// Each kills the plugin in the middle of its second delegate, which lives on, and holds the sandbox's lock.
	crash := func(w *world) *visitor {
		w.t.Helper()
		g := newGate(w.t)
		w.write("crash", "")
		w.nad("default/a", w.recorder(object{"name": "a", "on": object{"ADD": object{"while": w.path("crash"), "wait": g.path}}}))
		w.annotate(networks, "a,b")
		add := w.start("ADD", w.conf)
		orphan := g.await()
		add.kill()
		w.expectCalls("ADD cluster eth0", "ADD a net1")
		w.remove("crash")
		return orphan
	}
	// Whether b was begun is not known after a crash, so that its DEL is due as well.
	undone := []string{"DEL b net2", "DEL a net1", "DEL cluster eth0"}
	scenarios(t, map[string]func(*world){
		"D15 killed between delegates, then DEL": func(w *world) {
			crash(w).kill()
			w.must("DEL")
			w.expectCalls(undone...)
			w.expectNothingLeft()
		},
		"D13 killed between delegates, then ADD again": func(w *world) {
			crash(w).kill()
			w.must("ADD")
			w.expectCalls(append(undone, "ADD cluster eth0", "ADD a net1", "ADD b net2")...)
			w.must("CHECK")
			w.must("DEL")
			w.calls()
			w.expectNothingLeft()
		},
		"D15 killed between delegates, then GC": func(w *world) {
			crash(w).kill()
			w.conf["cniVersion"] = "1.1.0"
			w.conf["cni.dev/valid-attachments"] = []any{}
			w.must("GC")
			w.expectCalls(undone...)
			w.expectNothingLeft()
		},
		"D15 killed between delegates, then CHECK": func(w *world) {
			crash(w).kill()
			w.mustFail("CHECK", types.ErrInternal, "pod default/web", "ADD did not complete")
			w.expectCalls()
		},
		"D15 DEL waits until the delegate that was left behind has ended": func(w *world) {
			orphan := crash(w)
			del := w.start("DEL", w.conf)
			w.awaitFlock(del)
			w.expectCalls()
			orphan.release()
			w.succeeded(del.wait())
			w.expectCalls(undone...)
			w.expectNothingLeft()
		},
		"D15 killed in DEL, then DEL again": func(w *world) {
			g := newGate(w.t)
			w.write("crash", "")
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{"DEL": object{"while": w.path("crash"), "wait": g.path}}}))
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			del := w.start("DEL", w.conf)
			orphan := g.await()
			del.kill()
			orphan.kill()
			w.expectCalls("DEL b net2", "DEL a net1")
			w.remove("crash")
			w.must("DEL")
			w.expectCalls(undone...)
			w.expectNothingLeft()
		},
		"a runtime that gives up: ADD is undone, and its delegate ended": func(w *world) {
			g := newGate(w.t)
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{"ADD": object{"wait": g.path}}}))
			w.annotate(networks, "a,b")
			add := w.start("ADD", w.conf)
			delegate := g.await()
			if err := add.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				w.t.Fatal(err)
			}
			w.failed(add.wait(), types.ErrTryAgainLater, "pod default/web", "default/a", "cancelled")
			delegate.awaitEnd()
			w.expectCalls("ADD cluster eth0", "ADD a net1", "DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"two calls about one sandbox follow each other": func(w *world) {
			g := newGate(w.t)
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{"ADD": object{"wait": g.path}}}))
			w.annotate(networks, "a")
			add := w.start("ADD", w.conf)
			delegate := g.await()
			del := w.start("DEL", w.conf)
			w.awaitFlock(del)
			w.expectCalls("ADD cluster eth0", "ADD a net1")
			delegate.release()
			w.succeeded(add.wait())
			w.succeeded(del.wait())
			w.expectCalls("DEL a net1", "DEL cluster eth0")
			w.expectNothingLeft()
		},
		"calls about two sandboxes do not": func(w *world) {
			g := newGate(w.t)
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{"ADD": object{"wait": g.path}}}))
			w.annotate(networks, "a")
			add := w.start("ADD", w.conf)
			delegate := g.await()
			other := *w
			other.containerID += "2"
			other.identify()
			other.annotate(networks, "b")
			other.must("ADD")
			other.must("DEL")
			delegate.release()
			w.succeeded(add.wait())
			w.must("DEL")
			w.expectNothingLeft()
		},
	})
}
