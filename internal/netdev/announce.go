// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrNoCarrier says that an interface has no connection yet.
var ErrNoCarrier = errors.New("the interface has no carrier")

// Announce tells the link's neighbours which MAC has the addresses now, so that those of a former owner's are not used any longer: a
// gratuitous ARP request for each IPv4 address (RFC 5227 section 3), an unsolicited neighbour advertisement for each IPv6 address (RFC 4861
// section 7.2.6). It waits for the carrier, as what is sent before is dropped, and before it advertises, for the end of duplicate address
// detection (RFC 4862 section 5.4, RFC 4429 section 3.3), which takes a second.
//
// The error matches [ErrDuplicateAddress] when another node has one of the addresses, [ErrNoCarrier] or [ErrTentative] when ctx ended before
// all were announced. The kernel by itself announces addresses only when an interface is set up (sysctl arp_notify), or, for IPv6
// (ndisc_notify), those that are not optimistic.
func (l *Linux) Announce(ctx context.Context, netnsPath string, link Link, a Addressing) error {
	if len(a.Addresses) == 0 || len(link.MAC) != 6 {
		return nil
	}
	if err := l.awaitCarrier(ctx, netnsPath, link.Name); err != nil {
		return err
	}
	if err := announce(netnsPath, link, a, netip.Addr.Is4); err != nil || !a.hasIPv6() {
		return err
	}
	if err := l.awaitDAD(ctx, netnsPath, true, link.Name); err != nil {
		return err
	}
	return announce(netnsPath, link, a, netip.Addr.Is6)
}

// announce sends what announces the addresses of a family.
func announce(netnsPath string, link Link, a Addressing, isOf func(netip.Addr) bool) error {
	return inNetNS(netnsPath, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer func() { _ = unix.Close(fd) }()
		var errs []error
		for _, address := range a.Addresses {
			ip := address.Prefix.Addr()
			if !isOf(ip) {
				continue
			}
			packet, to := announcement(link, ip)
			if err := unix.Sendto(fd, packet, 0, to); err != nil {
				errs = append(errs, fmt.Errorf("announce %s: %w", ip, os.NewSyscallError("sendto", err)))
			}
		}
		return errors.Join(errs...)
	})
}

// awaitCarrier waits until the link can send.
func (l *Linux) awaitCarrier(ctx context.Context, netnsPath, name string) error {
	if link, err := l.Link(netnsPath, name); err != nil || link.Carrier {
		return err
	}
	events, err := l.LinkEvents(ctx, netnsPath)
	if err != nil {
		return err
	}
	for {
		link, err := l.Link(netnsPath, name)
		if err != nil || link.Carrier {
			return err
		}
		if _, ok := <-events; ok {
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("interface %s: %w", name, ErrNoCarrier)
		}
		if events, err = l.LinkEvents(ctx, netnsPath); err != nil { // some were lost
			return err
		}
	}
}

// announcement makes the packet that announces an address, and where it goes.
func announcement(link Link, ip netip.Addr) ([]byte, *unix.SockaddrLinklayer) {
	to := &unix.SockaddrLinklayer{Ifindex: link.Index, Halen: 6}
	if ip.Is4() {
		to.Protocol = bigEndian(unix.ETH_P_ARP)
		copy(to.Addr[:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		return gratuitousARP(link, ip), to
	}
	to.Protocol = bigEndian(unix.ETH_P_IPV6)
	copy(to.Addr[:], []byte{0x33, 0x33, 0, 0, 0, 1}) // that of ff02::1
	return unsolicitedNA(link, ip), to
}

// bigEndian is htons.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// gratuitousARP is a request for the sender's own address (RFC 826, RFC 5227 section 3).
func gratuitousARP(link Link, ip netip.Addr) []byte {
	return slices.Concat(
		[]byte{0, 1, 8, 0, 6, 4, 0, 1}, // Ethernet, IPv4, lengths of their addresses, request
		link.MAC, ip.AsSlice(),
		[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ip.AsSlice(),
	)
}

// unsolicitedNA is a neighbour advertisement to all nodes, with its IPv6 header (RFC 4861 sections 4.4 and 7.2.6).
func unsolicitedNA(link Link, ip netip.Addr) []byte {
	const (
		hopLimit      = 255 // what came through a router is not believed
		nextHeader    = unix.IPPROTO_ICMPV6
		advertisement = 136
		override      = 0x20
		targetLink    = 2  // option: target link-layer address, in units of 8 bytes: 1
		length        = 32 // of the advertisement with its option, in bytes
	)
	allNodes := netip.MustParseAddr("ff02::1")
	body := slices.Concat([]byte{advertisement, 0, 0, 0, override, 0, 0, 0}, ip.AsSlice(), []byte{targetLink, 1}, link.MAC)
	pseudo := slices.Concat(ip.AsSlice(), allNodes.AsSlice(), []byte{0, 0, 0, length, 0, 0, 0, nextHeader}, body)
	binary.BigEndian.PutUint16(body[2:], checksum(pseudo))
	header := slices.Concat([]byte{0x60, 0, 0, 0, 0, length, nextHeader, hopLimit}, ip.AsSlice(), allNodes.AsSlice())
	return append(header, body...)
}

// checksum is that of the internet (RFC 1071).
func checksum(data []byte) uint16 {
	var sum uint32
	for r := bytes.NewReader(data); r.Len() > 0; {
		var word [2]byte
		_, _ = r.Read(word[:]) // an odd last byte is followed by zero
		sum += uint32(binary.BigEndian.Uint16(word[:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
