// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
)

// defaultBridge is what the plugin bridge takes.
const defaultBridge = "cni0"

// hostLinks are the links of the host that a network's plugins hang on.
func hostLinks(w *network) []string {
	var names []string
	for _, p := range w.plugins() {
		if name := bridgeOf(p); name != "" {
			names = append(names, name)
		}
		if p.Master != "" {
			names = append(names, p.Master)
		}
	}
	return names
}

func bridgeOf(p plugin) string {
	switch {
	case p.Type != "bridge":
		return ""
	case p.Bridge != "":
		return p.Bridge
	}
	return defaultBridge
}

// checkLinks looks at the links of the host that the networks need.
func (d *Doctor) checkLinks(_ context.Context, n *node) ([]Finding, error) {
	if n.linksErr != nil {
		return nil, n.linksErr
	}
	var found []Finding
	for _, w := range d.concerned(n) {
		var raw struct {
			Plugins []struct {
				LinkInContainer  bool `json:"linkInContainer"`
				IsGateway        bool `json:"isGateway"`
				IsDefaultGateway bool `json:"isDefaultGateway"`
			} `json:"plugins"`
		}
		if json.Unmarshal(w.list.Bytes(), &raw) != nil {
			continue // keys of these names that mean something else
		}
		inUse := w.isOf(alive(n.pods))
		for i, p := range w.plugins() {
			found = append(found, masterFinding(&w, p, n.links, raw.Plugins[i].LinkInContainer)...)
			gateway := raw.Plugins[i].IsGateway || raw.Plugins[i].IsDefaultGateway
			if inUse {
				found = append(found, d.bridgeFindings(&w, p, n.links, gateway)...)
			}
		}
	}
	for i := range n.chosen {
		found = append(found, mtuFindings(&n.chosen[i], n.links)...)
	}
	return found, nil
}

func alive(pods []inspect.Pod) []inspect.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p inspect.Pod) bool { return p.State == inspect.Gone })
}

func linkNamed(links []netdev.Link, name string) *netdev.Link {
	at := slices.IndexFunc(links, func(l netdev.Link) bool { return l.Name == name || slices.Contains(l.AltNames, name) })
	if at < 0 {
		return nil
	}
	return &links[at]
}

func masterFinding(w *network, p plugin, links []netdev.Link, inContainer bool) []Finding {
	if p.Master == "" || inContainer {
		return nil
	}
	link := linkNamed(links, p.Master)
	switch {
	case link == nil:
		return []Finding{newFinding(LinkMissing, w.object(), fmt.Sprintf("its \"master\" %q is not an interface of this node, which has %s", p.Master, strings.Join(candidates(links), ", ")), "correct \"master\" in "+w.from+", or create the interface")}
	case !link.Up:
		return []Finding{newFinding(LinkDown, w.object(), fmt.Sprintf("its \"master\" %s is down", p.Master), "ip link set "+p.Master+" up, and have the node's network configuration do so")}
	case !link.Carrier:
		return []Finding{newFinding(LinkNoCarrier, w.object(), fmt.Sprintf("its \"master\" %s has no carrier", p.Master), "check the cable and the switch port")}
	}
	return nil
}

// candidates are interfaces that could have been meant: those that no pod's veth is, devices first.
func candidates(links []netdev.Link) []string {
	const most = 16
	var devices, others []string
	for _, l := range links {
		switch {
		case l.Name == "lo" || strings.HasPrefix(l.Name, "veth"):
		case l.Parent != "":
			devices = append(devices, l.Name)
		default:
			others = append(others, l.Name)
		}
	}
	names := slices.Concat(devices, others)
	if len(names) > most {
		return append(names[:most:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return names
}

// bridgeFindings look at a bridge that pods are on; one that has none its plugin makes when it takes it.
func (d *Doctor) bridgeFindings(w *network, p plugin, links []netdev.Link, isGateway bool) []Finding {
	name := bridgeOf(p)
	if name == "" {
		return nil
	}
	const again = "delete the pods on it; the next one creates it again"
	link := linkNamed(links, name)
	switch {
	case link == nil:
		return []Finding{newFinding(LinkMissing, w.object(), fmt.Sprintf("its bridge %s is gone although pods use it", name), again)}
	case !link.Up:
		return []Finding{newFinding(LinkDown, w.object(), fmt.Sprintf("its bridge %s is down", name), "ip link set "+name+" up, and find out who set it down")}
	}
	if !isGateway {
		return nil
	}
	pools, err := parsePools(w, p.IPAM, d.Paths.Leases)
	if err != nil {
		return nil // told by another check
	}
	var found []Finding
	for _, pool := range pools {
		gateway := pool.ranges[0].gateway
		if !slices.ContainsFunc(link.Addrs, func(a netip.Prefix) bool { return a.Addr() == gateway }) {
			found = append(found, newFinding(GatewayMissing, w.object(), fmt.Sprintf("its bridge %s has lost %s, the gateway of the pods on it", name, gateway),
				fmt.Sprintf("ip address add %s/%d dev %s, and find out who removed it", gateway, pool.ranges[0].subnet.Bits(), name)))
		}
	}
	return found
}

// mtuFindings compare the interfaces of a pod with the links of the host that they hang on.
func mtuFindings(p *inspect.Pod, links []netdev.Link) []Finding {
	var found []Finding
	for i := range p.Interfaces {
		each := &p.Interfaces[i]
		link := linkNamed(links, each.HostLink)
		if each.Live == nil || each.HostLink == "" || link == nil || each.Live.MTU <= link.MTU {
			continue
		}
		found = append(found, newFinding(MTUMismatch, "pod "+p.Ref(), fmt.Sprintf("interface %s (network %s) has MTU %d, but %s of the node only %d: larger packets are lost", each.Name, each.Network, each.Live.MTU, link.Name, link.MTU),
			fmt.Sprintf("set \"mtu\": %d in the network's configuration, or raise that of %s", link.MTU, link.Name)))
	}
	return found
}
