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
	"strings"

	"golang.org/x/sys/unix"
)

// FakeVF is a VF of a [Fake]'s PF.
type FakeVF struct {
	VF
	// Device is the device of the VF, which its network interface has as its Parent.
	Device string
}

// SetPF gives the host a PF with these VFs, or changes it.
func (f *Fake) SetPF(pf string, vfs []FakeVF) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pfs == nil {
		f.pfs = map[string][]FakeVF{}
	}
	f.pfs[pf] = slices.Clone(vfs)
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

// VF does as [Linux.VF].
func (f *Fake) VF(pf string, id int) (VF, error) {
	if err := f.fault("VF"); err != nil {
		return VF{}, fmt.Errorf("VF %d of PF %s: %w", id, pf, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.pfs[pf]; !ok {
		return VF{}, fmt.Errorf("VF %d of PF %s: %w: %s", id, pf, ErrNoLink, pf)
	}
	i := f.vfIndex(pf, id)
	if i < 0 {
		return VF{}, fmt.Errorf("VF %d of PF %s: %w: the PF's driver tells nothing of it", id, pf, ErrNoVF)
	}
	return f.pfs[pf][i].VF, nil
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
	vf := &f.pfs[pf][i].VF
	switch s {
	case VFTrust:
		vf.Trust = to.Trust
	case VFVLAN:
		vf.VLAN = to.VLAN
	case VFMAC:
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
	switch s {
	case LinkUp:
		link.Up, link.Carrier = to.Up, to.Up
	case LinkMAC:
		return f.setMAC(link, to.MAC)
	case LinkMTU:
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
	default:
		return unix.EINVAL
	}
	return nil
}

// setMAC refuses, as drivers do, a MAC other than the one that the PF chose, unless the VF is trusted.
func (f *Fake) setMAC(link *Link, mac net.HardwareAddr) error {
	for _, vfs := range f.pfs {
		for _, vf := range vfs {
			if vf.Device == link.Parent && !vf.Trust && !IsZeroMAC(vf.MAC) && vf.MAC != mac.String() {
				return unix.EADDRNOTAVAIL
			}
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
func (f *Fake) MoveLink(from string, index int, to string, m Move) error {
	if err := f.act("MoveLink", func() error { return f.moveLink(from, index, to, m) }); err != nil {
		return fmt.Errorf("move interface to %s as %s: %w", placeOf(to), m.Name, err)
	}
	return nil
}

func (f *Fake) moveLink(from string, index int, to string, m Move) error {
	link, err := f.linkAt(from, index)
	if err != nil {
		return err
	}
	target, ok := f.namespaces[to]
	if !ok {
		return &fs.PathError{Op: "open", Path: to, Err: fs.ErrNotExist}
	}
	moved := *link
	if from != to {
		if slices.ContainsFunc(moved.AltNames, func(name string) bool { return f.taken(to, name) }) {
			return unix.EEXIST // before it moves
		}
		if f.taken(to, moved.Name) {
			if f.taken(to, m.Name) {
				return unix.EEXIST
			}
			moved.Name = m.Name
		}
		source := f.namespaces[from]
		source.links = slices.DeleteFunc(slices.Clone(source.links), func(l Link) bool { return l.Index == index })
		f.namespaces[from] = source
		if slices.ContainsFunc(target.links, func(l Link) bool { return l.Index == index }) {
			moved.Index = 1 + slices.MaxFunc(target.links, func(a, b Link) int { return cmp.Compare(a.Index, b.Index) }).Index
		}
		moved.Up, moved.Carrier, moved.Addrs = false, false, nil
		target.links = append(slices.Clone(target.links), moved)
		f.namespaces[to] = target
		if link, err = f.linkAt(to, moved.Index); err != nil {
			return err
		}
	}
	// From here on it has moved, whatever is refused.
	if m.MAC != "" {
		mac, err := net.ParseMAC(m.MAC)
		if err != nil {
			return err
		}
		if err := f.setMAC(link, mac); err != nil {
			return err
		}
	}
	link.MTU = cmp.Or(m.MTU, link.MTU)
	if link.Name != m.Name && f.taken(to, m.Name) {
		return unix.EEXIST
	}
	link.Name = m.Name
	return nil
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

// Configure does as [Linux.Configure].
func (f *Fake) Configure(_ context.Context, netnsPath string, index int, c Addressing) error {
	return f.act("Configure", func() error {
		link, err := f.linkAt(netnsPath, index)
		if err != nil {
			return err
		}
		for _, a := range c.Addresses {
			link.Addrs = append(link.Addrs, a.Prefix)
		}
		return nil
	})
}

// Announce does as [Linux.Announce], but nobody hears it.
func (f *Fake) Announce(_ context.Context, _ string, _ Link, _ Addressing) error {
	return f.fault("Announce")
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

// NetNSID does as [Linux.NetNSID].
func (f *Fake) NetNSID(path string) (string, error) {
	if err := f.fault("NetNSID"); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ns, ok := f.namespaces[path]
	if !ok {
		return "", &fs.PathError{Op: "identify network namespace", Path: path, Err: fs.ErrNotExist}
	}
	return fmt.Sprintf("4:%d", ns.id), nil
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
