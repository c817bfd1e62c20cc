// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Fake is a kernel in memory, for tests: calls change its state as they would change the real one's, and [Fake.String] prints
// that. It knows addresses well enough to refuse a gateway that can't be reached. The zero value is a machine without sandboxes.
type Fake struct {
	// Own is the path at which the caller's own network namespace is.
	Own string
	// Boot is the boot ID.
	Boot string
	// Fault is asked before each call, with the method's name, and fails it by an error. It runs without the fake's lock.
	Fault func(op string) error
	// FaultAfter is asked after each call that changed a device, and makes it return an error although it had its effect.
	FaultAfter func(op string) error

	mu         sync.Mutex
	namespaces map[string]namespace
	made       uint64 // namespaces so far
	announced  []string
	pfs        map[string][]FakeVF
	watchers   []chan struct{}
}

type namespace struct {
	id     int // as an inode: the lowest that is free
	cookie uint64
	links  []Link
	routes []Route // default routes of the main table
	others []fakeRoute
}

// SetNetNS puts a network namespace at path, in place of one that is there.
func (f *Fake) SetNetNS(path string, links []Link, routes []Route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.namespaces == nil {
		f.namespaces = map[string]namespace{}
	}
	f.made++
	delete(f.namespaces, path)
	f.namespaces[path] = namespace{id: f.freeID(), cookie: f.made, links: copyLinks(links), routes: slices.Clone(routes)}
	f.notify()
}

// Rename puts the network namespace at one path to another one, as what holds a namespace whose first path is gone.
func (f *Fake) Rename(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.namespaces[to] = f.namespaces[from]
	delete(f.namespaces, from)
}

// freeID is the number of a new namespace. The kernel too uses those of former ones again.
func (f *Fake) freeID() int {
	for id := 1; ; id++ {
		isFree := true
		for _, ns := range f.namespaces {
			isFree = isFree && ns.id != id
		}
		if isFree {
			return id
		}
	}
}

// DeleteNetNS removes the network namespace at path, with all that is in it. Its devices go back to the host.
func (f *Fake) DeleteNetNS(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	links := f.namespaces[path].links
	delete(f.namespaces, path)
	f.sendHome(links)
	f.notify()
}

// SetDefaultRoutes does as [Linux.SetDefaultRoutes].
func (f *Fake) SetDefaultRoutes(ctx context.Context, netnsPath string, r DefaultRoutes) error {
	if err := f.setDefaultRoutes(ctx, netnsPath, r); err != nil {
		return fmt.Errorf("set default routes of sandbox %s: %w", netnsPath, err)
	}
	return nil
}

func (f *Fake) setDefaultRoutes(ctx context.Context, netnsPath string, r DefaultRoutes) error {
	if err := cmp.Or(r.check(), ctx.Err()); err != nil {
		return err
	}
	ns, err := f.open("SetDefaultRoutes", netnsPath)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ns.links, func(l Link) bool { return l.Name == r.IfName })
	if i < 0 {
		return errNoLink(r.IfName)
	}
	var routes []Route
	for _, family := range r.families() {
		if gateway, ok := r.Gateways[family]; ok {
			if err := ns.links[i].reach(gateway); err != nil {
				return explain(r.IfName, gateway, err)
			}
			routes = append(routes, Route{IfName: r.IfName, Gateway: gateway, Family: family})
		}
	}
	for _, old := range ns.routes {
		if slices.Contains(r.families(), old.Family) && (old.IfName != r.IfName || !slices.Contains(r.Keep, old.Family)) {
			continue
		}
		routes = append(routes, old)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ns.routes = routes
	f.namespaces[netnsPath] = ns
	return nil
}

// DefaultRoutes does as [Linux.DefaultRoutes].
func (f *Fake) DefaultRoutes(netnsPath string) ([]Route, error) {
	ns, err := f.open("DefaultRoutes", netnsPath)
	if err != nil {
		return nil, fmt.Errorf("list default routes: %w", err)
	}
	return ns.sortedRoutes(), nil
}

// Links does as [Linux.Links].
func (f *Fake) Links(netnsPath string) ([]Link, error) {
	ns, err := f.open("Links", netnsPath)
	if err != nil {
		return nil, err
	}
	return ns.links, nil
}

// IsNetNS does as [Linux.IsNetNS].
func (f *Fake) IsNetNS(path string) (bool, error) {
	if err := f.fault("IsNetNS"); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.namespaces[path]
	return ok, nil
}

// SameNetNS does as [Linux.SameNetNS].
func (f *Fake) SameNetNS(path string) (bool, error) {
	if _, err := f.open("SameNetNS", path); err != nil {
		return false, err
	}
	return path == f.Own, nil
}

// BootID does as [Linux.BootID].
func (f *Fake) BootID() (string, error) {
	return f.Boot, f.fault("BootID")
}

// String prints the state as the ip command would, namespaces by path.
func (f *Fake) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(f.namespaces)) {
		ns := f.namespaces[path]
		if path == Host {
			b.WriteString("# ip address show\n")
		} else {
			fmt.Fprintf(&b, "# ip -n %s address show\n", path)
		}
		for _, l := range slices.SortedFunc(slices.Values(ns.links), func(a, b Link) int { return cmp.Compare(a.Index, b.Index) }) {
			l.print(&b)
		}
		if len(ns.routes) > 0 || path != Host {
			fmt.Fprintf(&b, "# ip -n %s route show default\n", path)
		}
		for _, r := range ns.sortedRoutes() {
			r.print(&b)
		}
		for _, r := range ns.others {
			fmt.Fprintf(&b, "%s\n", r)
		}
	}
	for _, pf := range slices.Sorted(maps.Keys(f.pfs)) {
		fmt.Fprintf(&b, "# ip link show %s\n", pf)
		for _, vf := range f.pfs[pf] {
			fmt.Fprintf(&b, "    vf %d mac %s vlan %s rate %s spoofchk %s trust %s link-state %s\n", vf.ID, vf.MAC, vf.Value(VFVLAN), vf.Value(VFRate), vf.Value(VFSpoofCheck), vf.Value(VFTrust), vf.LinkState)
		}
	}
	return b.String()
}

func (f *Fake) fault(op string) error {
	if f.Fault == nil {
		return nil
	}
	return f.Fault(op)
}

// open gives a copy of the namespace at path, unless the call shall fail.
func (f *Fake) open(op, path string) (namespace, error) {
	if err := f.fault(op); err != nil {
		return namespace{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ns, ok := f.namespaces[path]
	if !ok {
		return namespace{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	ns.links, ns.routes, ns.others = copyLinks(ns.links), slices.Clone(ns.routes), slices.Clone(ns.others)
	return ns, nil
}

// sortedRoutes lists the routes of IPv4 first.
func (ns namespace) sortedRoutes() []Route {
	return slices.SortedStableFunc(slices.Values(ns.routes), func(a, b Route) int { return cmp.Compare(a.Family, b.Family) })
}

// reach reports, with the kernel's error, why a gateway is not a neighbour on the link.
func (l Link) reach(gateway netip.Addr) error {
	if !l.Up {
		return unix.ENETDOWN
	}
	onLink := gateway.Is6() && gateway.IsLinkLocalUnicast()
	for _, own := range l.Addrs {
		// For IPv4 this is an old way to say "on the link itself", and fine with the kernel.
		if own.Addr() == gateway && gateway.Is6() {
			return unix.EINVAL
		}
		onLink = onLink || own.Contains(gateway)
	}
	switch {
	case onLink:
		return nil
	case gateway.Is6():
		return unix.EHOSTUNREACH
	default:
		return unix.ENETUNREACH
	}
}

func (l Link) print(b *strings.Builder) {
	state := "DOWN"
	if l.Up {
		state = "UP"
	}
	if l.Promisc {
		state += ",PROMISC"
	}
	if l.AllMulticast {
		state += ",ALLMULTI"
	}
	fmt.Fprintf(b, "%d: %s: <%s> mtu %d\n", l.Index, l.Name, state, l.MTU)
	for _, name := range l.AltNames {
		fmt.Fprintf(b, "    altname %s\n", name)
	}
	if len(l.MAC) > 0 {
		fmt.Fprintf(b, "    link %s\n", l.MAC)
	}
	if l.Traits != (Traits{}) || len(l.Programs) > 0 {
		fmt.Fprintf(b, "    traits %+v programs %v\n", l.Traits, l.Programs)
	}
	for _, a := range l.Addrs {
		word := "inet"
		if a.Addr().Is6() {
			word = "inet6"
		}
		fmt.Fprintf(b, "    %s %s\n", word, a)
	}
}

func (r Route) print(b *strings.Builder) {
	fmt.Fprintf(b, "%s default", map[Family]string{IPv4: "inet", IPv6: "inet6"}[r.Family])
	if r.Gateway.IsValid() {
		fmt.Fprintf(b, " via %s", r.Gateway)
	}
	fmt.Fprintf(b, " dev %s\n", r.IfName)
}

// copyLinks copies deeply: what a test holds and what the fake holds do not share memory.
func copyLinks(links []Link) []Link {
	copied := slices.Clone(links)
	for i, l := range copied {
		copied[i].MAC, copied[i].Addrs, copied[i].AltNames = slices.Clone(l.MAC), slices.Clone(l.Addrs), slices.Clone(l.AltNames)
		copied[i].Programs = slices.Clone(l.Programs)
	}
	return copied
}
