// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
)

// checkRoutes looks how the pods send what they send.
func (d *Doctor) checkRoutes(ctx context.Context, n *node) ([]Finding, error) {
	strict := &strictness{pods: map[string][]string{}}
	found := each(ctx, n.chosen, func(p inspect.Pod) []Finding {
		if !p.Seen || p.State == inspect.Gone {
			return nil
		}
		return d.podRoutes(ctx, &p, strict)
	})
	return append(found, strict.findings()...), ctx.Err()
}

func (d *Doctor) podRoutes(ctx context.Context, p *inspect.Pod, strict *strictness) []Finding {
	object := "pod " + p.Ref()
	routing, err := d.Kernel.Routing(p.NetNS)
	var neighbours []netdev.Neighbour
	if err == nil {
		neighbours, err = d.Kernel.Neighbours(p.NetNS)
	}
	if err != nil {
		if _, gone := d.Kernel.NetNSID(p.NetNS); errors.Is(gone, fs.ErrNotExist) {
			return nil // it ended meanwhile
		}
		return []Finding{newFinding(CheckFailed, object, oneLine(err.Error()), "run as root on the node")}
	}
	found := twoDefaults(object, routing)
	found = append(found, emptyTables(object, p, routing)...)
	found = append(found, lostSources(object, p, routing)...)
	strict.note(p, routing)
	return append(found, d.gateways(ctx, object, p, routing, neighbours)...)
}

// defaults are the default routes of a family in a table, the one in force first.
func defaults(r *netdev.Routing, is4 bool, table int) []netdev.Path {
	var found []netdev.Path
	for _, p := range r.Paths {
		if p.Table == table && p.Destination.Bits() == 0 && p.Destination.Addr().Is4() == is4 {
			found = append(found, p)
		}
	}
	slices.SortStableFunc(found, func(a, b netdev.Path) int { return cmp.Compare(a.Metric, b.Metric) })
	return found
}

// twoDefaults finds default routes through several interfaces.
func twoDefaults(object string, r *netdev.Routing) []Finding {
	var found []Finding
	for _, is4 := range []bool{true, false} {
		paths := defaults(r, is4, netdev.MainTable)
		var texts []string
		names := map[string]bool{}
		for _, p := range paths {
			names[p.IfName] = true
			texts = append(texts, pathText(p))
		}
		if len(names) > 1 {
			found = append(found, newFinding(RouteTwoDefaults, object, fmt.Sprintf("default routes through several interfaces: %s; replies to what arrives on others than %s leave by %s", strings.Join(texts, ", "), paths[0].IfName, paths[0].IfName),
				"keep one: remove the route 0.0.0.0/0 or ::/0 from the ipam of the other network, or choose with \"default-route\" in the pod's annotation; to keep both, chain the plugin sbr"))
		}
	}
	return found
}

func pathText(p netdev.Path) string {
	text := "dev " + p.IfName
	if p.Gateway.IsValid() {
		text = "via " + p.Gateway.String() + " " + text
	}
	if p.Metric > 0 {
		text += fmt.Sprintf(" metric %d", p.Metric)
	}
	return text
}

// emptyTables finds rules that send packets to a table which has no routes.
func emptyTables(object string, p *inspect.Pod, r *netdev.Routing) []Finding {
	var found []Finding
	for _, rule := range r.Rules {
		if !rule.From.IsValid() || !hasAddress(p, rule.From) {
			continue
		}
		is4 := rule.Family == netdev.IPv4
		if !slices.ContainsFunc(r.Paths, func(path netdev.Path) bool { return path.Table == rule.Table && path.Destination.Addr().Is4() == is4 }) {
			found = append(found, newFinding(RouteSourceEmpty, object, fmt.Sprintf("packets from %s use table %d, which has no route", rule.From, rule.Table), "delete the pod: the plugin sbr sets the routes again; find out what in the pod removes them"))
		}
	}
	return found
}

func hasAddress(p *inspect.Pod, in netip.Prefix) bool {
	return slices.ContainsFunc(p.Interfaces, func(i inspect.Interface) bool {
		return slices.ContainsFunc(i.Addresses(), func(a netip.Prefix) bool { return in.Contains(a.Addr()) })
	})
}

// lostSources finds interfaces with the plugin sbr whose addresses have no rule.
func lostSources(object string, p *inspect.Pod, r *netdev.Routing) []Finding {
	var found []Finding
	for i := range p.Interfaces {
		each := &p.Interfaces[i]
		if each.Live == nil || !slices.Contains(each.Plugins, "sbr") {
			continue
		}
		for _, a := range each.Live.Addresses {
			if !a.Addr().IsLinkLocalUnicast() && !fromRule(r, a.Addr()) {
				found = append(found, newFinding(RouteSourceMissing, object, fmt.Sprintf("the rule that the plugin sbr set for %s on %s (network %s) is gone: replies leave by another interface", a.Addr(), each.Name, each.Network), "delete the pod: the plugin sets it again; find out what in the pod removes rules"))
			}
		}
	}
	return found
}

func fromRule(r *netdev.Routing, address netip.Addr) bool {
	return slices.ContainsFunc(r.Rules, func(rule netdev.Rule) bool { return rule.From.IsValid() && rule.From.Contains(address) })
}

// strictness gathers interfaces that drop what would be answered elsewhere, by network: it is a setting of the node more than of a pod.
type strictness struct {
	mutex sync.Mutex
	pods  map[string][]string
}

// note looks for interfaces beside that of the default route, through which something beyond their subnets is reached.
func (s *strictness) note(p *inspect.Pod, r *netdev.Routing) {
	main := defaults(r, true, netdev.MainTable)
	if len(main) == 0 {
		return
	}
	for i := range p.Interfaces {
		each := &p.Interfaces[i]
		if each.Live == nil || each.Name == main[0].IfName || r.ReversePath[each.Name] != netdev.ReversePathStrict {
			continue
		}
		beyond := slices.ContainsFunc(r.Paths, func(path netdev.Path) bool {
			return path.IfName == each.Name && path.Gateway.IsValid() && path.Destination.Addr().Is4()
		})
		if beyond {
			s.mutex.Lock()
			s.pods[each.Network] = append(s.pods[each.Network], p.Ref())
			s.mutex.Unlock()
		}
	}
}

func (s *strictness) findings() []Finding {
	var found []Finding
	for _, network := range slices.Sorted(maps.Keys(s.pods)) {
		pods := s.pods[network]
		slices.Sort(pods)
		found = append(found, newFinding(RouteReversePath, "network "+network, fmt.Sprintf("strict reverse path filtering (rp_filter 1) on it in %d pods drops packets whose source is routed through another interface (%s)", len(pods), list(pods)),
			"chain the plugin tuning with \"sysctl\": {\"net.ipv4.conf.IFNAME.rp_filter\": \"2\"}, or set net.ipv4.conf.all.rp_filter and default.rp_filter to 2 on the node before the pods start"))
	}
	return found
}

// gateways finds gateways that do not answer: those that the kernel has asked lately, or with --probe all.
func (d *Doctor) gateways(ctx context.Context, object string, p *inspect.Pod, r *netdev.Routing, known []netdev.Neighbour) []Finding {
	var found []Finding
	seen := map[string]bool{}
	for _, path := range r.Paths {
		key := path.IfName + " " + path.Gateway.String()
		if !path.Gateway.IsValid() || seen[key] {
			continue
		}
		seen[key] = true
		state := netdev.Answered
		if at := slices.IndexFunc(known, func(n netdev.Neighbour) bool { return n.IfName == path.IfName && n.Address == path.Gateway }); at >= 0 {
			state = known[at].State
		}
		if d.Probe {
			var err error
			if state, err = d.Kernel.Resolve(ctx, p.NetNS, path.IfName, path.Gateway); err != nil {
				found = append(found, newFinding(CheckFailed, object, oneLine(err.Error()), "run as root on the node"))
				continue
			}
		}
		// Who was asked but had not the time to answer may still.
		if state == netdev.Answered || (state == netdev.Asked && (!d.Probe || ctx.Err() != nil)) {
			continue
		}
		network := ""
		if at := slices.IndexFunc(p.Interfaces, func(i inspect.Interface) bool { return i.Name == path.IfName }); at >= 0 {
			network = " (network " + p.Interfaces[at].Network + ")"
		}
		found = append(found, newFinding(GatewayUnreachable, object, fmt.Sprintf("gateway %s does not answer on %s%s", path.Gateway, path.IfName, network),
			"correct \"gateway\" in the network's ipam; check that the router is up and in the same VLAN: plexusctl capture "+p.Ref()+" "+path.IfName))
	}
	return found
}
