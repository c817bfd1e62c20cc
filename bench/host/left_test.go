// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

func TestWhatAContenderLeavesIsFoundWhereverItIs(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	for _, place := range []string{"state/records/c-eth0.json", "runtime/results/noop-0-c-eth0", "leases/noop-0/10.99.0.2", ""} {
		dir := t.TempDir()
		c, err := newContender("mine", plexusConf, nil, Values{Source: `"manifestDir": "/m"`, State: filepath.Join(dir, "state")}, dir, filepath.Join(dir, "leases"))
		if err != nil {
			t.Fatal(err)
		}
		c.runtimeDir = filepath.Join(dir, "runtime")
		netns := testenv.NetNS(t)
		var left []string
		if left, err = c.Left(netns); err != nil || len(left) != 0 {
			t.Errorf("%v, %v where nothing is left", left, err)
		}
		want := filepath.Join(dir, place)
		if place == "" {
			want = "eth0"
			addVeth(t, netns, want)
		} else {
			writeFile(t, want)
		}
		left, err = c.Left(netns)
		if diff := cmp.Diff([]string{want}, left); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
}

func TestAContenderThatAttachesToFewerNetworksIsFound(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	s := Sandbox{Workload: Workload{Kind: Real, Networks: 1}, Pod: "p", NetNS: testenv.NetNS(t)}
	addVeth(t, s.NetNS, "eth0")
	if err := CheckInterfaces(s); err == nil || !strings.Contains(err.Error(), "[eth0]") || !strings.Contains(err.Error(), "should have 2") {
		t.Errorf("CheckInterfaces of a sandbox that lacks one: %v", err)
	}
	addVeth(t, s.NetNS, "net1")
	if err := CheckInterfaces(s); err != nil {
		t.Errorf("CheckInterfaces of a sandbox that has all: %v", err)
	}
}

// addVeth puts one end of a veth pair into a network namespace, the other into one of its own.
func addVeth(t *testing.T, path, name string) {
	t.Helper()
	testenv.Veth(t, testenv.End{NetNS: path, Name: name}, testenv.End{NetNS: testenv.NetNS(t), Name: name})
}
