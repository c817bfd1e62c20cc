// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestRoutingTellsRulesTablesAndReversePath(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	sandbox, outside := testenv.NetNS(t), testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: sandbox, Name: "net1", Addrs: []string{"192.0.2.2/24"}}, testenv.End{NetNS: outside, Name: "out1", Addrs: []string{"192.0.2.1/24"}})
	h := testenv.Handle(t, sandbox)
	link, err := h.LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	gateway := net.ParseIP("192.0.2.1")
	_, everywhere, _ := net.ParseCIDR("0.0.0.0/0")
	_, own, _ := net.ParseCIDR("192.0.2.2/32")
	rule := netlink.NewRule()
	rule.Src, rule.Table, rule.Family = own, 100, netlink.FAMILY_V4
	testenv.Do(t, sandbox, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/net1/rp_filter", []byte("1"), 0o600)
	})
	for _, err := range []error{
		h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere, Gw: gateway, Priority: 7}),
		h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere, Gw: gateway, Table: 100}),
		h.RuleAdd(rule),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := netdev.NewLinux().Routing(sandbox)
	if err != nil {
		t.Fatal(err)
	}
	var paths []netdev.Path
	for _, p := range got.Paths {
		if p.Destination.Addr().Is4() {
			paths = append(paths, p)
		}
	}
	via := netip.MustParseAddr("192.0.2.1")
	want := []netdev.Path{
		{IfName: "net1", Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: via, Table: 100},
		{IfName: "net1", Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: via, Table: netdev.MainTable, Metric: 7},
		{IfName: "net1", Destination: netip.MustParsePrefix("192.0.2.0/24"), Table: netdev.MainTable},
	}
	compare := []gocmp.Option{
		cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
		cmpopts.SortSlices(func(a, b netdev.Path) bool {
			return a.Table != b.Table && a.Table < b.Table || a.Destination.Bits() < b.Destination.Bits()
		}),
	}
	if diff := gocmp.Diff(want, paths, compare...); diff != "" {
		t.Error(diff)
	}
	wantRules := []netdev.Rule{{Family: netdev.IPv4, From: netip.MustParsePrefix("192.0.2.2/32"), Table: 100}}
	if diff := gocmp.Diff(wantRules, got.Rules, compare...); diff != "" {
		t.Error(diff)
	}
	if got.ReversePath["net1"] != netdev.ReversePathStrict {
		t.Errorf("reverse paths %v; want net1 strict", got.ReversePath)
	}
	if _, ok := got.ReversePath["all"]; ok {
		t.Errorf("reverse paths %v; want interfaces only", got.ReversePath)
	}
}

func TestResolveTellsWhoAnswers(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	sandbox, outside := testenv.NetNS(t), testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: sandbox, Name: "net1", Addrs: []string{"192.0.2.2/24", "2001:db8::2/64"}},
		testenv.End{NetNS: outside, Name: "out1", Addrs: []string{"192.0.2.1/24", "2001:db8::1/64"}})
	for address, want := range map[string]netdev.NeighbourState{
		"192.0.2.1": netdev.Answered, "2001:db8::1": netdev.Answered, "192.0.2.9": netdev.Silent, "2001:db8::9": netdev.Silent,
	} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			addr := netip.MustParseAddr(address)
			got, err := netdev.NewLinux().Resolve(ctx, sandbox, "net1", addr)
			if err != nil || got != want {
				t.Fatalf("%q, %v; want %q", got, err, want)
			}
			known, err := netdev.NewLinux().Neighbours(sandbox)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range known {
				if n.Address == addr && n.IfName == "net1" && n.State == want {
					return
				}
			}
			t.Errorf("neighbours %v; want %s %s", known, addr, want)
		})
	}
}

func TestResolveEndsWithItsContext(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	sandbox, outside := testenv.NetNS(t), testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: sandbox, Name: "net1", Addrs: []string{"192.0.2.2/24"}}, testenv.End{NetNS: outside, Name: "out1"})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got, err := netdev.NewLinux().Resolve(ctx, sandbox, "net1", netip.MustParseAddr("192.0.2.1")); err != nil || got != netdev.Asked {
		t.Errorf("%q, %v; want %q", got, err, netdev.Asked)
	}
	if _, err := netdev.NewLinux().Resolve(t.Context(), sandbox, "net7", netip.MustParseAddr("192.0.2.1")); err == nil {
		t.Error("no error for an interface that is not there")
	}
}
