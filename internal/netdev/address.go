// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	AwaitDAD(ctx context.Context, netnsPath string, ifNames ...string) error
	Announce(ctx context.Context, netnsPath string, link Link, a Addressing) error
}

var (
	_ addressing = (*Linux)(nil)
	_ addressing = (*Fake)(nil)
)

// Configure gives an interface its addresses, sets it up and adds its routes. When it returns, programs can bind to all addresses: IPv6
// addresses are optimistic (RFC 4429) where the kernel can do that, else duplicate address detection is waited for. An address that another
// node has already is an error. A route to where another interface leads already goes behind that one, and takes nothing over. Like the
// ConfigureIface of the reference plugins otherwise, without that library's firewall in tow.
func (l *Linux) Configure(ctx context.Context, netnsPath string, index int, a Addressing) error {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return err
	}
	defer s.Close()
	link, err := s.linkByIndex(index)
	if err != nil {
		return err
	}
	name := link.Attrs().Name
	if err := inNetNS(netnsPath, func() error { return prepareSysctls(name, a) }); err != nil {
		return fmt.Errorf("prepare interface %s: %w", name, err)
	}
	for _, address := range a.Addresses {
		if err := ctx.Err(); err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: ipNet(address.Prefix)}
		if address.Prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_OPTIMISTIC // dropped by the kernel where the sysctl optimistic_dad is not set
		}
		if err := s.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s to interface %s: %w", address.Prefix, name, err)
		}
	}
	if err := s.LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", name, err)
	}
	if err := errors.Join(s.refuseRouters(netnsPath, index, name), s.addRoutes(index, a)); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if !a.hasIPv6() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dadPatience)
	defer cancel()
	return l.AwaitDAD(ctx, netnsPath, name)
}

func (a Addressing) hasIPv6() bool {
	return slices.ContainsFunc(a.Addresses, func(a Address) bool { return a.Prefix.Addr().Is6() })
}

// addRoutes adds the routes, each behind those of other interfaces to the same destination. A takeover is asked for in another way: see
// [Linux.SetDefaultRoutes].
func (s sandbox) addRoutes(index int, a Addressing) error {
	for _, r := range a.Routes {
		route := a.route(index, r)
		err := s.standBack(route)
		if err == nil {
			// Not replaced: to the kernel that would be the first one of the metric, whosever.
			if err = s.RouteAppend(route); errors.Is(err, unix.EEXIST) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("add route to %s: %w", r.Destination, err)
		}
	}
	return nil
}

// standBack gives a route a metric behind those of other interfaces to the same destination. Beside one of the same metric, an IPv4 route
// would go before it, and an IPv6 route would get half of its packets.
func (s sandbox) standBack(route *netlink.Route) error {
	family := IPv4
	if len(route.Dst.IP) == net.IPv6len {
		family = IPv6
		route.Priority = cmp.Or(route.Priority, metricIPv6)
	}
	table := &netlink.Route{Table: cmp.Or(route.Table, unix.RT_TABLE_MAIN)}
	found, err := dump(func() ([]netlink.Route, error) {
		return s.RouteListFiltered(rtFamily(family), table, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, other := range found {
		leadsElsewhere := slices.ContainsFunc(nextHops(other), func(hop *netlink.NexthopInfo) bool { return hop.LinkIndex != route.LinkIndex })
		if leadsElsewhere && other.Type == unix.RTN_UNICAST && destinationOf(family, other) == destinationOf(family, *route) {
			route.Priority = max(route.Priority, other.Priority+1)
		}
	}
	return nil
}

// refuseRouters keeps routers that advertise themselves on a link (RFC 4861) from becoming the sandbox's IPv6 default beside the one that
// another interface has. Addresses may still come by their advertisements.
func (s sandbox) refuseRouters(netnsPath string, index int, name string) error {
	defaults, err := s.defaultRoutes([]Family{IPv6})
	if err != nil {
		return err
	}
	isOwn := func(r defaultRoute) bool {
		return !slices.ContainsFunc(nextHops(r.Route), func(hop *netlink.NexthopInfo) bool { return hop.LinkIndex != index })
	}
	if !slices.ContainsFunc(defaults, func(r defaultRoute) bool { return !isOwn(r) && r.Type == unix.RTN_UNICAST }) {
		return nil
	}
	if err := inNetNS(netnsPath, func() error { return setSysctl("0", "ipv6", "conf", name, "accept_ra_defrtr") }); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, r := range defaults {
		if isOwn(r) && r.Protocol == unix.RTPROT_RA {
			if err := s.removeRoute(r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("remove default route %s: %w", r, err)
			}
		}
	}
	return nil
}

// route completes a route with the gateway of its family.
func (a Addressing) route(index int, r IPRoute) *netlink.Route {
	gateway := a.gateway(r)
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

// gateway is that of a route, or that of the first address of its family that has one; not valid for none.
func (a Addressing) gateway(r IPRoute) netip.Addr {
	if r.Gateway.IsValid() {
		return r.Gateway
	}
	for _, address := range a.Addresses {
		if address.Gateway.IsValid() && address.Gateway.Is4() == r.Destination.Addr().Is4() {
			return address.Gateway
		}
	}
	return netip.Addr{}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prepareSysctls runs in the network namespace. Only IPv6 that stays off for an IPv6 address is an error; the rest makes a fail-over
// faster, where the kernel has it.
func prepareSysctls(name string, a Addressing) error {
	// The kernel announces IPv4 addresses when the interface is set up; see Announce for a carrier that comes later.
	_ = setSysctl("1", "ipv4", "conf", name, "arp_notify")
	if !a.hasIPv6() {
		return nil
	}
	for _, link := range []string{"lo", name} {
		if err := setSysctl("0", "ipv6", "conf", link, "disable_ipv6"); err != nil {
			return fmt.Errorf("enable IPv6 on %s: %w", link, err)
		}
	}
	// ndisc_notify: where the kernel knows no optimistic addresses, it announces an address once no other node is found to have it.
	for _, key := range []string{"ndisc_notify", "optimistic_dad", "use_optimistic", "keep_addr_on_down"} {
		_ = setSysctl("1", "ipv6", "conf", name, key)
	}
	return nil
}

// setSysctl sets a sysctl of the calling thread's network namespace. One that has the value already is not written: /proc/sys may be read-only,
// as in a container.
func setSysctl(value string, path ...string) error {
	file := filepath.Join(append([]string{"/proc/sys/net"}, path...)...)
	if now, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	return os.WriteFile(file, []byte(value), 0o600)
}
