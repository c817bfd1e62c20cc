// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// capture is what a pcap file holds.
type capture struct {
	snapLen, linkType uint32
	packets           []netdev.Packet
}

// readPcap is a small reader of pcap files with nanoseconds.
func readPcap(data []byte) (capture, error) {
	u32 := binary.LittleEndian.Uint32
	if len(data) < 24 || u32(data) != 0xa1b23c4d || binary.LittleEndian.Uint16(data[4:]) != 2 || binary.LittleEndian.Uint16(data[6:]) != 4 {
		return capture{}, fmt.Errorf("no header in %d bytes", len(data))
	}
	c := capture{snapLen: u32(data[16:]), linkType: u32(data[20:])}
	for data = data[24:]; len(data) > 0; {
		if len(data) < 16 || len(data)-16 < int(u32(data[8:])) {
			return capture{}, fmt.Errorf("%d bytes are no packet", len(data))
		}
		nanoseconds, kept, length := u32(data[4:]), u32(data[8:]), u32(data[12:])
		if nanoseconds > 999_999_999 || kept > c.snapLen || kept > length {
			return capture{}, fmt.Errorf("a packet with %d ns, %d of %d bytes, of which %d may be kept", nanoseconds, kept, length, c.snapLen)
		}
		c.packets = append(c.packets, netdev.Packet{Time: time.Unix(int64(u32(data)), int64(nanoseconds)), Length: int(length), Data: data[16 : 16+kept]})
		data = data[16+kept:]
	}
	return c, nil
}

func TestPcap(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := NewPcap(&b, 4, 2)
	if err := p.Begin(netdev.LinkTypeCooked); err != nil {
		t.Fatal(err)
	}
	if b.Len() != 24 {
		t.Errorf("%d bytes after the beginning; want the header, for those who look on", b.Len())
	}
	at := time.Unix(1700000000, 123456789)
	if err := p.Packet(netdev.Packet{Time: at, Length: 3, Data: []byte("abc")}); err != nil {
		t.Fatal(err)
	}
	if err := p.Idle(); err != nil || b.Len() != 24+16+3 {
		t.Errorf("%d bytes, %v when no packet waits; want all that there is", b.Len(), err)
	}
	if err := p.Packet(netdev.Packet{Time: at.Add(time.Second), Length: 10, Data: []byte("defghi")}); !errors.Is(err, ErrEnough) {
		t.Errorf("the last packet: %v; want ErrEnough", err)
	}
	c, err := readPcap(b.Bytes())
	if err != nil || c.snapLen != 4 || c.linkType != 276 || p.Written() != 2 {
		t.Errorf("snap length %d, link type %d, %d written, %v", c.snapLen, c.linkType, p.Written(), err)
	}
	want := []netdev.Packet{{Time: at, Length: 3, Data: []byte("abc")}, {Time: at.Add(time.Second), Length: 10, Data: []byte("defg")}}
	if diff := cmp.Diff(want, c.packets); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

type failing struct{}

var errFull = errors.New("disk full")

func (failing) Write([]byte) (int, error) { return 0, errFull }

func TestPcapTellsThatItCanNotWrite(t *testing.T) {
	t.Parallel()
	if err := NewPcap(failing{}, 10, 1).Begin(netdev.LinkTypeEthernet); !errors.Is(err, errFull) {
		t.Errorf("Begin = %v", err)
	}
	if err := NewPcap(failing{}, 10, 1).Packet(netdev.Packet{Data: []byte("x"), Length: 1}); !errors.Is(err, errFull) {
		t.Errorf("the last packet = %v", err)
	}
}

// FuzzPcap: whatever packets come, the file can be read, holds as many as were taken, and nothing beyond the bounds.
func FuzzPcap(f *testing.F) {
	f.Add([]byte("0123456789"), int64(1700000000_000000000), 10, 64, 3)
	f.Add([]byte{}, int64(-1), -5, 0, 1)
	f.Add(bytes.Repeat([]byte{1}, 300), int64(1)<<62, 1<<40, 1<<40, 0)
	f.Fuzz(func(t *testing.T, data []byte, nanoseconds int64, length, snapLen, most int) {
		snapLen, most = max(0, snapLen), min(most, 50)
		var b bytes.Buffer
		p := NewPcap(&b, snapLen, most)
		if err := p.Begin(netdev.LinkTypeEthernet); err != nil {
			t.Fatal(err)
		}
		taken := 0
		for range 60 {
			err := p.Packet(netdev.Packet{Time: time.Unix(0, nanoseconds), Length: length, Data: data})
			taken++
			if errors.Is(err, ErrEnough) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Idle(); err != nil {
			t.Fatal(err)
		}
		c, err := readPcap(b.Bytes())
		if err != nil || c.linkType != 1 || len(c.packets) != taken || taken > max(1, most) {
			t.Errorf("%d packets read, %d taken of at most %d, link type %d, %v", len(c.packets), taken, most, c.linkType, err)
		}
	})
}
