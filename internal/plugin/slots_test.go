// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/plexus-cni/plexus/internal/record"
)

// allow sets maxParallelDelegates.
func (n *node) allow(plugins int) {
	n.t.Helper()
	var conf map[string]any
	if err := json.Unmarshal(n.conf, &conf); err != nil {
		n.t.Fatal(err)
	}
	conf["maxParallelDelegates"] = plugins
	var err error
	if n.conf, err = json.Marshal(conf); err != nil {
		n.t.Fatal(err)
	}
}

func TestPluginsThatKeepAllSlotsFailAnADDAndDelayADEL(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.snapshot()
	n.allow(1)
	n.mustCall("ADD", "")
	other := n.another("c2")
	slot, err := record.OpenSlots(n.path("state/slots"), 1).Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.call("ADD", "")
	var told types.Error
	if jsonErr := json.Unmarshal(out, &told); err == nil || jsonErr != nil || told.Code != types.ErrTryAgainLater || !bytes.Contains(out, []byte("maxParallelDelegates")) {
		t.Errorf("ADD: %v %s, want to be told to try again, and of maxParallelDelegates", err, out)
	}
	n.mustCall("STATUS", "")
	n.mustCall("CHECK", "") // a pod is no less well attached because the node is busy
	// An ADD that first undoes what another left keeps to the bound after that.
	if out, err := n.call("ADD", ""); err == nil || !bytes.Contains(out, []byte("maxParallelDelegates")) {
		t.Errorf("a second ADD: %v %s", err, out)
	}
	n.mustCall("DEL", "")
	n.assertUntouched(before)
	if err := slot.Unlock(); err != nil {
		t.Error(err)
	}
	other.mustCall("ADD", "")
	other.mustCall("DEL", "")
}

func TestACallKeepsItsSlotFromTheFirstPluginToTheLast(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.allow(1)
	before := n.snapshot()
	// Of an ADD that first undoes what another left, too.
	if out, err := n.call("ADD", "kill report"); err == nil {
		t.Fatalf("a killed ADD: %s", out)
	}
	if out, err := n.call("ADD", "place record"); err != nil {
		t.Errorf("after it has undone an earlier one, nobody else may run plugins: %v %s", err, out)
	}
	n.mustCall("DEL", "")
	for step, free := range map[string]bool{"record": true, "attached eth0": false, "report": true} {
		switch out, err := n.call("ADD", "place "+step); {
		case free && err != nil:
			t.Errorf("at step %q nobody else may run plugins: %v %s", step, err, out)
		case !free && (err == nil || !bytes.Contains(out, []byte("take a slot"))):
			t.Errorf("at step %q others run plugins although one at a time is allowed: %v %s", step, err, out)
		}
		n.mustCall("DEL", "")
		n.assertUntouched(before)
	}
}
