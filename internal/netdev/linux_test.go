// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// pod is a sandbox with eth0 and net1 in which a test sets whatever routes it likes.
type pod struct {
	path       string
	outside    *netlink.Handle
	h          *netlink.Handle
	eth0, net1 int
}

func newPod(t *testing.T) pod {
	t.Helper()
	testenv.RequireRoot(t)
	path, outside := linuxSandbox(t, []end{eth0, net1}, nil)
	p := pod{path: path, outside: testenv.Handle(t, outside), h: testenv.Handle(t, path)}
	for name, index := range map[string]*int{"eth0": &p.eth0, "net1": &p.net1} {
		link, err := p.h.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		*index = link.Attrs().Index
	}
	return p
}

func (p pod) add(t *testing.T, f netdev.Family, r netlink.Route) {
	t.Helper()
	r.Dst = anywhere(f)
	if err := p.h.RouteAppend(&r); err != nil {
		t.Fatalf("add %s: %v", r, err)
	}
}

// cutEth0 takes the carrier from eth0, and waits until the kernel shows it on its routes.
func (p pod) cutEth0(t *testing.T) {
	t.Helper()
	peer, err := p.outside.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.outside.LinkSetDown(peer); err != nil {
		t.Fatal(err)
	}
	eventually(t, "eth0's routes are linkdown", func() bool {
		routes, err := p.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: p.eth0}, netlink.RT_FILTER_OIF)
		if err != nil {
			t.Fatal(err)
		}
		// Multicast routes follow only when they are used.
		return !slices.ContainsFunc(routes, func(r netlink.Route) bool {
			return r.Dst.IP.IsUnspecified() && r.Flags&unix.RTNH_F_LINKDOWN == 0
		})
	})
}

// eventually waits for what the kernel does in its own time.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	testenv.Eventually(t, 20*time.Second, done, func() string { return what })
}

// routes lists all routes of all tables but the local one, as text.
func (p pod) routes(t *testing.T) []string {
	t.Helper()
	routes, err := p.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range routes {
		// Link-local and multicast routes come when the kernel has looked for duplicate addresses: at any time.
		if r.Table != unix.RT_TABLE_LOCAL && (r.Dst.IP.IsUnspecified() || !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast()) {
			list = append(list, r.String()+" metric "+strconv.Itoa(r.Priority)+" proto "+r.Protocol.String()+" mtu "+strconv.Itoa(r.MTU))
		}
	}
	slices.Sort(list)
	return list
}

// wayTo asks the kernel where a packet would go.
func (p pod) wayTo(t *testing.T, dst string) (int, string) {
	t.Helper()
	routes, err := p.h.RouteGet(net.ParseIP(dst))
	if err != nil || len(routes) != 1 {
		t.Fatalf("route to %s: %v, %v", dst, routes, err)
	}
	return routes[0].LinkIndex, routes[0].Gw.String()
}

func hop(index int, gateway string) *netlink.NexthopInfo {
	return &netlink.NexthopInfo{LinkIndex: index, Gw: net.ParseIP(gateway)}
}

func TestPacketsFollowATakeoverWhateverWasThereBefore(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, p pod){
		"nothing": func(*testing.T, pod) {},
		"a route without metric": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1")})
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8::1")})
		},
		"several metrics, better and worse": func(t *testing.T, p pod) {
			t.Helper()
			for _, metric := range []int{1, 100, 1024, 2048} {
				p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1"), Priority: metric})
				p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8::1"), Priority: metric})
			}
		},
		"appended ones of one metric": func(t *testing.T, p pod) {
			t.Helper()
			for _, last := range []string{"1", "7", "8"} {
				p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0." + last)})
				p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8::" + last)})
			}
		},
		"multipath over both interfaces": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{MultiPath: []*netlink.NexthopInfo{hop(p.eth0, "10.0.0.1"), hop(p.net1, "10.1.0.9")}})
			p.add(t, netdev.IPv6, netlink.Route{MultiPath: []*netlink.NexthopInfo{hop(p.eth0, "2001:db8::1"), hop(p.net1, "2001:db8:1::9")}})
		},
		"multipath of another metric": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{Priority: 7, MultiPath: []*netlink.NexthopInfo{hop(p.eth0, "10.0.0.1"), hop(p.eth0, "10.0.0.7")}})
			p.add(t, netdev.IPv6, netlink.Route{Priority: 7, MultiPath: []*netlink.NexthopInfo{hop(p.eth0, "2001:db8::1"), hop(p.eth0, "2001:db8::7")}})
		},
		"without gateway": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Scope: netlink.SCOPE_LINK})
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0})
		},
		"onlink gateways": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("169.254.1.1"), Flags: int(netlink.FLAG_ONLINK)})
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8:ffff::1"), Flags: int(netlink.FLAG_ONLINK)})
		},
		"an IPv6 gateway for IPv4": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Via: &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: net.ParseIP("2001:db8::1")}})
		},
		"with metrics of its own": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1"), MTU: 1400, AdvMSS: 1300, Src: net.ParseIP("10.0.0.2")})
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8::1"), MTU: 1400, Src: net.ParseIP("2001:db8::2")})
		},
		"of the protocol of router advertisements": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("fe80::1"), Protocol: unix.RTPROT_RA})
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.net1, Gw: net.ParseIP("2001:db8:1::1"), Protocol: unix.RTPROT_RA})
		},
		"the same one, by another protocol and metric": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.net1, Gw: net.ParseIP("10.1.0.1"), Priority: 5})
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.net1, Gw: net.ParseIP("10.1.0.1"), Protocol: unix.RTPROT_DHCP})
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.net1, Gw: net.ParseIP("2001:db8:1::1"), Priority: 5})
		},
		"the very same one and its like, behind eth0's": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1")})
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.net1, Gw: net.ParseIP("10.1.0.1"), Protocol: unix.RTPROT_DHCP})
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.net1, Gw: net.ParseIP("10.1.0.1"), Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST})
		},
		"unreachable": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{Type: unix.RTN_UNREACHABLE})
			p.add(t, netdev.IPv6, netlink.Route{Type: unix.RTN_UNREACHABLE, Priority: 9})
		},
		"of a link without carrier": func(t *testing.T, p pod) {
			t.Helper()
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1")})
			p.add(t, netdev.IPv4, netlink.Route{Priority: 9, MultiPath: []*netlink.NexthopInfo{hop(p.eth0, "10.0.0.1"), hop(p.eth0, "10.0.0.7")}})
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8::1")})
			p.cutEth0(t)
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			prepare(t, p)
			set := netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1", "2001:db8:1::1")}
			for range 2 { // A repeated ADD asks again.
				if err := netdev.NewLinux().SetDefaultRoutes(t.Context(), p.path, set); err != nil {
					t.Fatal(err)
				}
				wantRoutes(t, netdev.NewLinux(), p.path, []netdev.Route{via("net1", "10.1.0.1"), via("net1", "2001:db8:1::1")})
			}
			for dst, want := range map[string]string{"198.51.100.1": "10.1.0.1", "2001:db8:ffff:ffff::1": "2001:db8:1::1"} {
				if index, gateway := p.wayTo(t, dst); index != p.net1 || gateway != want {
					t.Errorf("packets to %s go via %s on link %d, want %s on net1 (%d)", dst, gateway, index, want, p.net1)
				}
			}
		})
	}
}

func TestKeepReducesAMultipathRoute(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.add(t, netdev.IPv4, netlink.Route{MultiPath: []*netlink.NexthopInfo{hop(p.eth0, "10.0.0.1"), hop(p.net1, "10.1.0.1"), hop(p.net1, "10.1.0.7")}})
	p.add(t, netdev.IPv6, netlink.Route{MultiPath: []*netlink.NexthopInfo{hop(p.eth0, "2001:db8::1"), hop(p.eth0, "2001:db8::7"), hop(p.net1, "2001:db8:1::1")}})
	set := netdev.DefaultRoutes{IfName: "net1", Keep: []netdev.Family{netdev.IPv4, netdev.IPv6}}
	if err := netdev.NewLinux().SetDefaultRoutes(t.Context(), p.path, set); err != nil {
		t.Fatal(err)
	}
	wantRoutes(t, netdev.NewLinux(), p.path, []netdev.Route{via("net1", "10.1.0.1"), via("net1", "10.1.0.7"), via("net1", "2001:db8:1::1")})
}

func TestKeepLeavesTheWinnersRoutesAsTheyWere(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.net1, Gw: net.ParseIP("10.1.0.1"), Priority: 50, MTU: 1400})
	p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.net1, Gw: net.ParseIP("2001:db8:1::1"), Protocol: unix.RTPROT_RA})
	before := p.routes(t)
	p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1")})
	p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8::1"), Priority: 3})
	set := netdev.DefaultRoutes{IfName: "net1", Keep: []netdev.Family{netdev.IPv4, netdev.IPv6}}
	if err := netdev.NewLinux().SetDefaultRoutes(t.Context(), p.path, set); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(before, p.routes(t)); diff != "" {
		t.Errorf("routes (-before +after):\n%s", diff)
	}
}

func TestRoutesThatAreNotDefaultOrNotMainAreLeftAlone(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	_, half, err := net.ParseCIDR("0.0.0.0/1")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []netlink.Route{
		{Dst: half, LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1")},
		{Dst: anywhere(netdev.IPv4), LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1"), Table: 100},
		{Dst: anywhere(netdev.IPv6), LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8::1"), Table: 1000},
	} {
		if err := p.h.RouteAdd(&r); err != nil {
			t.Fatal(err)
		}
	}
	before := p.routes(t)
	p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1")})
	set := netdev.DefaultRoutes{IfName: "net1", Keep: []netdev.Family{netdev.IPv4, netdev.IPv6}}
	if err := netdev.NewLinux().SetDefaultRoutes(t.Context(), p.path, set); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(before, p.routes(t)); diff != "" {
		t.Errorf("routes (-before +after):\n%s", diff)
	}
}

func TestFailedTakeoverLeavesTheRoutesAsTheyWere(t *testing.T) {
	t.Parallel()
	// IPv4 is set before IPv6 fails, so this one is gone by then and has to be put back.
	for name, replaced := range map[string]func(p pod) netlink.Route{
		"a route with metrics of its own": func(p pod) netlink.Route {
			return netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1"), MTU: 1400}
		},
		"an onlink gateway": func(p pod) netlink.Route {
			return netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("169.254.1.1"), Flags: int(netlink.FLAG_ONLINK)}
		},
		"a multipath route": func(p pod) netlink.Route {
			return netlink.Route{MultiPath: []*netlink.NexthopInfo{hop(p.eth0, "10.0.0.1"), hop(p.net1, "10.1.0.7")}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			p.add(t, netdev.IPv4, replaced(p))
			p.add(t, netdev.IPv4, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.7"), Priority: 7})
			p.add(t, netdev.IPv6, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("2001:db8::1")})
			// A link without carrier: the kernel lists its routes with a flag that it takes from nobody.
			p.cutEth0(t)
			before := p.routes(t)
			set := netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1", "2001:db8:9::1")}
			err := netdev.NewLinux().SetDefaultRoutes(t.Context(), p.path, set)
			if !errors.Is(err, unix.EHOSTUNREACH) || strings.Contains(err.Error(), "put the old ones back") {
				t.Errorf("error %v, want only that the gateway cannot be reached", err)
			}
			if diff := gocmp.Diff(before, p.routes(t)); diff != "" {
				t.Errorf("routes (-before +after):\n%s", diff)
			}
		})
	}
}

func TestRouteLearnedFromARouterAdvertisementIsRemoved(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	path, router := testenv.NetNS(t), testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: path, Name: "eth0", Addrs: []string{"fe80::2/64"}}, testenv.End{NetNS: router, Name: "eth0", Addrs: []string{"fe80::1/64"}})
	testenv.Veth(t, testenv.End{NetNS: path, Name: "net1", Addrs: net1.addrs}, testenv.End{NetNS: router, Name: "net1"})
	k := netdev.NewLinux()
	eventually(t, "eth0 has a default route from the advertisement", func() bool {
		testenv.Do(t, router, func() error {
			err := advertise("eth0", "fe80::1")
			if errors.Is(err, unix.ENETUNREACH) {
				return nil // The link has no multicast route yet: the next try will do.
			}
			return err
		})
		learned, err := k.DefaultRoutes(path)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(learned, []netdev.Route{via("eth0", "fe80::1")})
	})
	if err := k.SetDefaultRoutes(t.Context(), path, netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("2001:db8:1::1")}); err != nil {
		t.Fatal(err)
	}
	wantRoutes(t, k, path, []netdev.Route{via("net1", "2001:db8:1::1")})
}

// advertise sends one router advertisement (RFC 4861 section 4.2) to all nodes on a link of the current namespace.
func advertise(ifName, source string) error {
	link, err := net.InterfaceByName(ifName)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	from := &unix.SockaddrInet6{Addr: netip.MustParseAddr(source).As16(), ZoneId: uint32(link.Index)}
	to := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(link.Index)}
	// Type 134, hop limit 64, router lifetime 1800 s; the kernel adds the checksum. A receiver insists on hop limit 255.
	message := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	return cmp.Or(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.Bind(fd, from),
		unix.Sendto(fd, message, 0, to),
	)
}
