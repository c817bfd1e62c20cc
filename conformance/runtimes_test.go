// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// TestSandboxesOfOneContainer: an attachment is a container ID and an interface name. go-cni, nerdctl and ocicni attach one container to
// several configurations, as eth0, eth1 and so on.
func TestSandboxesOfOneContainer(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"D20 ADD of a second interface leaves the first alone": func(w *world) {
			w.must("ADD")
			w.expectCalls("ADD cluster eth0")
			w.ifName = "eth1"
			w.must("ADD")
			w.expectCalls("ADD cluster eth1")
			w.must("DEL")
			w.expectCalls("DEL cluster eth1")
			w.must("DEL")
			w.expectCalls()
			w.ifName = "eth0"
			w.must("DEL")
			w.expectCalls("DEL cluster eth0")
			w.expectNothingLeft()
		},
		"D20 DEL of an interface that nobody knows": func(w *world) {
			w.must("ADD")
			w.calls()
			w.ifName = "eth1"
			w.must("DEL")
			w.expectCalls()
		},
		"D20 the record of one is lost": func(w *world) {
			w.must("ADD")
			w.remove(w.recordFile())
			w.ifName = "eth1"
			w.must("ADD")
			w.must("DEL")
			w.expectCalls("ADD cluster eth0", "ADD cluster eth1", "DEL cluster eth1")
			w.ifName = "eth0"
			w.must("DEL")
			w.expectCalls("DEL cluster eth0")
			w.expectNothingLeft()
		},
		"D20 of an entry of libcni's cache that says not whose it is, another's record does": func(w *world) {
			w.must("ADD")
			w.calls()
			entry := "state/results/cluster-" + w.containerID + "-eth0"
			w.write(entry, strings.Replace(w.read(entry), `"plexusSandboxIfName":"eth0"`, `"other":1`, 1))
			w.ifName = "eth1"
			w.must("DEL")
			w.expectCalls()
		},
	})
}

// TestGone: what is no network namespace, or no longer, or the host's own, is none.
func TestGone(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"D9 DEL with the host's own namespace": func(w *world) {
			w.must("ADD")
			w.calls()
			w.host = testenv.NetNS(w.t)
			sandbox := w.netns
			w.netns = w.host
			w.must("DEL")
			w.expect("CNI_NETNS", "", w.expectCalls("DEL cluster eth0")[0].NetNS)
			w.netns = sandbox
			w.expectNothingLeft()
		},
		"D9 CHECK": func(w *world) {
			w.must("ADD")
			w.calls()
			w.netns = w.write("gone", "")
			w.mustFail("CHECK", types.ErrInvalidNetNS, w.netns)
			w.expectCalls()
		},
	})
}

// TestReadinessFile: the file may be on a file system that makes no events, and the node without inotify.
func TestReadinessFile(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"V8 a mount that comes later": func(w *world) {
			w.mkdir("run")
			w.conf["readinessindicatorfile"] = w.path("run/ready")
			add := w.start("ADD", w.conf)
			w.awaitInotify(add)
			if err := syscall.Mount("tmpfs", w.path("run"), "tmpfs", 0, ""); err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(func() { _ = syscall.Unmount(w.path("run"), syscall.MNT_DETACH) })
			w.write("run/ready", "")
			w.succeeded(add.wait())
		},
	})
}

// at makes a path of the world that of a network namespace, in the place of the one that it was.
func (w *world) at(netns string) {
	w.t.Helper()
	path := w.path("netns-of-a-pid")
	if w.netns == path {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			w.t.Fatal(err)
		}
	} else {
		w.write("netns-of-a-pid", "")
		w.t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
	}
	if err := syscall.Mount(netns, path, "", syscall.MS_BIND, ""); err != nil {
		w.t.Fatal(err)
	}
	w.netns = path
}

// TestPathThatIsUsedAgain: runtimes name a sandbox by the number of a process, or by a name of their own, which another one has later.
func TestPathThatIsUsedAgain(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"D9 a late DEL": func(w *world) {
			w.at(w.netns)
			w.must("ADD")
			w.at(testenv.NetNS(w.t))
			w.calls()
			w.must("DEL")
			w.expect("CNI_NETNS", "", w.expectCalls("DEL cluster eth0")[0].NetNS)
		},
		"D9 CHECK": func(w *world) {
			w.at(w.netns)
			w.must("ADD")
			w.at(testenv.NetNS(w.t))
			w.mustFail("CHECK", types.ErrInvalidNetNS)
		},
		"D13 ADD again, in a new namespace": func(w *world) {
			old := w.netns
			w.must("ADD")
			w.calls()
			w.netns = testenv.NetNS(w.t)
			w.must("ADD")
			calls := w.expectCalls("DEL cluster eth0", "ADD cluster eth0")
			w.expect("CNI_NETNS of DEL", old, calls[0].NetNS)
			w.expect("CNI_NETNS of ADD", w.netns, calls[1].NetNS)
		},
		"D21 a repair": func(w *world) {
			heal := w.write("broken", "")
			w.cluster(object{"on": object{"DEL": object{"while": heal, "error": object{"code": 999, "msg": "busy"}}}})
			w.at(w.netns)
			w.must("ADD")
			w.mustFail("DEL", 999)
			w.age(time.Hour)
			w.remove("broken")
			w.at(testenv.NetNS(w.t))
			w.containerID = "another"
			w.identify()
			w.backdate("state/boot-id")
			w.calls()
			w.must("ADD")
			calls := w.expectCalls("DEL cluster eth0", "ADD cluster eth0")
			w.expect("CNI_NETNS of DEL", "", calls[0].NetNS)
		},
		"D21 GC, from where paths mean something else": func(w *world) {
			w.must("ADD")
			text := w.read(w.recordFile())
			for _, change := range [][2]string{{`"runtime":"[^"]*"`, `"runtime":"podman"`}, {`"netns":"[^"]*"`, `"netns":"/not/here"`}, {`,"crc32":"[0-9a-f]{8}"`, ""}} {
				text = regexp.MustCompile(change[0]).ReplaceAllString(text, change[1])
			}
			w.write(w.recordFile(), text)
			w.calls()
			w.gc()
			w.must("GC")
			w.expectCalls()
		},
	})
}

// TestHangingPlugins: one plugin that hangs keeps neither the others of its list from their DEL, nor other sandboxes from GC.
func TestHangingPlugins(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"D21 the plugins before it in its list": func(w *world) {
			g := newGate(w.t)
			w.cluster(nil)
			w.nad("default/a", object{"name": "a", "plugins": []any{
				w.recorder(object{"tag": "one"}), w.recorder(object{"tag": "two", "on": object{"DEL": object{"wait": g.path}}}),
			}})
			w.conf["delegateTimeoutSeconds"] = 1
			w.annotate(networks, "a")
			w.must("ADD")
			w.calls()
			w.mustFail("DEL", types.ErrTryAgainLater, "did not finish")
			w.expectCalls("DEL a/two net1", "DEL a/one net1", "DEL cluster eth0")
		},
		"D21 other sandboxes at GC, and the plugins' GC": func(w *world) {
			g := newGate(w.t)
			w.cluster(object{"cniVersion": "1.1.0", "on": object{"DEL": object{"wait": g.path}}})
			w.containerID = "aaaa"
			w.identify()
			w.must("ADD")
			w.cluster(object{"cniVersion": "1.1.0"})
			w.containerID = "bbbb"
			w.netns = testenv.NetNS(w.t)
			w.identify()
			w.must("ADD")
			w.calls()
			w.gc()
			w.conf["delegateTimeoutSeconds"] = 1
			w.mustFail("GC", types.ErrTryAgainLater, "aaaa")
			var got []string
			for _, c := range w.calls() {
				got = append(got, c.String()+" "+c.ContainerID)
			}
			if !slices.Contains(got, "DEL cluster eth0 bbbb") || !slices.Contains(got, "GC cluster ") {
				w.t.Errorf("calls: %q", got)
			}
		},
	})
}

func TestCHECKOfWhatIsLeft(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"V2 a DEL has failed": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "on": failing("DEL")}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.mustFail("DEL", 123)
			w.calls()
			w.mustFail("CHECK", types.ErrInternal, "its DEL has begun")
			w.expectCalls()
		},
		"V2 a DEL was killed amidst its first plugin": func(w *world) {
			g := newGate(w.t)
			w.cluster(object{"on": object{"DEL": object{"wait": g.path}}})
			w.must("ADD")
			del := w.start("DEL", w.conf)
			v := g.await()
			eventually(w.t, "the record says that the undo has begun", func() bool { return !strings.Contains(w.read(w.recordFile()), `"complete":true`) })
			del.kill()
			v.release() // CHECK waits for the plugin, which has the sandbox's lock
			w.mustFail("CHECK", types.ErrInternal, "its DEL has begun")
			if calls := w.calls(); slices.ContainsFunc(calls, func(r recorded) bool { return r.Command == "CHECK" }) {
				w.t.Errorf("calls: %v", calls)
			}
		},
		"V1 libcni's cache is damaged": func(w *world) {
			w.must("ADD")
			for _, file := range w.left() {
				if strings.Contains(file, "/results/") {
					if err := os.Truncate(w.path(file), 10); err != nil {
						w.t.Fatal(err)
					}
				}
			}
			w.must("CHECK")
			w.must("DEL")
			w.expectNothingLeft()
		},
	})
}

// age makes the record of the sandbox as old as if its ADD, or its DEL, had begun a while ago.
func (w *world) age(by time.Duration) {
	w.t.Helper()
	text := w.read(w.recordFile())
	for _, key := range []string{"began", "undoSince", "tried"} {
		text = regexp.MustCompile(`"`+key+`":"[^"]*"`).ReplaceAllString(text, `"`+key+`":"`+time.Now().Add(-by).UTC().Format(time.RFC3339)+`"`)
	}
	w.write(w.recordFile(), regexp.MustCompile(`,"crc32":"[0-9a-f]{8}"`).ReplaceAllString(text, ""))
}

// TestUndoEnds: every pod can be removed in the end, and what was made is given back.
func TestUndoEnds(t *testing.T) {
	t.Parallel()
	refusing := object{"error": object{"code": 100, "msg": "no such sysctl"}}
	scenarios(t, map[string]func(*world){
		"D21 a plugin that refuses keeps the plugins before it from nothing": func(w *world) {
			w.nad("default/a", object{"name": "a", "cniVersion": "1.0.0", "plugins": []any{
				w.recorder(object{"tag": "bridge", "result": addresses("10.2.0.2/24", "")}),
				w.recorder(object{"tag": "tuning", "on": object{"ADD": refusing, "DEL": refusing}}),
			}})
			w.annotate(networks, "a")
			w.mustFail("ADD", 100)
			w.expectCalls("ADD cluster eth0", "ADD a/bridge net1", "ADD a/tuning net1", "DEL a/tuning net1", "DEL a/bridge net1", "DEL cluster eth0")
			w.mustFail("DEL", 100)
			w.expectCalls("DEL a/tuning net1")
			w.age(time.Minute)
			w.must("DEL") // its interface is not there
			w.expectCalls("DEL a/tuning net1")
			w.expect("state", []string{w.recordFile()}, w.left())
			w.age(time.Hour)
			w.must("DEL")
			w.expectNothingLeft()
		},
		"D21 the words of ADD and DEL differ": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{
				"ADD": object{"error": object{"code": 999, "msg": "could not allocate"}}, "DEL": object{"error": object{"code": 999, "msg": "no reserved IP"}},
			}}))
			w.annotate(networks, "a")
			w.mustFail("ADD", 999)
			w.mustFail("DEL", 999)
			w.age(24 * time.Hour)
			w.must("DEL")
			w.expectNothingLeft()
		},
		"D21 what was attached stays on record when the sandbox goes": func(w *world) {
			heal := w.write("broken", "")
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{"DEL": object{"while": heal, "error": object{"code": 999, "msg": "master not there"}}}}))
			w.annotate(networks, "a")
			w.must("ADD")
			w.mustFail("DEL", 999)
			w.age(time.Minute)
			w.must("DEL")
			w.expect("state", []string{w.recordFile(), "state/results/a-" + w.containerID + "-net1"}, w.left())
			w.calls()
			// A later call of anybody else tries again, once the last try is a while ago.
			w.remove("broken")
			w.age(time.Hour)
			gone := w.containerID
			w.containerID = "later"
			w.annotate(networks, "")
			w.identify()
			w.backdate("state/boot-id")
			w.must("ADD")
			calls := w.expectCalls("DEL a net1", "ADD cluster eth0")
			w.expect("container", gone, calls[0].ContainerID)
			w.must("DEL")
			w.expectNothingLeft()
		},
		"D21 a new sandbox of the name starts without what is left of the old one": func(w *world) {
			heal := w.write("broken", "")
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{
				"ADD": object{"while": heal, "error": object{"code": 999, "msg": "bad"}}, "DEL": object{"while": heal, "error": object{"code": 999, "msg": "bad"}},
			}}))
			w.annotate(networks, "a")
			w.mustFail("ADD", 999)
			w.annotate(networks, "b")
			w.mustFail("ADD", 999, "undo what an earlier ADD of this sandbox left")
			w.age(time.Minute)
			w.must("ADD")
			w.must("CHECK")
			w.calls()
			w.remove("broken")
			w.must("DEL")
			w.expectCalls("DEL b net1", "DEL cluster eth0", "DEL a net1")
			w.expectNothingLeft()
		},
		"D21 DELs that the runtime cuts short get on": func(w *world) {
			g := newGate(w.t)
			hangs := object{"DEL": object{"wait": g.path}}
			w.nad("default/a", w.recorder(object{"name": "a", "on": hangs}))
			w.nad("default/b", w.recorder(object{"name": "b", "on": hangs}))
			w.conf["delegateTimeoutSeconds"] = 1
			w.annotate(networks, "a,b")
			w.must("ADD")
			w.calls()
			// The first one hangs until it is killed, and the second while the whole call is.
			del := w.start("DEL", w.conf)
			g.await()
			second := g.await()
			del.kill()
			if len(w.calls()) == 0 {
				w.t.Error("nothing was called")
			}
			del = w.start("DEL", w.conf) // kills what the first one left behind, and comes to the default network
			second.awaitEnd()
			eventually(w.t, "the default network gets its DEL", func() bool { return strings.Contains(w.read("calls"), `"ifname":"eth0"`) })
			del.kill()
		},
		"D21 a slow sandbox of an earlier boot keeps no other one from being undone": func(w *world) {
			g := newGate(w.t)
			own := w.containerID
			w.containerID = "aaaa"
			w.identify()
			w.cluster(object{"on": object{"DEL": object{"wait": g.path}}})
			w.must("ADD")
			aged := func(id string) {
				file := "state/records/" + id + "-eth0.json"
				text := regexp.MustCompile(`"bootID":"[^"]*"`).ReplaceAllString(w.read(file), `"bootID":"earlier"`)
				w.write(file, regexp.MustCompile(`,"crc32":"[0-9a-f]{8}"`).ReplaceAllString(text, ""))
			}
			aged("aaaa")
			w.cluster(nil)
			w.containerID = "bbbb"
			w.identify()
			w.write("state/boot-id", "another")
			w.containerID = own
			w.identify()
			add := w.start("ADD", w.conf) // has tried aaaa in vain
			w.succeeded(add.wait())
			w.must("DEL")
			w.expect("records", []string{"state/records/aaaa-eth0.json", "state/results/cluster-aaaa-eth0"}, w.left())
			w.containerID = "bbbb"
			w.identify()
			w.must("ADD")
			aged("bbbb")
			w.calls()
			w.write("state/boot-id", "another")
			w.containerID = own
			w.identify()
			w.must("ADD")
			calls := w.calls()
			w.expect("the first to be undone", "bbbb", calls[0].ContainerID)
		},
		"D21 a DEL's words are no success to containerd": func(w *world) {
			w.nad("default/a", w.recorder(object{"name": "a", "on": object{
				"ADD": object{"error": object{"code": 999, "msg": "Link not found"}},
				"DEL": object{"error": object{"code": 999, "msg": "Link not found", "details": "open /x: no such file or directory"}},
			}}))
			w.annotate(networks, "a")
			w.conf["binDir"] = w.path("bin")
			rollback := w.call("ADD").stdout
			_, rollback, _ = strings.Cut(rollback, "rollback failed")
			for _, text := range []string{rollback, w.call("DEL").stdout} {
				if strings.Contains(text, "not found") || strings.Contains(text, "no such file or directory") || !strings.Contains(text, "Link missing") {
					w.t.Errorf("containerd takes this for done: %s", text)
				}
			}
		},
		"D21 a key that DEL does not need": func(w *world) {
			w.must("ADD")
			w.conf["logLevel"] = "trace"
			w.conf["unsupportedRequests"] = 7
			w.must("DEL")
			w.expectNothingLeft()
		},
		"D21 real plugins: a typing error in the second one leaks no address of the first": func(w *world) {
			w.cniPath = testenv.Plugins(w.t)
			w.host = testenv.NetNS(w.t)
			w.conf["delegates"] = []any{object{"cniVersion": "1.0.0", "name": "cluster", "plugins": []any{
				object{"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": object{"type": "host-local", "dataDir": w.path("ipam"), "subnet": "10.99.0.0/24"}},
				object{"type": "tuning", "mtu": "fifteen hundred"},
			}}}
			w.mustFail("ADD", types.ErrInternal, "tuning")
			w.age(time.Hour)
			w.must("DEL")
			leases, _ := filepath.Glob(w.path("ipam/cluster/10.*"))
			w.expect("leases", []string(nil), leases)
			w.expectNothingLeft()
		},
	})
}

// backdate makes a file an hour older.
func (w *world) backdate(name string) {
	w.t.Helper()
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(w.path(name), then, then); err != nil {
		w.t.Fatal(err)
	}
}

// TestForeignState: what Multus left and cannot be read is no error for ever.
func TestForeignState(t *testing.T) {
	t.Parallel()
	cut := func(w *world) string { return w.write("legacy/"+w.containerID, `[{"Conf":{"cniVersion":"0.3`) }
	scenarios(t, map[string]func(*world){
		"D12 an empty file: no plugin ran": func(w *world) {
			w.write("legacy/"+w.containerID, "")
			w.must("DEL")
			w.expectNothingLeft()
		},
		"D12 a file that was cut short is quarantined": func(w *world) {
			file := cut(w)
			w.mustFail("DEL", types.ErrDecodingFailure, file)
			w.must("DEL")
			w.expect("files", []string{"legacy/" + w.containerID + ".corrupt"}, w.left())
		},
		"D12 a file that was cut short does not stop GC": func(w *world) {
			w.cluster(object{"cniVersion": "1.1.0"})
			cut(w)
			w.write("legacy/multus.log", "started\n")
			w.gc()
			w.call("GC")
			w.must("GC")
			w.expectCalls("GC cluster")
		},
		"D12 without libcni's cache DEL gets the CNI_ARGS of the call": func(w *world) {
			conf := w.recorder(object{"name": "cluster", "cniVersion": "1.0.0"})
			w.write("legacy/"+w.containerID, []any{object{"Conf": conf, "Bytes": []byte(asJSON(w.t, conf))}})
			w.must("DEL")
			w.expect("CNI_ARGS", w.cniArgs(), w.expectCalls("DEL cluster eth0")[0].Args)
		},
		"D12 state of eth0 is not that of eth1": func(w *world) {
			conf := w.recorder(object{"name": "cluster", "cniVersion": "1.0.0"})
			w.write("legacy/"+w.containerID, []any{object{"Conf": conf, "Bytes": []byte(asJSON(w.t, conf))}})
			w.write("legacy/results/cluster-"+w.containerID+"-eth0", object{"kind": "cniCacheV1", "containerId": w.containerID, "ifName": "eth0", "networkName": "cluster"})
			w.ifName = "eth1"
			w.must("DEL")
			w.expectCalls()
		},
	})
}

func TestGCOfRealRuntimes(t *testing.T) {
	t.Parallel()
	scenarios(t, map[string]func(*world){
		"V5 null is an empty list": func(w *world) {
			w.cluster(object{"cniVersion": "1.1.0"})
			netns := w.netns
			w.must("ADD")
			w.calls()
			w.gc()
			w.conf["cni.dev/valid-attachments"], w.conf["cni.dev/attachments"] = nil, nil
			w.must("GC")
			calls := w.expectCalls("DEL cluster eth0", "GC cluster")
			w.expectJSON("cni.dev/valid-attachments", "[]", calls[1].Config["cni.dev/valid-attachments"])
			w.netns = netns
			w.expectNothingLeft()
		},
		"V7 two configurations of one name each hear of it": func(w *world) {
			for _, tag := range []string{"one", "two"} {
				w.nad("default/"+tag, w.recorder(object{"name": "same", "cniVersion": "1.1.0", "tag": tag}))
			}
			w.annotate(networks, "one,two")
			w.must("ADD")
			living := w.containerID
			w.calls()
			w.gc(living)
			w.must("GC")
			var got []string
			for _, c := range w.calls() {
				got = append(got, c.String())
				w.expect("attachments to "+c.String(), []string{living + " net1", living + " net2"}, valid(w.t, c, "cni.dev/valid-attachments"))
			}
			slices.Sort(got)
			w.expect("calls", []string{"GC same/one", "GC same/two"}, got)
		},
		"V7 a living sandbox of another runtime": func(w *world) {
			w.must("ADD")
			w.calls()
			text := w.read(w.recordFile())
			w.write(w.recordFile(), regexp.MustCompile(`,"crc32":"[0-9a-f]{8}"`).ReplaceAllString(
				regexp.MustCompile(`"runtime":"[^"]*"`).ReplaceAllString(text, `"runtime":"podman"`), ""))
			netns, id, ifName, args := w.netns, w.containerID, w.ifName, w.args
			w.gc()
			w.must("GC")
			w.expectCalls()
			w.netns, w.containerID, w.ifName, w.args = netns, id, ifName, args
			w.must("CHECK")
			// Once its namespace has gone, it is anybody's.
			w.write(w.recordFile(), strings.Replace(w.read(w.recordFile()), `"netns":"`+netns, `"netns":"/gone`, 1))
			w.calls()
			w.gc()
			w.must("GC")
			w.expectCalls("DEL cluster eth0")
		},
		"V7 ADDs wait for the plugins of a GC that was killed": func(w *world) {
			g := newGate(w.t)
			w.cluster(object{"cniVersion": "1.1.0", "on": object{"GC": object{"wait": g.path}}})
			netns, id, ifName, args := w.netns, w.containerID, w.ifName, w.args
			w.gc()
			gc := w.start("GC", w.conf)
			v := g.await()
			gc.kill()
			w.netns, w.containerID, w.ifName, w.args = netns, id, ifName, args
			add := w.start("ADD", w.conf)
			w.awaitFlock(add)
			v.release()
			w.succeeded(add.wait())
			w.expectCalls("GC cluster", "ADD cluster eth0")
		},
	})
}
