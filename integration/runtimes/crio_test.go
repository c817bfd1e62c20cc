// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func alive(sandboxes ...*sandbox) func(*request) {
	return func(r *request) {
		for _, s := range sandboxes {
			r.Alive = append(r.Alive, s.id)
		}
	}
}

func networks(names ...string) func(*request) {
	return func(r *request) { r.Networks = names }
}

func TestCRIOLifeOfAPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	crio := n.runtime("crio")
	crio.must("status", nil)
	web := n.sandbox("web", "a")
	resp := crio.must("run", web)
	web.expectLinks("eth0", "net1")
	if got := resp.Results["eth0"].IPs; len(got) != 1 || got[0].Address.IP.String() != web.links()["eth0"][0] {
		t.Errorf("the runtime reads %v from its cache, the kernel has %v", got, web.links())
	}
	crio.must("gc", nil, alive(web))
	web.expectLinks("eth0", "net1")
	crio.must("stop", web)
	web.expectLinks()
	crio.must("stop", web)
	web.end()
	n.expectNothingLeft()
}

// CRI-O makes CHECK a part of RunPodSandbox. Plugins without one, and those whose CHECK fails after a pod's own second attachment, must not
// keep a pod from starting.
func TestCRIOPodsWhoseFurtherNetworksFailCHECK(t *testing.T) {
	t.Parallel()
	for name, scenario := range map[string]struct {
		nad      func(*node) object
		networks string
		links    []string
	}{
		// whereabouts 0.9.4, cmd/whereabouts.go cmdCheck; macvlan hands CHECK on to its IPAM plugin.
		"macvlan with an IPAM that has no CHECK": {func(n *node) object {
			return n.recorder(object{
				"type": "macvlan", "master": "nic0", "ipam": object{"type": "recorder"},
				"on": object{"CHECK": object{"error": object{"code": 999, "msg": "CNI CHECK method is not implemented"}}},
			})
		}, "a", []string{"eth0", "net1"}},
		// The bridge takes the lowest MAC of its ports; plugin bridge compares it with that of the result.
		"a bridge twice": {func(n *node) object {
			return object{"type": "bridge", "bridge": "br-a", "ipam": n.hostLocal("10.20.0.0/24")}
		}, "a,a,a,a", []string{"eth0", "net1", "net2", "net3", "net4"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			crio := n.runtime("crio")
			n.nad("a", scenario.nad(n))
			web := n.sandbox("web", scenario.networks)
			crio.must("run", web)
			web.expectLinks(scenario.links...)
			crio.must("stop", web)
			n.expectNothingLeft()
		})
	}
}

// A pod's default network that fails CHECK is another matter: the pod does not start, and leaves nothing.
func TestCRIOPodWhoseDefaultNetworkFailsCHECK(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.primary("10-cluster", "cluster", n.recorder(object{"on": object{"CHECK": object{"error": object{"code": 100, "msg": "no route"}}}}))
	crio := n.runtime("crio")
	web := n.sandbox("web", "")
	if resp := crio.mustFail("run", web, "no route"); resp.Teardown != "" {
		t.Errorf("teardown: %s", resp.Teardown)
	}
	n.expectNothingLeft()
}

// CRI-O attaches a pod to several configurations in turn. The second ADD finds a container that Plexus knows already, under another
// interface.
func TestCRIOSeveralNetworksOfOnePod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.second()
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	crio := n.runtime("crio")
	web := n.sandbox("web", "")
	both := networks("plexus", "plexus-b")
	resp := crio.must("run", web, both)
	web.expectLinks("eth0", "eth1")
	if len(resp.Results) != 2 {
		t.Errorf("results %v, want two", resp.Results)
	}
	crio.must("gc", nil, both, alive(web))
	web.expectLinks("eth0", "eth1")
	crio.must("stop", web, both)
	n.expectNothingLeft()
}

// The first error ends ocicni's teardown; the networks behind it come with the next try.
func TestCRIOTeardownEndsAtTheFirstErrorAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.second()
	n.write("broken", true)
	n.primary("10-cluster", "cluster", n.recorder(object{"on": object{"DEL": object{"while": n.path("broken"), "error": object{"code": 11, "msg": "try again"}}}}))
	crio := n.runtime("crio")
	web := n.sandbox("web", "")
	both := networks("plexus", "plexus-b")
	crio.must("run", web, both)
	web.end() // with a file at its path, CRI-O would not ask again
	if resp := crio.do("stop", web, both); resp.Error == "" {
		t.Fatal("the DEL of the first network succeeds")
	}
	n.remove("broken")
	crio.must("stop", web, both)
	n.expectNothingLeft()
}

// CRI-O counts a sandbox as stopped after one failed DEL if there is a file at its namespace's path, and never asks again. What was left
// is Plexus' own to undo.
func TestCRIOForgetsASandboxAfterOneFailedDEL(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("broken", true)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")), n.recorder(object{
		"result": nil, "on": object{"DEL": object{"while": n.path("broken"), "error": object{"code": 100, "msg": "no"}}},
	}))
	crio := n.runtime("crio")
	web := n.sandbox("web", "a")
	crio.must("run", web)
	if resp := crio.must("stop", web); !resp.Forgotten || resp.Teardown == "" {
		t.Fatalf("%+v", resp)
	}
	web.end()
	n.remove("broken")
	crio.must("gc", nil)
	n.expectNothingLeft()
}

func TestCRIOFailedSetup(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	n.nad("b", object{"type": "macvlan", "master": "eth99", "ipam": n.hostLocal("10.21.0.0/24")})
	crio := n.runtime("crio")
	web := n.sandbox("web", "a,b")
	crio.mustFail("run", web, "default/b", "eth99")
	web.expectLinks()
	web.end()
	crio.must("gc", nil)
	n.expectNothingLeft()
}

// After a reboot or a drain no pod lives. libcni writes the nil list of such a network as null.
func TestCRIOGCOfANodeWithoutPods(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	crio := n.runtime("crio")
	crio.must("gc", nil)
	web := n.sandbox("web", "a")
	crio.must("run", web)
	n.reboot()
	crio.must("gc", nil)
	n.expectNothingLeft()
}

// A delegate is told what lives of its own network. It never gets null, which some read as an absent list.
func TestCRIOGCReachesTheDelegates(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("manifests/net-a.json", object{
		"kind": "NetworkAttachmentDefinition", "metadata": object{"namespace": "default", "name": "a"},
		"spec": object{"config": `{"cniVersion":"1.1.0","name":"a","type":"recorder","record":"` + n.path("calls") + `","result":{"ips":[{"address":"10.77.0.2/24"}]}}`},
	})
	crio := n.runtime("crio")
	web, db := n.sandbox("web", "a"), n.sandbox("db", "a")
	crio.must("run", web)
	crio.must("run", db)
	db.end()
	n.calls()
	crio.must("gc", nil, alive(web))
	// libcni itself calls the DEL of what its cache has of db; then Plexus is called for GC.
	if diff := cmp.Diff([]string{"DEL a net1", "GC a"}, n.calls()); diff != "" {
		t.Errorf("calls of the delegate (-want +got):\n%s", diff)
	}
	crio.must("stop", web)
	n.expectNothingLeft()
}

// CRI-O calls GC for each file of the folder, also for the cluster's own network behind Plexus, with what it attached there itself:
// nothing. disableGC keeps that from the plugins of the network.
func TestCRIOGCOfTheClustersOwnConfiguration(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("net.d/10-cluster.conflist", object{"cniVersion": "1.1.0", "name": "cluster", "disableGC": true, "plugins": []any{n.recorder(nil)}})
	crio := n.runtime("crio")
	web := n.sandbox("web", "")
	crio.must("run", web)
	n.calls()
	crio.must("gc", nil, alive(web))
	if got := n.calls(); len(got) != 0 {
		t.Errorf("the plugin of the cluster's network is called: %q", got)
	}
	crio.must("stop", web)
	n.expectNothingLeft()
}

func TestCRIOStatusAsksTheDefaultNetwork(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("net.d/10-cluster.conflist", object{"cniVersion": "1.1.0", "name": "cluster", "plugins": []any{n.recorder(object{
		"on": object{"STATUS": object{"while": n.path("broken"), "error": object{"code": 50, "msg": "the agent does not run"}}},
	})}})
	crio := n.runtime("crio")
	crio.must("status", nil)
	n.write("broken", true)
	crio.mustFail("status", nil, "the agent does not run")
}
