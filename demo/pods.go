// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source/manifest"
)

// livePod is a pod that is attached.
type livePod struct {
	ref      pod.Ref
	netns    string
	networks []attachedNetwork
}

// attachedNetwork is one network of a pod, as its network status tells.
type attachedNetwork struct {
	name   string
	ifName string
	ips    []netip.Addr
	// limitMbps is the lowest rate that the pod's annotation allows in either direction, in Mbit/s; 0 for no limit.
	limitMbps float64
}

// pods reads what Plexus reported of the two pods of the show.
func (st *stage) pods() ([]livePod, error) {
	objects, err := manifest.Load(st.manifests())
	if err != nil {
		return nil, err
	}
	var pods []livePod
	for i, p := range objects.Pods {
		text, err := os.ReadFile(manifest.New(st.manifests()).StatusFile(p.Ref))
		if err != nil {
			return nil, fmt.Errorf("network status of pod %s: %w", p.Ref, err)
		}
		status, err := annotations.ParseStatus(string(text))
		if err != nil {
			return nil, fmt.Errorf("pod %s: %w", p.Ref, err)
		}
		elements, err := annotations.ParseNetworks(p.Annotations[annotations.NetworksKey], p.Ref.Namespace)
		if err != nil {
			return nil, fmt.Errorf("pod %s: %w", p.Ref, err)
		}
		live := livePod{ref: p.Ref, netns: filepath.Join(netnsDir, st.scene.netns[i])}
		for _, s := range status {
			n := attachedNetwork{name: s.Name, ifName: s.Interface, limitMbps: limitOf(elements, s.Name)}
			for _, ip := range s.IPs {
				addr, err := netip.ParseAddr(ip)
				if err != nil {
					return nil, fmt.Errorf("pod %s: network %s: %w", p.Ref, s.Name, err)
				}
				n.ips = append(n.ips, addr)
			}
			live.networks = append(live.networks, n)
		}
		pods = append(pods, live)
	}
	return pods, nil
}

// limitOf is what the annotation allows a network, in Mbit/s.
func limitOf(elements []annotations.Element, network string) float64 {
	i := slices.IndexFunc(elements, func(e annotations.Element) bool { return e.Namespace+"/"+e.Name == network })
	if i < 0 || elements[i].Bandwidth == nil {
		return 0
	}
	b := elements[i].Bandwidth
	return float64(min(cmp.Or(b.IngressRate, b.EgressRate), cmp.Or(b.EgressRate, b.IngressRate))) / 1e6
}

// ip is the pod's address of one family on a network.
func (p *livePod) ip(network string, v4 bool) (netip.Addr, error) {
	for _, n := range p.networks {
		for _, ip := range n.ips {
			if n.name == network && ip.Is4() == v4 {
				return ip, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("pod %s has no address of both families on network %s", p.ref, network)
}
