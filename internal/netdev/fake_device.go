// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FakeVF is a VF of a [Fake]'s PF. Its interface, the one with Device as its parent, has a driver of the strict kind:
//   - It learns of its administrative MAC when it is reset, and until then refuses another one than it knows (igbvf of Linux 6.12). Set up
//     anew, it is reset, and takes that MAC for the interface; without one, it keeps what it has, or chooses one.
//   - It takes no MAC while the interface is up (eth_prepare_mac_addr_change: EBUSY), and no MTU above the PF's (as ixgbevf).
//   - While the VF is not trusted, the PF's choice counts.
type FakeVF struct {
	VF
	// Device is the device of the VF, which its network interface has as its Parent.
	Device string
	// Resets says that the PF resets the VF whenever it is told a MAC, a VLAN or trust of it, as i40e and ice do: the interface has its
	// administrative MAC at once, and is down for no moment that shows.
	Resets bool

	known string // the administrative MAC that the VF's driver knows of
}

// SetPF gives the host a PF with these VFs, or changes it. Its driver tells nothing of VFs when they are nil.
func (f *Fake) SetPF(pf string, vfs []FakeVF) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pfs == nil {
		f.pfs = map[string][]FakeVF{}
	}
	f.pfs[pf] = slices.Clone(vfs)
	for i := range f.pfs[pf] {
		f.pfs[pf][i].known = vfs[i].MAC
	}
}

// Where tells in which network namespace the interface of a device is, and its state; false when it has none.
func (f *Fake) Where(device string) (string, Link, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, ns := range f.namespaces {
		for _, l := range ns.links {
			if l.Parent == device {
				return path, copyLinks([]Link{l})[0], true
			}
		}
	}
	return "", Link{}, false
}

// Attach puts BPF programs on the interface of a device.
func (f *Fake) Attach(device string, ids ...uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if link := f.linkOf(device); link != nil {
		link.Programs = append(link.Programs, ids...)
	}
}

// linkOf is the interface of a device, wherever it is; nil when it has none.
func (f *Fake) linkOf(device string) *Link {
	for _, ns := range f.namespaces {
		for i := range ns.links {
			if device != "" && ns.links[i].Parent == device {
				return &ns.links[i]
			}
		}
	}
	return nil
}

// vfOf is the VF that an interface is of, and the interface of its PF; nil when it is of none.
func (f *Fake) vfOf(link *Link) (*FakeVF, *Link) {
	for pf, vfs := range f.pfs {
		for i := range vfs {
			if link.Parent == "" || vfs[i].Device != link.Parent {
				continue
			}
			for j, l := range f.namespaces[Host].links {
				if l.Name == pf {
					return &vfs[i], &f.namespaces[Host].links[j]
				}
			}
			return &vfs[i], nil
		}
	}
	return nil, nil
}

// reset has the VF's driver learn what its PF has of it.
func (f *Fake) reset(vf *FakeVF) {
	vf.known = vf.MAC
	link := f.linkOf(vf.Device)
	switch {
	case link == nil:
	case !IsZeroMAC(vf.known):
		link.MAC, _ = net.ParseMAC(vf.known)
	case IsZeroMAC(link.MAC.String()):
		link.MAC = net.HardwareAddr{2, 0xff, 0, 0, 0, byte(vf.ID)} //nolint:gosec // to be random
	}
}

// VF does as [Linux.VF].
func (f *Fake) VF(pf string, id int) (VF, error) {
	vf, err := f.vf(pf, id)
	if err != nil {
		return VF{}, fmt.Errorf("VF %d of PF %s: %w", id, pf, err)
	}
	return vf, nil
}

func (f *Fake) vf(pf string, id int) (VF, error) {
	if err := f.fault("VF"); err != nil {
		return VF{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	vfs, ok := f.pfs[pf]
	if !ok {
		return VF{}, fmt.Errorf("%w: %s", ErrNoLink, pf)
	}
	if vfs == nil {
		return VF{}, ErrVFsUntold
	}
	i := f.vfIndex(pf, id)
	if i < 0 {
		return VF{}, ErrNoVF
	}
	return vfs[i].VF, nil
}

func (f *Fake) vfIndex(pf string, id int) int {
	return slices.IndexFunc(f.pfs[pf], func(v FakeVF) bool { return v.ID == id })
}

// SetVF does as [Linux.SetVF]. It is asked of Fault as "SetVF " and the setting.
func (f *Fake) SetVF(pf string, s VFSetting, to VF) error {
	err := f.act("SetVF "+string(s), func() error { return f.setVF(pf, s, to) })
	if err != nil {
		return fmt.Errorf("set %s of VF %d of PF %s to %s: %w", s, to.ID, pf, to.Value(s), err)
	}
	return nil
}

func (f *Fake) setVF(pf string, s VFSetting, to VF) error {
	i := f.vfIndex(pf, to.ID)
	if i < 0 {
		return unix.EINVAL
	}
	vf := &f.pfs[pf][i]
	switch s {
	case VFTrust:
		vf.Trust = to.Trust
	case VFVLAN:
		if to.VLAN.ID < 0 || to.VLAN.ID > 4095 || to.VLAN.QoS < 0 || to.VLAN.QoS > 7 {
			return unix.EINVAL
		}
		if to.VLAN.Proto != VLANProto8021Q && to.VLAN.Proto != VLANProto8021AD {
			return unix.EPROTONOSUPPORT
		}
		vf.VLAN = to.VLAN
	case VFMAC:
		if mac, err := net.ParseMAC(to.MAC); err != nil || mac[0]&1 != 0 {
			return unix.EINVAL
		}
		vf.MAC = strings.ToLower(to.MAC)
	case VFRate:
		if to.MaxTxMbps != 0 && to.MinTxMbps > to.MaxTxMbps {
			return unix.EINVAL
		}
		vf.MinTxMbps, vf.MaxTxMbps = to.MinTxMbps, to.MaxTxMbps
	case VFSpoofCheck:
		vf.SpoofCheck = to.SpoofCheck
	case VFLinkState:
		vf.LinkState = to.LinkState
	default:
		return unix.EINVAL
	}
	if vf.Resets && (s == VFTrust || s == VFVLAN || s == VFMAC) {
		f.reset(vf)
	}
	if link := f.linkOf(vf.Device); link != nil {
		link.Carrier = link.Up && vf.LinkState != LinkStateDisable
	}
	return nil
}

// Link does as [Linux.Link].
func (f *Fake) Link(netnsPath, name string) (Link, error) {
	ns, err := f.open("Link", netnsPath)
	if err != nil {
		return Link{}, err
	}
	i := slices.IndexFunc(ns.links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, fmt.Errorf("%w: %s", ErrNoLink, name)
	}
	return ns.links[i], nil
}

// SetLink does as [Linux.SetLink]. It is asked of Fault as "SetLink " and the setting.
func (f *Fake) SetLink(netnsPath string, s LinkSetting, to Link) error {
	err := f.act("SetLink "+string(s), func() error { return f.setLink(netnsPath, s, to) })
	if err != nil {
		return fmt.Errorf("set %s of interface %s: %w", s, to.Name, err)
	}
	return nil
}

func (f *Fake) setLink(netnsPath string, s LinkSetting, to Link) error {
	link, err := f.linkAt(netnsPath, to.Index)
	if err != nil {
		return err
	}
	vf, pf := f.vfOf(link)
	switch s {
	case LinkUp:
		if vf != nil && to.Up && !link.Up {
			f.reset(vf)
		}
		link.Up = to.Up
		link.Carrier = to.Up && (vf == nil || vf.LinkState != LinkStateDisable)
	case LinkMAC:
		return f.setMAC(link, vf, to.MAC)
	case LinkMTU:
		if most := maxMTU(pf); to.MTU < minMTU || to.MTU > most {
			return unix.EINVAL
		}
		link.MTU = to.MTU
	case LinkPromisc:
		link.Promisc = to.Promisc
	case LinkAllMulticast:
		link.AllMulticast = to.AllMulticast
	case LinkAltNames:
		for _, name := range to.AltNames {
			if !slices.Contains(link.AltNames, name) && f.taken(netnsPath, name) {
				return unix.EEXIST
			}
		}
		link.AltNames = slices.Clone(to.AltNames)
	case LinkTraits:
		link.Traits = to.Traits
	case LinkPrograms:
		link.Programs = slices.DeleteFunc(link.Programs, func(id uint32) bool { return !slices.Contains(to.Programs, id) })
	default:
		return unix.EINVAL
	}
	return nil
}

// minMTU is ETH_MIN_MTU.
const minMTU = 68

// maxMTU is what a link takes: that of its PF, or as much as jumbo frames have.
func maxMTU(pf *Link) int {
	if pf != nil {
		return pf.MTU
	}
	return 65535 //nolint:mnd // ETH_MAX_MTU
}

func (f *Fake) setMAC(link *Link, vf *FakeVF, mac net.HardwareAddr) error {
	if link.Up {
		return unix.EBUSY
	}
	if len(mac) != 6 || mac[0]&1 != 0 || IsZeroMAC(mac.String()) {
		return unix.EADDRNOTAVAIL
	}
	if vf != nil && !vf.Trust {
		isFree := IsZeroMAC(vf.known) && IsZeroMAC(vf.MAC)
		if !isFree && (vf.known != mac.String() || vf.MAC != mac.String()) {
			return unix.EADDRNOTAVAIL
		}
	}
	link.MAC = slices.Clone(mac)
	return nil
}

func (f *Fake) linkAt(netnsPath string, index int) (*Link, error) {
	ns, ok := f.namespaces[netnsPath]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: netnsPath, Err: fs.ErrNotExist}
	}
	i := slices.IndexFunc(ns.links, func(l Link) bool { return l.Index == index })
	if i < 0 {
		return nil, unix.ENODEV
	}
	return &ns.links[i], nil
}

// taken reports whether a link has the name, also as an alternative one.
func (f *Fake) taken(netnsPath, name string) bool {
	return slices.ContainsFunc(f.namespaces[netnsPath].links, func(l Link) bool {
		return l.Name == name || slices.Contains(l.AltNames, name)
	})
}

// MoveLink does as [Linux.MoveLink], down to what the kernel leaves when it fails.
func (f *Fake) MoveLink(from string, index int, to, name string) error {
	if err := f.act("MoveLink", func() error { return f.moveLink(from, index, to, name) }); err != nil {
		return fmt.Errorf("move interface to %s as %s: %w", placeOf(to), name, err)
	}
	return nil
}

func (f *Fake) moveLink(from string, index int, to, name string) error {
	link, err := f.linkAt(from, index)
	if err != nil {
		return err
	}
	if _, ok := f.namespaces[to]; !ok {
		return &fs.PathError{Op: "open", Path: to, Err: fs.ErrNotExist}
	}
	if from != to {
		if link, err = f.carryOver(*link, from, to, name); err != nil {
			return err
		}
	}
	// From here on it has moved, whatever is refused.
	if link.Name == name {
		return nil
	}
	if link.Up {
		return unix.EBUSY // before Linux 6.2
	}
	if f.taken(to, name) {
		return unix.EEXIST
	}
	link.Name = name
	return nil
}

// carryOver is the part of a move that takes a link to another namespace.
func (f *Fake) carryOver(moved Link, from, to, name string) (*Link, error) {
	was := moved.Name
	if slices.ContainsFunc(moved.AltNames, func(name string) bool { return f.taken(to, name) }) {
		return nil, unix.EEXIST // before it moves
	}
	if f.taken(to, moved.Name) {
		if f.taken(to, name) {
			return nil, unix.EEXIST
		}
		moved.Name = name
	}
	source := f.namespaces[from]
	source.links = slices.DeleteFunc(slices.Clone(source.links), func(l Link) bool { return l.Index == moved.Index })
	source.forget(was)
	f.namespaces[from] = source
	target := f.namespaces[to]
	if slices.ContainsFunc(target.links, func(l Link) bool { return l.Index == moved.Index }) {
		moved.Index = 1 + slices.MaxFunc(target.links, func(a, b Link) int { return cmp.Compare(a.Index, b.Index) }).Index
	}
	moved.Up, moved.Carrier, moved.Addrs = false, false, nil
	target.links = append(slices.Clone(target.links), moved)
	f.namespaces[to] = target
	return f.linkAt(to, moved.Index)
}

// sendHome does what the kernel does with the devices of a network namespace that ends.
func (f *Fake) sendHome(links []Link) {
	host := f.namespaces[Host]
	for _, l := range links {
		if l.Parent == "" {
			continue
		}
		for slices.ContainsFunc(host.links, func(o Link) bool { return o.Index == l.Index }) {
			l.Index++
		}
		l.Up, l.Carrier, l.Addrs = false, false, nil
		if f.taken(Host, l.Name) {
			l.Name = fmt.Sprintf("dev%d", l.Index)
		}
		host.links = append(host.links, l)
		f.namespaces[Host] = host
	}
}

// Configure does as [Linux.Configure]. A gateway that no subnet of the link has is refused, and duplicate address detection finds no other node.
func (f *Fake) Configure(ctx context.Context, netnsPath string, index int, c Addressing) error {
	return f.act("Configure", func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		link, err := f.linkAt(netnsPath, index)
		if err != nil {
			return err
		}
		for _, a := range c.Addresses {
			if !slices.Contains(link.Addrs, a.Prefix) {
				link.Addrs = append(link.Addrs, a.Prefix)
			}
		}
		if vf, _ := f.vfOf(link); vf != nil && !link.Up {
			f.reset(vf)
		}
		link.Up, link.Carrier = true, true
		ns := f.namespaces[netnsPath]
		for _, r := range c.Routes {
			route := fakeRoute{IPRoute: r, ifName: link.Name}
			route.Gateway = c.gateway(r)
			if route.Gateway.IsValid() {
				if err := link.reach(route.Gateway); err != nil {
					return fmt.Errorf("add route to %s: %w", r.Destination, err)
				}
			}
			if !slices.ContainsFunc(ns.others, route.equal) {
				ns.others = append(ns.others, route)
			}
		}
		f.namespaces[netnsPath] = ns
		return nil
	})
}

// fakeRoute is a route that is no default route of the main table, or one behind those.
type fakeRoute struct {
	IPRoute
	ifName string
}

func (r fakeRoute) equal(o fakeRoute) bool { return r.String() == o.String() }

// String prints it as the ip command would.
func (r fakeRoute) String() string {
	words := []string{r.Destination.String()}
	if r.Gateway.IsValid() {
		words = append(words, "via", r.Gateway.String())
	}
	words = append(words, "dev", r.ifName)
	number := func(word string, value *int) {
		if value != nil {
			words = append(words, word, strconv.Itoa(*value))
		}
	}
	unlessZero := func(value int) *int {
		if value == 0 {
			return nil
		}
		return &value
	}
	number("table", r.Table)
	number("scope", r.Scope)
	number("metric", unlessZero(r.Priority))
	number("mtu", unlessZero(r.MTU))
	number("advmss", unlessZero(r.AdvMSS))
	return strings.Join(words, " ")
}

// forget removes the routes of a link that goes.
func (ns *namespace) forget(ifName string) {
	ns.others = slices.DeleteFunc(slices.Clone(ns.others), func(r fakeRoute) bool { return r.ifName == ifName })
	ns.routes = slices.DeleteFunc(slices.Clone(ns.routes), func(r Route) bool { return r.IfName == ifName })
}

// AwaitDAD does as [Linux.AwaitDAD]: nobody else has an address.
func (f *Fake) AwaitDAD(_ context.Context, netnsPath string, ifNames ...string) error {
	ns, err := f.open("AwaitDAD", netnsPath)
	if err != nil {
		return err
	}
	for _, name := range ifNames {
		if !slices.ContainsFunc(ns.links, func(l Link) bool { return l.Name == name }) {
			return fmt.Errorf("%w: %s", ErrNoLink, name)
		}
	}
	return nil
}

// Announce does as [Linux.Announce], and notes what it told: see [Fake.Announced].
func (f *Fake) Announce(_ context.Context, netnsPath string, link Link, a Addressing) error {
	if err := f.fault("Announce"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.linkAt(netnsPath, link.Index)
	if err != nil {
		return err
	}
	for _, address := range a.Addresses {
		if !now.Carrier {
			return fmt.Errorf("interface %s: %w", link.Name, ErrNoCarrier)
		}
		f.announced = append(f.announced, fmt.Sprintf("%s is at %s", address.Prefix.Addr(), link.MAC))
	}
	return nil
}

// Announced lists what neighbours were told.
func (f *Fake) Announced() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.announced)
}

// LinkEvents does as [Linux.LinkEvents]: each change of the fake is an event.
func (f *Fake) LinkEvents(ctx context.Context, _ string) (<-chan struct{}, error) {
	if err := f.fault("LinkEvents"); err != nil {
		return nil, err
	}
	events := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers = append(f.watchers, events)
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.watchers = slices.DeleteFunc(f.watchers, func(w chan struct{}) bool { return w == events })
		close(events)
	})
	return events, nil
}

// NetNSID does as [Linux.NetNSID]. Like the kernel's, it is used again once a namespace is gone.
func (f *Fake) NetNSID(path string) (string, error) {
	ns, err := f.identify("NetNSID", path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("4:%d", ns.id), nil
}

// NetNSCookie does as [Linux.NetNSCookie].
func (f *Fake) NetNSCookie(path string) (uint64, error) {
	ns, err := f.identify("NetNSCookie", path)
	return ns.cookie, err
}

func (f *Fake) identify(op, path string) (namespace, error) {
	if err := f.fault(op); err != nil {
		return namespace{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ns, ok := f.namespaces[path]
	if !ok {
		return namespace{}, &fs.PathError{Op: "identify network namespace", Path: path, Err: fs.ErrNotExist}
	}
	return ns, nil
}

// act makes one change, with a fault before it or after it.
func (f *Fake) act(op string, change func() error) error {
	if err := f.fault(op); err != nil {
		return err
	}
	f.mu.Lock()
	err := change()
	f.notify()
	f.mu.Unlock()
	if err == nil && f.FaultAfter != nil {
		err = f.FaultAfter(op)
	}
	return err
}

// notify tells the watchers; the caller holds the lock.
func (f *Fake) notify() {
	for _, w := range f.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}
