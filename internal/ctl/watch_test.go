// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"syscall"
	"testing"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// TestProgramWatches: the kernel and the records wake it, and ctrl-C is how it ends.
func TestProgramWatches(t *testing.T) {
	t.Parallel()
	p := newLivePod(t)
	cmd := p.start(t, "status", "web", "--watch", "-o", "json")
	cmd.Stdout = nil
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	testenv.Do(t, p.node.netns, cmd.Start)
	dec := json.NewDecoder(stdout)
	until := func(what string, is func([]inspect.Pod) bool) {
		t.Helper()
		for {
			var pods []inspect.Pod
			if decodeErr := dec.Decode(&pods); decodeErr != nil {
				t.Fatalf("until %s: %v, stderr %s", what, decodeErr, cmd.Stderr)
			}
			if is(pods) {
				return
			}
		}
	}
	until("the pod is attached", func(pods []inspect.Pod) bool { return len(pods) == 1 && pods[0].State == inspect.Attached })
	h := testenv.Handle(t, p.netns)
	link, err := h.LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	until("an interface is down", func(pods []inspect.Pod) bool { return len(pods) == 1 && pods[0].State == inspect.Failed })
	if _, stderr, code := p.run(t, "detach"); code != 0 {
		t.Fatal(stderr)
	}
	until("the pod is gone", func(pods []inspect.Pod) bool { return len(pods) == 0 })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("at the end: %v, stderr %s", err, cmd.Stderr)
	}
}
