// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// PacketText writes packets as text, a line each, like `tcpdump -n`. It is a [netdev.PacketSink].
type PacketText struct {
	out     *bufio.Writer
	link    netdev.LinkType
	most    int
	written int
}

// NewPacketText returns a writer that takes at most so many packets, 1 or more.
func NewPacketText(w io.Writer, most int) *PacketText {
	return &PacketText{out: bufio.NewWriter(w), most: most}
}

// Written is how many packets have been written.
func (p *PacketText) Written() int { return p.written }

// Begin notes what packets begin with.
func (p *PacketText) Begin(t netdev.LinkType) error {
	p.link = t
	return nil
}

// Packet writes a packet. The error is [ErrEnough] with the last one that was asked for.
func (p *PacketText) Packet(k netdev.Packet) error {
	_, err := fmt.Fprintf(p.out, "%s %s\n", k.Time.UTC().Format("15:04:05.000000"), printable(describe(p.link, k)))
	if err != nil {
		return err
	}
	if p.written++; p.written >= p.most {
		return errors.Join(p.out.Flush(), ErrEnough)
	}
	return nil
}

// Idle writes out what is buffered: somebody may be looking on.
func (p *PacketText) Idle() error { return p.out.Flush() }

// describe is a packet in a line.
func describe(t netdev.LinkType, k netdev.Packet) string {
	frame, data, ok := network(t, k.Data)
	if !ok {
		return fmt.Sprintf("cut short, length %d", k.Length)
	}
	switch frame {
	case typeIPv4:
		h, err := ipv4.ParseHeader(data)
		if err != nil || h.Len > len(data) {
			break
		}
		if h.FragOff > 0 {
			return fmt.Sprintf("IP %s > %s: fragment at %d of protocol %d, length %d", h.Src, h.Dst, h.FragOff*8, h.Protocol, h.TotalLen-h.Len)
		}
		return "IP " + upper(byte(h.Protocol), h.Src, h.Dst, data[h.Len:], h.TotalLen-h.Len) //nolint:gosec // it is a byte of the header
	case typeIPv6:
		h, err := ipv6.ParseHeader(data)
		if err != nil {
			break
		}
		return "IP6 " + upper(byte(h.NextHeader), h.Src, h.Dst, data[ipv6.HeaderLen:], h.PayloadLen) //nolint:gosec // it is a byte of the header
	case typeARP:
		return arp(data)
	}
	return fmt.Sprintf("ethertype 0x%04x, length %d", frame, k.Length)
}

// network is the type of a frame, and its bytes from the network header on.
func network(t netdev.LinkType, data []byte) (uint16, []byte, bool) {
	const cookedHeader, macs, tag = 20, 12, 4
	if t == netdev.LinkTypeCooked {
		if len(data) < cookedHeader {
			return 0, nil, false
		}
		return binary.BigEndian.Uint16(data), data[cookedHeader:], true
	}
	at := macs
	for {
		if len(data) < at+2 {
			return 0, nil, false
		}
		frame := binary.BigEndian.Uint16(data[at:])
		if frame != 0x8100 && frame != 0x88a8 { // 802.1Q and 802.1ad
			return frame, data[at+2:], true
		}
		at += tag
	}
}

// upper is what an IP packet carries: its endpoints and the most important of its header.
func upper(protocol byte, src, dst net.IP, data []byte, length int) string {
	ends := func(sport, dport uint16) string {
		return fmt.Sprintf("%s > %s: ", endpoint(src, sport), endpoint(dst, dport))
	}
	switch {
	case protocol == protocols()["tcp"] && len(data) >= 20:
		header := int(data[12]>>4) * 4
		return ends(binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])) +
			fmt.Sprintf("tcp [%s] seq %d ack %d win %d length %d", tcpFlags(data[13]), binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:]), binary.BigEndian.Uint16(data[14:]), length-header)
	case protocol == protocols()["udp"] && len(data) >= 8:
		return ends(binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])) + fmt.Sprintf("udp length %d", length-8)
	case protocol == protocols()["sctp"] && len(data) >= 12:
		return ends(binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])) + fmt.Sprintf("sctp length %d", length-12)
	case protocol == protocols()["icmp"] || protocol == protocols()["icmp6"]:
		return fmt.Sprintf("%s > %s: %s length %d", src, dst, control(protocol, data), length)
	}
	return fmt.Sprintf("%s > %s: protocol %d length %d", src, dst, protocol, length)
}

func endpoint(ip net.IP, port uint16) string {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port).String()
}

// tcpFlags are as tcpdump writes them.
func tcpFlags(bits byte) string {
	var b strings.Builder
	for i, name := range "FSRP.UEW" {
		if bits&(1<<i) != 0 {
			b.WriteRune(name)
		}
	}
	return b.String()
}

// control is a message of ICMP or ICMPv6.
func control(protocol byte, data []byte) string {
	m, err := icmp.ParseMessage(int(protocol), data)
	if err != nil {
		return fmt.Sprintf("protocol %d", protocol)
	}
	if echo, ok := m.Body.(*icmp.Echo); ok {
		return fmt.Sprintf("%v id %d seq %d", m.Type, echo.ID, echo.Seq)
	}
	return fmt.Sprintf("%v code %d", m.Type, m.Code)
}

// arp is a message of ARP about IPv4 over Ethernet (RFC 826).
func arp(data []byte) string {
	const size, ipv4OverEthernet = 28, "\x00\x01\x08\x00\x06\x04"
	if len(data) < size || string(data[:6]) != ipv4OverEthernet {
		return "ARP"
	}
	sender, target := net.IP(data[14:18]), net.IP(data[24:28])
	if binary.BigEndian.Uint16(data[6:]) == 1 {
		return fmt.Sprintf("ARP who has %s? tell %s", target, sender)
	}
	return fmt.Sprintf("ARP %s is at %s", sender, net.HardwareAddr(data[8:14]))
}
