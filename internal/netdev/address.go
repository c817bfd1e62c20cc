// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addressing is what an IPAM plugin decided for one interface.
type Addressing struct {
	Addresses []Address
	Routes    []IPRoute
}

// Address is an address of an interface.
type Address struct {
	Prefix netip.Prefix
	// Gateway is the router of the address' network; not valid when there is none.
	Gateway netip.Addr
}

// IPRoute is a route through an interface (CNI 1.1.0, result, routes). Zero fields are the kernel's defaults.
type IPRoute struct {
	Destination netip.Prefix
	// Gateway is the next hop; not valid for that of the first address of the family that has one, or for none.
	Gateway  netip.Addr
	MTU      int // bytes
	AdvMSS   int // bytes
	Priority int
	Table    *int
	Scope    *int
}

// addressing is what Linux and Fake can do with addresses.
type addressing interface {
	Configure(ctx context.Context, netnsPath string, index int, a Addressing) error
	Announce(ctx context.Context, netnsPath string, link Link, a Addressing) error
}

var (
	_ addressing = (*Linux)(nil)
	_ addressing = (*Fake)(nil)
)

// Configure gives an interface its addresses, sets it up and adds its routes. IPv6 addresses may be used at once (RFC 4429) where the
// kernel can do that. It is what ConfigureIface of the reference plugins does, without that library's firewall in tow.
func (l *Linux) Configure(ctx context.Context, netnsPath string, index int, a Addressing) error {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return err
	}
	defer s.Close()
	link, err := s.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("find interface %d: %w", index, err)
	}
	name := link.Attrs().Name
	if err := inNetNS(netnsPath, func() error { return prepareSysctls(name, a) }); err != nil {
		return fmt.Errorf("prepare interface %s: %w", name, err)
	}
	for _, address := range a.Addresses {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.AddrReplace(link, &netlink.Addr{IPNet: ipNet(address.Prefix)}); err != nil {
			return fmt.Errorf("add address %s to interface %s: %w", address.Prefix, name, err)
		}
	}
	if err := s.LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", name, err)
	}
	for _, r := range a.Routes {
		route := a.route(index, r)
		// Beside one that another interface has, as of the pod's default route: that is not ours to replace.
		if err := s.RouteAddEcmp(route); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add route to %s by interface %s: %w", r.Destination, name, err)
		}
	}
	return nil
}

// route completes a route with the gateway of its family.
func (a Addressing) route(index int, r IPRoute) *netlink.Route {
	gateway := r.Gateway
	for _, address := range a.Addresses {
		if !gateway.IsValid() && address.Gateway.IsValid() && address.Gateway.Is4() == r.Destination.Addr().Is4() {
			gateway = address.Gateway
		}
	}
	route := &netlink.Route{LinkIndex: index, Dst: ipNet(r.Destination), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority}
	if gateway.IsValid() {
		route.Gw = gateway.AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if r.Table != nil {
		route.Table = *r.Table
	}
	if r.Scope != nil {
		route.Scope = netlink.Scope(*r.Scope) //nolint:gosec // checked where it was read
	}
	return route
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prepareSysctls runs in the network namespace. Only IPv6 that stays off for an IPv6 address is an error; the rest makes a fail-over
// faster, where the kernel has it.
func prepareSysctls(name string, a Addressing) error {
	set := func(value string, path ...string) error {
		return os.WriteFile(filepath.Join(append([]string{"/proc/sys/net"}, path...)...), []byte(value), 0o600)
	}
	// Peers learn of a MAC that has moved when the link comes up.
	_ = set("1", "ipv4", "conf", name, "arp_notify")
	if !slices.ContainsFunc(a.Addresses, func(a Address) bool { return a.Prefix.Addr().Is6() }) {
		return nil
	}
	for _, link := range []string{"lo", name} {
		if err := set("0", "ipv6", "conf", link, "disable_ipv6"); err != nil {
			return fmt.Errorf("enable IPv6 on %s: %w", link, err)
		}
	}
	for _, key := range []string{"ndisc_notify", "optimistic_dad", "use_optimistic", "keep_addr_on_down"} {
		_ = set("1", "ipv6", "conf", name, key)
	}
	return nil
}

// carrierPatience is how long an announcement waits for the link; the kernel itself announces too (arp_notify), so that what comes
// later is not lost on everybody.
const carrierPatience = 200 * time.Millisecond

// Announce tells the link's neighbours which MAC has the addresses now: a gratuitous ARP request for each IPv4 address (RFC 5227
// section 3), an unsolicited neighbour advertisement for each IPv6 address (RFC 4861 section 7.2.6). It waits a moment for the carrier.
func (l *Linux) Announce(ctx context.Context, netnsPath string, link Link, a Addressing) error {
	if len(a.Addresses) == 0 || len(link.MAC) != 6 {
		return nil
	}
	if err := l.awaitCarrier(ctx, netnsPath, link.Name); err != nil {
		return err
	}
	var errs []error
	err := inNetNS(netnsPath, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer func() { _ = unix.Close(fd) }()
		for _, address := range a.Addresses {
			packet, to := announcement(link, address.Prefix.Addr())
			if err := unix.Sendto(fd, packet, 0, to); err != nil {
				errs = append(errs, fmt.Errorf("announce %s: %w", address.Prefix.Addr(), os.NewSyscallError("sendto", err)))
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// awaitCarrier waits until the link can send, for a moment.
func (l *Linux) awaitCarrier(ctx context.Context, netnsPath, name string) error {
	ctx, cancel := context.WithTimeout(ctx, carrierPatience)
	defer cancel()
	events, err := l.LinkEvents(ctx, netnsPath)
	if err != nil {
		return err
	}
	for {
		link, err := l.Link(netnsPath, name)
		if err != nil || link.Carrier {
			return err
		}
		if _, ok := <-events; !ok {
			return nil // late: what is sent may still be queued
		}
	}
}
