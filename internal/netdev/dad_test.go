// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// ipv6 is an address that an IPAM plugin gave.
func ipv6(address string) netdev.Addressing {
	return netdev.Addressing{Addresses: []netdev.Address{{Prefix: netip.MustParsePrefix(address)}}}
}

// wire is a sandbox with net1, which leads to peer outside.
type wire struct {
	sandbox, outside string
	net1, peer       netdev.Link
}

func newWire(t *testing.T) wire {
	t.Helper()
	testenv.RequireRoot(t)
	w := wire{sandbox: testenv.NetNS(t), outside: testenv.NetNS(t)}
	testenv.Veth(t, testenv.End{NetNS: w.sandbox, Name: "net1"}, testenv.End{NetNS: w.outside, Name: "peer"})
	l := netdev.NewLinux()
	var err, peerErr error
	w.net1, err = l.Link(w.sandbox, "net1")
	w.peer, peerErr = l.Link(w.outside, "peer")
	if err = errors.Join(err, peerErr); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestIPv6AddressCanBeUsedAtOnce binds to the address as a server does that starts as soon as its pod is attached.
func TestIPv6AddressCanBeUsedAtOnce(t *testing.T) {
	t.Parallel()
	for name, withoutCarrier := range map[string]bool{"with carrier": false, "before the carrier comes": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			l := netdev.NewLinux()
			if withoutCarrier {
				w.peer.Up = false
				if err := l.SetLink(w.outside, netdev.LinkUp, w.peer); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Configure(t.Context(), w.sandbox, w.net1.Index, ipv6("2001:db8::5/64")); err != nil {
				t.Fatal(err)
			}
			testenv.Do(t, w.sandbox, func() error {
				server, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.ParseIP("2001:db8::5")})
				if err != nil {
					return err
				}
				return server.Close()
			})
		})
	}
}

// TestAddressThatAnotherNodeHas is an error once the kernel has found out; that it may use the address meanwhile is RFC 4429.
func TestAddressThatAnotherNodeHas(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	l := netdev.NewLinux()
	add := func(netns string, index, flags int, ip string) {
		t.Helper()
		to := address(ip)
		to.Flags = flags
		if err := testenv.Handle(t, netns).AddrAdd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, to); err != nil {
			t.Fatal(err)
		}
	}
	add(w.outside, w.peer.Index, unix.IFA_F_NODAD, "2001:db8::5")
	add(w.sandbox, w.net1.Index, 0, "2001:db8::5") // as plugins do that leave it to the kernel
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, names := range [][]string{nil, {"net1"}, {"lo", "net1"}} {
		if err := l.AwaitDAD(ctx, w.sandbox, names...); !errors.Is(err, netdev.ErrDuplicateAddress) {
			t.Errorf("of %v: got %v, want ErrDuplicateAddress", names, err)
		}
	}
	if err := l.AwaitDAD(ctx, w.sandbox, "lo"); err != nil {
		t.Errorf("another interface's address counts: %v", err)
	}
	if err := l.Configure(ctx, w.sandbox, w.net1.Index, ipv6("2001:db8::5/64")); !errors.Is(err, netdev.ErrDuplicateAddress) {
		t.Errorf("got %v of Configure, want ErrDuplicateAddress", err)
	}
	add(w.outside, w.peer.Index, unix.IFA_F_NODAD, "2001:db8::6")
	a := ipv6("2001:db8::6/64")
	if err := testenv.Handle(t, w.sandbox).AddrDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: w.net1.Index}}, address("2001:db8::5")); err != nil {
		t.Fatal(err)
	}
	err := l.Configure(ctx, w.sandbox, w.net1.Index, a) // which may, or may not, know by then
	if err == nil {
		err = l.Announce(ctx, w.sandbox, w.net1, a)
	}
	if !errors.Is(err, netdev.ErrDuplicateAddress) {
		t.Errorf("got %v, want ErrDuplicateAddress", err)
	}
}

func address(ip string) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(64, 128)}}
}

// TestAwaitDADWaitsForTheCarrier has an address that the kernel can tell nothing of before.
func TestAwaitDADWaitsForTheCarrier(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	l := netdev.NewLinux()
	w.peer.Up = false
	if err := l.SetLink(w.outside, netdev.LinkUp, w.peer); err != nil {
		t.Fatal(err)
	}
	if err := testenv.Handle(t, w.sandbox).AddrAdd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: w.net1.Index}}, address("2001:db8::5")); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.AwaitDAD(ended, w.sandbox, "net1"); !errors.Is(err, netdev.ErrTentative) {
		t.Errorf("got %v, want ErrTentative", err)
	}
	w.peer.Up = true
	if err := l.SetLink(w.outside, netdev.LinkUp, w.peer); err != nil {
		t.Fatal(err)
	}
	if err := l.AwaitDAD(t.Context(), w.sandbox, "net1"); err != nil {
		t.Error(err)
	}
	if err := l.AwaitDAD(t.Context(), w.sandbox, "net2"); !errors.Is(err, netdev.ErrNoLink) {
		t.Errorf("got %v, want ErrNoLink", err)
	}
}

// TestAdvertisementFollowsDuplicateAddressDetection listens from before the address is there: nobody may advertise an address that another
// node may still be found to have (RFC 4862 section 5.4).
func TestAdvertisementFollowsDuplicateAddressDetection(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	l := netdev.NewLinux()
	frames := listen(t, w.outside)
	a := ipv6("2001:db8::5/64")
	if err := l.Configure(t.Context(), w.sandbox, w.net1.Index, a); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Announce(ended, w.sandbox, w.net1, a); !errors.Is(err, netdev.ErrTentative) {
		t.Errorf("got %v, want ErrTentative", err)
	}
	// What was sent so far is in front of this one.
	const mark = 0x88b5 // for local experiments (IEEE 802)
	testenv.Do(t, w.sandbox, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		to := &unix.SockaddrLinklayer{Ifindex: w.net1.Index, Protocol: mark>>8 | mark&0xff<<8, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		return errors.Join(unix.Sendto(fd, make([]byte, 46), 0, to), unix.Close(fd))
	})
	if err := l.Announce(t.Context(), w.sandbox, w.net1, a); err != nil {
		t.Fatal(err)
	}
	address, sofar, asked := net.ParseIP("2001:db8::5"), false, false
	for {
		f, from := frames(t)
		sofar = sofar || f.protocol == mark
		if from != w.net1.MAC.String() || f.protocol != unix.ETH_P_IPV6 || len(f.payload) < 64 || f.payload[6] != unix.IPPROTO_ICMPV6 || !address.Equal(f.payload[48:64]) {
			continue
		}
		switch f.payload[40] {
		case 135: // the kernel asks who has it
			asked = true
		case 136:
			if !sofar || !asked {
				t.Errorf("it was advertised while detection was on its way, or before others were asked: %t %t", sofar, asked)
			}
			if f.payload[44] != 0x20 { // override: whoever has another MAC of it forgets that
				t.Errorf("flags %#x", f.payload[44])
			}
			return
		}
	}
}

// TestAnnouncementWaitsForTheCarrier has a driver that is late with it, as those of VFs are that have to ask their PF.
func TestAnnouncementWaitsForTheCarrier(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	l := netdev.NewLinux()
	w.peer.Up = false
	if err := l.SetLink(w.outside, netdev.LinkUp, w.peer); err != nil {
		t.Fatal(err)
	}
	a := netdev.Addressing{Addresses: []netdev.Address{{Prefix: netip.MustParsePrefix("192.0.2.5/24")}}}
	if err := l.Configure(t.Context(), w.sandbox, w.net1.Index, a); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Announce(ended, w.sandbox, w.net1, a); !errors.Is(err, netdev.ErrNoCarrier) {
		t.Errorf("got %v, want ErrNoCarrier", err)
	}
	frames := listen(t, w.outside)
	w.peer.Up = true
	late := make(chan error)
	go func() { late <- l.SetLink(w.outside, netdev.LinkUp, w.peer) }()
	if err := l.Announce(t.Context(), w.sandbox, w.net1, a); err != nil {
		t.Fatal(err)
	}
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	for {
		if f, from := frames(t); f.protocol == unix.ETH_P_ARP && from == w.net1.MAC.String() {
			return
		}
	}
}

// TestConfigureWhereSysctlsCanNotBeWritten is a container with /proc/sys read-only, in which IPv6 is on already.
func TestConfigureWhereSysctlsCanNotBeWritten(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	if os.Getuid() != 0 {
		t.Skip("it takes the machine's root to mount")
	}
	testenv.Do(t, w.sandbox, func() error {
		// The thread ends with this function, and with it what is mounted.
		return errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
			unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""), unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
			netdev.PrepareSysctls("net1", ipv6("2001:db8::5/64")))
	})
}
