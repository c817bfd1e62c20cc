// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"strings"
	"testing"
)

// CRI-O and Podman read one folder of configurations. CRI-O's GC lists its own sandboxes alone; those of the other are alive as long as their
// namespaces are.
func TestGCOfOneRuntimeLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	for _, other := range []string{"podman", "nerdctl"} {
		t.Run(other, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
			crio, second := n.runtime("crio"), n.runtime(other)
			web := n.sandbox("web", "a")
			plexus := networks("plexus")
			start := func(name string) *sandbox {
				if other == "nerdctl" {
					return n.nerdctlContainer(name)
				}
				return n.sandbox(name, "")
			}
			lives, gone := start("lives"), start("gone")
			crio.must("run", web)
			second.must("run", lives, plexus)
			second.must("run", gone, plexus)
			gone.end() // and nobody asked for its DEL
			crio.must("gc", nil, alive(web))
			web.expectLinks("eth0", "net1")
			lives.expectLinks("eth0")
			for _, trace := range gone.left() {
				if !strings.HasPrefix(trace, "cache-") {
					t.Errorf("left of a sandbox that is gone: %s", trace)
				}
			}
			crio.must("gc", nil) // all of its own are stale
			web.expectLinks()
			lives.expectLinks("eth0")
			lives.end() // before nerdctl's hook
			second.must("stop", lives, plexus)
			second.must("stop", gone, plexus)
			crio.must("stop", web)
			n.expectNothingLeft()
		})
	}
}

// Both runtimes start and stop pods at once. Each sandbox is its own.
func TestTwoRuntimesAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.nad("a", bridge("br-a", n.hostLocal("10.20.0.0/24")))
	containerd, nerdctl := n.runtime("containerd"), n.runtime("nerdctl")
	pods := []*sandbox{n.sandbox("web-0", "a"), n.sandbox("web-1", "a"), n.sandbox("web-2", "a")}
	containers := []*sandbox{n.nerdctlContainer("0"), n.nerdctlContainer("1"), n.nerdctlContainer("2")}
	both := func(verb string) {
		t.Helper()
		done := make(chan []response, 2)
		all := func(r *runtime, sandboxes []*sandbox) {
			var responses []response
			for _, s := range sandboxes {
				responses = append(responses, r.do(verb, s, networks("plexus")))
			}
			done <- responses
		}
		go all(containerd, pods)
		go all(nerdctl, containers)
		for _, resp := range append(<-done, <-done...) {
			if resp.Error != "" {
				t.Errorf("%s: %s", verb, resp.Error)
			}
		}
	}
	both("run")
	for i := range pods {
		pods[i].expectLinks("eth0", "net1")
		containers[i].expectLinks("eth0")
		containers[i].end()
	}
	both("stop")
	n.expectNothingLeft()
}
