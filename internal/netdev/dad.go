// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dadPatience bounds the wait for duplicate address detection where the kernel knows no optimistic addresses. It takes one to two seconds
// from when the interface has its carrier (sysctls dad_transmits, neigh.default.retrans_time_ms).
const dadPatience = 10 * time.Second

var (
	// ErrDuplicateAddress says that another node on the link has an IPv6 address already.
	ErrDuplicateAddress = errors.New("another node on the link has this address already (duplicate address detection failed)")
	// ErrTentative says that an IPv6 address cannot be used yet.
	ErrTentative = errors.New("duplicate address detection has not ended")
)

// AwaitDAD waits, as long as ctx lasts, until programs can use all IPv6 addresses of interfaces in the sandbox, of all interfaces if none is
// named: until the kernel has found that no other node has them (RFC 4862 section 5.4), or takes them for unique meanwhile (RFC 4429). The error
// matches [ErrDuplicateAddress] when another node has one, [ErrTentative] when ctx ended before it is known, and [ErrNoLink]. Link-local
// addresses, which nobody asked for, do not count. Like `ip -6 address show tentative` until it is empty.
func (l *Linux) AwaitDAD(ctx context.Context, netnsPath string, ifNames ...string) error {
	return l.awaitDAD(ctx, netnsPath, false, ifNames...)
}

// awaitDAD waits for its end, toTheEnd also of addresses that can be used meanwhile.
func (l *Linux) awaitDAD(ctx context.Context, netnsPath string, toTheEnd bool, ifNames ...string) error {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return err
	}
	defer s.Close()
	indices := map[int]string{}
	for _, name := range ifNames {
		link, linkErr := s.linkByName(name)
		if linkErr != nil {
			return linkErr
		}
		indices[link.Attrs().Index] = name
	}
	if len(indices) == 0 {
		if indices, err = s.linkNames(); err != nil {
			return err
		}
	}
	// Nearly always nothing is to be waited for.
	pending, err := s.tentative(indices, toTheEnd)
	if err != nil || pending == nil {
		return err
	}
	events, err := addressEvents(ctx, netnsPath)
	if err != nil {
		return err
	}
	for {
		// Again: what comes from here on is an event.
		if pending, err = s.tentative(indices, toTheEnd); err != nil || pending == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return pending
		case _, ok := <-events:
			if ok {
				continue
			}
			if ctx.Err() != nil {
				return pending
			}
			if events, err = addressEvents(ctx, netnsPath); err != nil { // some were lost
				return err
			}
		}
	}
}

// tentative looks at the IPv6 addresses of links. The first result says which cannot be used yet, or, toTheEnd, which detection has not ended
// for; nil for none.
func (s sandbox) tentative(indices map[int]string, toTheEnd bool) (pending, err error) { //nolint:nonamedreturns // two errors, of which one is no failure
	addrs, err := dump(func() ([]netlink.Addr, error) { return s.AddrList(nil, unix.AF_INET6) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		name, ok := indices[a.LinkIndex]
		switch {
		case !ok || a.IP.IsLinkLocalUnicast():
		case a.Flags&unix.IFA_F_DADFAILED != 0:
			return nil, fmt.Errorf("interface %s: address %s: %w: give it another one, or take that one off the other node", name, a.IPNet, ErrDuplicateAddress)
		case a.Flags&unix.IFA_F_TENTATIVE != 0 && (toTheEnd || a.Flags&unix.IFA_F_OPTIMISTIC == 0):
			pending = fmt.Errorf("interface %s: address %s: %w: has the interface a carrier?", name, a.IPNet, ErrTentative)
		}
	}
	return pending, nil
}

// addressEvents tells, until ctx is done, that an address of the network namespace has changed. It is closed when no more can be told.
func addressEvents(ctx context.Context, netnsPath string) (<-chan netlink.AddrUpdate, error) {
	f, err := openNetNS(pathOf(netnsPath))
	if err != nil {
		return nil, fmt.Errorf("open sandbox: %w", err)
	}
	defer func() { _ = f.Close() }()
	ns := netns.NsHandle(f.Fd())
	events := make(chan netlink.AddrUpdate)
	if err := netlink.AddrSubscribeWithOptions(events, ctx.Done(), netlink.AddrSubscribeOptions{Namespace: &ns}); err != nil {
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	return events, nil
}
