// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// MaxSnapLen is the largest number of bytes of a packet that a pcap file can be expected to be read with.
const MaxSnapLen = 262144

// ErrEnough ends a capture that has as many packets as were asked for.
var ErrEnough = errors.New("as many packets as were asked for")

// Pcap writes packets as a pcap file with nanoseconds (draft-ietf-opsawg-pcap): all that has been written is a valid file whenever no
// packet waits. It is a [netdev.PacketSink].
type Pcap struct {
	out     *bufio.Writer
	snapLen int
	most    int
	written int
}

// NewPcap returns a writer that takes at most so many packets, 1 or more, each with at most snapLen bytes.
func NewPcap(w io.Writer, snapLen, most int) *Pcap {
	return &Pcap{out: bufio.NewWriterSize(w, 64<<10), snapLen: snapLen, most: most}
}

// Written is how many packets have been written.
func (p *Pcap) Written() int { return p.written }

// Begin writes the header of the file.
func (p *Pcap) Begin(t netdev.LinkType) error {
	const magic, major, minor = 0xa1b23c4d, 2, 4 // little-endian, nanoseconds
	h := binary.LittleEndian.AppendUint32(nil, magic)
	h = binary.LittleEndian.AppendUint16(h, major)
	h = binary.LittleEndian.AppendUint16(h, minor)
	h = append(h, make([]byte, 8)...) // time zone and accuracy: both are always zero
	h = binary.LittleEndian.AppendUint32(h, clamp(p.snapLen))
	h = binary.LittleEndian.AppendUint32(h, uint32(t))
	if _, err := p.out.Write(h); err != nil {
		return err
	}
	return p.out.Flush()
}

// Packet writes a packet. The error is [ErrEnough] with the last one that was asked for, which is written and flushed.
func (p *Pcap) Packet(k netdev.Packet) error {
	data := k.Data[:min(len(k.Data), p.snapLen)]
	var h []byte
	h = binary.LittleEndian.AppendUint32(h, clamp(int(k.Time.Unix())))
	h = binary.LittleEndian.AppendUint32(h, clamp(k.Time.Nanosecond()))
	h = binary.LittleEndian.AppendUint32(h, clamp(len(data)))
	h = binary.LittleEndian.AppendUint32(h, clamp(max(k.Length, len(data))))
	if _, err := p.out.Write(h); err != nil {
		return err
	}
	if _, err := p.out.Write(data); err != nil {
		return err
	}
	if p.written++; p.written >= p.most {
		return errors.Join(p.out.Flush(), ErrEnough)
	}
	return nil
}

// Idle writes out what is buffered: somebody may be looking on.
func (p *Pcap) Idle() error { return p.out.Flush() }

// clamp fits a number into a field of the file.
func clamp(n int) uint32 {
	return uint32(max(0, min(int64(n), math.MaxUint32)))
}
