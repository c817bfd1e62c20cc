// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// load gives the kernel a program of two instructions, which returns a number: for XDP 1 drops, for TCX 2 does.
func load(t *testing.T, kind uint32, verdict uint64) int {
	t.Helper()
	instructions, license := []uint64{verdict<<32 | 0xb7, 0x95}, []byte("GPL\x00")
	var pinned runtime.Pinner
	pinned.Pin(&instructions[0])
	pinned.Pin(&license[0])
	defer pinned.Unpin()
	fd := bpf(t, unix.BPF_PROG_LOAD, &struct {
		kind, count           uint32
		instructions, license uint64
		_                     [96]byte
	}{kind: kind, count: 2, instructions: uint64(uintptr(unsafe.Pointer(&instructions[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func bpf[T any](t *testing.T, command int, attr *T) int {
	t.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if errno != 0 {
		t.Fatalf("bpf command %d: %v", command, errno)
	}
	return int(fd)
}

// attach puts a TCX program on a hook, held by a BPF link or by itself.
func attach(t *testing.T, netns string, index, program, hook int, byLink bool) {
	t.Helper()
	testenv.Do(t, netns, func() error {
		if byLink {
			fd := bpf(t, unix.BPF_LINK_CREATE, &struct {
				program, ifindex, hook, flags uint32
				_                             [48]byte
			}{program: uint32(program), ifindex: uint32(index), hook: uint32(hook)})
			t.Cleanup(func() { _ = unix.Close(fd) })
			return nil
		}
		bpf(t, unix.BPF_PROG_ATTACH, &struct {
			ifindex, program, hook, flags uint32
			_                             [16]byte
		}{ifindex: uint32(index), program: uint32(program), hook: uint32(hook)})
		return nil
	})
}

// TestProgramsOutliveAMoveAndAreDetached is what a pod with CAP_BPF could leave to the next one: a program that drops its packets, or reads them.
func TestProgramsOutliveAMoveAndAreDetached(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 || inUserNS() {
		t.Skip("it takes the machine's root to load a BPF program")
	}
	for name, mode := range map[string]int{"XDP of the driver": nl.XDP_FLAGS_DRV_MODE, "XDP of the kernel": nl.XDP_FLAGS_SKB_MODE} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			l := netdev.NewLinux()
			testenv.Do(t, w.sandbox, func() error {
				link, err := netlink.LinkByName("net1")
				if err != nil {
					return err
				}
				return netlink.LinkSetXdpFdWithFlags(link, load(t, unix.BPF_PROG_TYPE_XDP, 1), mode)
			})
			attach(t, w.sandbox, w.net1.Index, load(t, unix.BPF_PROG_TYPE_SCHED_CLS, 2), unix.BPF_TCX_INGRESS, false)
			attach(t, w.sandbox, w.net1.Index, load(t, unix.BPF_PROG_TYPE_SCHED_CLS, 2), unix.BPF_TCX_EGRESS, true)
			host := testenv.NetNS(t)
			if err := l.MoveLink(w.sandbox, w.net1.Index, host, "vf0"); err != nil {
				t.Fatal(err)
			}
			link, err := l.Link(host, "vf0")
			if err != nil || len(link.Programs) != 3 {
				t.Fatalf("programs of %+v, %v: want three", link, err)
			}
			link.Programs = link.Programs[:1]
			if err = l.SetLink(host, netdev.LinkPrograms, link); err != nil {
				t.Fatal(err)
			}
			left, err := l.Link(host, "vf0")
			if diff := gocmp.Diff(link.Programs, left.Programs); diff != "" || err != nil {
				t.Errorf("%v, programs that shall stay (-want +got):\n%s", err, diff)
			}
			link.Programs = nil
			if err = l.SetLink(host, netdev.LinkPrograms, link); err != nil {
				t.Fatal(err)
			}
			if left, err = l.Link(host, "vf0"); err != nil || len(left.Programs) != 0 {
				t.Errorf("programs are left: %+v, %v", left, err)
			}
		})
	}
}

// TestXDPProgramThatALinkHolds is busy: who holds it, and whether it may go, nobody can tell from here.
func TestXDPProgramThatALinkHolds(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 || inUserNS() {
		t.Skip("it takes the machine's root to load a BPF program")
	}
	w := newWire(t)
	const xdp = 37 // BPF_XDP, the hook of XDP
	attach(t, w.sandbox, w.net1.Index, load(t, unix.BPF_PROG_TYPE_XDP, 1), xdp, true)
	if err := netdev.NewLinux().SetLink(w.sandbox, netdev.LinkPrograms, w.net1); !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v, want EBUSY", err)
	}
}

// inUserNS reports whether root is only that of a user namespace.
func inUserNS() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || len(strings.Fields(string(ids))) != 3 || strings.Fields(string(ids))[2] != "4294967295"
}

// TestTraitsOutliveAMove is why they are restored.
func TestTraitsOutliveAMove(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	l := netdev.NewLinux()
	left := w.net1
	left.Traits.Flags |= unix.IFF_NOARP
	left.Traits.TxQueueLen, left.Traits.Group, left.Traits.Alias, left.Traits.GSOMaxSize = 1, 77, "left by a pod", 2000
	if err := l.SetLink(w.sandbox, netdev.LinkTraits, left); err != nil {
		t.Fatal(err)
	}
	if err := l.MoveLink(w.sandbox, w.net1.Index, w.outside, "vf0"); err != nil {
		t.Fatal(err)
	}
	moved, err := l.Link(w.outside, "vf0")
	if err != nil || moved.Traits == w.net1.Traits {
		t.Fatalf("the move took them off: %+v, %v", moved.Traits, err)
	}
	moved.Traits = w.net1.Traits
	if err = l.SetLink(w.outside, netdev.LinkTraits, moved); err != nil {
		t.Fatal(err)
	}
	again, err := l.Link(w.outside, "vf0")
	if diff := gocmp.Diff(w.net1.Traits, again.Traits); diff != "" || err != nil {
		t.Errorf("%v, traits (-want +got):\n%s", err, diff)
	}
}

// payload is the head of a netlink message.
type payload []byte

func (p payload) Len() int          { return len(p) }
func (p payload) Serialize() []byte { return p }

// request sends a message about IPv4 routing to the kernel, within a network namespace.
func request(t *testing.T, netns string, kind int, head []byte, attrs ...*nl.RtAttr) {
	t.Helper()
	testenv.Do(t, netns, func() error {
		req := nl.NewNetlinkRequest(kind, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK)
		req.AddData(payload(head))
		for _, a := range attrs {
			req.AddData(a)
		}
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// TestDefaultRouteWithANexthopObject is taken over, and put back when the takeover fails.
func TestDefaultRouteWithANexthopObject(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	const (
		nexthopID, nexthopLink, nexthopGateway = 1, 5, 6 // NHA_ID, NHA_OIF, NHA_GATEWAY of linux/nexthop.h
		routeNexthop                           = 30      // RTA_NH_ID
	)
	request(t, p.path, unix.RTM_NEWNEXTHOP, []byte{unix.AF_INET, 0, unix.RTPROT_STATIC, 0, 0, 0, 0, 0},
		nl.NewRtAttr(nexthopID, nl.Uint32Attr(5)), nl.NewRtAttr(nexthopGateway, []byte{10, 0, 0, 9}), nl.NewRtAttr(nexthopLink, nl.Uint32Attr(uint32(p.eth0))))
	head := (&nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST}}).Serialize()
	plain := netlink.Route{LinkIndex: p.eth0, Gw: net.ParseIP("10.0.0.1"), Priority: 9}
	p.add(t, netdev.IPv4, plain) // of the same metric, and before it
	request(t, p.path, unix.RTM_NEWROUTE, head, nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(9)), nl.NewRtAttr(routeNexthop, nl.Uint32Attr(5)))
	before := p.routes(t)
	l := netdev.NewLinux()
	err := l.SetDefaultRoutes(t.Context(), p.path, netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1", "2001:db8:9::1")})
	if !errors.Is(err, unix.EHOSTUNREACH) || strings.Contains(err.Error(), "put the old ones back") {
		t.Errorf("error %v, want only that the IPv6 gateway cannot be reached", err)
	}
	if err := netdev.RemoveAndRestore(p.path, netdev.IPv4); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(before, p.routes(t)); diff != "" {
		t.Errorf("after a takeover that failed (-before +after):\n%s", diff)
	}
	if err := l.SetDefaultRoutes(t.Context(), p.path, netdev.DefaultRoutes{IfName: "net1", Gateways: gateways("10.1.0.1")}); err != nil {
		t.Fatal(err)
	}
	wantRoutes(t, l, p.path, []netdev.Route{via("net1", "10.1.0.1")})
}

// TestRouterOfASecondaryNetwork advertises itself on net1 of a pod whose default route is eth0's.
func TestRouterOfASecondaryNetwork(t *testing.T) {
	t.Parallel()
	for _, hasDefault := range []bool{true, false} {
		path, outside := testenv.NetNS(t), testenv.NetNS(t)
		testenv.Veth(t, testenv.End{NetNS: path, Name: "eth0", Addrs: eth0.addrs}, testenv.End{NetNS: outside, Name: "eth0"})
		testenv.Veth(t, testenv.End{NetNS: path, Name: "net1", Addrs: []string{"fe80::2/64"}}, testenv.End{NetNS: outside, Name: "net1", Addrs: []string{"fe80::1/64"}})
		l := netdev.NewLinux()
		var want []netdev.Route
		if hasDefault {
			want = []netdev.Route{via("eth0", "2001:db8:0::1")}
			if err := l.SetDefaultRoutes(t.Context(), path, netdev.DefaultRoutes{IfName: "eth0", Gateways: gateways("2001:db8:0::1")}); err != nil {
				t.Fatal(err)
			}
		}
		learned := append(want, via("net1", "fe80::1"))
		routes := func() []netdev.Route {
			testenv.Do(t, outside, func() error {
				if err := advertise("net1", "fe80::1"); !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EADDRNOTAVAIL) {
					return err
				}
				return nil
			})
			found, err := l.DefaultRoutes(path)
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		eventually(t, "a default route from the advertisement", func() bool { return len(routes()) == len(learned) })
		link, err := l.Link(path, "net1")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Configure(t.Context(), path, link.Index, netdev.Addressing{Addresses: []netdev.Address{{Prefix: netip.MustParsePrefix("10.1.0.2/24")}}}); err != nil {
			t.Fatal(err)
		}
		if !hasDefault {
			want = learned // it is the pod's only one, and stays
		}
		for range 3 { // it is not learned again
			if diff := gocmp.Diff(want, routes(), gocmp.Comparer(func(a, b netdev.Route) bool { return a == b })); diff != "" {
				t.Errorf("eth0 has a default route: %t (-want +got):\n%s", hasDefault, diff)
			}
		}
	}
}

// TestLearnedRouteIsPutBackWithItsLifetime removes and puts back what a router advertised for 1800 s.
func TestLearnedRouteIsPutBackWithItsLifetime(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	path, router := testenv.NetNS(t), testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: path, Name: "eth0", Addrs: []string{"fe80::2/64"}}, testenv.End{NetNS: router, Name: "eth0", Addrs: []string{"fe80::1/64"}})
	seconds := func() uint32 {
		lifetimes, err := netdev.Lifetimes(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(lifetimes) != 1 {
			return 0
		}
		return lifetimes[0]
	}
	eventually(t, "a default route from the advertisement", func() bool {
		testenv.Do(t, router, func() error {
			if err := advertise("eth0", "fe80::1"); !errors.Is(err, unix.ENETUNREACH) {
				return err
			}
			return nil
		})
		return seconds() > 0
	})
	if err := netdev.RemoveAndRestore(path, netdev.IPv6); err != nil {
		t.Fatal(err)
	}
	if left := seconds(); left < 1700 || left > 1800 {
		t.Errorf("it was put back for %d s, 0 is for ever", left)
	}
}
