// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

const (
	// sendFor is how long a measurement sends.
	sendFor = 2 * time.Second
	// tolerance is how far a measured rate may be above its limit: the burst that the annotation allows comes on top.
	tolerance = 1.3
)

// measureAll measures each network and compares the rates with the limits in the annotations.
func measureAll(ctx context.Context, scr *screen, a, b livePod) error {
	slowest, fastestLimited := 0.0, 0.0
	for _, n := range a.networks {
		from, err := a.ip(n.name, true)
		if err != nil {
			return err
		}
		to, err := b.ip(n.name, true)
		if err != nil {
			return err
		}
		mbps, err := throughput(ctx, a.netns, b.netns, from, to)
		if err != nil {
			return fmt.Errorf("throughput of %s: %w", n.name, err)
		}
		limit := "no limit"
		if n.limitMbps > 0 {
			limit = fmt.Sprintf("limit %.0f Mbit/s", n.limitMbps)
			fastestLimited = max(fastestLimited, mbps)
			if mbps > tolerance*n.limitMbps {
				return fmt.Errorf("%s: %.0f Mbit/s, and the annotation allows %.0f", n.name, mbps, n.limitMbps)
			}
		} else if slowest == 0 || mbps < slowest {
			slowest = mbps
		}
		scr.done("%-21s %-5s %8.0f Mbit/s   %s", n.name, n.ifName, mbps, limit)
	}
	if slowest <= fastestLimited {
		return fmt.Errorf("a network without limit made %.0f Mbit/s, and one with a limit %.0f", slowest, fastestLimited)
	}
	return nil
}

// throughput sends over TCP from one namespace to the other and returns the rate of arrival, in Mbit/s.
func throughput(ctx context.Context, fromNS, toNS string, from, to netip.Addr) (float64, error) {
	var listener net.Listener
	err := inNetNS(toNS, func() error {
		var err error
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(to, 0).String())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	// Closing the listener, or the connection below, is what a ctrl-C does to whoever waits for them.
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()

	sent := make(chan error, 1)
	go func() { sent <- send(ctx, fromNS, from, listener.Addr().String()) }()
	mbps, err := receive(ctx, listener)
	if err != nil {
		_ = listener.Close() // refuses a sender that has not come yet
	}
	return mbps, errors.Join(err, <-sent)
}

func send(ctx context.Context, netnsPath string, from netip.Addr, to string) error {
	var conn net.Conn
	err := inNetNS(netnsPath, func() error {
		var err error
		dialer := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: pingWithin}
		conn, err = dialer.DialContext(ctx, "tcp", to)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	chunk := make([]byte, 64<<10)
	for start := time.Now(); time.Since(start) < sendFor; {
		if _, err := conn.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

// receive takes one connection and measures from its first bytes to its end.
func receive(ctx context.Context, listener net.Listener) (float64, error) {
	conn, err := listener.Accept()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	first := make([]byte, 1)
	if _, err = io.ReadFull(conn, first); err != nil {
		return 0, err
	}
	start := time.Now()
	n, err := io.Copy(io.Discard, struct{ io.Reader }{conn})
	if err != nil {
		return 0, err
	}
	return float64(n) * 8 / 1e6 / time.Since(start).Seconds(), nil
}
