// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LinkType says how the bytes of a packet begin, by the numbers of pcap files (draft-ietf-opsawg-pcaplinktype).
type LinkType uint32

// The link types of captures.
const (
	// LinkTypeEthernet: an Ethernet frame, from its destination MAC on.
	LinkTypeEthernet LinkType = 1
	// LinkTypeCooked: a header of 20 bytes in the place of that of a link which has none, or another one (LINKTYPE_LINUX_SLL2).
	LinkTypeCooked LinkType = 276
)

// Packet is a packet that an interface received or sent.
type Packet struct {
	// Time is when the kernel saw it.
	Time time.Time
	// Length is that of the whole packet, in bytes.
	Length int
	// Data are its first bytes, all of them where the limit was large enough. They are the receiver's until it returns.
	Data []byte
}

// PacketSink takes the packets of a capture. An error of it ends the capture.
type PacketSink interface {
	// Begin is called once, before the first packet can arrive at the socket's end.
	Begin(t LinkType) error
	Packet(p Packet) error
	// Idle is called whenever no further packet waits.
	Idle() error
}

// ErrLinkDown says that an interface is down, or was taken away.
var ErrLinkDown = errors.New("the interface is down, or went away")

// captureBuffer is what the kernel keeps for a capture that is slower than its interface, in bytes.
const captureBuffer = 8 << 20

// Capture hands all packets that an interface of the sandbox receives and sends to sink, each with at most snapLen bytes, until ctx is done,
// which is no error, or sink returns one, which is returned as it is. The first result is how many packets the kernel had to drop.
//
// It takes CAP_NET_RAW besides; nothing is needed in the sandbox, and nothing changes there. Like `ip netns exec NETNS tcpdump -p`.
func (l *Linux) Capture(ctx context.Context, netnsPath, ifName string, snapLen int, sink PacketSink) (uint64, error) {
	return l.CaptureFiltered(ctx, netnsPath, ifName, snapLen, nil, sink)
}

// PacketFilter makes a program of classic BPF for a kind of link, which the kernel runs on each packet: with its Ethernet header, or, of a
// link that has none, from the network header on.
type PacketFilter func(t LinkType) ([]FilterCode, error)

// FilterCode is an instruction of classic BPF (struct sock_filter): the type of golang.org/x/net/bpf under another name, as the plugin is not to
// be linked with that package.
type FilterCode struct {
	Op     uint16
	Jt, Jf uint8
	K      uint32
}

// CaptureFiltered is [Linux.Capture] of the packets that pass a filter, all if it is nil.
func (l *Linux) CaptureFiltered(ctx context.Context, netnsPath, ifName string, snapLen int, filter PacketFilter, sink PacketSink) (uint64, error) {
	link, err := l.Link(netnsPath, ifName)
	if err != nil {
		return 0, err
	}
	var s *packetSocket
	var openErr error
	err = inNetNS(netnsPath, func() error {
		s, openErr = openPacketSocket(link.Index, filter)
		return openErr
	})
	if err != nil {
		return 0, fmt.Errorf("open a packet socket on interface %s: %w", ifName, err)
	}
	defer s.close()
	if err = sink.Begin(s.linkType); err != nil {
		return 0, err
	}
	err = s.capture(ctx, snapLen, sink)
	return s.drops(), err
}

// packetSocket is a socket that sees all packets of one interface (packet(7)).
type packetSocket struct {
	// file is the socket with the runtime's poller, so that a wait for it can be ended.
	file     *os.File
	conn     syscall.RawConn
	linkType LinkType
	hardware uint16 // ARPHRD_*
}

// openPacketSocket opens a socket in the namespace of the calling thread.
func openPacketSocket(index int, filter PacketFilter) (*packetSocket, error) {
	fd, hardware, err := bindPacketSocket(unix.SOCK_RAW, index, filter)
	if err != nil {
		return nil, err
	}
	linkType := LinkTypeEthernet
	if hardware != unix.ARPHRD_ETHER && hardware != unix.ARPHRD_LOOPBACK {
		// Readers know the cooked header for every kind of link, which can't be said of the kinds' own.
		_ = unix.Close(fd)
		linkType = LinkTypeCooked
		if fd, hardware, err = bindPacketSocket(unix.SOCK_DGRAM, index, filter); err != nil {
			return nil, err
		}
	}
	s := &packetSocket{file: os.NewFile(uintptr(fd), "packet socket"), linkType: linkType, hardware: hardware}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// bindPacketSocket opens a socket that sees all packets of one interface, and tells the kind of its hardware.
func bindPacketSocket(kind, index int, filter PacketFilter) (int, uint16, error) {
	// Without a protocol it receives nothing until it is bound: no packet of another interface.
	fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, os.NewSyscallError("socket", err)
	}
	if err = attachFilter(fd, kind, filter); err != nil {
		_ = unix.Close(fd)
		return 0, 0, err
	}
	hardware, err := preparePacketSocket(fd, index)
	if err != nil {
		_ = unix.Close(fd)
		return 0, 0, err
	}
	return fd, hardware, nil
}

// attachFilter has the kernel hand on only what passes, from the first packet on.
func attachFilter(fd, kind int, filter PacketFilter) error {
	if filter == nil {
		return nil
	}
	linkType := LinkTypeEthernet
	if kind == unix.SOCK_DGRAM {
		linkType = LinkTypeCooked
	}
	program, err := filter(linkType)
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(program))
	for i, p := range program {
		code[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}) //nolint:gosec // the kernel takes 4096
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
}

func preparePacketSocket(fd, index int) (uint16, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer); err != nil {
		// Root of a user namespace gets what the system allows everybody: more drops, which are told.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt SO_TIMESTAMPNS", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil { // Linux 2.6.21
		return 0, os.NewSyscallError("setsockopt PACKET_AUXDATA", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	link, ok := name.(*unix.SockaddrLinklayer)
	if !ok {
		return 0, fmt.Errorf("the socket has the address %T", name)
	}
	return link.Hatype, nil
}

func (s *packetSocket) close() { _ = s.file.Close() }

// drops is how many packets found no room in the socket's buffer. Asking sets it to zero.
func (s *packetSocket) drops() uint64 {
	var drops uint64
	// Without an answer there is nothing to tell.
	_ = s.conn.Control(func(fd uintptr) {
		if stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			drops = uint64(stats.Drops)
		}
	})
	return drops
}

const (
	// headroom is the room before the bytes of a packet, for a header or tag that they lack.
	headroom = 20
	// controlSpace is room for a time stamp and what the kernel tells of a packet, with their headers.
	controlSpace = 128
)

func (s *packetSocket) capture(ctx context.Context, snapLen int, sink PacketSink) error {
	stop := context.AfterFunc(ctx, func() {
		_ = s.file.SetReadDeadline(time.Unix(1, 0)) // in the past: ends a wait at once; it fails only on a closed socket
	})
	defer stop()
	buffer, control := make([]byte, headroom+snapLen), make([]byte, controlSpace)
	for ctx.Err() == nil {
		m, err := s.receive(buffer[headroom:], control, sink.Idle)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return err
		}
		if s.hardware == unix.ARPHRD_LOOPBACK && m.from.Pkttype == unix.PACKET_OUTGOING {
			continue // it arrives, and is seen, once more
		}
		p := m.packet(s.linkType, buffer)
		if len(p.Data) > snapLen {
			p.Data = p.Data[:snapLen]
		}
		if err := sink.Packet(p); err != nil {
			return err
		}
	}
	return sink.Idle()
}

// message is a packet as it comes from the socket, and what the kernel tells of it.
type message struct {
	length, captured int
	time             time.Time
	from             *unix.SockaddrLinklayer
	// tag is the VLAN tag that the kernel or the device took out of the frame, nil for none.
	tag []byte
}

// receive waits for a packet. It calls idle when it has to wait.
func (s *packetSocket) receive(buffer, control []byte, idle func() error) (message, error) {
	m := message{}
	var n, controlLen int
	var from unix.Sockaddr
	var err error
	waitErr := s.conn.Read(func(fd uintptr) bool {
		// MSG_TRUNC: n is the packet's length, not that of the part that fits.
		n, controlLen, _, from, err = unix.Recvmsg(int(fd), buffer, control, unix.MSG_TRUNC)
		if errors.Is(err, unix.EAGAIN) {
			err = idle()
			return err != nil
		}
		return !errors.Is(err, unix.EINTR)
	})
	switch {
	case waitErr != nil:
		return m, waitErr
	case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return m, ErrLinkDown
	case err != nil:
		return m, err
	}
	m.length, m.captured = n, min(n, len(buffer))
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok {
		return m, fmt.Errorf("a packet came from the address %T", from)
	}
	m.from = link
	return m, m.parseControl(control[:controlLen])
}

// parseControl reads what the kernel tells beside a packet.
func (m *message) parseControl(control []byte) error {
	m.time = time.Now() // in case that the kernel does not tell
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return fmt.Errorf("control messages of a packet: %w", err)
	}
	for _, c := range messages {
		switch {
		case c.Header.Level == unix.SOL_SOCKET && c.Header.Type == unix.SO_TIMESTAMPNS:
			m.time = timestamp(c.Data, m.time)
		case c.Header.Level == unix.SOL_PACKET && c.Header.Type == unix.PACKET_AUXDATA:
			m.tag = vlanTag(c.Data)
		}
	}
	return nil
}

// timestamp reads a struct timespec, which has two words of the machine.
func timestamp(data []byte, fallback time.Time) time.Time {
	switch len(data) {
	case 16:
		return time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:]))) //nolint:gosec // the kernel's clock
	case 8:
		return time.Unix(int64(binary.NativeEndian.Uint32(data)), int64(binary.NativeEndian.Uint32(data[4:])))
	}
	return fallback
}

// vlanTag reads the VLAN tag out of a struct tpacket_auxdata: its four bytes as they were on the wire.
func vlanTag(data []byte) []byte {
	const status, tci, tpid, size = 0, 16, 18, 20 // offsets
	if len(data) < size {
		return nil
	}
	flags := binary.NativeEndian.Uint32(data[status:])
	if flags&unix.TP_STATUS_VLAN_VALID == 0 {
		return nil
	}
	protocol := uint16(unix.ETH_P_8021Q)
	if flags&unix.TP_STATUS_VLAN_TPID_VALID != 0 { // Linux 3.14
		protocol = binary.NativeEndian.Uint16(data[tpid:])
	}
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, protocol), binary.NativeEndian.Uint16(data[tci:]))
}

// packet makes the packet that its bytes in the buffer, after the headroom, stand for.
func (m *message) packet(t LinkType, buffer []byte) Packet {
	const macs = 12 // two addresses precede a VLAN tag
	p := Packet{Time: m.time, Length: m.length, Data: buffer[headroom : headroom+m.captured]}
	switch {
	case t == LinkTypeCooked:
		copy(buffer, cookedHeader(m.from))
		p.Data = buffer[:headroom+m.captured]
		p.Length += headroom
	case len(m.tag) > 0 && m.captured >= macs:
		start := headroom - len(m.tag)
		copy(buffer[start:], buffer[headroom:headroom+macs])
		copy(buffer[start+macs:], m.tag)
		p.Data = buffer[start : headroom+m.captured]
		p.Length += len(m.tag)
	}
	return p
}

// cookedHeader is the header of LINKTYPE_LINUX_SLL2: protocol, two bytes of zero, interface, kind of hardware, kind of packet, and the
// sender's address, of up to 8 bytes, after its length.
func cookedHeader(from *unix.SockaddrLinklayer) []byte {
	h := make([]byte, 0, headroom)
	h = binary.NativeEndian.AppendUint16(h, from.Protocol) // in network byte order already
	h = append(h, 0, 0)
	h = binary.BigEndian.AppendUint32(h, uint32(from.Ifindex)) //nolint:gosec // never negative
	h = binary.BigEndian.AppendUint16(h, from.Hatype)
	h = append(h, from.Pkttype, from.Halen)
	return append(h, from.Addr[:]...)
}
