// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// mover is what the cases below need of netdev.Linux and netdev.Fake alike.
type mover interface {
	Links(netns string) ([]netdev.Link, error)
	Link(netns, name string) (netdev.Link, error)
	SetLink(netns string, s netdev.LinkSetting, to netdev.Link) error
	MoveLink(from string, index int, to, name string) error
	NetNSCookie(path string) (uint64, error)
	NetNSID(path string) (string, error)
}

// stage is two network namespaces: one with vf0, the other with the links of a case.
type stage struct {
	kernel       mover
	host, target string
}

// occupant is a link of the target namespace.
type occupant struct {
	name     string
	altNames []string
}

func stages(t *testing.T, there []occupant) map[string]stage {
	t.Helper()
	testenv.RequireRoot(t)
	l := stage{kernel: netdev.NewLinux(), host: testenv.NetNS(t), target: testenv.NetNS(t)}
	outside := testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: l.host, Name: "vf0"}, testenv.End{NetNS: outside, Name: "peer"})
	f := &netdev.Fake{}
	vf := mustLink(t, l, l.host, "vf0")
	f.SetNetNS("/run/netns/host", []netdev.Link{{Name: "vf0", Index: 70, MTU: vf.MTU, MAC: vf.MAC, Up: vf.Up}}, nil)
	var links []netdev.Link
	for i, o := range there {
		testenv.Veth(t, testenv.End{NetNS: l.target, Name: o.name}, testenv.End{NetNS: outside, Name: fmt.Sprintf("peer%d", i)})
		link := mustLink(t, l, l.target, o.name)
		link.AltNames = o.altNames
		if err := l.kernel.SetLink(l.target, netdev.LinkAltNames, link); err != nil {
			t.Fatal(err)
		}
		links = append(links, netdev.Link{Name: o.name, Index: 80 + i, MTU: 1500, AltNames: o.altNames})
	}
	f.SetNetNS("/run/netns/target", links, nil)
	return map[string]stage{"linux": l, "fake": {kernel: f, host: "/run/netns/host", target: "/run/netns/target"}}
}

func mustLink(t *testing.T, s stage, netns, name string) netdev.Link {
	t.Helper()
	link, err := s.kernel.Link(netns, name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func names(t *testing.T, s stage, netns string) []string {
	t.Helper()
	links, err := s.kernel.Links(netns)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, l := range links {
		if l.Name != "lo" {
			all = append(all, l.Name)
		}
	}
	slices.Sort(all)
	return all
}

// TestMoveLink holds the fake to what the kernel does, above all to what it leaves when it fails.
func TestMoveLink(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		there    []occupant
		altNames []string // of the link that moves
		want     error
		// wantHost and wantTarget are the names afterwards.
		wantHost, wantTarget []string
	}{
		"it is called as it shall be at once": {
			wantTarget: []string{"net1"},
		},
		"its old name may be taken in the target": {
			there: []occupant{{name: "vf0"}}, wantTarget: []string{"net1", "vf0"},
		},
		"a new name that is taken fails it, and it has moved": {
			there: []occupant{{name: "net1"}}, want: syscall.EEXIST, wantTarget: []string{"net1", "vf0"},
		},
		"a new name that is another's alternative one fails it, and it has moved": {
			there: []occupant{{name: "eth7", altNames: []string{"net1"}}}, want: syscall.EEXIST, wantTarget: []string{"eth7", "vf0"},
		},
		"old and new name taken: it stays": {
			there: []occupant{{name: "vf0"}, {name: "net1"}}, want: syscall.EEXIST, wantHost: []string{"vf0"}, wantTarget: []string{"net1", "vf0"},
		},
		"an alternative name of its own that is taken: it stays": {
			there: []occupant{{name: "long"}}, altNames: []string{"long"}, want: syscall.EEXIST, wantHost: []string{"vf0"}, wantTarget: []string{"long"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kernel, s := range stages(t, tc.there) {
				link := mustLink(t, s, s.host, "vf0")
				link.Up = false
				link.AltNames = tc.altNames
				for _, setting := range []netdev.LinkSetting{netdev.LinkUp, netdev.LinkAltNames} {
					if err := s.kernel.SetLink(s.host, setting, link); err != nil {
						t.Fatalf("%s: %v", kernel, err)
					}
				}
				err := s.kernel.MoveLink(s.host, link.Index, s.target, "net1")
				if !errors.Is(err, tc.want) {
					t.Fatalf("%s: got %v, want %v", kernel, err, tc.want)
				}
				if diff := cmp.Diff([][]string{tc.wantHost, tc.wantTarget}, [][]string{names(t, s, s.host), names(t, s, s.target)}); diff != "" {
					t.Errorf("%s: names on host and in target (-want +got):\n%s", kernel, diff)
				}
				if tc.want != nil {
					continue
				}
				moved := mustLink(t, s, s.target, "net1")
				if moved.MTU != link.MTU || moved.MAC.String() != link.MAC.String() || moved.Up {
					t.Errorf("%s: moved link is %+v", kernel, moved)
				}
			}
		})
	}
}

func TestSetLink(t *testing.T) {
	t.Parallel()
	mac, err := net.ParseMAC("02:00:00:00:00:77")
	if err != nil {
		t.Fatal(err)
	}
	for kernel, s := range stages(t, nil) {
		down := mustLink(t, s, s.host, "vf0")
		down.Up = false
		if err := s.kernel.SetLink(s.host, netdev.LinkUp, down); err != nil { // many drivers take no MAC while it is up
			t.Fatal(err)
		}
		before := mustLink(t, s, s.host, "vf0")
		for _, on := range []bool{true, false} {
			want := mustLink(t, s, s.host, "vf0")
			want.Up, want.Promisc, want.AllMulticast, want.MTU, want.MAC, want.AltNames, want.Traits = on, on, on, 1300, mac, nil, before.Traits
			if on {
				want.AltNames = []string{"enp1s0f0v0", "storage"}
				want.Traits = netdev.Traits{
					Flags: unix.IFF_NOARP, TxQueueLen: 7, Mode: 1, GSOMaxSize: 2000, GSOMaxSegs: 3, GROMaxSize: 4000, GSOIPv4MaxSize: 5000,
					GROIPv4MaxSize: 6000, Alias: "left by a pod", Group: 77,
				}
			}
			settings := []netdev.LinkSetting{netdev.LinkPromisc, netdev.LinkAllMulticast, netdev.LinkMTU, netdev.LinkMAC, netdev.LinkAltNames, netdev.LinkTraits, netdev.LinkUp}
			if !on {
				slices.Reverse(settings) // it is up
			}
			for _, setting := range settings {
				if err := s.kernel.SetLink(s.host, setting, want); err != nil {
					t.Fatalf("%s: %v", kernel, err)
				}
			}
			got := mustLink(t, s, s.host, "vf0")
			want.Carrier = got.Carrier // the peer's doing
			slices.Sort(got.AltNames)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: -want +got:\n%s", kernel, diff)
			}
		}
		if err := s.kernel.SetLink(s.host, "colour", mustLink(t, s, s.host, "vf0")); err == nil {
			t.Errorf("%s: a setting that does not exist was set", kernel)
		}
	}
}

func TestLinkThatIsNotThere(t *testing.T) {
	t.Parallel()
	for kernel, s := range stages(t, nil) {
		if _, err := s.kernel.Link(s.host, "vf9"); !errors.Is(err, netdev.ErrNoLink) {
			t.Errorf("%s: got %v, want ErrNoLink", kernel, err)
		}
	}
}

func TestNetNSIDTellsNamespacesApart(t *testing.T) {
	t.Parallel()
	for kernel, s := range stages(t, nil) {
		ids := map[string]bool{}
		for _, path := range []string{s.host, s.target, s.host} {
			id, err := s.kernel.NetNSID(path)
			if err != nil || id == "" {
				t.Fatalf("%s: %q, %v", kernel, id, err)
			}
			ids[id] = true
		}
		if len(ids) != 2 {
			t.Errorf("%s: two namespaces have the identities %v", kernel, ids)
		}
		if _, err := s.kernel.NetNSID("/run/netns/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v for no namespace, want ErrNotExist", kernel, err)
		}
	}
}

// TestNetNSCookieIsOfOneNamespaceOnly makes and ends namespaces until the kernel uses an inode again.
func TestNetNSCookieIsOfOneNamespaceOnly(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	l := netdev.NewLinux()
	path := filepath.Join(t.TempDir(), "pod")
	inodes, cookies := map[string]int{}, map[uint64]int{}
	for range 100 {
		if err := l.CreateNetNS(path); err != nil {
			t.Fatal(err)
		}
		id, err := l.NetNSID(path)
		cookie, cookieErr := l.NetNSCookie(path)
		if err = errors.Join(err, cookieErr, l.DeleteNetNS(path)); err != nil {
			t.Fatal(err)
		}
		inodes[id]++
		cookies[cookie]++
	}
	t.Logf("100 namespaces had %d inodes and %d cookies", len(inodes), len(cookies))
	if len(cookies) != 100 {
		t.Errorf("100 namespaces had %d cookies", len(cookies))
	}
	if _, err := l.NetNSCookie(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v for no namespace, want ErrNotExist", err)
	}
	f := &netdev.Fake{}
	f.SetNetNS(path, nil, nil)
	first, _ := f.NetNSID(path)
	cookie, _ := f.NetNSCookie(path)
	f.SetNetNS(path, nil, nil)
	if again, _ := f.NetNSID(path); again != first {
		t.Errorf("the fake uses no inode again, as the kernel does: %s, %s", first, again)
	}
	if again, _ := f.NetNSCookie(path); again == cookie {
		t.Error("the fake uses a cookie again, as no kernel does")
	}
}

func TestDevicesOfANamespaceThatEndsGoBackToTheHost(t *testing.T) {
	t.Parallel()
	f := &netdev.Fake{}
	f.SetNetNS(netdev.Host, []netdev.Link{{Name: "eth0", Index: 1}}, nil)
	f.SetNetNS("/run/netns/pod", []netdev.Link{{Name: "eth0", Index: 7, Parent: "0000:01:10.0", Up: true}, {Name: "veth", Index: 8}}, nil)
	events, err := f.LinkEvents(t.Context(), netdev.Host)
	if err != nil {
		t.Fatal(err)
	}
	f.DeleteNetNS("/run/netns/pod")
	<-events
	where, link, ok := f.Where("0000:01:10.0")
	if !ok || where != netdev.Host || link.Name != "dev7" || link.Up {
		t.Errorf("the device is in %q as %+v", where, link)
	}
	if _, err := f.Link(netdev.Host, "veth"); !errors.Is(err, netdev.ErrNoLink) {
		t.Errorf("the veth outlived its namespace: %v", err)
	}
}

func TestVFOfALinkThatHasNone(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	l := netdev.NewLinux()
	if _, err := l.VF("lo", 0); !errors.Is(err, netdev.ErrVFsUntold) {
		t.Errorf("got %v, want ErrVFsUntold", err)
	}
	if _, err := l.VF("nonesuch", 0); !errors.Is(err, netdev.ErrNoLink) {
		t.Errorf("got %v, want ErrNoLink", err)
	}
	for _, s := range []netdev.VFSetting{netdev.VFTrust, netdev.VFVLAN, netdev.VFMAC, netdev.VFRate, netdev.VFSpoofCheck, netdev.VFLinkState} {
		to := netdev.VF{MAC: "02:00:00:00:00:01", LinkState: netdev.LinkStateAuto, VLAN: netdev.VLAN{ID: 5, Proto: netdev.VLANProto8021AD}}
		if err := l.SetVF("lo", s, to); err == nil || !strings.Contains(err.Error(), string(s)) {
			t.Errorf("%s: got %v, want an error that names it", s, err)
		}
	}
}

func TestConfigureAndAnnounce(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	l := netdev.NewLinux()
	sandbox, outside := testenv.NetNS(t), testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: sandbox, Name: "net1"}, testenv.End{NetNS: outside, Name: "peer"})
	link, err := l.Link(sandbox, "net1")
	if err != nil {
		t.Fatal(err)
	}
	table := 100
	a := netdev.Addressing{
		Addresses: []netdev.Address{
			{Prefix: netip.MustParsePrefix("192.0.2.5/24"), Gateway: netip.MustParseAddr("192.0.2.1")},
			{Prefix: netip.MustParsePrefix("2001:db8::5/64"), Gateway: netip.MustParseAddr("2001:db8::1")},
		},
		Routes: []netdev.IPRoute{
			{Destination: netip.MustParsePrefix("198.51.100.0/24"), MTU: 1300, Priority: 7},
			{Destination: netip.MustParsePrefix("203.0.113.0/24"), Gateway: netip.MustParseAddr("192.0.2.9"), Table: &table},
			{Destination: netip.MustParsePrefix("2001:db8:9::/48")},
		},
	}
	for range 2 { // it can be done again
		if err = l.Configure(t.Context(), sandbox, link.Index, a); err != nil {
			t.Fatal(err)
		}
	}
	if link, err = l.Link(sandbox, "net1"); err != nil || !link.Up {
		t.Fatalf("link %+v, %v", link, err)
	}
	var routes []string
	h := testenv.Handle(t, sandbox)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		found, listErr := h.RouteListFiltered(family, &netlink.Route{}, 0)
		if listErr != nil {
			t.Fatal(listErr)
		}
		for _, r := range found {
			if r.Gw != nil {
				routes = append(routes, r.Dst.String()+" via "+r.Gw.String())
			}
		}
	}
	other, err := inTable(h, table)
	if err != nil || len(other) != 1 {
		t.Errorf("table %d has %v, %v", table, other, err)
	}
	want := []string{"198.51.100.0/24 via 192.0.2.1", "2001:db8:9::/48 via 2001:db8::1"}
	if diff := cmp.Diff(want, routes); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	frames := listen(t, outside)
	if err := l.Announce(t.Context(), sandbox, link, a); err != nil {
		t.Fatal(err)
	}
	for {
		frame, from := frames(t)
		if from == link.MAC.String() && frame.protocol == unix.ETH_P_ARP && cmp.Equal(frame.payload[14:18], []byte{192, 0, 2, 5}) {
			return
		}
	}
}

func TestLinkEventsTellOfALinkThatComes(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	l := netdev.NewLinux()
	sandbox, outside := testenv.NetNS(t), testenv.NetNS(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := l.LinkEvents(ctx, sandbox)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Veth(t, testenv.End{NetNS: sandbox, Name: "net1"}, testenv.End{NetNS: outside, Name: "peer"})
	if _, ok := <-events; !ok {
		t.Fatal("the events ended before one came")
	}
	cancel()
	for range events {
	}
}

// TestParentByEthtool is what finds devices on kernels that do not name them by netlink.
func TestLinksOfTheHostHaveTheirDevices(t *testing.T) {
	t.Parallel()
	l := netdev.NewLinux()
	links, err := l.Links(netdev.Host)
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		target, err := os.Readlink("/sys/class/net/" + link.Name + "/device")
		if err != nil {
			continue // it has none
		}
		if parent := target[strings.LastIndexByte(target, '/')+1:]; parent != link.Parent {
			t.Errorf("%s has the device %q, want %q", link.Name, link.Parent, parent)
		}
	}
}

// TestConfigureLeavesTheRoutesOfOthers has a pod whose eth0 has the default route, and an IPAM that gives net1 one too: it is there for whom
// asks for the interface, and takes no packet of eth0's.
func TestConfigureLeavesTheRoutesOfOthers(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	for f, gateway := range map[netdev.Family]string{netdev.IPv4: "10.0.0.1", netdev.IPv6: "2001:db8::1"} {
		p.add(t, f, netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP(gateway)})
	}
	l := netdev.NewLinux()
	for _, far := range []string{"198.51.100.0/24", "2001:db8:aaaa::/48"} {
		_, dst, err := net.ParseCIDR(far)
		if err = errors.Join(err, p.h.RouteAdd(&netlink.Route{LinkIndex: p.eth0, Dst: dst})); err != nil {
			t.Fatal(err)
		}
	}
	a := netdev.Addressing{
		Addresses: []netdev.Address{
			{Prefix: netip.MustParsePrefix("203.0.113.5/24"), Gateway: netip.MustParseAddr("203.0.113.1")},
			{Prefix: netip.MustParsePrefix("2001:db8:5::5/64"), Gateway: netip.MustParseAddr("2001:db8:5::1")},
		},
		Routes: []netdev.IPRoute{
			{Destination: netip.MustParsePrefix("0.0.0.0/0")},
			{Destination: netip.MustParsePrefix("::/0")},
			{Destination: netip.MustParsePrefix("198.51.100.0/24")},
			{Destination: netip.MustParsePrefix("2001:db8:aaaa::/48"), Priority: 5},
			{Destination: netip.MustParsePrefix("198.51.100.128/25")}, // nobody else leads there
		},
	}
	for range 2 {
		if err := l.Configure(t.Context(), p.path, p.net1, a); err != nil {
			t.Fatal(err)
		}
	}
	routes, err := l.DefaultRoutes(p.path)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]int{}
	for _, r := range routes {
		has[r.Family.String()+" "+r.IfName]++
	}
	want := map[string]int{"IPv4 eth0": 1, "IPv4 net1": 1, "IPv6 eth0": 1, "IPv6 net1": 1}
	if diff := cmp.Diff(want, has); diff != "" {
		t.Errorf("default routes (-want +got):\n%s", diff)
	}
	if index, _ := p.wayTo(t, "198.51.100.200"); index != p.net1 {
		t.Errorf("a route of net1's own is not used: packets leave by interface %d", index)
	}
	for _, far := range []string{"8.8.8.8", "198.51.100.1", "2001:db8:aaaa::1", "2001:db8:ffff::1", "2001:db8:ffff::2", "2001:db8:ffff::3", "2001:db8:ffff::4"} { // IPv6 spreads by address
		if index, _ := p.wayTo(t, far); index != p.eth0 {
			t.Errorf("packets to %s leave by interface %d, want eth0, %d", far, index, p.eth0)
		}
	}
}
