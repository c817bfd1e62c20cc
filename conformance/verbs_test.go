// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// Codes of CNI 1.1.0 §5 for STATUS.
const (
	notAvailable        = 50
	limitedConnectivity = 51
)

func TestCHECK(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"V1 the default network alone": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "on": failing("CHECK")}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.calls()
			w.must("CHECK")
			w.expectCalls("CHECK cluster eth0")
		},
		"V1 a plugin that has no CHECK": func(w *world) {
			w.cluster(object{"on": object{"CHECK": object{"error": object{"code": 999, "msg": "CNI CHECK method is not implemented"}}}})
			w.must("ADD")
			w.must("CHECK")
		},
		"V1 every attachment, with the result of its ADD": func(w *world) {
			w.conf["checkNetworks"] = "all"
			w.annotate(networks, "a,b@x2")
			w.must("ADD")
			w.calls()
			w.remove("manifests")
			w.must("CHECK")
			calls := w.expectCalls("CHECK cluster eth0", "CHECK a net1", "CHECK b x2")
			for i, ip := range []string{`"10.1.0.2/24","gateway":"10.1.0.1"`, `"10.2.0.2/24"`, `"10.3.0.2/24"`} {
				c := calls[i]
				w.expectJSON("prevResult for "+c.String(), fmt.Sprintf(`{"cniVersion":"1.0.0","interfaces":[{"name":%q,"sandbox":%q}],"ips":[{"address":%s}]}`, c.IfName, w.netns, ip), c.Config["prevResult"])
			}
		},
		"V1 without libcni's cache": func(w *world) {
			w.conf["checkNetworks"] = "all"
			w.annotate(networks, "a")
			w.must("ADD")
			w.calls()
			w.remove("state/results")
			w.must("CHECK")
			for _, c := range w.expectCalls("CHECK cluster eth0", "CHECK a net1") {
				if c.Config["prevResult"] == nil {
					w.t.Errorf("%s got no prevResult", c)
				}
			}
		},
		"V1 an attachment that is too old for it, or does not want it, is passed over": func(w *world) {
			w.conf["checkNetworks"] = "all"
			w.nad("default/a", w.recorder(object{"name": "a", "cniVersion": "0.3.1"}))
			w.nad("default/b", object{"name": "b", "disableCheck": true, "plugins": []any{w.recorder(nil)}})
			w.annotate(networks, "a,b,other/c")
			w.must("ADD")
			w.calls()
			w.must("CHECK")
			w.expectCalls("CHECK cluster eth0", "CHECK c net3")
		},
		"V2 an attachment that fails": func(w *world) {
			w.conf["checkNetworks"] = "all"
			w.nad("default/a", w.recorder(object{"name": "a", "on": failing("CHECK")}))
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			before := w.left()
			details := w.mustFail("CHECK", 123, "pod default/web", "default/a", "net1", "no carrier")
			w.expect("details", "link 7", details)
			w.expect("state", before, w.left())
			w.must("DEL")
			w.expectNothingLeft()
		},
		"V2 a container that is not known": func(w *world) {
			w.mustFail("CHECK", types.ErrUnknownContainer, "pod default/web", w.containerID, "eth0")
		},
	})
}

// version11 makes the configuration one of CNI 1.1.0, which STATUS and GC need. Neither gets CNI_ARGS (V7), nor a container.
func (w *world) version11() {
	w.conf["cniVersion"] = "1.1.0"
	w.args, w.netns, w.ifName = "", "", ""
}

func TestSTATUS(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"V3 the default network's code is passed on": func(w *world) {
			w.cluster(object{"cniVersion": "1.1.0", "on": object{"STATUS": object{"error": object{"code": limitedConnectivity, "msg": "no route", "details": "link 7"}}}})
			w.version11()
			details := w.mustFail("STATUS", limitedConnectivity, "cluster", "no route")
			w.expect("details", "link 7", details)
			w.expectCalls("STATUS cluster")
		},
		"V3 the default network is well": func(w *world) {
			w.cluster(object{"cniVersion": "1.1.0"})
			w.version11()
			w.expect("stdout", "", w.must("STATUS"))
			w.expectCalls("STATUS cluster")
		},
		"V3 each plugin of the default network, up to the first that fails": func(w *world) {
			w.conf["delegates"] = []any{object{"name": "cluster", "cniVersion": "1.1.0", "plugins": []any{
				w.recorder(object{"tag": "one"}), w.recorder(object{"tag": "two", "on": failing("STATUS")}), w.recorder(object{"tag": "three"}),
			}}}
			w.version11()
			w.mustFail("STATUS", 123, "no carrier")
			w.expectCalls("STATUS cluster/one", "STATUS cluster/two")
		},
		"V3 the default network is a NAD": func(w *world) {
			delete(w.conf, "delegates")
			w.conf["clusterNetwork"] = "main"
			w.nad("kube-system/main", w.recorder(object{"name": "main", "cniVersion": "1.1.0"}))
			w.version11()
			w.must("STATUS")
			w.expectCalls("STATUS main")
		},
		"V3 the default network is a NAD that is not there": func(w *world) {
			delete(w.conf, "delegates")
			w.conf["clusterNetwork"] = "main"
			w.version11()
			w.mustFail("STATUS", notAvailable, "clusterNetwork", "main")
			w.expectCalls()
		},
		"V4 a delegate older than 1.1.0 is not asked": func(w *world) {
			w.cluster(object{"on": failing("STATUS")})
			w.version11()
			w.must("STATUS")
			w.expectCalls()
		},
		"V4 a delegate that is not there": func(w *world) {
			w.conf["delegates"] = []any{object{"type": "absent", "name": "cluster", "cniVersion": "1.0.0"}}
			w.version11()
			w.failed(w.call("STATUS"), notAvailable, `"absent"`, w.path("bin"))
		},
		"V7 STATUS without CNI_ARGS, by reference": func(w *world) {
			w.byReference(w.write("net.d/x.conf", w.recorder(object{"name": "x", "cniVersion": "1.1.0"})))
			w.version11()
			w.must("STATUS")
			w.expectCalls("STATUS x")
		},
		"V7 STATUS without CNI_ARGS, by name": func(w *world) {
			w.byReference("x")
			delete(w.conf, "manifestDir")
			w.write("conf/x.conf", w.recorder(object{"name": "x", "cniVersion": "1.1.0"}))
			w.version11()
			w.must("STATUS")
			w.expectCalls("STATUS x")
		},
		"V8 STATUS says that the readiness file is missing": func(w *world) {
			w.cluster(object{"cniVersion": "1.1.0"})
			w.conf["readinessindicatorfile"] = w.path("ready")
			w.version11()
			w.mustFail("STATUS", notAvailable, "readinessindicatorfile", w.path("ready"))
			w.expectCalls()
			w.write("ready", "")
			w.must("STATUS")
			w.expectCalls("STATUS cluster")
		},
		"V8 ADD waits for the readiness file, woken by the kernel": func(w *world) {
			w.conf["readinessindicatorfile"] = w.path("run/cni/ready")
			add := w.start("ADD", w.conf)
			w.awaitInotify(add)
			w.mkdir("run/cni")
			w.expectCalls()
			w.write("run/cni/ready", "")
			w.succeeded(add.wait())
			w.expectCalls("ADD cluster eth0")
		},
		"V8 ADD that waits for the readiness file can be given up": func(w *world) {
			w.conf["readinessindicatorfile"] = w.path("ready")
			add := w.start("ADD", w.conf)
			w.awaitInotify(add)
			if err := add.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				w.t.Fatal(err)
			}
			w.failed(add.wait(), types.ErrTryAgainLater, "pod default/web", "readinessindicatorfile", w.path("ready"))
			w.expectCalls()
			w.expectNothingLeft()
		},
		"V8 DEL does not wait for the readiness file": func(w *world) {
			w.must("ADD")
			w.calls()
			w.conf["readinessindicatorfile"] = w.path("ready")
			w.must("DEL")
			w.expectCalls("DEL cluster eth0")
		},
	})
}

// awaitInotify waits until a call waits for a change in the file system.
func (w *world) awaitInotify(p *process) {
	w.t.Helper()
	eventually(w.t, "the call does not wait for the file", func() bool {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, fd := range fds {
			// The link's error says that the descriptor was closed meanwhile.
			if link, err := os.Readlink(fd); err != nil || !strings.Contains(link, "inotify") {
				continue
			}
			info, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
			if err == nil && strings.Contains(string(info), "inotify wd:") {
				return true
			}
		}
		return false
	})
}

// gc sets the configuration up for a GC in which the containers given are alive.
func (w *world) gc(alive ...string) {
	valid := []any{}
	for _, id := range alive {
		valid = append(valid, object{"containerID": id, "ifname": "eth0"})
	}
	w.version11()
	w.conf["cni.dev/valid-attachments"] = valid
	w.containerID = ""
}

// valid is what a delegate is told by GC, as "container interface", sorted and each once.
func valid(t *testing.T, r recorded, key string) []string {
	t.Helper()
	var list []types.GCAttachment
	if err := json.Unmarshal([]byte(asJSON(t, r.Config[key])), &list); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range list {
		all = append(all, a.ContainerID+" "+a.IfName)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestGC(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"V5 on a fresh node": func(w *world) {
			netns := w.netns
			w.gc()
			w.expect("stdout", "", w.must("GC"))
			w.expectCalls()
			w.netns = netns
			w.expectNothingLeft()
		},
		"V5 on a fresh node, the default network hears of it": func(w *world) {
			w.cluster(object{"cniVersion": "1.1.0"})
			w.gc()
			w.must("GC")
			call := w.expectCalls("GC cluster")[0]
			w.expect("valid attachments", []string(nil), valid(w.t, call, "cni.dev/valid-attachments"))
		},
		"V7 without CNI_ARGS, nothing is alive": func(w *world) {
			netns := w.netns
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			w.gc()
			w.must("GC")
			w.expectCalls("DEL b net2", "DEL a net1", "DEL cluster eth0")
			w.netns = netns
			w.expectNothingLeft()
		},
		"stale containers get DEL, living ones are told of with all their interfaces": func(w *world) {
			w.cluster(object{"cniVersion": "1.1.0"})
			for _, n := range []string{"a", "b"} {
				w.nad("default/"+n, w.recorder(object{"name": n, "cniVersion": "1.1.0"}))
			}
			w.annotate(networks, "a,b@x2")
			w.must("ADD")
			living := w.containerID
			before := w.left()
			w.containerID += "stale"
			w.identify()
			w.must("ADD")
			w.calls()
			w.gc(living)
			w.must("GC")
			calls := w.calls()
			var got []string
			for _, c := range calls {
				got = append(got, c.String())
			}
			w.expect("first calls", []string{"DEL b x2", "DEL a net1", "DEL cluster eth0"}, got[:3])
			slices.Sort(got[3:])
			w.expect("last calls", []string{"GC a", "GC b", "GC cluster"}, got[3:])
			alive := map[string]string{"GC cluster": "eth0", "GC a": "net1", "GC b": "x2"}
			for _, c := range calls[3:] {
				for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
					w.expect(key+" for "+c.String(), []string{living + " " + alive[c.String()]}, valid(w.t, c, key))
				}
			}
			w.expect("state", before, w.left())
		},
		"what can not be collected is told, kept, and the rest collected": func(w *world) {
			netns := w.netns
			w.write("broken", "")
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{
				"DEL": object{"while": w.path("broken"), "error": object{"code": 123, "msg": "device busy"}},
			}}))
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			id := w.containerID
			w.gc()
			w.mustFail("GC", 123, id, "default/a", "device busy")
			w.expectCalls("DEL b net2", "DEL a net1", "DEL cluster eth0")
			w.remove("broken")
			w.must("GC")
			w.expectCalls("DEL a net1")
			w.netns = netns
			w.expectNothingLeft()
		},
		"a delegate's failing GC is told": func(w *world) {
			w.cluster(object{"cniVersion": "1.1.0", "on": failing("GC")})
			w.gc()
			w.mustFail("GC", 123, "cluster", "no carrier")
		},
		"another configuration's containers are not touched": func(w *world) {
			w.must("ADD")
			w.calls()
			before := w.left()
			w.conf["name"] = "other"
			w.gc()
			w.must("GC")
			w.expectCalls()
			w.expect("state", before, w.left())
		},
		"without a list nothing can be told from stale": func(w *world) {
			w.must("ADD")
			w.calls()
			w.gc()
			delete(w.conf, "cni.dev/valid-attachments")
			w.mustFail("GC", types.ErrInvalidNetworkConfig, "cni.dev/valid-attachments")
			w.expectCalls()
		},
	})
}

func TestVERSION(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := decode(t, w.succeeded(w.start("VERSION", "").wait()))
	w.expectJSON("VERSION", `{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}`, got)
}
