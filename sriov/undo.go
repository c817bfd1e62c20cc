// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// undo gives a VF back as it was, and forgets its record when that is done. It compares and sets what differs, so that it can be cut
// short anywhere, and done again. The caller holds the device's lock, and has made sure that the record's owner may lose it.
//
// What cannot be done now, though nothing failed, it returns, and keeps the record for another try.
func (p *Plugin) undo(ctx context.Context, r *Record) ([]error, error) {
	there, err := p.stillThere(r)
	if err != nil {
		return nil, err
	}
	if there {
		left, err := p.undoDevice(ctx, r)
		if err != nil || len(left) > 0 {
			return left, err
		}
	}
	if err := p.step("forget"); err != nil {
		return nil, err
	}
	return nil, p.records().Delete(string(r.Device))
}

// undoDevice is the part of undo that needs the device.
func (p *Plugin) undoDevice(ctx context.Context, r *Record) ([]error, error) {
	var link *netdev.Link
	if r.Parent != "" {
		var err error
		if link, err = p.home(ctx, r); err != nil {
			return nil, fmt.Errorf("bring VF %s back: %w", r.Device, err)
		}
	}
	if r.Parent != "" && link == nil {
		away, err := p.away(r.Device)
		if err != nil {
			return nil, err
		}
		if away {
			return p.hold(ctx, r)
		}
	}
	var left, errs []error
	for _, err := range p.restore(ctx, r, link) {
		if canWait(err) {
			left = append(left, err)
		} else {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("restore VF %s: %w", r.Device, errors.Join(append(left, err)...))
	}
	return left, nil
}

// hold leaves a VF that somebody still has, in a namespace that cannot be reached, in its pod's VLAN with all else that keeps it from others,
// and takes its link away where the NIC can do that. The rest is done when it is back.
func (p *Plugin) hold(ctx context.Context, r *Record) ([]error, error) {
	left := []error{errors.New("its interface is in a network namespace that cannot be reached, which something still holds: find the process with `lsns -t net` and end it")}
	vf, err := p.Sysfs.VF(r.Device)
	if err != nil {
		return append(left, err), nil
	}
	r.Want.ID, r.Want.LinkState = vf.Index, netdev.LinkStateDisable
	if err := p.records().Save(string(r.Device), r); err != nil {
		return nil, fmt.Errorf("record VF %s: %w", r.Device, err)
	}
	if err := p.step("hold"); err != nil {
		return nil, err
	}
	if err := p.setOnPF(ctx, vf.PFNetDev, netdev.VFLinkState, r.Want); err != nil {
		p.Log.Warn("the NIC cannot take the link of a VF away that somebody still has", "device", r.Device, "error", err)
	}
	return left, nil
}

// errHeld says that something else keeps a part of the VF.
var errHeld = errors.New("something else holds it")

// canWait reports whether an error of the way back is none that another try by itself would fix, so that a pod need not terminate for ever
// because of it: a driver that has said no, and will as long as nothing else changes (to a rate while the PF has no link, to an MTU above what
// the PF has by now); a PF that is not on the host, or tells nothing of the VF any more.
func canWait(err error) bool {
	return isRefused(err) || slices.ContainsFunc([]error{errHeld, sysfs.ErrNoUplink, netdev.ErrNoLink, netdev.ErrNoVF, netdev.ErrVFsUntold}, func(e error) bool { return errors.Is(err, e) })
}

// isRefused reports whether a driver has said no.
func isRefused(err error) bool {
	return slices.ContainsFunc([]error{syscall.EINVAL, syscall.EOPNOTSUPP, syscall.EPERM, syscall.EADDRNOTAVAIL}, func(e error) bool { return errors.Is(err, e) })
}

// giveBack undoes a record as far as that can be done now. What is left is no reason for a pod to terminate for ever: nobody gets the VF
// before it is done, by another DEL, GC, or the next owner's ADD.
func (p *Plugin) giveBack(ctx context.Context, r *Record) error {
	left, err := p.undo(ctx, r)
	if err != nil || len(left) == 0 {
		return err
	}
	p.Log.Warn("a VF is not yet as it was; the rest is done before it is given to the next pod", "device", r.Device, "owner", r.Owner.String(), "left", oneLine(left))
	r.Attached, r.Released = false, true
	if err := p.records().Save(string(r.Device), r); err != nil {
		return fmt.Errorf("record VF %s: %w", r.Device, err)
	}
	return nil
}

// oneLine is for errors in a message.
func oneLine(errs []error) string {
	return strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; ")
}

// stillThere reports whether the VF of a record is the one that the host has now: it ends with a reboot, and with its PF's sriov_numvfs.
func (p *Plugin) stillThere(r *Record) (bool, error) {
	boot, err := p.Kernel.BootID()
	if err != nil {
		return false, err
	}
	if boot != r.BootID {
		return false, nil
	}
	_, err = p.Sysfs.Device(string(r.Device))
	if errors.Is(err, sysfs.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// away reports whether a VF has a driver that makes interfaces, and none on the host.
func (p *Plugin) away(device sysfs.Address) (bool, error) {
	d, err := p.Sysfs.Device(string(device))
	if err != nil {
		return false, err
	}
	return len(d.NetDevs) == 0 && d.Driver != "" && !d.IsUserspace(), nil
}

// home finds the interface of a VF, wherever it is, and brings it to the host under its own name. It returns nil when there is none that
// can be reached.
func (p *Plugin) home(ctx context.Context, r *Record) (*netdev.Link, error) {
	lives, err := p.alive(r)
	if err != nil {
		return nil, err
	}
	if lives {
		var inside *netdev.Link
		if inside, err = p.inSandbox(r.NetNS, r.Parent); err == nil && inside != nil {
			err = p.bring(ctx, *inside, r.NetNS, r)
		}
		if err != nil {
			return nil, err
		}
	}
	link, err := p.onHost(ctx, r)
	if err != nil || link == nil {
		return nil, err
	}
	if link.Name != r.Link.Name {
		if err := p.bring(ctx, *link, netdev.Host, r); err != nil {
			return nil, err
		}
		return p.onHost(ctx, r)
	}
	return link, nil
}

// bring moves an interface to the host, or renames it there.
func (p *Plugin) bring(ctx context.Context, link netdev.Link, from string, r *Record) error {
	name, err := p.freeName(r, link)
	if err != nil || (from == netdev.Host && name == link.Name) {
		return err
	}
	if link.Up && from == netdev.Host { // a move to another namespace sets it down; before Linux 6.2 a link that is up is not renamed
		link.Up = false
		if err := p.step("home link down"); err != nil {
			return err
		}
		if err := p.setLink(ctx, from, netdev.LinkUp, link); err != nil {
			return err
		}
	}
	if len(link.AltNames) > 0 {
		link.AltNames = nil
		if err := p.step("home link altnames"); err != nil {
			return err
		}
		if err := p.Kernel.SetLink(from, netdev.LinkAltNames, link); err != nil {
			return err
		}
	}
	if err := p.step("home"); err != nil {
		return err
	}
	// No more than the name: that something else is refused must not keep it from coming home.
	return p.Kernel.MoveLink(from, link.Index, netdev.Host, name)
}

// freeName is the name that the interface had, unless another one of the host has it now: then the kernel's way out, so that a pod does
// not terminate for ever because of a name.
func (p *Plugin) freeName(r *Record, link netdev.Link) (string, error) {
	links, err := p.Kernel.Links(netdev.Host)
	if err != nil {
		return "", err
	}
	taken := slices.ContainsFunc(links, func(l netdev.Link) bool {
		return l.Parent != r.Parent && (l.Name == r.Link.Name || slices.Contains(l.AltNames, r.Link.Name))
	})
	if !taken {
		return r.Link.Name, nil
	}
	p.Log.Warn("the host has another interface of the VF's name; the VF gets a new one", "device", r.Device, "name", r.Link.Name)
	if strings.HasPrefix(link.Name, "dev") && slices.ContainsFunc(links, func(l netdev.Link) bool { return l.Parent == r.Parent && l.Name == link.Name }) {
		return link.Name, nil
	}
	for n := link.Index; ; n++ {
		name := fmt.Sprintf("dev%d", n)
		if !slices.ContainsFunc(links, func(l netdev.Link) bool { return l.Name == name || slices.Contains(l.AltNames, name) }) {
			return name, nil
		}
	}
}

// onHost finds the VF's interface on the host. Where the sandbox that it was in has ended, the kernel is on the way with it, and it is
// waited for. It returns nil when it does not come, or does not exist.
func (p *Plugin) onHost(call context.Context, r *Record) (*netdev.Link, error) {
	ctx, cancel := context.WithTimeout(call, cmp.Or(p.ReturnTimeout, defaultReturnTimeout))
	defer cancel()
	var events <-chan struct{}
	for {
		d, err := p.Sysfs.Device(string(r.Device))
		if errors.Is(err, sysfs.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if len(d.NetDevs) > 0 {
			var link netdev.Link
			if link, err = p.Kernel.Link(netdev.Host, d.NetDevs[0]); !errors.Is(err, netdev.ErrNoLink) { // else it was renamed meanwhile
				return &link, err
			}
		}
		if d.Driver == "" || d.IsUserspace() {
			return nil, nil
		}
		if events == nil {
			// Before looking again: what comes in between is an event.
			if events, err = p.Kernel.LinkEvents(ctx, netdev.Host); err != nil {
				return nil, err
			}
			continue
		}
		if _, ok := <-events; !ok {
			if ctx.Err() != nil {
				return nil, call.Err() // it did not come, unless the call has ended
			}
			events = nil // some were lost
		}
	}
}

// restore sets back what the plugin set and what its user could, where that differs from what was, on the PF and on the interface, if it is on
// the host. What others set meanwhile on the PF stays. The administrative MAC goes before the interface's own, which drivers else refuse. Trust
// goes last. It goes on after an error.
func (p *Plugin) restore(ctx context.Context, r *Record, link *netdev.Link) []error {
	vf, differ, err := p.changed(ctx, r)
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	note(err)
	for _, s := range slices.Backward(differ) {
		if s != netdev.VFTrust {
			note(p.setBack(ctx, vf, s, r))
		}
	}
	if link != nil {
		errs = append(errs, p.restoreLink(ctx, r, *link)...)
	}
	if slices.Contains(differ, netdev.VFTrust) {
		note(p.setBack(ctx, vf, netdev.VFTrust, r))
	}
	return errs
}

// changed are the settings of the PF that have to be set back.
func (p *Plugin) changed(ctx context.Context, r *Record) (*sysfs.VF, []netdev.VFSetting, error) {
	vf, err := p.Sysfs.VF(r.Device)
	if err != nil {
		return nil, nil, err
	}
	now, err := p.settings(ctx, vf)
	if errors.Is(err, netdev.ErrVFsUntold) && r.Want == r.VF {
		return vf, nil, nil // nothing was set
	}
	if err != nil {
		return nil, nil, err
	}
	now.MAC = administrativeMAC(r, now, r.Link.MAC)
	return vf, slices.DeleteFunc(settings(), func(s netdev.VFSetting) bool {
		// The MAC may be of the VF's user, where that is trusted.
		return r.VF.Same(s, now) || (s != netdev.VFMAC && r.VF.Same(s, r.Want))
	}), nil
}

// administrativeMAC is the one that the PF was told. Some PFs (igb) show the one that the VF's driver chose, own, where they were told
// none; that is not one that the record's owner asked for.
func administrativeMAC(r *Record, now netdev.VF, own string) string {
	if netdev.IsZeroMAC(r.VF.MAC) && now.MAC == own && r.Want.MAC != own {
		return r.VF.MAC
	}
	return now.MAC
}

// setLink sets a part of a link once its driver is not busy with something else. On the host, a driver that refuses a MAC is reset: it may have
// yet to learn what its PF has of it.
func (p *Plugin) setLink(ctx context.Context, netns string, s netdev.LinkSetting, to netdev.Link) error {
	if s != netdev.LinkMAC || netns != netdev.Host {
		return settle(ctx, func() error { return p.Kernel.SetLink(netns, s, to) })
	}
	return settle(ctx, func() error {
		err := p.Kernel.SetLink(netns, s, to)
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			return errors.Join(err, p.reset(ctx, to))
		}
		return err
	}, syscall.EADDRNOTAVAIL, syscall.EACCES)
}

// setOnPF has the PF set a part of a VF once its driver is not busy with something else.
func (p *Plugin) setOnPF(ctx context.Context, pf string, s netdev.VFSetting, to netdev.VF) error {
	return settle(ctx, func() error { return p.Kernel.SetVF(pf, s, to) })
}

// reset has the driver of a VF on the host negotiate with its PF anew, as drivers do when an interface is set up: some (igbvf) learn only
// then which MAC they have, or may have. The interface is down after it.
func (p *Plugin) reset(ctx context.Context, link netdev.Link) error {
	for _, up := range []bool{true, false} {
		if err := p.step("reset link up=" + strconv.FormatBool(up)); err != nil {
			return err
		}
		link.Up = up
		if err := p.setLink(ctx, netdev.Host, netdev.LinkUp, link); err != nil {
			return err
		}
	}
	return nil
}

// setBack restores a setting of the PF. Some drivers (qede) never take back an administrative MAC: the VF's own is the nearest to none, if
// it has an interface; else the next owner is left with this one.
func (p *Plugin) setBack(ctx context.Context, vf *sysfs.VF, s netdev.VFSetting, r *Record) error {
	if err := p.step("restore " + string(s)); err != nil {
		return err
	}
	err := p.setOnPF(ctx, vf.PFNetDev, s, r.VF)
	if !isRefused(err) || s != netdev.VFMAC || !netdev.IsZeroMAC(r.VF.MAC) {
		return err
	}
	p.Log.Warn("the driver does not take an administrative MAC back; it is set to the VF's own, or stays where it has none", "device", r.Device, "error", err)
	if netdev.IsZeroMAC(r.Link.MAC) {
		return nil
	}
	own := r.VF
	own.MAC = r.Link.MAC
	return p.setOnPF(ctx, vf.PFNetDev, s, own)
}

// restoreLink sets what differs of the interface, on the host: down, what differs, and up if it was.
func (p *Plugin) restoreLink(ctx context.Context, r *Record, now netdev.Link) []error {
	want := r.Link.on(now)
	differs := slices.DeleteFunc([]netdev.LinkSetting{
		netdev.LinkPrograms, netdev.LinkMTU, netdev.LinkMAC, netdev.LinkPromisc, netdev.LinkAllMulticast, netdev.LinkTraits, netdev.LinkAltNames,
	}, func(s netdev.LinkSetting) bool { return now.Same(s, want) })
	var errs []error
	set := func(s netdev.LinkSetting, to netdev.Link) {
		if err := p.restoreSetting(ctx, r, s, to); err != nil {
			errs = append(errs, err)
		}
	}
	to := want
	to.Up = false
	if now.Up && len(differs) > 0 {
		set(netdev.LinkUp, to)
		now.Up = false
	}
	for _, s := range differs {
		set(s, to)
	}
	if now.Up != want.Up {
		set(netdev.LinkUp, want)
	}
	return errs
}

func (p *Plugin) restoreSetting(ctx context.Context, r *Record, s netdev.LinkSetting, to netdev.Link) error {
	if err := p.step("restore link " + string(s)); err != nil {
		return err
	}
	err := p.setLink(ctx, netdev.Host, s, to)
	switch {
	case s == netdev.LinkAltNames && errors.Is(err, syscall.EEXIST):
		// Another interface may have one of them by now, or udev is at it: nothing depends on them.
		p.Log.Warn("restore the alternative names", "device", r.Device, "error", err)
		return nil
	case s == netdev.LinkPrograms && errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w: %w: a BPF link that is pinned or that a process has (`bpftool link`)", err, errHeld)
	}
	return err
}

// del takes the VF back (CNI 1.1.0 §2, DEL). A sandbox that has none is a success: DEL may come twice, or for an ADD that never was.
func (c *call) del(ctx context.Context) error {
	// What was recorded counts, not whether today's rules would accept the configuration.
	cfg, err := c.tolerantConfig()
	if err != nil {
		return err
	}
	var errs []error
	if cfg.IPAM != "" {
		errs = append(errs, c.ipamDel(ctx, cfg.IPAM))
	}
	errs = append(errs, c.release(ctx, cfg.Device), c.removeDeviceInfo(cfg.DeviceInfoFile))
	return errors.Join(errs...)
}

// release undoes the record of this attachment, if there is one. Whoever owns the device now, if not this attachment, keeps it.
func (c *call) release(ctx context.Context, hint sysfs.Address) error {
	device, err := c.find(hint, c.containerID, c.ifName)
	if err != nil {
		return err
	}
	if device == "" {
		return c.releaseLegacy(ctx)
	}
	unlock, err := c.lock(ctx, device)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := c.load(device)
	if err != nil || r == nil || !r.Owner.is(c.containerID, c.ifName) {
		return err
	}
	return c.giveBack(ctx, r)
}

// ipamDel gives the addresses back.
func (c *call) ipamDel(ctx context.Context, plugin string) error {
	if err := c.step("ipam del"); err != nil {
		return err
	}
	del := c
	if !slices.Contains(c.environ, "CNI_COMMAND=DEL") {
		other := *c
		other.environ = append(slices.DeleteFunc(slices.Clone(c.environ), func(kv string) bool { return strings.HasPrefix(kv, "CNI_COMMAND=") }), "CNI_COMMAND=DEL")
		del = &other
	}
	_, err := del.ipam(ctx, plugin)
	return err
}

// loadOrSetAside reads a device's record; one that cannot be read is put away, so that a damaged file does not take a VF out of service.
func (p *Plugin) loadOrSetAside(device sysfs.Address) (*Record, error) {
	r, err := p.load(device)
	if !errors.Is(err, record.ErrCorrupt) {
		return r, err
	}
	p.Log.Error("a VF's record cannot be read: it is set aside, and the VF keeps the settings that it has", "device", device, "error", err)
	if err := p.records().Quarantine(string(device)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, nil
}

// tolerantConfig reads of a configuration what DEL and GC need. What else is in it does not matter any more, and what has the wrong type
// no ADD took.
func (c *call) tolerantConfig() (*Config, error) {
	if !json.Valid(c.stdin) {
		return nil, fmt.Errorf("%w: it is no JSON", ErrInvalid)
	}
	raw, _ := decode(c.stdin)
	cfg := &Config{CNIVersion: cmp.Or(raw.CNIVersion, "0.1.0"), Network: raw.Name, IPAM: raw.IPAM.Type, DeviceInfoFile: raw.Runtime.DeviceInfoFile}
	// One that is none was never given; what was is found by its owner.
	cfg.Device, _ = sysfs.ParseAddress(cmp.Or(raw.Runtime.DeviceID, raw.DeviceID))
	return cfg, nil
}
