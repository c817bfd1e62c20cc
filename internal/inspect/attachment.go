// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"encoding/json"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/plexus-cni/plexus/delegate"
)

// interfacesOf are the interfaces that the plugins of an attachment reported within the sandbox, or else the one that they were asked for.
func interfacesOf(a *delegate.Attachment) []Interface {
	base := Interface{
		Name: a.IfName, Network: cmp.Or(a.Network, a.List.Name()), Default: a.Default, Plugins: a.List.Types(), HostLink: hostLink(a), Device: a.Device,
	}
	result := resultOf(a)
	if result == nil {
		return []Interface{base}
	}
	var found []Interface
	for i, reported := range result.Interfaces {
		if reported.Sandbox == "" {
			continue
		}
		each := base
		each.Name = reported.Name
		each.Device = cmp.Or(reported.PciID, base.Device)
		each.Recorded = &Recorded{MAC: reported.Mac, MTU: reported.Mtu, Addresses: addressesOf(result, i)}
		found = append(found, each)
	}
	if found == nil {
		return []Interface{base} // without Recorded: nothing can be expected of it
	}
	return found
}

// resultOf is what the plugins reported; nil when nothing usable is on record.
func resultOf(a *delegate.Attachment) *types100.Result {
	r, err := a.ResultAs(types100.ImplementedSpecVersion)
	if err != nil || r == nil {
		return nil
	}
	result, err := types100.NewResultFromResult(r)
	if err != nil {
		return nil
	}
	return result
}

// addressesOf are the addresses that the plugins reported for the interface at an index.
func addressesOf(r *types100.Result, index int) []netip.Prefix {
	var found []netip.Prefix
	for _, ip := range r.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if ip.Interface == nil || *ip.Interface != index || !ok {
			continue
		}
		ones, _ := ip.Address.Mask.Size()
		found = append(found, netip.PrefixFrom(addr.Unmap(), ones))
	}
	return found
}

// hostLink is the link of the host that the first plugin to name one connects the sandbox to; "" where the configuration leaves it to the
// plugin.
func hostLink(a *delegate.Attachment) string {
	var list struct {
		Plugins []struct {
			Type   string `json:"type"`
			Master string `json:"master"`
			Bridge string `json:"bridge"`
			Device string `json:"device"`
		} `json:"plugins"`
	}
	if json.Unmarshal(a.List.Bytes(), &list) != nil {
		return "" // keys of these names that mean something else
	}
	for _, p := range list.Plugins {
		if link := cmp.Or(p.Bridge, p.Master, p.Device); link != "" {
			return link
		}
		if p.Type == "bridge" {
			return "cni0" // what the plugin takes
		}
	}
	return ""
}
