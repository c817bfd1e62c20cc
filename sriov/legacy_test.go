// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// legacy writes a state of sriov-cni's, as of a time.
func (n *node) legacy(attachment, state string, at time.Time) string {
	n.t.Helper()
	dir := filepath.Join(n.dir, "legacy")
	file := filepath.Join(dir, attachment)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(file, []byte(state), 0o600), os.Chtimes(file, at, at)); err != nil {
		n.t.Fatal(err)
	}
	return file
}

// stateOf is what sriov-cni keeps of VF 0, with a VLAN before.
func stateOf(vlan int, more string) string {
	return fmt.Sprintf(`{"name":"fast","deviceID":%q,"OrigVfState":{"HostIFName":"eth4v0","SpoofChk":true,"AdminMAC":"00:00:00:00:00:00","EffectiveMAC":"02:00:00:00:00:0a","Vlan":%d%s}}`, vf0, vlan, more)
}

// TestLateDelOfAPodThatSRIOVCNIServed comes when sriov-cni has given the VF to another pod since, which has it.
func TestLateDelOfAPodThatSRIOVCNIServed(t *testing.T) {
	t.Parallel()
	for _, netns := range []string{"/run/netns/gone", ""} {
		n := newNode(t)
		n.must("ADD", podB(), config(vf0, map[string]any{"vlan": 200})) // what sriov-cni did for pod B
		if err := os.RemoveAll(filepath.Join(n.dir, "records")); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		n.mark(other)
		former := n.legacy("aaaa-net1", stateOf(0, ""), now.Add(-time.Hour))
		n.legacy("bbbb-net1", stateOf(0, `,"MTU":1500`), now)
		before := n.fake.String()
		n.must("DEL", args{containerID: "aaaa", netns: netns, ifName: "net1"}, config(vf0, nil))
		if diff := cmp.Diff(before, n.fake.String()); diff != "" {
			t.Errorf("netns %q: the pod that has the VF lost something (-before +after):\n%s", netns, diff)
		}
		if _, err := os.Stat(former); err == nil {
			t.Error("the state of the former pod is left")
		}
		if _, err := n.call(t.Context(), "ADD", podA(), config(vf0, nil)); err == nil {
			t.Error("the mark of the pod that has the VF is gone")
		}
		n.must("DEL", podB(), config(vf0, nil))
		if where, link, _ := n.fake.Where(vf0); where != netdev.Host || link.Name != "eth4v0" {
			t.Errorf("after the DEL of the pod that had the VF it is in %q: %+v", where, link)
		}
	}
}

// TestDelWithoutSandboxOfAPodThatSRIOVCNIServed has the sandbox from sriov-cni's mark.
func TestDelWithoutSandboxOfAPodThatSRIOVCNIServed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.fake.String()
	n.must("ADD", podA(), config(vf0, map[string]any{"vlan": 200}))
	if err := os.RemoveAll(filepath.Join(n.dir, "records")); err != nil {
		t.Fatal(err)
	}
	n.mark(sandbox)
	// Releases before 2.9 keep no MTU, and none keeps the alternative names or whether it was up.
	n.legacy("aaaa-net1", stateOf(0, ""), time.Now())
	n.must("DEL", args{containerID: "aaaa", ifName: "net1"}, config(vf0, nil))
	links, err := n.fake.Links(netdev.Host)
	if err != nil {
		t.Fatal(err)
	}
	links[len(links)-1].AltNames, links[len(links)-1].Up = []string{"enp3s2", "net1"}, true
	n.fake.SetNetNS(netdev.Host, links, nil)
	if diff := cmp.Diff(before, n.fake.String()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
	if left := records(t, n); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
}

// TestStateOfSRIOVCNIThatCanNotBeRead must not keep a pod terminating: sriov-cni did not either.
func TestStateOfSRIOVCNIThatCanNotBeRead(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"", "{", `{"deviceID":"../x"}`, stateOf(9999, ""), stateOf(0, `,"MTU":-1`), stateOf(0, `,"MinTxRate":-1`), stateOf(0, `,"HostIFName":"a/b"`), stateOf(0, `,"AdminMAC":"x"`)} {
		n := newNode(t)
		n.legacy("aaaa-net1", state, time.Now())
		before := n.fake.String()
		n.must("DEL", podA(), config(vf0, nil))
		if diff := cmp.Diff(before, n.fake.String()); diff != "" {
			t.Errorf("%s: -before +after:\n%s", state, diff)
		}
	}
}
