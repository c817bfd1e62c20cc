// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/testenv/golden"
)

// TestAnnouncementsAsBytes shows what goes on the wire behind the Ethernet header, for a person to compare with the RFCs.
func TestAnnouncementsAsBytes(t *testing.T) {
	t.Parallel()
	link := Link{Index: 7, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xaa}}
	var b strings.Builder
	for _, ip := range []string{"192.0.2.5", "2001:db8::5", "fe80::1"} {
		packet, to := announcement(link, netip.MustParseAddr(ip))
		fmt.Fprintf(&b, "%s: protocol %#04x to %x by interface %d\n%s", ip,
			binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, to.Protocol)), to.Addr[:to.Halen], to.Ifindex, hex.Dump(packet))
	}
	golden.Compare(t, "announce", b.String())
}

// FuzzAnnouncement holds each packet against what its receivers check (RFC 826, RFC 4861 section 7.1.2).
func FuzzAnnouncement(f *testing.F) {
	f.Add([]byte{192, 0, 2, 5}, []byte{2, 0, 0, 0, 0, 1})
	f.Add(netip.MustParseAddr("2001:db8:ffff:ffff:ffff::5").AsSlice(), []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, address, mac []byte) {
		ip, ok := netip.AddrFromSlice(address)
		if !ok || len(mac) != 6 {
			t.Skip()
		}
		packet, to := announcement(Link{Index: 1, MAC: mac}, ip)
		if to.Protocol == bigEndian(unix.ETH_P_ARP) {
			if len(packet) != 28 || !ip.Is4() {
				t.Errorf("ARP for %s has %d bytes", ip, len(packet))
			}
			return
		}
		if len(packet) != 40+32 || packet[7] != 255 || packet[40] != 136 {
			t.Fatalf("advertisement of %s is %x", ip, packet)
		}
		// A receiver sums up all, the checksum included, to all ones (RFC 1071).
		pseudo := append(append([]byte{}, packet[8:40]...), 0, 0, 0, 32, 0, 0, 0, unix.IPPROTO_ICMPV6)
		if sum := checksum(append(pseudo, packet[40:]...)); sum != 0 {
			t.Errorf("advertisement of %s with MAC %x: checksum is off by %#x", ip, mac, sum)
		}
	})
}
