// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Routing is what a sandbox decides by where a packet goes, and whether it takes one in.
type Routing struct {
	// Paths are the unicast routes of all tables, each next hop by itself.
	Paths []Path
	// Rules are those that look up a table other than local, main and default, in order.
	Rules []Rule
	// ReversePath is, by interface, how strictly IPv4 checks that the answer would leave where a packet came in (RFC 3704).
	ReversePath map[string]ReversePath
}

// Path is one next hop of a route.
type Path struct {
	IfName string
	// Destination is 0.0.0.0/0 or ::/0 for a default route.
	Destination netip.Prefix
	// Gateway is not valid when the destination itself is the next hop.
	Gateway netip.Addr
	Table   int
	// Metric decides between routes to one destination: the lowest wins.
	Metric int
}

// Rule sends packets to a table of routes. Like a line of `ip rule`.
type Rule struct {
	Family Family
	// From is not valid for a rule that does not ask where a packet is from.
	From netip.Prefix
	// IfName is the interface that the packet has come in by, or that its socket is bound to; "" for any.
	IfName string
	Table  int
}

// MainTable is the table of routes that is used without rules.
const MainTable = unix.RT_TABLE_MAIN

// ReversePath is a value of the sysctl rp_filter.
type ReversePath int

// The values of rp_filter.
const (
	ReversePathOff    ReversePath = 0
	ReversePathStrict ReversePath = 1 // the answer would leave by the same interface
	ReversePathLoose  ReversePath = 2 // there is a way to answer
)

// Routing reads it of a sandbox. Like `ip -n NETNS route show table all`, `ip -n NETNS rule` and `sysctl net.ipv4.conf`.
func (l *Linux) Routing(netnsPath string) (*Routing, error) {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r, err := s.routing()
	if err == nil {
		r.ReversePath, err = reversePaths(netnsPath)
	}
	if err != nil {
		return nil, fmt.Errorf("routing of sandbox %s: %w", netnsPath, err)
	}
	return r, nil
}

func (s sandbox) routing() (*Routing, error) {
	names, err := s.linkNames()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	r := &Routing{}
	for _, family := range []Family{IPv4, IPv6} {
		all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		routes, err := dump(func() ([]netlink.Route, error) {
			return s.RouteListFiltered(rtFamily(family), all, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list %s routes: %w", family, err)
		}
		for _, route := range routes {
			if route.Type == unix.RTN_UNICAST && route.Table != unix.RT_TABLE_LOCAL {
				r.Paths = append(r.Paths, pathsOf(family, route, names)...)
			}
		}
		rules, err := dump(func() ([]netlink.Rule, error) { return s.RuleList(rtFamily(family)) })
		if err != nil {
			return nil, fmt.Errorf("list %s rules: %w", family, err)
		}
		for _, rule := range rules {
			switch rule.Table {
			case unix.RT_TABLE_UNSPEC, unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN, unix.RT_TABLE_DEFAULT:
				continue
			}
			r.Rules = append(r.Rules, ruleOf(family, rule))
		}
	}
	return r, nil
}

func pathsOf(family Family, route netlink.Route, names map[int]string) []Path {
	var paths []Path
	for _, hop := range nextHops(route) {
		paths = append(paths, Path{
			IfName: names[hop.LinkIndex], Destination: destinationOf(family, route), Gateway: gatewayOf(hop), Table: route.Table, Metric: route.Priority,
		})
	}
	return paths
}

// destinationOf is 0.0.0.0/0 or ::/0 for a default route, in whatever form it comes.
func destinationOf(family Family, route netlink.Route) netip.Prefix {
	if isDefault(route) {
		return netip.PrefixFrom(unspecified(family), 0)
	}
	addr, _ := toAddr(route.Dst.IP)
	bits, _ := route.Dst.Mask.Size()
	return netip.PrefixFrom(addr, bits)
}

func ruleOf(family Family, rule netlink.Rule) Rule {
	r := Rule{Family: family, IfName: rule.IifName, Table: rule.Table}
	if rule.OifName != "" {
		r.IfName = rule.OifName
	}
	if rule.Src != nil {
		addr, _ := toAddr(rule.Src.IP)
		bits, _ := rule.Src.Mask.Size()
		r.From = netip.PrefixFrom(addr, bits)
	}
	return r
}

func unspecified(f Family) netip.Addr {
	if f == IPv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// reversePaths reads the sysctls: the folder shows the network namespace of whoever opens it.
func reversePaths(netnsPath string) (map[string]ReversePath, error) {
	const dir = "/proc/sys/net/ipv4/conf"
	values := map[string]ReversePath{}
	read := func() error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(dir, e.Name(), "rp_filter"))
			if err != nil {
				continue // the interface went away
			}
			n, err := strconv.Atoi(strings.TrimSpace(string(data)))
			if err != nil {
				return fmt.Errorf("rp_filter of %s: %w", e.Name(), err)
			}
			values[e.Name()] = ReversePath(n)
		}
		return nil
	}
	if err := inNetNS(netnsPath, read); err != nil {
		return nil, err
	}
	for name := range values {
		// ip-sysctl: the maximum of both is in force.
		values[name] = max(values[name], values["all"])
	}
	delete(values, "all")
	delete(values, "default")
	return values, nil
}
