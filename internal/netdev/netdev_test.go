// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

// kernel is what the cases below need of netdev.Linux and netdev.Fake alike.
type kernel interface {
	SetDefaultRoutes(ctx context.Context, netnsPath string, r netdev.DefaultRoutes) error
	DefaultRoutes(netnsPath string) ([]netdev.Route, error)
	Links(netnsPath string) ([]netdev.Link, error)
	IsNetNS(path string) (bool, error)
	SameNetNS(path string) (bool, error)
}

// end is an interface of a sandbox before a case.
type end struct {
	name  string
	addrs []string
	down  bool
}

var (
	eth0 = end{name: "eth0", addrs: []string{"10.0.0.2/24", "2001:db8:0::2/64"}}
	net1 = end{name: "net1", addrs: []string{"10.1.0.2/24", "2001:db8:1::2/64"}}
)

func via(ifName, gateway string) netdev.Route {
	gw := netip.MustParseAddr(gateway)
	if gw.Is4() {
		return netdev.Route{IfName: ifName, Gateway: gw, Family: netdev.IPv4}
	}
	return netdev.Route{IfName: ifName, Gateway: gw, Family: netdev.IPv6}
}

func gateways(gws ...string) map[netdev.Family]netip.Addr {
	m := map[netdev.Family]netip.Addr{}
	for _, gw := range gws {
		r := via("", gw)
		m[r.Family] = r.Gateway
	}
	return m
}

// TestSetDefaultRoutes holds the fake to what the kernel does: each case runs on both.
func TestSetDefaultRoutes(t *testing.T) {
	t.Parallel()
	both := []netdev.Route{via("eth0", "10.0.0.1"), via("eth0", "2001:db8:0::1")}
	tests := map[string]struct {
		ends    []end
		routes  []netdev.Route
		set     netdev.DefaultRoutes
		want    []netdev.Route // nil: as before
		wantErr error
		fix     string
	}{
		"gateways of both families take eth0's routes over": {
			routes: both,
			set:    netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1", "2001:db8:1::1")},
			want:   []netdev.Route{via("net1", "10.1.0.1"), via("net1", "2001:db8:1::1")},
		},
		"a gateway of one family leaves the other alone": {
			routes: both,
			set:    netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1")},
			want:   []netdev.Route{via("net1", "10.1.0.1"), via("eth0", "2001:db8:0::1")},
		},
		"a link-local gateway is reachable on any interface": {
			routes: both,
			set:    netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("fe80::1")},
			want:   []netdev.Route{via("eth0", "10.0.0.1"), via("net1", "fe80::1")},
		},
		"a gateway replaces another one on the same interface": {
			routes: []netdev.Route{via("net1", "10.1.0.9"), via("net1", "2001:db8:1::9")},
			set:    netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1", "2001:db8:1::1")},
			want:   []netdev.Route{via("net1", "10.1.0.1"), via("net1", "2001:db8:1::1")},
		},
		"the gateway that is set already stays": {
			routes: both,
			set:    netdev.DefaultRoutes{IfName: "eth0", Gateways: gateways("10.0.0.1", "2001:db8::1")},
		},
		"a gateway is set where there was no route": {
			set:  netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1", "2001:db8:1::1")},
			want: []netdev.Route{via("net1", "10.1.0.1"), via("net1", "2001:db8:1::1")},
		},
		"keep removes only the others' routes": {
			routes: []netdev.Route{via("eth0", "10.0.0.1"), via("eth0", "2001:db8:0::1"), via("net1", "2001:db8:1::1")},
			set:    netdev.DefaultRoutes{IfName: "net1", Keep: []netdev.Family{netdev.IPv6}},
			want:   []netdev.Route{via("eth0", "10.0.0.1"), via("net1", "2001:db8:1::1")},
		},
		"keep of an interface without a route leaves none": {
			routes: both,
			set:    netdev.DefaultRoutes{IfName: "net1", Keep: []netdev.Family{netdev.IPv4, netdev.IPv6}},
			want:   []netdev.Route{},
		},
		"one family is set and the other kept": {
			routes: append([]netdev.Route{via("net1", "2001:db8:1::9")}, both...),
			set:    netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1"), Keep: []netdev.Family{netdev.IPv6}},
			want:   []netdev.Route{via("net1", "10.1.0.1"), via("net1", "2001:db8:1::9")},
		},
		"no family changes nothing": {
			routes: both,
			set:    netdev.DefaultRoutes{IfName: "net1"},
		},
		"a gateway in no subnet of the interface is refused": {
			routes: both, wantErr: syscall.ENETUNREACH, fix: "via 10.9.0.1 on net1: network is unreachable; the gateway is in no subnet of net1: add an address",
			set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.9.0.1")},
		},
		"an IPv6 gateway in no subnet is refused, and IPv4 put back": {
			routes: both, wantErr: syscall.EHOSTUNREACH, fix: "via 2001:db8:9::1 on net1: no route to host; the gateway is in no subnet of net1: add an address",
			set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1", "2001:db8:9::1")},
		},
		"an own IPv6 address as gateway is refused": {
			routes: both, wantErr: syscall.EINVAL, fix: "must be a neighbour on net1",
			set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("2001:db8:1::2")},
		},
		"an own IPv4 address as gateway is the link itself": {
			routes: both,
			set:    netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.2")},
			want:   []netdev.Route{via("net1", "10.1.0.2"), via("eth0", "2001:db8:0::1")},
		},
		"an interface that is down is refused": {
			ends: []end{eth0, {name: "net1", addrs: net1.addrs, down: true}}, routes: both, wantErr: syscall.ENETDOWN, fix: "net1 is down",
			set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1")},
		},
		"an interface that is missing is refused": {
			routes: both, fix: "interface net7 is not in the sandbox",
			set: netdev.DefaultRoutes{IfName: "net7", Keep: []netdev.Family{netdev.IPv4}},
		},
		"no interface is refused":                  {routes: both, set: netdev.DefaultRoutes{Keep: []netdev.Family{netdev.IPv4}}, fix: "no interface named"},
		"a family to set and to keep is refused":   {routes: both, set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1"), Keep: []netdev.Family{netdev.IPv4}}, fix: "IPv4 is named twice"},
		"an unknown family is refused":             {routes: both, set: netdev.DefaultRoutes{IfName: "net1", Keep: []netdev.Family{5}}, fix: "unknown IP version 5"},
		"a gateway of the other family is refused": {routes: both, set: netdev.DefaultRoutes{IfName: "net1", Gateways: map[netdev.Family]netip.Addr{netdev.IPv4: netip.MustParseAddr("2001:db8::1")}}, fix: "cannot be an IPv4 gateway"},
		"the unspecified gateway is refused":       {routes: both, set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("0.0.0.0")}, fix: "cannot be an IPv4 gateway"},
		"a multicast gateway is refused":           {routes: both, set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("ff02::1")}, fix: "cannot be an IPv6 gateway"},
		"a gateway that is no address is refused":  {routes: both, set: netdev.DefaultRoutes{IfName: "net1", Gateways: map[netdev.Family]netip.Addr{netdev.IPv6: {}}}, fix: "cannot be an IPv6 gateway"},
		"IPv4 in IPv6 is not an IPv6 gateway":      {routes: both, set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("::ffff:10.1.0.1")}, fix: "cannot be an IPv6 gateway"},
		"a gateway with a zone is refused":         {routes: both, set: netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("fe80::1%net1")}, fix: "cannot be an IPv6 gateway"},
	}
	for name, tc := range tests {
		if tc.ends == nil {
			tc.ends = []end{eth0, net1}
		}
		if tc.want == nil {
			tc.want = tc.routes
		}
		run := func(t *testing.T, k kernel, path string) {
			t.Helper()
			err := k.SetDefaultRoutes(t.Context(), path, tc.set)
			switch {
			case tc.fix == "" && err != nil:
				t.Error(err)
			case tc.fix != "" && (err == nil || !strings.Contains(err.Error(), tc.fix) || strings.Contains(err.Error(), "\n")):
				t.Errorf("error %v, want one line with %q", err, tc.fix)
			case tc.wantErr != nil && !errors.Is(err, tc.wantErr):
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			wantRoutes(t, k, path, tc.want)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, path := fakeSandbox(tc.ends, tc.routes)
			run(t, fake, path)
			t.Run("Linux", func(t *testing.T) {
				testenv.RequireRoot(t)
				path, _ := linuxSandbox(t, tc.ends, tc.routes)
				run(t, netdev.NewLinux(), path)
			})
		})
	}
}

func TestCancelledContextChangesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	routes := []netdev.Route{via("eth0", "10.0.0.1")}
	set := netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1")}
	fake, path := fakeSandbox([]end{eth0, net1}, routes)
	if err := fake.SetDefaultRoutes(ctx, path, set); !errors.Is(err, context.Canceled) {
		t.Errorf("fake: %v", err)
	}
	wantRoutes(t, fake, path, routes)

	testenv.RequireRoot(t)
	path, _ = linuxSandbox(t, []end{eth0, net1}, routes)
	if err := netdev.NewLinux().SetDefaultRoutes(ctx, path, set); !errors.Is(err, context.Canceled) {
		t.Errorf("Linux: %v", err)
	}
	wantRoutes(t, netdev.NewLinux(), path, routes)
}

func TestPathsThatAreNoNetworkNamespace(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	dir := t.TempDir()
	file, fifo := dir+"/file", dir+"/fifo"
	if err := errors.Join(os.WriteFile(file, nil, 0o600), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	gone := testenv.NetNS(t)
	if err := syscall.Unmount(gone, 0); err != nil {
		t.Fatal(err)
	}
	// The cleanup of testenv unmounts it, so something must be mounted.
	t.Cleanup(func() { _ = syscall.Mount(file, gone, "", syscall.MS_BIND, "") })

	k := netdev.NewLinux()
	for name, path := range map[string]string{
		"missing": dir + "/missing", "below a file": file + "/x", "empty file": file, "directory": dir, "FIFO": fifo,
		"mount namespace": "/proc/self/ns/mnt", "unmounted": gone,
	} {
		if is, err := k.IsNetNS(path); is || err != nil {
			t.Errorf("%s: IsNetNS = %t, %v, want false", name, is, err)
		}
		_, errLinks := k.Links(path)
		_, errRoutes := k.DefaultRoutes(path)
		for method, err := range map[string]error{
			"Links": errLinks, "DefaultRoutes": errRoutes,
			"SetDefaultRoutes": k.SetDefaultRoutes(t.Context(), path, netdev.DefaultRoutes{IfName: "lo"}),
		} {
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %s: %v, want an error with the path", name, method, err)
			}
		}
	}
	if _, err := k.IsNetNS(dir + strings.Repeat("/x", 5000)); err == nil {
		t.Error("a path that cannot be looked at was told not to be a namespace")
	}
}

func TestOwnNetworkNamespaceIsRecognised(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	k := netdev.NewLinux()
	sandbox := testenv.NetNS(t)
	for path, want := range map[string]bool{"/proc/thread-self/ns/net": true, sandbox: false} {
		if is, err := k.IsNetNS(path); !is || err != nil {
			t.Errorf("IsNetNS(%s) = %t, %v, want true", path, is, err)
		}
		if same, err := k.SameNetNS(path); same != want || err != nil {
			t.Errorf("SameNetNS(%s) = %t, %v, want %t", path, same, err, want)
		}
	}
	if _, err := k.SameNetNS(sandbox + "/missing"); err == nil {
		t.Error("SameNetNS of nothing gave no error")
	}
}

func TestLinksShowWhatIsInTheSandbox(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	k := netdev.NewLinux()
	path, _ := linuxSandbox(t, []end{eth0, {name: "net1", down: true}}, nil)
	h := testenv.Handle(t, path)
	link, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	mac := net.HardwareAddr{0x0a, 0, 0, 0, 0, 2}
	if err = errors.Join(h.LinkSetMTU(link, 1400), h.LinkSetHardwareAddr(link, mac)); err != nil {
		t.Fatal(err)
	}
	got, err := k.Links(path)
	if err != nil {
		t.Fatal(err)
	}
	prefixes := func(list ...string) []netip.Prefix {
		var ps []netip.Prefix
		for _, s := range list {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		return ps
	}
	want := []netdev.Link{
		{Name: "lo", MAC: make(net.HardwareAddr, 6), MTU: 65536, Addrs: prefixes("127.0.0.1/8", "::1/128"), Up: true, Carrier: true},
		{Name: "eth0", MAC: mac, MTU: 1400, Addrs: prefixes("10.0.0.2/24", "2001:db8::2/64"), Up: true, Carrier: true},
		{Name: "net1", MTU: 1500},
	}
	isLinkLocal := func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() }
	for _, l := range got {
		if l.Name == "eth0" && l.Index != link.Attrs().Index {
			t.Errorf("index of eth0 is %d, want %d", l.Index, link.Attrs().Index)
		}
	}
	opts := cmp.Options{
		cmpopts.IgnoreFields(netdev.Link{}, "Index", "Traits"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		// Of the kernel's own making: the link-local address, and net1's MAC, which is random.
		cmpopts.IgnoreSliceElements(isLinkLocal), cmpopts.EquateEmpty(),
		cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "MAC" }, cmp.Comparer(func(a, b net.HardwareAddr) bool { return len(a) == 0 || len(b) == 0 || string(a) == string(b) })),
	}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("Links (-want +got):\n%s", diff)
	}
}

// TestNoDescriptorIsLeaked is not parallel: other tests would open descriptors meanwhile.
func TestNoDescriptorIsLeaked(t *testing.T) { //nolint:paralleltest // See above.
	testenv.RequireRoot(t)
	k := netdev.NewLinux()
	path, _ := linuxSandbox(t, []end{eth0, net1}, []netdev.Route{via("eth0", "10.0.0.1")})
	calls := func() {
		for _, p := range []string{path, "/proc/self/ns/mnt", path + "/missing", "/dev/null"} {
			_, _ = k.Links(p)
			_, _ = k.DefaultRoutes(p)
			_, _ = k.IsNetNS(p)
			_, _ = k.SameNetNS(p)
			_ = k.SetDefaultRoutes(t.Context(), p, netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1")})
			_ = k.SetDefaultRoutes(t.Context(), p, netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.9.0.1")})
			_ = k.SetDefaultRoutes(t.Context(), p, netdev.DefaultRoutes{IfName: "net9"})
		}
	}
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	calls()
	before := count()
	for range 1000 {
		calls()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors open after 1000 rounds, %d before", after, before)
	}
}

func TestBootIDIsThatOfTheMachine(t *testing.T) {
	t.Parallel()
	got, err := netdev.NewLinux().BootID()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(got) != 36 || got+"\n" != string(want) {
		t.Errorf("BootID = %q, want %q, %v", got, want, err)
	}
}

func wantRoutes(t *testing.T, k kernel, path string, want []netdev.Route) {
	t.Helper()
	got, err := k.DefaultRoutes(path)
	if err != nil {
		t.Fatal(err)
	}
	sortRoutes := cmpopts.SortSlices(func(a, b netdev.Route) bool {
		return a.Family < b.Family || a.Family == b.Family && a.IfName < b.IfName
	})
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), sortRoutes, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("default routes (-want +got):\n%s", diff)
	}
}

func fakeSandbox(ends []end, routes []netdev.Route) (*netdev.Fake, string) {
	const path = "/run/netns/pod"
	var links []netdev.Link
	for i, e := range ends {
		l := netdev.Link{Name: e.name, MAC: net.HardwareAddr{0x0a, 0, 0, 0, 0, byte(i + 2)}, MTU: 1500, Index: i + 2, Up: !e.down}
		for _, a := range e.addrs {
			l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
		}
		links = append(links, l)
	}
	fake := &netdev.Fake{}
	fake.SetNetNS(path, links, routes)
	return fake, path
}

// linuxSandbox makes a namespace whose interfaces are veths to another one, which it returns as well.
func linuxSandbox(t *testing.T, ends []end, routes []netdev.Route) (string, string) {
	t.Helper()
	path, outside := testenv.NetNS(t), testenv.NetNS(t)
	h := testenv.Handle(t, path)
	index := map[string]int{}
	for _, e := range ends {
		testenv.Veth(t, testenv.End{NetNS: path, Name: e.name, Addrs: e.addrs}, testenv.End{NetNS: outside, Name: e.name})
		link, err := h.LinkByName(e.name)
		if err != nil {
			t.Fatal(err)
		}
		index[e.name] = link.Attrs().Index
		if e.down {
			if err := h.LinkSetDown(link); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range routes {
		// As CNI plugins add them.
		if err := h.RouteAddEcmp(&netlink.Route{LinkIndex: index[r.IfName], Gw: r.Gateway.AsSlice(), Dst: anywhere(r.Family)}); err != nil {
			t.Fatalf("add %v: %v", r, err)
		}
	}
	return path, outside
}

func anywhere(f netdev.Family) *net.IPNet {
	if f == netdev.IPv4 {
		return &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	}
	return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}
