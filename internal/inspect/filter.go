// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// Filter says which packets a capture is about. It is a subset of pcap-filter(7):
//
//	[src|dst] [host] ADDRESS      [src|dst] net CIDR
//	[tcp|udp|sctp] [src|dst] port N
//	tcp udp sctp icmp icmp6 arp ip ip6      proto N
//	not, and, or, parentheses; also !, && and ||
//
// As there, "not" binds closest and "and" before "or"; ports are not looked for behind extension headers of IPv6, nor in fragments but the first. Of
// VLANs the one tag that the kernel takes out of a frame is passed over.
type Filter struct{ root node }

// ErrFilter marks an expression that is none; its text says what is wrong and where.
var ErrFilter = errors.New("invalid filter")

// maxFilterBytes bounds an expression: its program has to fit into what the kernel takes.
const maxFilterBytes = 1 << 10

// ParseFilter reads an expression. An empty one is nil, which lets all packets pass.
func ParseFilter(text string) (*Filter, error) {
	if len(text) > maxFilterBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrFilter, len(text), maxFilterBytes)
	}
	p := &filterParser{words: filterWords(text)}
	if len(p.words) == 0 {
		return nil, nil //nolint:nilnil // no filter is an answer
	}
	root, err := p.or()
	if err == nil && p.at < len(p.words) {
		err = fmt.Errorf("%q is not expected there: join primitives by and, or", p.words[p.at])
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFilter, err)
	}
	f := &Filter{root}
	if _, err := f.Program(netdev.LinkTypeEthernet); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFilter, err)
	}
	return f, nil
}

// filterWords cuts an expression into words, and parentheses and exclamation marks.
func filterWords(text string) []string {
	for _, mark := range []string{"(", ")", "!", "&&", "||"} {
		text = strings.ReplaceAll(text, mark, " "+mark+" ")
	}
	return strings.Fields(text)
}

type filterParser struct {
	words []string
	at    int
}

// take reports whether the next word is one of these, and passes it.
func (p *filterParser) take(words ...string) bool {
	if p.at < len(p.words) && slices.Contains(words, p.words[p.at]) {
		p.at++
		return true
	}
	return false
}

func (p *filterParser) word(what string) (string, error) {
	if p.at == len(p.words) {
		return "", fmt.Errorf("it ends where %s is expected", what)
	}
	p.at++
	return p.words[p.at-1], nil
}

func (p *filterParser) or() (node, error) {
	left, err := p.and()
	for err == nil && p.take("or", "||") {
		var right node
		if right, err = p.and(); err == nil {
			left = or{left, right}
		}
	}
	return left, err
}

func (p *filterParser) and() (node, error) {
	left, err := p.not()
	for err == nil && p.take("and", "&&") {
		var right node
		if right, err = p.not(); err == nil {
			left = and{left, right}
		}
	}
	return left, err
}

func (p *filterParser) not() (node, error) {
	if p.take("not", "!") {
		n, err := p.not()
		return not{n}, err
	}
	if !p.take("(") {
		return p.primitive()
	}
	n, err := p.or()
	if err == nil && !p.take(")") {
		err = errors.New("a parenthesis is not closed")
	}
	return n, err
}

// protocols are those of the Internet that have a name (IANA).
func protocols() map[string]byte {
	return map[string]byte{"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58, "sctp": 132}
}

// Types of Ethernet frames.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

func (p *filterParser) primitive() (node, error) {
	word, err := p.word("a primitive, such as host ADDRESS or port N,")
	if err != nil {
		return nil, err
	}
	switch word {
	case "arp":
		return etherType(typeARP), nil
	case "ip":
		return etherType(typeIPv4), nil
	case "ip6":
		return etherType(typeIPv6), nil
	case "proto":
		return p.proto()
	case "icmp":
		return and{etherType(typeIPv4), protocol(protocols()[word])}, nil
	case "icmp6":
		return and{etherType(typeIPv6), protocol(protocols()[word])}, nil
	case "tcp", "udp", "sctp":
		number := protocol(protocols()[word])
		if p.at < len(p.words) && slices.Contains([]string{"port", "src", "dst"}, p.words[p.at]) {
			way := p.way()
			if !p.take("port") {
				return nil, fmt.Errorf("port is expected behind %s src or dst", word)
			}
			return p.port(way, number)
		}
		return transport(number), nil
	}
	p.at-- // it is for those below
	way := p.way()
	switch {
	case p.take("port"):
		return p.port(way, protocol(protocols()["tcp"]), protocol(protocols()["udp"]), protocol(protocols()["sctp"]))
	case p.take("net"):
		return p.net(way)
	}
	explicit := p.take("host")
	word, err = p.word("an address")
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(word)
	switch {
	case err != nil && explicit:
		return nil, fmt.Errorf("%q is not an address: write it like host 10.56.0.5", word)
	case err != nil:
		return nil, fmt.Errorf("%q is not known: use host ADDRESS, net CIDR, port N, proto N, tcp, udp, sctp, icmp, icmp6, arp, ip, ip6", word)
	case addr.Zone() != "":
		return nil, fmt.Errorf("%q has a zone: leave it out", word)
	}
	return hasAddress{way, netip.PrefixFrom(addr, addr.BitLen())}, nil
}

// way is src, dst, or "" for either.
func (p *filterParser) way() string {
	if p.take("src", "dst") {
		return p.words[p.at-1]
	}
	return ""
}

func (p *filterParser) proto() (node, error) {
	word, err := p.word("a protocol")
	if err != nil {
		return nil, err
	}
	number, ok := protocols()[word]
	if !ok {
		n, err := strconv.ParseUint(word, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("proto %q: use 0 to 255, or tcp, udp, sctp, icmp, icmp6", word)
		}
		number = byte(n)
	}
	return transport(protocol(number)), nil
}

// transport is a protocol over either IP.
func transport(p protocol) node {
	return or{and{etherType(typeIPv4), p}, and{etherType(typeIPv6), p}}
}

func (p *filterParser) port(way string, protocols ...protocol) (node, error) {
	word, err := p.word("the number of a port")
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(word, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: use 0 to 65535", word)
	}
	var all node
	for _, number := range protocols {
		one := node(and{transport(number), hasPort{way, uint16(n)}})
		if all == nil {
			all = one
		} else {
			all = or{all, one}
		}
	}
	return all, nil
}

func (p *filterParser) net(way string) (node, error) {
	word, err := p.word("a subnet")
	if err != nil {
		return nil, err
	}
	prefix, err := netip.ParsePrefix(word)
	if err != nil {
		return nil, fmt.Errorf("net %q is not a CIDR: write it like net 10.56.0.0/24", word)
	}
	return hasAddress{way, prefix.Masked()}, nil
}

// node is a part of an expression.
type node interface {
	// emit writes code that goes to one of two places behind it.
	emit(c *compiler, yes, no label)
}

type (
	or  struct{ left, right node }
	and struct{ left, right node }
	not struct{ of node }
	// etherType is that of the frame.
	etherType uint16
	// protocol is that of an IP packet, which is one by another part.
	protocol byte
	// hasAddress is a range of source or destination addresses.
	hasAddress struct {
		way    string
		prefix netip.Prefix
	}
	// hasPort is the port of a packet whose protocol has some, by another part.
	hasPort struct {
		way    string
		number uint16
	}
)

func (n or) emit(c *compiler, yes, no label) {
	next := c.label()
	n.left.emit(c, yes, next)
	c.place(next)
	n.right.emit(c, yes, no)
}

func (n and) emit(c *compiler, yes, no label) {
	next := c.label()
	n.left.emit(c, next, no)
	c.place(next)
	n.right.emit(c, yes, no)
}

func (n not) emit(c *compiler, yes, no label) { n.of.emit(c, no, yes) }

func (n etherType) emit(c *compiler, yes, no label) {
	c.loadType()
	c.jump(bpf.JumpEqual, uint32(n), yes, no)
}

func (n protocol) emit(c *compiler, yes, no label) {
	const inIPv4, inIPv6 = 9, 6 // offsets of the field
	v6 := c.label()
	c.ifIPv4(func() {
		c.load(inIPv4, 1)
		c.jump(bpf.JumpEqual, uint32(n), yes, no)
	}, v6)
	c.place(v6)
	c.load(inIPv6, 1)
	c.jump(bpf.JumpEqual, uint32(n), yes, no)
}

func (n hasPort) emit(c *compiler, yes, no label) {
	const fragment, headerIPv6 = 6, 40
	v6 := c.label()
	c.ifIPv4(func() {
		first := c.label()
		c.load(fragment, 2)
		c.jump(bpf.JumpBitsSet, 0x1fff, no, first) // another fragment than the first has no ports
		c.place(first)
		c.op(bpf.LoadMemShift{Off: c.header}) // X: the length of the header
		n.compare(c, func(at uint32) { c.op(bpf.LoadIndirect{Off: c.header + at, Size: 2}) }, yes, no)
	}, v6)
	c.place(v6)
	n.compare(c, func(at uint32) { c.load(headerIPv6+at, 2) }, yes, no)
}

// compare compares the ports, which are at 0 and 2 of the header that load loads from.
func (n hasPort) compare(c *compiler, load func(at uint32), yes, no label) {
	other := no
	if n.way == "" {
		other = c.label()
	}
	if n.way != "dst" {
		load(0)
		c.jump(bpf.JumpEqual, uint32(n.number), yes, other)
	}
	if n.way == "" {
		c.place(other)
	}
	if n.way != "src" {
		load(2)
		c.jump(bpf.JumpEqual, uint32(n.number), yes, no)
	}
}

func (n hasAddress) emit(c *compiler, yes, no label) {
	if n.prefix.Addr().Is4() {
		isARP := c.label()
		n.inFrames(c, typeIPv4, 12, 16, yes, no, isARP)
		c.place(isARP)
		n.inFrames(c, typeARP, 14, 24, yes, no, no) // the sender's and the target's
		return
	}
	n.inFrames(c, typeIPv6, 8, 24, yes, no, no)
}

// inFrames compares the addresses of frames of a type, which have the source and the destination at these offsets.
func (n hasAddress) inFrames(c *compiler, frames, src, dst uint32, yes, no, other label) {
	these := c.label()
	c.loadType()
	c.jump(bpf.JumpEqual, frames, these, other)
	c.place(these)
	next := no
	if n.way == "" {
		next = c.label()
	}
	if n.way != "dst" {
		n.compare(c, src, yes, next)
	}
	if n.way == "" {
		c.place(next)
	}
	if n.way != "src" {
		n.compare(c, dst, yes, no)
	}
}

// compare compares the bits of the prefix, word by word.
func (n hasAddress) compare(c *compiler, at uint32, yes, no label) {
	const wordBits = 32
	bytes := n.prefix.Addr().AsSlice()
	for i, left := 0, n.prefix.Bits(); left > 0; i, left = i+4, left-wordBits {
		next := c.label()
		c.load(at+uint32(i), 4)
		if left < wordBits {
			c.op(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(0) << (wordBits - left)})
		}
		c.jump(bpf.JumpEqual, binary.BigEndian.Uint32(bytes[i:]), next, no)
		c.place(next)
	}
	c.goTo(yes)
}

// label is a place in the code that is known later.
type label int

// compiler writes code for classic BPF.
type compiler struct {
	code []bpf.Instruction
	// header is where the network header begins.
	header uint32
	cooked bool
	// places are where labels stand, jumps which label an unconditional jump leads to.
	places []int
	jumps  map[int]label
}

func (c *compiler) label() label {
	c.places = append(c.places, 0)
	return label(len(c.places) - 1)
}

func (c *compiler) place(l label)         { c.places[l] = len(c.code) }
func (c *compiler) op(i bpf.Instruction)  { c.code = append(c.code, i) }
func (c *compiler) load(at uint32, n int) { c.op(bpf.LoadAbsolute{Off: c.header + at, Size: n}) }
func (c *compiler) goTo(l label)          { c.jumps[len(c.code)] = l; c.op(bpf.Jump{}) }
func (c *compiler) ifIPv4(f func(), v6 label) {
	v4 := c.label()
	c.loadType()
	c.jump(bpf.JumpEqual, typeIPv4, v4, v6)
	c.place(v4)
	f()
}

// loadType loads the type of the frame.
func (c *compiler) loadType() {
	if c.cooked {
		c.op(bpf.LoadExtension{Num: bpf.ExtProto})
		return
	}
	const etherType = 12
	c.op(bpf.LoadAbsolute{Off: etherType, Size: 2})
}

// jump goes by a comparison. A conditional jump reaches 255 instructions, an unconditional one all.
func (c *compiler) jump(test bpf.JumpTest, value uint32, yes, no label) {
	c.op(bpf.JumpIf{Cond: test, Val: value, SkipFalse: 1})
	c.goTo(yes)
	c.goTo(no)
}

// Program is the code for the kernel, for packets that begin as those of a capture's socket do: with an Ethernet header, or, of links without one, with
// the network's.
func (f *Filter) Program(t netdev.LinkType) ([]netdev.FilterCode, error) {
	const ethernetHeader, all, none = 14, 1 << 18, 0
	c := &compiler{header: ethernetHeader, jumps: map[int]label{}}
	if t == netdev.LinkTypeCooked {
		c.header, c.cooked = 0, true
	}
	yes, no := c.label(), c.label()
	f.root.emit(c, yes, no)
	c.place(yes)
	c.op(bpf.RetConstant{Val: all})
	c.place(no)
	c.op(bpf.RetConstant{Val: none})
	for at, l := range c.jumps {
		c.code[at] = bpf.Jump{Skip: uint32(c.places[l] - at - 1)} //nolint:gosec // labels are behind
	}
	const most = 4096 // BPF_MAXINSNS
	if len(c.code) > most {
		return nil, fmt.Errorf("it takes %d instructions, and the kernel allows %d: shorten it", len(c.code), most)
	}
	raw, err := bpf.Assemble(c.code)
	code := make([]netdev.FilterCode, len(raw))
	for i, r := range raw {
		code[i] = netdev.FilterCode(r)
	}
	return code, err
}
