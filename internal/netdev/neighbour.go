// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Neighbour is an address on an interface's own link, and whether it has answered. Like a line of `ip neigh`.
type Neighbour struct {
	IfName  string
	Address netip.Addr
	State   NeighbourState
}

// NeighbourState says what the kernel knows of a neighbour.
type NeighbourState string

// The states, as far as they differ for whoever wants to send.
const (
	// Answered: its link-layer address is known, or needs not be.
	Answered NeighbourState = "answered"
	// Asked: it has been asked for, and may still answer.
	Asked NeighbourState = "asked"
	// Silent: it did not answer.
	Silent NeighbourState = "silent"
)

// Neighbours lists the neighbours of a sandbox that somebody has sent something to. Like `ip -n NETNS neigh`.
func (l *Linux) Neighbours(netnsPath string) ([]Neighbour, error) {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	found, err := s.neighbours()
	if err != nil {
		return nil, fmt.Errorf("list neighbours of sandbox %s: %w", netnsPath, err)
	}
	return found, nil
}

func (s sandbox) neighbours() ([]Neighbour, error) {
	names, err := s.linkNames()
	if err != nil {
		return nil, err
	}
	entries, err := dump(func() ([]netlink.Neigh, error) { return s.NeighList(0, unix.AF_UNSPEC) })
	if err != nil {
		return nil, err
	}
	var found []Neighbour
	for _, e := range entries {
		if addr, ok := toAddr(e.IP); ok && e.Family != unix.AF_BRIDGE {
			found = append(found, Neighbour{IfName: names[e.LinkIndex], Address: addr, State: neighbourState(e.State)})
		}
	}
	return found, nil
}

func neighbourState(state int) NeighbourState {
	switch {
	case state&unix.NUD_FAILED != 0:
		return Silent
	case state&unix.NUD_INCOMPLETE != 0, state == unix.NUD_NONE:
		return Asked
	}
	return Answered
}

// The kernel asks three times, a second apart (sysctl net.ipv4.neigh.default.mcast_solicit and retrans_time_ms).
const resolvePause = 5 * time.Millisecond

// Resolve makes the kernel ask for a neighbour (ARP, or RFC 4861 neighbour discovery) unless it has answered a while ago, and returns
// what came of it: [Asked] when ctx ended before. Nothing is sent to the neighbour itself. Like `ip neigh add ADDRESS dev IFNAME use`.
func (l *Linux) Resolve(ctx context.Context, netnsPath, ifName string, address netip.Addr) (NeighbourState, error) {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return "", err
	}
	defer s.Close()
	state, err := s.resolve(ctx, ifName, address)
	if err != nil {
		return "", fmt.Errorf("resolve %s on %s of sandbox %s: %w", address, ifName, netnsPath, err)
	}
	return state, nil
}

func (s sandbox) resolve(ctx context.Context, ifName string, address netip.Addr) (NeighbourState, error) {
	link, err := s.linkByName(ifName)
	if err != nil {
		return "", err
	}
	family := unix.AF_INET
	if address.Is6() {
		family = unix.AF_INET6
	}
	use := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: family, IP: address.AsSlice(), Flags: unix.NTF_USE}
	if err := s.NeighSet(use); err != nil {
		return "", err
	}
	tick := time.NewTicker(resolvePause)
	defer tick.Stop()
	for {
		known, err := s.neighbours()
		if err != nil {
			return "", err
		}
		for _, n := range known {
			if n.IfName == ifName && n.Address == address && n.State != Asked {
				return n.State, nil
			}
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return "", ctx.Err()
			}
			return Asked, nil
		case <-tick.C:
		}
	}
}
