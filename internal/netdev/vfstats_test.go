// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attribute is a netlink attribute. Its length is cut to 16 bits, as the kernel does (nla_nest_end).
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// pfMessage is what the kernel tells of a PF with so many VFs (rtnl_fill_ifinfo): each has counted its own number.
func pfMessage(vfs int) []byte {
	var list []byte
	for i := range vfs {
		mac := append(binary.NativeEndian.AppendUint32(nil, uint32(i)), make([]byte, 32)...)
		var stats []byte
		for kind := range uint16(vfStatsTxDropped + 1) {
			stats = append(stats, attribute(kind, binary.NativeEndian.AppendUint64(nil, uint64(i)*10+uint64(kind)))...)
		}
		entry := append(attribute(nl.IFLA_VF_MAC, mac), attribute(nl.IFLA_VF_TRUST, make([]byte, 8))...)
		entry = append(entry, attribute(nl.IFLA_VF_STATS|unix.NLA_F_NESTED, stats)...)
		list = append(list, attribute(nl.IFLA_VF_INFO|unix.NLA_F_NESTED, entry)...)
	}
	message := append(make([]byte, unix.SizeofIfInfomsg), attribute(unix.IFLA_IFNAME, []byte("pf0\x00"))...)
	return append(message, attribute(unix.IFLA_VFINFO_LIST|unix.NLA_F_NESTED, list)...)
}

// TestVFStatsOfAsManyVFsAsThereAre: the length of the list wraps with some 220 VFs, and a port of ice has 256.
func TestVFStatsOfAsManyVFsAsThereAre(t *testing.T) {
	t.Parallel()
	for _, vfs := range []int{1, 64, 256} {
		message := pfMessage(vfs)
		for id := range vfs {
			got, ok := findVFStats(message, id)
			n := uint64(id) * 10
			want := LinkStats{Rx: Counters{Packets: n, Bytes: n + 2, Dropped: n + 7}, Tx: Counters{Packets: n + 1, Bytes: n + 3, Dropped: n + 8}}
			if !ok || got != want {
				t.Fatalf("VF %d of %d: %+v, %t; want %+v", id, vfs, got, ok, want)
			}
		}
		if _, ok := findVFStats(message, vfs); ok {
			t.Errorf("there is no VF %d", vfs)
		}
	}
}

// FuzzFindVFStats: no message makes it panic.
func FuzzFindVFStats(f *testing.F) {
	f.Add(pfMessage(2), 1)
	f.Add(bytes.Repeat([]byte{0xff}, 40), 0)
	f.Fuzz(func(_ *testing.T, message []byte, id int) { findVFStats(message, id) })
}
