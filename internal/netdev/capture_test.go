// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// sink collects packets until it has enough of those that wanted picks.
type sink struct {
	begun    chan netdev.LinkType
	wanted   func(netdev.Packet) bool
	most     int
	packets  []netdev.Packet
	idle     int
	idleFail error
}

var errEnough = errors.New("enough")

func newSink(most int, wanted func(netdev.Packet) bool) *sink {
	return &sink{begun: make(chan netdev.LinkType, 1), most: most, wanted: wanted}
}

func (s *sink) Begin(t netdev.LinkType) error {
	s.begun <- t
	return nil
}

func (s *sink) Packet(p netdev.Packet) error {
	if !s.wanted(p) {
		return nil
	}
	p.Data = bytes.Clone(p.Data)
	if s.packets = append(s.packets, p); len(s.packets) == s.most {
		return errEnough
	}
	return nil
}

func (s *sink) Idle() error {
	s.idle++
	return s.idleFail
}

// with picks packets that hold a text.
func with(text string) func(netdev.Packet) bool {
	return func(p netdev.Packet) bool { return bytes.Contains(p.Data, []byte(text)) }
}

// udpWith picks UDP packets that hold a text, in IPv4 and Ethernet: ICMP repeats those that nobody takes.
func udpWith(text string) func(netdev.Packet) bool {
	return func(p netdev.Packet) bool { return with(text)(p) && p.Data[23] == unix.IPPROTO_UDP }
}

// pair is two namespaces joined by a veth.
func pair(t *testing.T) (string, string) {
	t.Helper()
	testenv.RequireRoot(t)
	a, b := testenv.NetNS(t), testenv.NetNS(t)
	testenv.Veth(t, testenv.End{NetNS: a, Name: "net1", Addrs: []string{"10.9.0.1/24"}}, testenv.End{NetNS: b, Name: "peer", Addrs: []string{"10.9.0.2/24"}})
	// Only few packets may wait for a neighbour's address.
	setNeighbour(t, a, "net1", b, "peer", "10.9.0.2")
	setNeighbour(t, b, "peer", a, "net1", "10.9.0.1")
	return a, b
}

// setNeighbour tells a namespace the MAC of an interface in another one.
func setNeighbour(t *testing.T, netns, ifName, otherNetns, otherName, address string) {
	t.Helper()
	h := testenv.Handle(t, netns)
	link, err := h.LinkByName(ifName)
	if err != nil {
		t.Fatal(err)
	}
	other, err := testenv.Handle(t, otherNetns).LinkByName(otherName)
	if err != nil {
		t.Fatal(err)
	}
	err = h.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(address), HardwareAddr: other.Attrs().HardwareAddr})
	if err != nil {
		t.Fatal(err)
	}
}

// send sends UDP packets from a namespace.
func send(t *testing.T, netns, to string, payload []byte, count int) {
	t.Helper()
	testenv.Do(t, netns, func() error {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		for sent := 0; sent < count; {
			_, err := conn.Write(payload)
			switch {
			case err == nil:
				sent++
			case !errors.Is(err, unix.ECONNREFUSED): // which tells of the packet before, in the place of sending this one
				return err
			}
		}
		return nil
	})
}

type captured struct {
	drops uint64
	err   error
}

// start begins a capture and returns when the socket is there.
func start(ctx context.Context, t *testing.T, netns, ifName string, snapLen int, s *sink) (netdev.LinkType, <-chan captured) {
	t.Helper()
	done := make(chan captured, 1)
	go func() {
		drops, err := netdev.NewLinux().Capture(ctx, netns, ifName, snapLen, s)
		done <- captured{drops, err}
	}()
	select {
	case linkType := <-s.begun:
		return linkType, done
	case c := <-done:
		t.Fatalf("the capture ended before it began: %v", c.err)
		return 0, nil
	}
}

func TestCaptureSeesBothDirections(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := newSink(20, udpWith("plexus says"))
	before := time.Now()
	linkType, done := start(ctx, t, a, "net1", 2000, s)
	if linkType != netdev.LinkTypeEthernet {
		t.Errorf("link type %d; want Ethernet", linkType)
	}
	send(t, a, "10.9.0.2:9", []byte("plexus says out"), 10)
	send(t, b, "10.9.0.1:9", []byte("plexus says in"), 10)
	if c := <-done; !errors.Is(c.err, errEnough) || c.drops != 0 {
		t.Fatalf("capture = %d drops, %v; want the error of the sink", c.drops, c.err)
	}
	out := 0
	for _, p := range s.packets {
		if p.Length != len(p.Data) || binary.BigEndian.Uint16(p.Data[12:]) != 0x0800 {
			t.Errorf("a packet of %d bytes, %d captured, is no whole IPv4 frame: % x", p.Length, len(p.Data), p.Data)
		}
		if p.Time.Before(before.Add(-time.Second)) || p.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("a packet of %v", p.Time)
		}
		if bytes.Contains(p.Data, []byte("says out")) {
			out++
		}
	}
	if out != 10 {
		t.Errorf("%d of 20 packets went out; want 10", out)
	}
}

func TestCaptureKeepsTheFirstBytes(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := newSink(1, func(p netdev.Packet) bool { return p.Length == 14+20+8+500 })
	_, done := start(ctx, t, a, "net1", 60, s)
	send(t, a, "10.9.0.2:9", make([]byte, 500), 1)
	if c := <-done; !errors.Is(c.err, errEnough) {
		t.Fatal(c.err)
	}
	if n := len(s.packets[0].Data); n != 60 {
		t.Errorf("%d bytes kept; want 60", n)
	}
}

func TestCaptureEndsWithItsContext(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := newSink(1, func(netdev.Packet) bool { return false })
	_, done := start(ctx, t, a, "net1", 100, s)
	cancel()
	if c := <-done; c.err != nil {
		t.Errorf("capture = %v; want no error", c.err)
	}
	if s.idle == 0 {
		t.Error("the sink was never told that nothing waits")
	}
}

func TestCaptureEndsWithTheSinksError(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	s := newSink(1, with("x"))
	s.idleFail = errors.New("the disk is full")
	_, done := start(t.Context(), t, a, "net1", 100, s)
	if c := <-done; !errors.Is(c.err, s.idleFail) {
		t.Errorf("capture = %v; want the sink's error", c.err)
	}
}

func TestCaptureEndsWithItsInterface(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	s := newSink(1, func(netdev.Packet) bool { return false })
	_, done := start(t.Context(), t, a, "net1", 100, s)
	h := testenv.Handle(t, b)
	if err := h.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "peer"}}); err != nil {
		t.Fatal(err)
	}
	if c := <-done; !errors.Is(c.err, netdev.ErrLinkDown) {
		t.Errorf("capture = %v; want ErrLinkDown", c.err)
	}
	if _, err := netdev.NewLinux().Capture(t.Context(), a, "net1", 100, s); !errors.Is(err, netdev.ErrNoLink) {
		t.Errorf("capture on an interface that is gone = %v; want ErrNoLink", err)
	}
}

func TestCaptureShowsVLANTags(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := newSink(1, with("tagged"))
	_, done := start(ctx, t, a, "net1", 1000, s)
	tagged := append(bytes.Repeat([]byte{0xff}, 12), 0x81, 0, 0x20, 7, 8, 0)
	tagged = append(tagged, "tagged"...)
	testenv.Do(t, b, func() error {
		peer, err := net.InterfaceByName("peer")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, tagged, 0, &unix.SockaddrLinklayer{Ifindex: peer.Index})
	})
	if c := <-done; !errors.Is(c.err, errEnough) {
		t.Fatal(c.err)
	}
	// The kernel takes the tag out of a frame that it receives.
	if p := s.packets[0]; !bytes.Equal(p.Data, tagged) || p.Length != len(tagged) {
		t.Errorf("%d bytes % x; want % x", p.Length, p.Data, tagged)
	}
}

func TestCaptureOfAnotherKindOfLinkIsCooked(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	netns := testenv.NetNS(t)
	// A tunnel has no link-layer header.
	tunnel := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun7"}, Mode: netlink.TUNTAP_MODE_TUN, NonPersist: true, Flags: netlink.TUNTAP_NO_PI, Queues: 1}
	testenv.Do(t, netns, func() error {
		if err := netlink.LinkAdd(tunnel); errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			testenv.Missing(t, "no /dev/net/tun for this user: %v", err)
		} else if err != nil {
			return err
		}
		return netlink.LinkSetUp(tunnel)
	})
	device := tunnel.Fds[0]
	defer func() { _ = device.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := newSink(1, with("in a tunnel"))
	linkType, done := start(ctx, t, netns, "tun7", 1000, s)
	if linkType != netdev.LinkTypeCooked {
		t.Errorf("link type %d; want the cooked one", linkType)
	}
	packet := append([]byte{0x45, 0, 0, 31, 0, 0, 0, 0, 64, 253, 0, 0, 10, 7, 0, 2, 10, 7, 0, 1}, "in a tunnel"...)
	if _, err := device.Write(packet); err != nil {
		t.Fatal(err)
	}
	if c := <-done; !errors.Is(c.err, errEnough) {
		t.Fatal(c.err)
	}
	const cooked = 20
	p := s.packets[0]
	if binary.BigEndian.Uint16(p.Data) != 0x0800 || p.Data[10] != unix.PACKET_HOST || !bytes.Equal(p.Data[cooked:], packet) || p.Length != cooked+len(packet) {
		t.Errorf("%d bytes % x; want a cooked header, for IPv4 that came in, and % x", p.Length, p.Data, packet)
	}
}

func TestLoopbackPacketsAreSeenOnce(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	netns := testenv.NetNS(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := newSink(3, udpWith("to myself"))
	_, done := start(ctx, t, netns, "lo", 1000, s)
	send(t, netns, "127.0.0.1:9", []byte("to myself 1"), 1)
	send(t, netns, "127.0.0.1:9", []byte("to myself 2"), 1)
	send(t, netns, "127.0.0.1:9", []byte("to myself 3"), 1)
	if c := <-done; !errors.Is(c.err, errEnough) {
		t.Fatal(c.err)
	}
	for i, p := range s.packets {
		if last, want := p.Data[len(p.Data)-1], "123"[i]; last != want {
			t.Errorf("packet %d ends in %c; want %c", i, last, want)
		}
	}
}

func TestLinkStatsCountPackets(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	find := func() netdev.LinkStats {
		stats, err := netdev.NewLinux().LinkStats(a)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stats {
			if s.Name == "net1" {
				return s
			}
		}
		t.Fatalf("no net1 in %+v", stats)
		return netdev.LinkStats{}
	}
	before := find()
	send(t, a, "10.9.0.2:9", make([]byte, 1000), 30)
	send(t, b, "10.9.0.1:9", make([]byte, 100), 20)
	deadline := time.After(10 * time.Second)
	for {
		// What waits for a neighbour's address is sent when that is known.
		after := find()
		tx, rx := after.Tx.Packets-before.Tx.Packets, after.Rx.Packets-before.Rx.Packets
		txBytes, rxBytes := after.Tx.Bytes-before.Tx.Bytes, after.Rx.Bytes-before.Rx.Bytes
		if tx >= 30 && txBytes >= 30_000 && rx >= 20 && rxBytes >= 2_000 && after.Index == before.Index && after.Index > 0 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d packets of %d bytes sent, %d of %d received; want 30 of 30000 and 20 of 2000 or more", tx, txBytes, rx, rxBytes)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
