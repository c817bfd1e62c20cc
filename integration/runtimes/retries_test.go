// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

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

// expectNothingLeftAfterNextCalls checks that other pods' calls undo what was left, a while later: containerd never calls GC.
func (n *node) expectNothingLeftAfterNextCalls(containerd *runtime) {
	n.t.Helper()
	for range 5 { // on a busy machine, one has no time for all
		n.age(10 * time.Minute)
		db := n.sandbox("db", "")
		containerd.must("run", db)
		containerd.must("stop", db)
		db.end()
		if len(n.left()) == 0 {
			break
		}
	}
	n.expectNothingLeft()
}

// age makes all that is on record as old as if so much time had passed since.
func (n *node) age(by time.Duration) {
	n.t.Helper()
	records, err := filepath.Glob(n.path("state/records/*.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	moment := regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]+"`)
	checksum := regexp.MustCompile(`,"crc32":"[0-9a-f]+"}\s*$`) // of what it was
	for _, file := range records {
		text, err := os.ReadFile(file)
		if err != nil {
			n.t.Fatal(err)
		}
		text = moment.ReplaceAllFunc(text, func(quoted []byte) []byte {
			at, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(quoted))
			if err != nil {
				return quoted
			}
			return at.Add(-by).AppendFormat(nil, `"`+time.RFC3339Nano+`"`)
		})
		if err := os.WriteFile(file, checksum.ReplaceAll(text, []byte("}")), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	then := time.Now().Add(-by)
	if err := os.Chtimes(n.path("state/boot-id"), then, then); err != nil {
		n.t.Fatal(err)
	}
}

// As long as the cause stays, each try may leave a record of what failed, and nothing else: the plugins before a broken one get their DEL, so
// that a typing error in a network does not use up its addresses.
func TestKubeletsRetriesOfABrokenNetworkHoldNoAddresses(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]object{
		"a value of the wrong type": {"type": "tuning", "mtu": "fifteen hundred"},
		"a key that it refuses":     {"type": "bandwidth", "ingressRate": 1, "ingressBurst": 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/28")), broken)
			containerd := n.runtime("containerd")
			for range 15 { // more than there are addresses
				web := n.sandbox("web", "a")
				if resp := containerd.mustFail("run", web, "default/a"); strings.Contains(resp.Error, "no IP addresses available") {
					t.Fatal(resp.Error)
				}
				web.expectLinks()
				web.end()
			}
			for _, trace := range n.left() {
				if strings.HasPrefix(trace, "leases/") {
					t.Errorf("left: %s", trace)
				}
			}
			// And the records do not stay for ever, although the configuration on them stays wrong.
			n.expectNothingLeftAfterNextCalls(containerd)
		})
	}
}
