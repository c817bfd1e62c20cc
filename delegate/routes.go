// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/netdev"
)

// takeDefaultRoutes carries out the default-route requests of a plan: in the kernel, then in the results, so that CHECK, the
// status and the runtime see the routes in force.
func (e *Executor) takeDefaultRoutes(ctx context.Context, p *Plan) error {
	for i := range p.Attachments {
		a := &p.Attachments[i]
		if a.DefaultRoute == nil {
			continue
		}
		ifName, err := a.routed(p.Sandbox.NetNS)
		if err != nil {
			return a.failed(err)
		}
		routes := netdev.DefaultRoutes{IfName: ifName, Gateways: map[netdev.Family]netip.Addr{}}
		for _, gw := range a.DefaultRoute {
			routes.Gateways[family(gw)] = gw
		}
		if len(a.DefaultRoute) == 0 {
			routes.Keep = []netdev.Family{netdev.IPv4, netdev.IPv6}
		}
		if err := e.Kernel.SetDefaultRoutes(ctx, p.Sandbox.NetNS, routes); err != nil {
			return a.failed(fmt.Errorf("default-route: %w", err))
		}
		for j := range p.Attachments {
			if err := p.Attachments[j].rewriteRoutes(routes, i == j); err != nil {
				return err
			}
		}
	}
	return nil
}

func family(a netip.Addr) netdev.Family {
	if a.Is4() {
		return netdev.IPv4
	}
	return netdev.IPv6
}

// routed is the interface that an attachment's default routes go through: the one that has a gateway in the subnet of an address, or else
// the one that was asked for, or the first, if its plugins gave it another name (bond).
func (a *Attachment) routed(netns string) (string, error) {
	interfaces, err := a.PodInterfaces(netns)
	if err != nil {
		return "", err
	}
	for _, holds := range []func(annotations.PodInterface) bool{
		func(i annotations.PodInterface) bool {
			return slices.ContainsFunc(i.Addresses(), func(p netip.Prefix) bool { return slices.ContainsFunc(a.DefaultRoute, p.Masked().Contains) })
		},
		func(i annotations.PodInterface) bool { return i.Name == a.IfName },
	} {
		if at := slices.IndexFunc(interfaces, holds); at >= 0 {
			return interfaces[at].Name, nil
		}
	}
	return interfaces[0].Name, nil
}

// rewriteRoutes makes the result of one attachment say what the kernel has after r, which winner asked for.
func (a *Attachment) rewriteRoutes(r netdev.DefaultRoutes, winner bool) error {
	was, err := a.ResultAs(a.List.CNIVersion())
	if err != nil || was == nil {
		return err
	}
	result, err := types100.NewResultFromResult(was)
	if err != nil {
		return fmt.Errorf("%s: result: %w", a, err)
	}
	result.Routes = slices.DeleteFunc(result.Routes, func(route *types.Route) bool {
		f, ok := defaultRouteFamily(route)
		if !ok {
			return false
		}
		_, replaced := r.Gateways[f]
		return replaced || (!winner && slices.Contains(r.Keep, f))
	})
	if winner {
		for _, gw := range a.DefaultRoute {
			result.Routes = append(result.Routes, &types.Route{Dst: defaultDst(gw), GW: net.IP(gw.AsSlice())})
		}
	}
	now, err := result.GetAsVersion(was.Version())
	if err != nil {
		return fmt.Errorf("%s: result: %w", a, err)
	}
	if a.Result, err = json.Marshal(now); err != nil {
		return fmt.Errorf("%s: result: %w", a, err)
	}
	return nil
}

func defaultRouteFamily(r *types.Route) (netdev.Family, bool) {
	if ones, bits := r.Dst.Mask.Size(); ones != 0 || bits == 0 {
		return 0, false
	}
	if r.Dst.IP.To4() != nil {
		return netdev.IPv4, true
	}
	return netdev.IPv6, true
}

func defaultDst(gw netip.Addr) net.IPNet {
	bits := gw.BitLen()
	return net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
}
