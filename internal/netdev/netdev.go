// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package netdev is the kernel's networking by intent: what a sandbox holds, and who has its default route. [Linux] does it for
// real, [Fake] in memory for tests. It is the only importer of the netlink libraries.
//
// No call moves the calling goroutine to another network namespace: each opens a netlink socket in the one that it is about, and
// closes it. (Opening it takes CAP_SYS_ADMIN in the user namespaces of both, like `ip -n`.)
package netdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
)

// Family is an IP version.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// DefaultRoutes says which interface of a sandbox takes or keeps the default route of which families (multi-network spec
// section 7). A family named in neither field is left alone.
type DefaultRoutes struct {
	// IfName is the interface in the sandbox that wins.
	IfName string
	// Gateways are the families whose default route is set anew, via this gateway on IfName. All others of the family go, those
	// on IfName too.
	Gateways map[Family]netip.Addr
	// Keep are the families in which IfName keeps the default routes that its plugin set, if any; all others of the family go.
	Keep []Family
}

// Route is one way that packets without a better route may take: a default route, or one next hop of it.
type Route struct {
	// IfName is the interface in the sandbox.
	IfName string
	// Gateway is the next hop; it is not valid when the destination itself is (a route without gateway).
	Gateway netip.Addr
	// Family is that of the destination: an IPv4 route may have an IPv6 gateway.
	Family Family
}

// Link is a network interface of a sandbox.
type Link struct {
	Name string
	// MAC is the link-layer address, empty where the kind of link has none.
	MAC net.HardwareAddr
	// MTU is in bytes.
	MTU   int
	Index int
	// Master is the index of the bond or bridge that it is a port of, 0 for none.
	Master int
	// Addrs are all addresses, of both families, link-local ones included, in the kernel's order.
	Addrs []netip.Prefix
	// AltNames are its alternative names: they share a namespace's names with those of all links.
	AltNames []string
	// Parent is the device behind it, as its bus names it (0000:03:02.1, virtio3, mlx5_core.sf.4); empty for a link without one.
	Parent string
	// Up is the administrative state.
	Up bool
	// Carrier is set when the link has a connection.
	Carrier bool
	// Promisc and AllMulticast are set when somebody wants all frames, or all multicast frames.
	Promisc, AllMulticast bool
	Traits                Traits
	// Programs are the IDs of the BPF programs that see its packets (XDP, TCX), sorted. [Linux.Links] leaves them out.
	Programs []uint32
}

// Same reports whether l and other agree in a setting.
func (l Link) Same(s LinkSetting, other Link) bool {
	switch s {
	case LinkUp:
		return l.Up == other.Up
	case LinkMAC:
		return bytes.Equal(l.MAC, other.MAC)
	case LinkMTU:
		return l.MTU == other.MTU
	case LinkPromisc:
		return l.Promisc == other.Promisc
	case LinkAllMulticast:
		return l.AllMulticast == other.AllMulticast
	case LinkAltNames:
		return slices.Equal(slices.Sorted(slices.Values(l.AltNames)), slices.Sorted(slices.Values(other.AltNames)))
	case LinkTraits:
		return l.Traits == other.Traits
	case LinkPrograms:
		return slices.Equal(l.Programs, other.Programs)
	}
	return false
}

// devices is what Linux and Fake have in common. Users declare the part that they need themselves.
type devices interface {
	SetDefaultRoutes(ctx context.Context, netnsPath string, r DefaultRoutes) error
	DefaultRoutes(netnsPath string) ([]Route, error)
	Links(netnsPath string) ([]Link, error)
	IsNetNS(path string) (bool, error)
	SameNetNS(path string) (bool, error)
	BootID() (string, error)
}

var (
	_ devices = (*Linux)(nil)
	_ devices = (*Fake)(nil)
)

// families lists the families that r is about, IPv4 first.
func (r DefaultRoutes) families() []Family {
	families := append(slices.Collect(maps.Keys(r.Gateways)), r.Keep...)
	slices.Sort(families)
	return families
}

// check refuses what no kernel could do, and what contradicts itself.
func (r DefaultRoutes) check() error {
	if r.IfName == "" {
		return errors.New("no interface named")
	}
	families := r.families()
	for i, f := range families {
		if f != IPv4 && f != IPv6 {
			return fmt.Errorf("unknown IP version %d", int(f))
		}
		if i > 0 && families[i-1] == f {
			return fmt.Errorf("%s is named twice; name each family once, to set or to keep", f)
		}
	}
	for _, f := range families {
		gw, ok := r.Gateways[f]
		if ok && (!gw.IsValid() || gw.Is4() != (f == IPv4) || gw.Zone() != "" || gw.Is4In6() || gw.IsUnspecified() || gw.IsLoopback() || gw.IsMulticast()) {
			return fmt.Errorf("gateway %s cannot be an %s gateway; name the %s address of a router", gw, f, f)
		}
	}
	return nil
}
