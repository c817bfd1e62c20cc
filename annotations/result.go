// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// PodInterface is an interface in a pod that a CNI result tells of.
type PodInterface struct {
	Name string
	// Reported is set where the result lists the interface; else it is the one that was asked for, and may be of no kernel's (vhost-user).
	Reported bool
	// MAC is as the plugin wrote it, "" if it did not.
	MAC string
	// MTU is in bytes, 0 if the plugin did not tell.
	MTU int
	// PCIID is that of the device behind the interface, "" if the plugin did not tell.
	PCIID string
	// IPs are its addresses, in the order of the result.
	IPs []*types100.IPConfig
}

// Addresses are the interface's addresses with their prefix lengths.
func (i PodInterface) Addresses() []netip.Prefix {
	var list []netip.Prefix
	for _, ip := range i.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			ones, _ := ip.Address.Mask.Size()
			list = append(list, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	return list
}

// PodInterfaces says which interfaces and addresses of a CNI result are the pod's. Whatever shows, compares or changes a pod's interfaces
// by a result asks this function. There is always at least one interface.
//
// The pod's are the interfaces whose sandbox is its own, whatever their names: plugins may rename (bond), or make several. Where the
// result knows no such interface it is the one that has some sandbox and the name that was asked for; and else, as for a result that lists
// the host's end alone (Calico), or none (CNI 0.2.0), the interface that was asked for, with all addresses (NPWG v1.3 §5.3.3.1). So an entry
// with the sandbox "0", by which the AWS VPC CNI keeps a VLAN ID for its DEL, is no interface of the pod.
//
// Addresses belong to the interface that they name; those that name none to the last one, and the only interface of a result has all.
// isOwn reports whether a path is the pod's network namespace.
func PodInterfaces(r types.Result, ifName string, isOwn func(sandbox string) bool) ([]PodInterface, error) {
	result, err := currentResult(r)
	if err != nil {
		return nil, err
	}
	return podInterfaces(result, ifName, isOwn), nil
}

func podInterfaces(result *types100.Result, ifName string, isOwn func(sandbox string) bool) []PodInterface {
	own := func(i *types100.Interface) bool { return i.Sandbox != "" && isOwn(i.Sandbox) }
	if !slices.ContainsFunc(result.Interfaces, own) {
		own = func(i *types100.Interface) bool { return i.Sandbox != "" && i.Name == ifName }
	}
	var list []PodInterface
	at := map[int]int{} // from the result's index to that in list
	for i, reported := range result.Interfaces {
		if own(reported) {
			at[i] = len(list)
			list = append(list, PodInterface{Name: cmp.Or(reported.Name, ifName), Reported: true, MAC: reported.Mac, MTU: reported.Mtu, PCIID: reported.PciID})
		}
	}
	if list == nil {
		return []PodInterface{{Name: ifName, IPs: result.IPs}}
	}
	for _, ip := range result.IPs {
		place, ok := len(list)-1, true
		if ip.Interface != nil && len(result.Interfaces) > 1 {
			place, ok = at[*ip.Interface]
		}
		if ok {
			list[place].IPs = append(list[place].IPs, ip)
		}
	}
	return list
}

// currentResult converts a result to the newest version; nil is an empty one. It is a plugin's output, and neither libcni's decoding nor
// its conversion minds an entry that is null or an address that is missing.
func currentResult(r types.Result) (*types100.Result, error) {
	if r == nil {
		return &types100.Result{}, nil
	}
	null := errors.New("its result has a null entry: report it to the plugin's maintainers")
	if old, ok := r.(*types040.Result); ok && (slices.Contains(old.Interfaces, nil) || slices.Contains(old.IPs, nil)) {
		return nil, null
	}
	result, err := types100.GetResult(r)
	if err != nil {
		return nil, fmt.Errorf("convert its result: %w", err)
	}
	if slices.Contains(result.Interfaces, nil) || slices.Contains(result.IPs, nil) || slices.Contains(result.Routes, nil) {
		return nil, null
	}
	if slices.ContainsFunc(result.IPs, func(ip *types100.IPConfig) bool { return ip.Address.IP.To16() == nil }) {
		return nil, errors.New("its result has an entry in ips without address: report it to the plugin's maintainers")
	}
	return result, nil
}
