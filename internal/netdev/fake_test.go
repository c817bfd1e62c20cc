// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

func TestFakePrintsWhatATakeoverDid(t *testing.T) {
	t.Parallel()
	fake, path := fakeSandbox([]end{eth0, net1, {name: "net2", down: true}}, []netdev.Route{via("eth0", "2001:db8::1"), via("eth0", "10.0.0.1"), {IfName: "net1", Family: netdev.IPv4}})
	fake.SetNetNS("/run/netns/empty", nil, nil)
	before := fake.String()
	if err := fake.SetDefaultRoutes(t.Context(), path, netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("2001:db8:1::1"), Keep: []netdev.Family{netdev.IPv4}}); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "takeover", "before:\n"+before+"\nafter:\n"+fake.String())
}

func TestFakeFailsTheCallThatItIsToldTo(t *testing.T) {
	t.Parallel()
	fake, path := fakeSandbox([]end{eth0, net1}, []netdev.Route{via("eth0", "10.0.0.1")})
	before := fake.String()
	broken := errors.New("broken")
	for _, op := range []string{"SetDefaultRoutes", "DefaultRoutes", "Links", "IsNetNS", "SameNetNS", "BootID"} {
		fake.Fault = func(called string) error {
			if called == op {
				return broken
			}
			return nil
		}
		errs := map[string]error{
			"SetDefaultRoutes": fake.SetDefaultRoutes(t.Context(), path, netdev.DefaultRoutes{IfName: "eth0", Keep: []netdev.Family{netdev.IPv4}}),
		}
		_, errs["DefaultRoutes"] = fake.DefaultRoutes(path)
		_, errs["Links"] = fake.Links(path)
		_, errs["IsNetNS"] = fake.IsNetNS(path)
		_, errs["SameNetNS"] = fake.SameNetNS(path)
		_, errs["BootID"] = fake.BootID()
		for called, err := range errs {
			if (called == op) != errors.Is(err, broken) {
				t.Errorf("fault in %s: %s gave %v", op, called, err)
			}
		}
	}
	if diff := cmp.Diff(before, fake.String()); diff != "" {
		t.Errorf("a call that failed had an effect (-before +after):\n%s", diff)
	}
}

func TestFakeNamespacesComeAndGo(t *testing.T) {
	t.Parallel()
	fake, path := fakeSandbox([]end{eth0}, nil)
	fake.Own, fake.Boot = "/proc/1/ns/net", "boot-1"
	fake.SetNetNS(fake.Own, nil, nil)
	for p, want := range map[string]bool{path: false, fake.Own: true} {
		if same, err := fake.SameNetNS(p); same != want || err != nil {
			t.Errorf("SameNetNS(%s) = %t, %v, want %t", p, same, err, want)
		}
		if is, err := fake.IsNetNS(p); !is || err != nil {
			t.Errorf("IsNetNS(%s) = %t, %v, want true", p, is, err)
		}
	}
	links, err := fake.Links(path)
	if err != nil || len(links) != 1 {
		t.Fatalf("Links: %v, %v", links, err)
	}
	before := fake.String()
	links[0].MAC[0]++
	if diff := cmp.Diff(before, fake.String()); diff != "" {
		t.Errorf("a caller changed the fake's memory (-before +after):\n%s", diff)
	}
	fake.DeleteNetNS(path)
	if is, err := fake.IsNetNS(path); is || err != nil {
		t.Errorf("IsNetNS of a deleted one = %t, %v, want false", is, err)
	}
	if _, err := fake.Links(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Links of a deleted one: %v, want not exist", err)
	}
	if id, err := fake.BootID(); id != "boot-1" || err != nil {
		t.Errorf("BootID = %q, %v", id, err)
	}
}
