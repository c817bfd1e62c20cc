// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestContainerdLifeOfAPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	containerd := n.runtime("containerd")
	web := n.sandbox("web", "a")
	containerd.must("status", nil)
	resp := containerd.must("run", web)
	if got := resp.Results["eth0"].IPs; len(got) != 1 || got[0].Address.IP.String() != web.links()["eth0"][0] {
		t.Errorf("the runtime was told %v, the kernel has %v", got, web.links())
	}
	web.expectLinks("eth0", "net1")
	containerd.must("check", web)
	containerd.must("status", nil)
	containerd.must("stop", web)
	web.expectLinks()
	n.expectNothingLeft()
	web.end()
	containerd.must("stop", web) // the kubelet asks until the sandbox is removed
	n.expectNothingLeft()
}

// The namespace of a sandbox whose processes died may be closed when it is stopped.
func TestContainerdStopWithoutANamespace(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	containerd := n.runtime("containerd")
	web := n.sandbox("web", "a")
	containerd.must("run", web)
	web.end()
	containerd.must("stop", web)
	n.expectNothingLeft()
}

// max_conf_num 2: go-cni calls ADD for eth0 and for eth1 of a sandbox at once. Neither may take the other for a leftover.
func TestContainerdSeveralConfigurationsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.second()
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	containerd := n.runtime("containerd")
	containerd.maxConfNum = 2
	for i := range 5 {
		s := n.sandbox(fmt.Sprint("web-", i), "")
		resp := containerd.must("run", s)
		s.expectLinks("eth0", "eth1")
		for name, addrs := range s.links() {
			if r := resp.Results[name]; r == nil || len(r.IPs) != 1 || r.IPs[0].Address.IP.String() != addrs[0] {
				t.Errorf("%s has %v, the runtime was told %v", name, addrs, r)
			}
		}
		containerd.must("check", s)
		containerd.must("stop", s)
		s.expectLinks()
		s.end()
		containerd.must("stop", s)
	}
	n.expectNothingLeft()
}

// One configuration fails: go-cni reports it when both have ended, and Remove has to undo the other.
func TestContainerdOneOfSeveralConfigurationsFails(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.second()
	n.primary("20-other", "other", n.recorder(object{"on": object{"ADD": object{"error": object{"code": 100, "msg": "no"}}}}))
	containerd := n.runtime("containerd")
	containerd.maxConfNum = 2
	web := n.sandbox("web", "")
	containerd.mustFail("run", web, "no")
	web.expectLinks()
	n.expectNothingLeft()
}

// go-cni takes a DEL whose error has the words "not found" (or, without a namespace, "no such file or directory") for a success, and
// containerd asks no more. So such an error must not come out of a DEL that has not undone everything.
func TestContainerdTakesNoFailedDELForASuccess(t *testing.T) {
	t.Parallel()
	for _, words := range []string{"network x not found", "open /run/x: no such file or directory", "Link not found", "NOT: not found\nnot found"} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.write("broken", true)
			n.nad("a", n.recorder(object{"on": object{"DEL": object{"while": n.path("broken"), "error": object{"code": 999, "msg": words}}}}))
			containerd := n.runtime("containerd")
			web := n.sandbox("web", "a")
			containerd.must("run", web)
			for _, close := range []func(){func() {}, web.end} {
				close()
				if resp := containerd.do("stop", web); resp.Forgotten && len(web.left()) > 0 {
					t.Fatalf("go-cni takes the DEL for a success, and of the sandbox is left: %q", web.left())
				}
			}
			n.remove("broken")
			containerd.must("stop", web)
			n.expectNothingLeft()
		})
	}
}

// What the rollback of an ADD says comes to containerd as the ADD's error; the DEL that follows is the only one.
func TestContainerdFailedSetupThatCannotBeRolledBack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("broken", true)
	misbehaviour := object{"while": n.path("broken"), "error": object{"code": 999, "msg": "device x not found"}}
	n.nad("a", n.recorder(object{"on": object{"ADD": misbehaviour, "DEL": misbehaviour}}))
	containerd := n.runtime("containerd")
	web := n.sandbox("web", "a")
	resp := containerd.mustFail("run", web, "default/a")
	// The cause may have these words. What is said of the rollback must not read as done.
	if strings.Count(resp.Error, "not found") > 1 {
		t.Errorf("the rollback's error says \"not found\": %s", resp.Error)
	}
	if len(web.left()) > 0 && resp.Teardown == "" {
		t.Errorf("go-cni takes the DEL for a success, and of the sandbox is left: %q", web.left())
	}
}

func TestContainerdStatus(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("net.d/10-cluster.conflist", object{"cniVersion": "1.1.0", "name": "cluster", "plugins": []any{n.recorder(object{
		"on": object{"STATUS": object{"while": n.path("broken"), "error": object{"code": 50, "msg": "the agent does not run"}}},
	})}})
	containerd := n.runtime("containerd")
	containerd.must("status", nil)
	n.write("broken", true)
	containerd.mustFail("status", nil, "the agent does not run")
	n.second()
	n.remove("broken")
	containerd.maxConfNum = 2
	containerd.must("status", nil)
}

// After a reboot the namespaces are closed, and the kubelet stops each sandbox of before.
func TestContainerdReboot(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	containerd := n.runtime("containerd")
	old := n.sandbox("old", "a")
	lost := n.sandbox("lost", "a")
	containerd.must("run", old)
	containerd.must("run", lost)
	n.reboot()
	web := n.sandbox("web", "a")
	containerd.must("run", web)
	containerd.must("stop", old)
	web.expectLinks("eth0", "net1")
	for _, trace := range append(old.left(), lost.left()...) {
		if !strings.HasPrefix(trace, "cache-containerd/") { // its own, of the sandbox that it has not stopped yet
			t.Errorf("left of the last boot: %s", trace)
		}
	}
	containerd.must("stop", lost)
	containerd.must("stop", web)
	n.expectNothingLeft()
}
