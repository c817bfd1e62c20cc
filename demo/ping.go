// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	// pingWithin bounds the wait for the first answer: IPv6 addresses can be used only after duplicate address detection.
	pingWithin = 10 * time.Second
	// answerWithin bounds the wait for one answer.
	answerWithin = time.Second
	// retryAfter is the pause after a try that failed at once.
	retryAfter = 50 * time.Millisecond
	// pings is how many are sent in a row.
	pings = 5
)

// pingAll sends echo requests from a to b on each network that both have, over IPv4 and IPv6.
func pingAll(ctx context.Context, scr *screen, a, b livePod) error {
	for _, n := range a.networks {
		for _, v4 := range []bool{true, false} {
			from, err := a.ip(n.name, v4)
			if err != nil {
				return err
			}
			to, err := b.ip(n.name, v4)
			if err != nil {
				return err
			}
			rtt, err := ping(ctx, a.netns, from, to)
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			scr.done("%-21s %-5s %11s -> %-11s %d of %d answered, best in %.3f ms", n.name, n.ifName, from, to, pings, pings, float64(rtt.Microseconds())/1000)
		}
	}
	return nil
}

// ping waits for the first answer, then sends some more, all of which have to be answered, and returns the shortest round trip.
func ping(ctx context.Context, netnsPath string, from, to netip.Addr) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, pingWithin)
	defer cancel()
	for {
		best, err := pingOnce(netnsPath, from, to)
		for i := 1; err == nil && i < pings; i++ {
			var rtt time.Duration
			rtt, err = pingOnce(netnsPath, from, to)
			best = min(best, rtt)
		}
		if err == nil {
			return best, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("ping from %s to %s: %w", from, to, err)
		case <-time.After(retryAfter):
		}
	}
}

// pingOnce sends one echo request (RFC 792, RFC 4443) from a raw socket in the namespace and waits for its answer.
func pingOnce(netnsPath string, from, to netip.Addr) (time.Duration, error) {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if !from.Is4() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	var conn *net.IPConn
	err := inNetNS(netnsPath, func() error {
		var err error
		conn, err = net.ListenIP(network, &net.IPAddr{IP: from.AsSlice()})
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()

	start := time.Now()
	if err := conn.SetDeadline(start.Add(answerWithin)); err != nil {
		return 0, err
	}
	id, seq := uint16(os.Getpid()), uint16(start.UnixNano()) // any 16 bits do to know our own answer
	if _, err := conn.WriteTo(echo(request, id, seq), &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, err
	}
	answer := make([]byte, 1500)
	for {
		n, sender, err := conn.ReadFromIP(answer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, fmt.Errorf("no answer within %v", answerWithin)
		}
		if err != nil {
			return 0, err
		}
		// A raw socket sees all ICMP of its namespace.
		if ip, ok := netip.AddrFromSlice(sender.IP); n >= 8 && answer[0] == reply && ok && ip.Unmap() == to &&
			binary.BigEndian.Uint16(answer[4:]) == id && binary.BigEndian.Uint16(answer[6:]) == seq {
			return time.Since(start), nil
		}
	}
}

// echo is an ICMP message. The kernel itself sets the checksum of ICMPv6, which covers the addresses too (RFC 3542 §3.1).
func echo(kind byte, id, seq uint16) []byte {
	msg := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, "plexus demo "...)
	binary.BigEndian.PutUint16(msg[4:], id)
	binary.BigEndian.PutUint16(msg[6:], seq)
	var sum uint32
	for i := 0; i < len(msg); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(msg[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(msg[2:], ^uint16(sum))
	return msg
}
