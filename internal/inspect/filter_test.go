// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// frame is an Ethernet frame of a type.
func frame(etherType uint16, payload []byte) []byte {
	f := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}, byte(etherType>>8), byte(etherType))
	return append(f, payload...)
}

// ipv4Packet has a header with 4 bytes of options.
func ipv4Packet(protocol byte, src, dst string, fragment uint16, payload []byte) []byte {
	h := make([]byte, 24)
	h[0], h[8], h[9] = 0x46, 64, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	binary.BigEndian.PutUint16(h[6:], fragment)
	copy(h[12:], netip.MustParseAddr(src).AsSlice())
	copy(h[16:], netip.MustParseAddr(dst).AsSlice())
	return frame(typeIPv4, append(h, payload...))
}

func ipv6Packet(protocol byte, src, dst string, payload []byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, protocol, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], netip.MustParseAddr(src).AsSlice())
	copy(h[24:], netip.MustParseAddr(dst).AsSlice())
	return frame(typeIPv6, append(h, payload...))
}

func ports(src, dst uint16, size int) []byte {
	h := make([]byte, size)
	binary.BigEndian.PutUint16(h, src)
	binary.BigEndian.PutUint16(h[2:], dst)
	return h
}

// somePackets are by name.
func somePackets() map[string][]byte {
	tcp := ports(40000, 443, 20)
	tcp[12], tcp[13] = 5<<4, 0x12
	arp := make([]byte, 28)
	copy(arp, "\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x01")
	copy(arp[14:], netip.MustParseAddr("10.0.0.1").AsSlice())
	copy(arp[24:], netip.MustParseAddr("10.0.0.9").AsSlice())
	return map[string][]byte{
		"tcp4":     ipv4Packet(6, "10.0.0.1", "10.0.1.2", 0, tcp),
		"tcp6":     ipv6Packet(6, "fd00::1", "fd00:0:0:1::2", tcp),
		"udp4":     ipv4Packet(17, "10.0.1.2", "10.0.0.1", 0, ports(53, 443, 8)),
		"fragment": ipv4Packet(17, "10.0.1.2", "10.0.0.1", 100, ports(53, 443, 8)),
		"icmp":     ipv4Packet(1, "10.0.0.1", "192.168.0.1", 0, []byte{8, 0, 0, 0, 0, 7, 0, 1}),
		"icmp6":    ipv6Packet(58, "fe80::1", "ff02::1", []byte{135, 0, 0, 0, 0, 0, 0, 0}),
		"gre":      ipv4Packet(47, "10.0.0.1", "10.0.1.2", 0, nil),
		"arp":      frame(typeARP, arp),
		"vlan":     frame(0x8100, append([]byte{0, 7, 8, 0}, ipv4Packet(17, "10.0.0.1", "10.0.0.2", 0, ports(1, 2, 8))[14:]...)),
		"lldp":     frame(0x88cc, []byte{1, 2}),
		"short":    {1, 2, 3},
	}
}

// machine is a virtual machine that runs a filter.
func machine(t *testing.T, f *Filter) *bpf.VM {
	t.Helper()
	code, err := f.Program(netdev.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	var raw []bpf.RawInstruction
	for _, c := range code {
		raw = append(raw, bpf.RawInstruction(c))
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("not all instructions are known")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// passes lets the virtual machine run a filter over the packets, and names those that pass.
func passes(t *testing.T, text string) string {
	t.Helper()
	f, err := ParseFilter(text)
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, f)
	var names []string
	for name, data := range somePackets() {
		n, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestFilter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"arp":                           "arp",
		"ip":                            "fragment gre icmp tcp4 udp4",
		"ip6":                           "icmp6 tcp6",
		"tcp":                           "tcp4 tcp6",
		"udp":                           "fragment udp4",
		"icmp":                          "icmp",
		"icmp6":                         "icmp6",
		"proto 47":                      "gre",
		"proto tcp":                     "tcp4 tcp6",
		"port 443":                      "tcp4 tcp6 udp4",
		"src port 443":                  "",
		"dst port 443":                  "tcp4 tcp6 udp4",
		"udp port 53":                   "udp4",
		"tcp src port 40000":            "tcp4 tcp6",
		"host 10.0.0.1":                 "arp fragment gre icmp tcp4 udp4",
		"10.0.0.9":                      "arp",
		"src host 10.0.0.1":             "arp gre icmp tcp4",
		"dst 10.0.0.1":                  "fragment udp4",
		"host fd00:0:0:1::2":            "tcp6",
		"src fd00:0:0:1::2":             "",
		"net 10.0.1.0/24":               "fragment gre tcp4 udp4",
		"src net 10.0.1.7/24":           "fragment udp4",
		"net fd00::/16":                 "tcp6",
		"net fd00:0:0:1::/64":           "tcp6",
		"net ::/0":                      "icmp6 tcp6",
		"net 0.0.0.0/0 and not ip":      "arp",
		"tcp and port 443 or icmp":      "icmp tcp4 tcp6",
		"tcp and (port 443 or icmp)":    "tcp4 tcp6",
		"!(ip or ip6)":                  "arp lldp vlan",
		"not not arp":                   "arp",
		"tcp && ip6 || arp":             "arp tcp6",
		"not host 10.0.0.1 and not ip6": "lldp vlan",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			if got := passes(t, text); got != want {
				t.Errorf("%q pass; want %q", got, want)
			}
		})
	}
	if f, err := ParseFilter("  "); err != nil || f != nil {
		t.Errorf("an empty filter: %v, %v", f, err)
	}
}

func TestFilterRefuses(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"tcp and":                         "it ends where a primitive",
		"(tcp":                            "a parenthesis is not closed",
		"tcp)":                            `")" is not expected there`,
		"tcp udp":                         `"udp" is not expected there: join primitives by and, or`,
		"port x":                          `port "x": use 0 to 65535`,
		"port 65536":                      "use 0 to 65535",
		"port":                            "it ends where the number of a port is expected",
		"tcp src 10.0.0.1":                "port is expected behind tcp src or dst",
		"host web":                        `"web" is not an address: write it like host`,
		"host fe80::1%eth0":               "has a zone",
		"net 10.0.0.0":                    `net "10.0.0.0" is not a CIDR`,
		"proto 256":                       "use 0 to 255",
		"portrange 1-2":                   `"portrange" is not known: use host ADDRESS`,
		"src":                             "it ends where an address is expected",
		strings.Repeat("x", 2000):         "at most 1024 are accepted",
		strings.Repeat("!", 1000) + "tcp": "",
	} {
		if _, err := ParseFilter(text); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%.40s: %v; want %q", text, err, says)
		}
	}
}

// FuzzParseFilter: what is accepted makes a program, of both kinds, that the virtual machine takes and that ends on any packet.
func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{"tcp port 443 and not host 10.0.0.1", "src net fd00::/64 || !(arp)", "proto 47 or icmp6", "(("} {
		f.Add(seed, []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, text string, data []byte) {
		filter, err := ParseFilter(text)
		if err != nil || filter == nil {
			return
		}
		if _, err := filter.Program(netdev.LinkTypeCooked); err != nil {
			t.Error(err)
		}
		if _, err := machine(t, filter).Run(data); err != nil {
			t.Error(err)
		}
	})
}

func TestPacketsAsText(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"tcp4":     "IP 10.0.0.1:40000 > 10.0.1.2:443: tcp [S.] seq 0 ack 0 win 0 length 0",
		"tcp6":     "IP6 [fd00::1]:40000 > [fd00:0:0:1::2]:443: tcp [S.] seq 0 ack 0 win 0 length 0",
		"udp4":     "IP 10.0.1.2:53 > 10.0.0.1:443: udp length 0",
		"fragment": "IP 10.0.1.2 > 10.0.0.1: fragment at 800 of protocol 17, length 8",
		"icmp":     "IP 10.0.0.1 > 192.168.0.1: echo id 7 seq 1 length 8",
		"icmp6":    "IP6 fe80::1 > ff02::1: neighbor solicitation code 0 length 8",
		"gre":      "IP 10.0.0.1 > 10.0.1.2: protocol 47 length 0",
		"arp":      "ARP who has 10.0.0.9? tell 10.0.0.1",
		"vlan":     "IP 10.0.0.1:1 > 10.0.0.2:2: udp length 0",
		"lldp":     "ethertype 0x88cc, length 16",
		"short":    "cut short, length 3",
	}
	got := map[string]string{}
	for name, data := range somePackets() {
		got[name] = describe(netdev.LinkTypeEthernet, netdev.Packet{Length: len(data), Data: data})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var b strings.Builder
	p := NewPacketText(&b, 1)
	if err := p.Begin(netdev.LinkTypeCooked); err != nil {
		t.Fatal(err)
	}
	cooked := append(append([]byte{8, 6}, make([]byte, 18)...), somePackets()["arp"][14:]...)
	if err := p.Packet(netdev.Packet{Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Length: len(cooked), Data: cooked}); err == nil || b.String() != "03:04:05.000006 ARP who has 10.0.0.9? tell 10.0.0.1\n" {
		t.Errorf("%v, %q", err, b.String())
	}
}

// FuzzDescribe: whatever comes off a wire is a line.
func FuzzDescribe(f *testing.F) {
	for _, data := range somePackets() {
		f.Add(data, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, ethernet bool) {
		link := netdev.LinkTypeCooked
		if ethernet {
			link = netdev.LinkTypeEthernet
		}
		if got := describe(link, netdev.Packet{Length: len(data), Data: data}); got == "" || strings.ContainsAny(got, "\n\x1b") {
			t.Errorf("%q", got)
		}
	})
}
