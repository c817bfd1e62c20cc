// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	xbpf "golang.org/x/net/bpf"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// byProtocol passes IPv4 packets of one protocol.
func byProtocol(protocol uint32) netdev.PacketFilter {
	return func(t netdev.LinkType) ([]netdev.FilterCode, error) {
		const offset, etherHeader = 9, 14
		header := uint32(etherHeader)
		if t == netdev.LinkTypeCooked {
			header = 0
		}
		raw, err := xbpf.Assemble([]xbpf.Instruction{
			xbpf.LoadExtension{Num: xbpf.ExtProto},
			xbpf.JumpIf{Cond: xbpf.JumpEqual, Val: 0x0800, SkipFalse: 3},
			xbpf.LoadAbsolute{Off: header + offset, Size: 1},
			xbpf.JumpIf{Cond: xbpf.JumpEqual, Val: protocol, SkipFalse: 1},
			xbpf.RetConstant{Val: 1 << 18},
			xbpf.RetConstant{Val: 0},
		})
		var code []netdev.FilterCode
		for _, r := range raw {
			code = append(code, netdev.FilterCode(r))
		}
		return code, err
	}
}

// TestCaptureFiltered: the kernel runs the program on packets that begin with an Ethernet header, and on those of links that have none.
func TestCaptureFiltered(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	capture := func(netns, ifName string, protocol uint32, s *sink) <-chan captured {
		done := make(chan captured, 1)
		go func() {
			drops, err := netdev.NewLinux().CaptureFiltered(ctx, netns, ifName, 1000, byProtocol(protocol), s)
			done <- captured{drops, err}
		}()
		select {
		case <-s.begun:
		case c := <-done:
			t.Fatalf("the capture ended before it began: %v", c.err)
		}
		return done
	}
	any := func(netdev.Packet) bool { return true }
	t.Run("Ethernet", func(t *testing.T) {
		a, b := pair(t)
		s := newSink(2, any)
		done := capture(a, "net1", 17, s)
		send(t, b, "10.9.0.1:9", []byte("hello"), 2) // nobody listens, so that ICMP answers each
		if c := <-done; !errors.Is(c.err, errEnough) || !udpWith("hello")(s.packets[0]) || !udpWith("hello")(s.packets[1]) {
			t.Errorf("%v, %+v", c.err, s.packets)
		}
	})
	t.Run("a tunnel", func(t *testing.T) {
		testenv.RequireRoot(t)
		netns := testenv.NetNS(t)
		tunnel := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun7"}, Mode: netlink.TUNTAP_MODE_TUN, NonPersist: true, Flags: netlink.TUNTAP_NO_PI, Queues: 1}
		testenv.Do(t, netns, func() error {
			if err := netlink.LinkAdd(tunnel); errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
				t.Skipf("no /dev/net/tun for this user: %v", err)
			} else if err != nil {
				return err
			}
			return netlink.LinkSetUp(tunnel)
		})
		device := tunnel.Fds[0]
		defer func() { _ = device.Close() }()
		s := newSink(1, any)
		done := capture(netns, "tun7", 253, s)
		for _, protocol := range []byte{17, 253} {
			if _, err := device.Write(append([]byte{0x45, 0, 0, 21, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 7, 0, 2, 10, 7, 0, 1}, 'x')); err != nil {
				t.Fatal(err)
			}
		}
		const cooked = 20
		if c := <-done; !errors.Is(c.err, errEnough) || s.packets[0].Data[cooked+9] != 253 {
			t.Errorf("%v, %+v", c.err, s.packets)
		}
	})
}
