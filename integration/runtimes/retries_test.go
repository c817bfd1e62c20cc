// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"testing"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// The kubelet tries a pod that does not start again and again, each time with a sandbox of a new ID. containerd calls one DEL for each, and
// whatever that says, it closes the namespace and forgets the sandbox. So what a failed ADD leaves may not depend on another DEL.
func TestKubeletsRetriesLeaveNothing(t *testing.T) {
	t.Parallel()
	const tries = 30
	for name, scenario := range map[string]struct {
		// second are the plugins of the pod's second network; the first is a bridge with addresses.
		second func(*node) []object
		// mend takes the cause away.
		mend func(*node)
	}{
		// vlan looks for its master before it does anything, for ADD and for DEL.
		"a NIC that is not there": {
			func(n *node) []object {
				return []object{{"type": "vlan", "master": "nic9", "vlanId": 7, "ipam": n.hostLocal("10.21.0.0/24")}}
			},
			func(n *node) {
				testenv.Veth(n.t, testenv.End{NetNS: n.netns, Name: "nic9"}, testenv.End{NetNS: n.netns, Name: "nic8"})
			},
		},
		// The first plugin of the list has attached the pod, and has its DEL after that of the one that fails.
		"a plugin behind another one": {
			func(n *node) []object {
				misbehaviour := object{"while": n.path("broken"), "error": object{"code": 999, "msg": "agent not found"}}
				return []object{bridge("br-b", n.hostLocal("10.21.0.0/24")), n.recorder(object{"on": object{"ADD": misbehaviour, "DEL": misbehaviour}})}
			},
			func(n *node) { n.remove("broken") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.write("broken", true)
			n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
			n.nad("b", scenario.second(n)...)
			containerd := n.runtime("containerd")
			for range tries {
				web := n.sandbox("web", "a,b")
				if resp := containerd.do("run", web); resp.Error == "" {
					t.Fatal("it starts")
				}
				web.end()
			}
			scenario.mend(n)
			n.expectNothingLeftAfterNextCalls(containerd)
		})
	}
}

// expectNothingLeftAfterNextCalls checks that other pods' calls on the node, or else a GC, undo what was left.
func (n *node) expectNothingLeftAfterNextCalls(r *runtime) {
	n.t.Helper()
	db := n.sandbox("db", "")
	r.must("run", db)
	r.must("stop", db)
	db.end()
	if len(n.left()) > 0 {
		n.t.Logf("a GC has to undo %d traces", len(n.left()))
	}
	n.runtime("crio").must("gc", nil)
	n.expectNothingLeft()
}
