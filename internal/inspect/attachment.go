// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"encoding/json"

	"github.com/plexus-cni/plexus/delegate"
)

// interfacesOf are the pod's interfaces that the plugins of an attachment reported, or else the one that they were asked for.
func interfacesOf(a *delegate.Attachment, netns string) []Interface {
	base := Interface{
		Name: a.IfName, Network: cmp.Or(a.Network, a.List.Name()), Default: a.Default, Plugins: a.List.Types(), HostLink: hostLink(a), Device: a.Device,
	}
	reported, err := a.PodInterfaces(netns)
	if err != nil {
		return []Interface{base} // nothing usable is on record
	}
	found := make([]Interface, len(reported))
	for i, r := range reported {
		found[i] = base
		found[i].Name, found[i].Device = r.Name, cmp.Or(r.PCIID, base.Device)
		if r.Reported { // else nothing can be expected of it
			found[i].Recorded = &Recorded{MAC: r.MAC, MTU: r.MTU, Addresses: r.Addresses()}
		}
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
