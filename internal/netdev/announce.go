// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

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
