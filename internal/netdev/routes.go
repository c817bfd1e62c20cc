// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// metricIPv6 is what the kernel gives an IPv6 route without metric (IP6_RT_PRIO_USER).
const metricIPv6 = 1024

// SetDefaultRoutes gives the default routes of the sandbox's main table to one interface; see [DefaultRoutes]. Multipath routes
// lose the next hops that have to go. Like `ip -n NETNS route replace default via GATEWAY dev IFNAME` and `ip route del default
// dev OTHER` for the rest.
//
// The new route replaces the old one in one step where both have the usual metric, so that at no time there is none. On an error
// the default routes are put back as they were, as far as the kernel lets; the error says so where it does not. Routes that the
// kernel learned from router advertisements (proto ra) go too, but the next advertisement brings them back, unless the sysctl
// net.ipv6.conf.<interface>.accept_ra_defrtr is 0.
//
// ctx is looked at before anything is changed; the calls to the kernel themselves take microseconds.
func (l *Linux) SetDefaultRoutes(ctx context.Context, netnsPath string, r DefaultRoutes) error {
	if err := l.setDefaultRoutes(ctx, netnsPath, r); err != nil {
		return fmt.Errorf("set default routes of sandbox %s: %w", netnsPath, err)
	}
	return nil
}

func (l *Linux) setDefaultRoutes(ctx context.Context, netnsPath string, r DefaultRoutes) error {
	if err := cmp.Or(r.check(), ctx.Err()); err != nil {
		return err
	}
	s, err := openSandbox(netnsPath)
	if err != nil {
		return err
	}
	defer s.Close()
	link, err := s.linkByName(r.IfName)
	if errors.Is(err, ErrNoLink) {
		return errNoLink(r.IfName)
	}
	if err != nil {
		return err
	}
	before, err := s.defaultRoutes(r.families())
	if err != nil {
		return err
	}
	if err := s.takeOver(link.Attrs(), r); err != nil {
		if undo := s.restore(before, r.families()); undo != nil {
			return fmt.Errorf("%w; put the old ones back: %w", err, undo)
		}
		return err
	}
	return nil
}

// DefaultRoutes lists the default routes in force in the sandbox's main table, IPv4 first, each next hop of a multipath route by
// itself. Like `ip -n NETNS route show default` for both families.
func (l *Linux) DefaultRoutes(netnsPath string) ([]Route, error) {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return nil, fmt.Errorf("list default routes: %w", err)
	}
	defer s.Close()
	found, err := s.defaultRoutes([]Family{IPv4, IPv6})
	if err != nil {
		return nil, fmt.Errorf("list default routes of sandbox %s: %w", netnsPath, err)
	}
	names, err := s.linkNames()
	if err != nil {
		return nil, fmt.Errorf("list interfaces of sandbox %s: %w", netnsPath, err)
	}
	var routes []Route
	for _, route := range found {
		if route.Type != unix.RTN_UNICAST {
			continue // An "unreachable default" leads nowhere.
		}
		for _, hop := range nextHops(route.Route) {
			routes = append(routes, Route{IfName: names[hop.LinkIndex], Gateway: gatewayOf(hop), Family: familyOf(route.Route)})
		}
	}
	return routes, nil
}

// takeOver sets what is new before it removes what is old, and sees to it that nothing old is left.
func (s sandbox) takeOver(link *netlink.LinkAttrs, r DefaultRoutes) error {
	for _, family := range r.families() {
		gateway, ok := r.Gateways[family]
		if !ok {
			continue
		}
		// The kernel would say only that the gateway is unreachable: a link that is down has no subnets.
		if link.RawFlags&unix.IFF_UP == 0 {
			return explain(r.IfName, gateway, unix.ENETDOWN)
		}
		// EEXIST: the very same route is there, behind another one of its metric.
		if err := s.RouteReplace(defaultVia(family, gateway, link.Index)); err != nil && !errors.Is(err, unix.EEXIST) {
			return explain(r.IfName, gateway, err)
		}
	}
	old, err := s.defaultRoutes(r.families())
	if err != nil {
		return err
	}
	for _, c := range plan(old, link.Index, r) {
		if err = s.apply(c); err != nil {
			return err
		}
	}
	left, err := s.defaultRoutes(r.families())
	if err != nil {
		return err
	}
	if again := plan(left, link.Index, r); len(again) > 0 {
		return fmt.Errorf("default route %s is still there; does something else in the sandbox set it?", again[0].old)
	}
	return nil
}

// change is what becomes of one default route.
type change struct {
	old defaultRoute
	// rest are the next hops that it keeps; nil removes it.
	rest []*netlink.NexthopInfo
}

// plan says what has to change until the default routes found are those that r asks for, where those of r.Gateways have been set.
func plan(found []defaultRoute, index int, r DefaultRoutes) []change {
	var changes []change
	for _, old := range found {
		family := familyOf(old.Route)
		if gateway, ok := r.Gateways[family]; ok {
			if !isSame(old.Route, *defaultVia(family, gateway, index)) {
				changes = append(changes, change{old: old})
			}
			continue
		}
		hops := nextHops(old.Route)
		own := slices.DeleteFunc(slices.Clone(hops), func(hop *netlink.NexthopInfo) bool { return hop.LinkIndex != index })
		if len(own) < len(hops) {
			changes = append(changes, change{old: old, rest: own})
		}
	}
	return changes
}

// apply does one change of a plan.
func (s sandbox) apply(c change) error {
	if len(c.rest) > 0 {
		reduced := writable(c.old.Route)
		reduced.MultiPath = c.rest
		if len(c.rest) == 1 {
			hop := c.rest[0]
			reduced.MultiPath, reduced.LinkIndex, reduced.Gw, reduced.Via, reduced.Encap = nil, hop.LinkIndex, hop.Gw, hop.Via, hop.Encap
			reduced.Flags = hop.Flags
		}
		if err := s.RouteReplace(&reduced); err != nil {
			return fmt.Errorf("reduce default route %s: %w", c.old, err)
		}
		return nil
	}
	// ESRCH: gone by itself, as a learned one may when it expires.
	if err := s.removeRoute(c.old); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove default route %s: %w", c.old, err)
	}
	return nil
}

// restore puts the default routes of some families back. It tries all, and returns what it could not do.
func (s sandbox) restore(before []defaultRoute, families []Family) error {
	now, err := s.defaultRoutes(families)
	if err != nil {
		return err
	}
	missingFrom := func(routes []defaultRoute) func(defaultRoute) bool {
		return func(r defaultRoute) bool {
			return !slices.ContainsFunc(routes, func(o defaultRoute) bool { return r.Equal(o.Route) && r.nexthop == o.nexthop })
		}
	}
	var errs []error
	for _, r := range now {
		if missingFrom(before)(r) {
			errs = append(errs, s.removeRoute(r))
		}
	}
	for _, r := range before {
		if missingFrom(now)(r) {
			errs = append(errs, s.putBack(r))
		}
	}
	return errors.Join(errs...)
}

// defaultRoute is a listed default route, in a form that can be written back.
type defaultRoute struct {
	netlink.Route
	// nexthop is the nexthop object (Linux 5.3) that it leads to, 0 for none.
	nexthop uint32
	// message is the kernel's own, with all that the library's form leaves out.
	message []byte
}

// defaultRoutes lists the default routes of some families in the main table.
func (s sandbox) defaultRoutes(families []Family) ([]defaultRoute, error) {
	var defaults []defaultRoute
	for _, f := range families {
		found, err := s.defaultRoutesOf(f)
		if err != nil {
			return nil, fmt.Errorf("list %s routes: %w", f, err)
		}
		defaults = append(defaults, found...)
	}
	return defaults, nil
}

func (s sandbox) defaultRoutesOf(f Family) ([]defaultRoute, error) {
	for range maxDumps {
		// The library leaves the other tables out.
		routes, err := dump(func() ([]netlink.Route, error) { return s.RouteList(nil, rtFamily(f)) })
		if err != nil {
			return nil, err
		}
		routes = slices.DeleteFunc(routes, func(r netlink.Route) bool { return !isDefault(r) })
		messages, err := s.routeMessages(f)
		if err != nil {
			return nil, err
		}
		isOf := func(r netlink.Route, m routeMessage) bool {
			return r.Priority == int(m.priority) && r.Protocol == netlink.RouteProtocol(m.protocol) && r.Gw.Equal(m.gateway)
		}
		// Else they changed between both listings.
		if !slices.EqualFunc(routes, messages, isOf) {
			continue
		}
		defaults := make([]defaultRoute, 0, len(routes))
		for i, r := range routes {
			defaults = append(defaults, defaultRoute{Route: writable(r), nexthop: messages[i].nexthop, message: messages[i].whole})
		}
		return defaults, nil
	}
	return nil, netlink.ErrDumpInterrupted
}

// isDefault recognises a default route. The library shows its destination as nil up to version 1.3.0 and as 0.0.0.0/0 or ::/0
// since; whoever asks only for nil removes nothing and notices nothing.
func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	bits, _ := r.Dst.Mask.Size()
	return bits == 0 && (len(r.Dst.IP) == 0 || r.Dst.IP.IsUnspecified())
}

// defaultVia is the route that a takeover sets.
func defaultVia(family Family, gateway netip.Addr, index int) *netlink.Route {
	r := &netlink.Route{
		Family: rtFamily(family), Dst: anyDestination(family), Gw: gateway.AsSlice(), LinkIndex: index,
		Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_STATIC,
	}
	if family == IPv6 {
		r.Priority = metricIPv6
	}
	return r
}

// isSame reports whether a listed route is the one that was set.
func isSame(listed, set netlink.Route) bool {
	return listed.LinkIndex == set.LinkIndex && listed.Gw.Equal(set.Gw) && listed.Priority == set.Priority &&
		listed.Protocol == set.Protocol && listed.Type == set.Type && listed.Tos == set.Tos && len(listed.MultiPath) == 0
}

// selector names a listed route for removal: what tells it from its neighbours, without what the kernel would compare besides
// (metrics, which it does not list in the form in which it takes them).
func selector(r netlink.Route) *netlink.Route {
	return &netlink.Route{
		Family: r.Family, Dst: r.Dst, Table: r.Table, Priority: r.Priority, Tos: r.Tos, Type: r.Type, Scope: r.Scope, Protocol: r.Protocol,
		LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via, MultiPath: r.MultiPath,
	}
}

// writable makes a listed route one that the kernel takes: without the flags that report a state (linkdown, dead, offload), which
// it refuses, and with a destination.
func writable(r netlink.Route) netlink.Route {
	r.Flags &= unix.RTNH_F_ONLINK
	r.Dst = anyDestination(familyOf(r))
	for _, hop := range r.MultiPath {
		hop.Flags &= unix.RTNH_F_ONLINK
	}
	return r
}

// nextHops gives the next hops of any route, one for a plain one.
func nextHops(r netlink.Route) []*netlink.NexthopInfo {
	if len(r.MultiPath) > 0 {
		return r.MultiPath
	}
	return []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via, Encap: r.Encap, Flags: r.Flags}}
}

// gatewayOf is the gateway of a next hop, not valid for none.
func gatewayOf(hop *netlink.NexthopInfo) netip.Addr {
	ip := hop.Gw
	if via, ok := hop.Via.(*netlink.Via); ok { // An IPv6 gateway of an IPv4 route, Linux 5.2.
		ip = via.Addr
	}
	addr, _ := toAddr(ip)
	return addr
}

func familyOf(r netlink.Route) Family {
	if r.Family == unix.AF_INET6 {
		return IPv6
	}
	return IPv4
}

func rtFamily(f Family) int {
	if f == IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func anyDestination(f Family) *net.IPNet {
	if f == IPv6 {
		return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 8*net.IPv6len)}
	}
	return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 8*net.IPv4len)}
}

// errNoLink says that the interface to win is not there.
func errNoLink(ifName string) error {
	return fmt.Errorf("interface %s is not in the sandbox; its plugin must make it before", ifName)
}

// explain says what the kernel's answer to a new default route means, and what fixes it.
func explain(ifName string, gateway netip.Addr, err error) error {
	fix := ""
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		fix = fmt.Sprintf("; the gateway is in no subnet of %s: add an address in the gateway's subnet to %s, or name a gateway in one of its subnets", ifName, ifName)
	case errors.Is(err, unix.EINVAL):
		fix = fmt.Sprintf("; the gateway must be a neighbour on %s, not one of the sandbox's own addresses", ifName)
	case errors.Is(err, unix.ENETDOWN):
		fix = fmt.Sprintf("; %s is down: its plugin must set it up", ifName)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENODEV):
		fix = fmt.Sprintf("; is IPv6 disabled on %s (sysctl net.ipv6.conf.%s.disable_ipv6)?", ifName, ifName)
	}
	return fmt.Errorf("via %s on %s: %w%s", gateway, ifName, err, fix)
}
