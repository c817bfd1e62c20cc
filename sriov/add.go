// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// ErrInUse marks a VF that another sandbox has.
var ErrInUse = errors.New("VF is in use")

// settings is the order in which a PF is told a VF's settings. Trust comes first, and so is taken back last: some drivers refuse a MAC to
// a VF that is not trusted.
func settings() []netdev.VFSetting {
	return []netdev.VFSetting{netdev.VFTrust, netdev.VFVLAN, netdev.VFMAC, netdev.VFRate, netdev.VFSpoofCheck, netdev.VFLinkState}
}

// target is a VF as it was found.
type target struct {
	vf     *sysfs.VF
	device *sysfs.Device
	// now is how the PF has it; nothing of it is known when untold is set.
	now netdev.VF
	// untold says that the PF's driver tells nothing of its VFs.
	untold bool
	// link is its interface on the host; only with a kernel driver.
	link *netdev.Link
	// pf is the PF's own interface.
	pf netdev.Link
}

// add gives the VF to the sandbox (CNI 1.1.0 §2, ADD). It succeeds as a whole, or undoes all that it did.
func (c *call) add(ctx context.Context) (types.Result, error) {
	cfg, err := ParseConfig(c.stdin, c.args, false)
	if err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx, cfg.Device)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err = c.free(ctx, cfg.Device); err != nil {
		return nil, err
	}
	if err = c.checkDeviceInfo(cfg.DeviceInfoFile); err != nil {
		return nil, err
	}
	t, err := c.look(ctx, cfg.Device)
	if err != nil {
		return nil, err
	}
	if err = c.refuse(cfg, t); err != nil {
		return nil, err
	}
	r, err := c.plan(cfg, t)
	if err != nil {
		return nil, err
	}
	if err = c.step("record"); err != nil {
		return nil, err
	}
	if err = c.records().Save(string(r.Device), r); err != nil {
		return nil, fmt.Errorf("record VF %s before it is changed: %w", r.Device, err)
	}
	result, err := c.apply(ctx, cfg, t, r)
	if err != nil {
		return nil, c.rollBack(ctx, cfg, r, err)
	}
	return result, nil
}

// free makes sure that nobody has the device. What an owner left whose sandbox is gone, or an earlier ADD of this sandbox, is undone.
func (c *call) free(ctx context.Context, device sysfs.Address) error {
	r, err := c.loadOrSetAside(device)
	if err != nil {
		return err
	}
	if r == nil {
		return c.legacyFree(device)
	}
	lives, err := c.alive(r)
	if err != nil {
		return fmt.Errorf("VF %s: find out whether its owner's sandbox lives: %w", device, err)
	}
	if lives && !r.Released && !r.Owner.is(c.containerID, c.ifName) {
		return fmt.Errorf("%w: %s belongs to %s, in sandbox %s: it is free when that one's DEL is done; if no such pod exists any more, run GC or delete the sandbox", ErrInUse, device, r.Owner, r.NetNS)
	}
	c.Log.Info("undo what an earlier owner left", "device", device, "owner", r.Owner.String())
	left, err := c.undo(ctx, r)
	if err != nil {
		return fmt.Errorf("undo what %s left of VF %s: %w", r.Owner, device, err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%w: %s is not as it was before %s had it: %s", ErrInUse, device, r.Owner, oneLine(left))
	}
	return nil
}

// alive reports whether the owner's sandbox is the one that it was: neither its path nor its inode is enough, both are used again.
func (p *Plugin) alive(r *Record) (bool, error) {
	boot, err := p.Kernel.BootID()
	if err != nil || boot != r.BootID {
		return false, err
	}
	id, err := p.Kernel.NetNSID(r.NetNS)
	if err == nil && id == r.NetNSID && r.NetNSCookie != 0 {
		var cookie uint64
		if cookie, err = p.Kernel.NetNSCookie(r.NetNS); err == nil && cookie != 0 && cookie != r.NetNSCookie {
			return false, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && id == r.NetNSID, err
}

// infiniBand is ARPHRD_INFINIBAND, as sysfs tells the type of a link.
const infiniBand = 32

// look finds out all that has to be known of the VF, and touches nothing.
func (p *Plugin) look(ctx context.Context, address sysfs.Address) (*target, error) {
	t := &target{}
	var err error
	if t.vf, err = p.Sysfs.VF(address); err != nil {
		return nil, fmt.Errorf("\"deviceID\": %w", err)
	}
	if t.device, err = p.Sysfs.Device(string(address)); err != nil {
		return nil, fmt.Errorf("\"deviceID\": %w", err)
	}
	if t.pf, err = p.Kernel.Link(netdev.Host, t.vf.PFNetDev); err != nil {
		return nil, fmt.Errorf("PF of VF %s: %w", address, err)
	}
	// Before its VFs are asked for: the kernel has no room for those of InfiniBand in its answer.
	kind, err := p.Sysfs.LinkType(t.vf.PFNetDev)
	if err != nil {
		return nil, fmt.Errorf("PF %s: %w", t.vf.PFNetDev, err)
	}
	if kind == infiniBand {
		return nil, fmt.Errorf("%w: PF %s of VF %s is InfiniBand, which is not supported yet: use the ib-sriov plugin for this network", ErrInvalid, t.vf.PFNetDev, address)
	}
	t.now, err = p.settings(ctx, t.vf)
	switch {
	case errors.Is(err, netdev.ErrVFsUntold):
		t.untold = true
	case errors.Is(err, netdev.ErrNoVF) && !t.pf.Up:
		return nil, fmt.Errorf("%w: PF %s is down, and some drivers tell of VFs only while it is up (ip link set %s up)", err, t.pf.Name, t.pf.Name)
	case err != nil:
		return nil, err
	}
	if t.device.IsUserspace() {
		return t, nil
	}
	if len(t.device.NetDevs) == 0 {
		driver := t.device.Driver
		if driver == "" {
			return nil, fmt.Errorf("%w: VF %s has no driver: bind it to its network driver, or to vfio-pci", ErrInvalid, address)
		}
		return nil, fmt.Errorf("%w: VF %s (driver %s) has no interface on the host: it is in another network namespace that Plexus did not put it into; end what holds that (`lsns -t net`), or bind the VF to its driver anew", ErrInUse, address, driver)
	}
	link, err := p.Kernel.Link(netdev.Host, t.device.NetDevs[0])
	if err != nil {
		return nil, fmt.Errorf("VF %s: %w", address, err)
	}
	t.link = &link
	return t, nil
}

// settings asks the PF how a VF is. One that is not listed is waited for: its driver may be at a reset.
func (p *Plugin) settings(ctx context.Context, vf *sysfs.VF) (netdev.VF, error) {
	var now netdev.VF
	err := settle(ctx, func() error {
		var err error
		now, err = p.Kernel.VF(vf.PFNetDev, vf.Index)
		return err
	}, netdev.ErrNoVF)
	return now, err
}

// refuse says what cannot be, before anything is touched.
func (c *call) refuse(cfg *Config, t *target) error {
	for _, s := range settings() {
		if t.untold && cfg.asks(s) {
			return fmt.Errorf("%w: \"%s\" cannot be set: the driver of PF %s tells nothing of its VFs, so that what is set could not be taken back; leave it out of the network's configuration", ErrInvalid, s, t.pf.Name)
		}
	}
	if want := cfg.want(t.now); want.MaxTxMbps != 0 && want.MinTxMbps > want.MaxTxMbps {
		return fmt.Errorf("%w: VF %s would have \"min_tx_rate\" %d above \"max_tx_rate\" %d: one is the network's, the other what the VF has; set both", ErrInvalid, cfg.Device, want.MinTxMbps, want.MaxTxMbps)
	}
	if cfg.MTU > t.pf.MTU {
		return fmt.Errorf("%w: \"mtu\" is %d, more than that of PF %s, %d: lower it, or raise that of the PF (ip link set %s mtu %d)", ErrInvalid, cfg.MTU, t.pf.Name, t.pf.MTU, t.pf.Name, cfg.MTU)
	}
	if t.link == nil {
		for _, k := range []struct {
			key   string
			isSet bool
		}{{"mtu", cfg.MTU != 0}, {"promisc", cfg.Promisc != nil}, {"allMulticast", cfg.AllMulticast != nil}} {
			if k.isSet {
				return fmt.Errorf("%w: %q cannot be set: VF %s has the userspace driver %s and so no interface; leave it to the program that drives it", ErrInvalid, k.key, cfg.Device, t.device.Driver)
			}
		}
		return nil
	}
	if t.link.Master != 0 {
		return fmt.Errorf("%w: the host uses interface %s of VF %s as a port of a bond or bridge: take it out (ip link set %s nomaster), or the VF out of the device plugin's pool", ErrInUse, t.link.Name, cfg.Device, t.link.Name)
	}
	return c.checkName()
}

// checkName refuses an interface name that the sandbox has: the kernel would refuse it only after it has moved the interface.
func (c *call) checkName() error {
	links, err := c.Kernel.Links(c.netns)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Name == c.ifName {
			return fmt.Errorf("%w: the sandbox has an interface %s already: ask for another name", ErrInvalid, c.ifName)
		}
		if slices.Contains(l.AltNames, c.ifName) {
			return fmt.Errorf("%w: %s is an alternative name of the sandbox's interface %s: ask for another name", ErrInvalid, c.ifName, l.Name)
		}
	}
	return nil
}

// plan is the record to be: how it was, and how it shall be.
func (c *call) plan(cfg *Config, t *target) (*Record, error) {
	boot, err := c.Kernel.BootID()
	if err != nil {
		return nil, err
	}
	id, err := c.Kernel.NetNSID(c.netns)
	if err != nil {
		return nil, err
	}
	cookie, err := c.Kernel.NetNSCookie(c.netns)
	if err != nil {
		return nil, err
	}
	r := &Record{
		Version: recordVersion,
		Owner:   Owner{ContainerID: c.containerID, IfName: c.ifName, Network: cfg.Network, Pod: podOf(c.args)},
		NetNS:   c.netns, NetNSID: id, NetNSCookie: cookie, BootID: boot,
		Device: cfg.Device, VF: t.now, Want: cfg.want(t.now),
	}
	if t.link == nil {
		return r, nil
	}
	r.Parent, r.Link = t.device.Parent, linkOf(*t.link)
	r.PodLink = Link{Name: c.ifName, Up: true}
	r.PodLink.MAC, r.PodLink.MTU = cmp.Or(cfg.MAC, r.Link.MAC), cmp.Or(cfg.MTU, r.Link.MTU)
	r.PodLink.Promisc, r.PodLink.AllMulticast = orElse(cfg.Promisc, r.Link.Promisc), orElse(cfg.AllMulticast, r.Link.AllMulticast)
	return r, nil
}

// podOf is the pod that CNI_ARGS name, for people.
func podOf(args string) string {
	var namespace, name string
	for pair := range strings.SplitSeq(args, ";") {
		if v, ok := strings.CutPrefix(pair, "K8S_POD_NAMESPACE="); ok {
			namespace = v
		}
		if v, ok := strings.CutPrefix(pair, "K8S_POD_NAME="); ok {
			name = v
		}
	}
	if name == "" {
		return ""
	}
	return namespace + "/" + name
}

// apply makes it so.
func (c *call) apply(ctx context.Context, cfg *Config, t *target, r *Record) (types.Result, error) {
	if err := c.setVF(ctx, cfg, t, r); err != nil {
		return nil, err
	}
	var link netdev.Link
	if t.link != nil {
		var err error
		if link, err = c.attach(ctx, cfg, *t.link, r); err != nil {
			return nil, err
		}
	}
	result := c.result(cfg, t, r, link)
	var addressing netdev.Addressing
	if cfg.IPAM != "" {
		var err error
		if addressing, err = c.address(ctx, cfg, result, link); err != nil {
			return nil, err
		}
	}
	converted, err := result.GetAsVersion(cfg.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	if err := c.step("device-info"); err != nil {
		return nil, err
	}
	if err := c.writeDeviceInfo(cfg.DeviceInfoFile, t); err != nil {
		return nil, err
	}
	if err := c.announce(ctx, t, r, link, addressing); err != nil {
		return nil, err
	}
	if err := c.step("complete"); err != nil {
		return nil, err
	}
	r.Attached = true
	if t.link != nil {
		r.PodLink.MAC, r.PodLink.MTU = link.MAC.String(), link.MTU
	}
	if err := c.records().Save(string(r.Device), r); err != nil {
		return nil, fmt.Errorf("record VF %s: %w", r.Device, err)
	}
	return converted, nil
}

const (
	// carrierPatience is how long an announcement waits where the VF is to have a link. Drivers of VFs learn of it from the PF; iavf and ixgbevf
	// have it by then, igbvf mostly not. An IPv6 address takes a second more.
	carrierPatience = 3 * time.Second
	// noCarrierPatience is for a PF without a link.
	noCarrierPatience = 200 * time.Millisecond
)

// announce tells the neighbours. Only an address that another node has fails the ADD.
func (c *call) announce(ctx context.Context, t *target, r *Record, link netdev.Link, addressing netdev.Addressing) error {
	if t.link == nil || len(addressing.Addresses) == 0 {
		return nil
	}
	patience := noCarrierPatience
	if (t.pf.Carrier || r.Want.LinkState == netdev.LinkStateEnable) && r.Want.LinkState != netdev.LinkStateDisable {
		patience = carrierPatience
	}
	waits, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := c.Kernel.Announce(waits, c.netns, link, addressing)
	if errors.Is(err, netdev.ErrDuplicateAddress) {
		return err
	}
	if err != nil {
		c.Log.Warn("the addresses are not announced: neighbours that knew them send to the former MAC until they ask anew", "device", r.Device, "error", err)
	}
	return ctx.Err()
}

const (
	// Some drivers (i40e, iavf) take a MAC later than they say so, and refuse others meanwhile.
	settleTries = 20
	settleDelay = 100 * time.Millisecond
)

// setVF has the PF set what differs from what is wanted.
func (c *call) setVF(ctx context.Context, cfg *Config, t *target, r *Record) error {
	for _, s := range settings() {
		// What is so already is not written: even a VLAN of 0 could undo what an administrator set beside it (trunks).
		if r.Want.Same(s, t.now) {
			continue
		}
		if err := c.step("set " + string(s)); err != nil {
			return err
		}
		if err := c.setOnPF(ctx, t.vf.PFNetDev, s, r.Want); err != nil {
			return explain(err, s, cfg, t)
		}
	}
	if cfg.MAC == "" {
		return nil
	}
	return settle(ctx, func() error {
		now, err := c.Kernel.VF(t.vf.PFNetDev, t.vf.Index)
		if err == nil && !now.Same(netdev.VFMAC, r.Want) {
			err = fmt.Errorf("PF %s was told that VF %d has MAC %s, but says it has %s: %w", t.pf.Name, t.vf.Index, r.Want.MAC, now.MAC, syscall.EAGAIN)
		}
		return err
	}, netdev.ErrNoVF)
}

// settle tries again while a driver is not done with what it was told before, as it tells by EAGAIN, EBUSY, or one of also: i40e and ice
// reset a VF for many a setting. There is no event for that.
func settle(ctx context.Context, try func() error, also ...error) error {
	for n := 1; ; n++ {
		err := try()
		again := slices.ContainsFunc(append(also, syscall.EAGAIN, syscall.EBUSY), func(e error) bool { return errors.Is(err, e) })
		if !again || n == settleTries {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(settleDelay):
		}
	}
}

// explain adds to the kernel's error what it means for this setting.
func explain(err error, s netdev.VFSetting, cfg *Config, t *target) error {
	var why string
	switch {
	case s == netdev.VFVLAN && errors.Is(err, syscall.EPROTONOSUPPORT):
		why = fmt.Sprintf("the NIC's driver does not support \"vlanProto\" %s: use 802.1q", cfg.VLAN.Proto)
	case errors.Is(err, syscall.EOPNOTSUPP):
		why = "the NIC's driver does not support this option: leave it out of the network's configuration"
	case s == netdev.VFRate && errors.Is(err, syscall.EINVAL) && !t.pf.Carrier:
		why = fmt.Sprintf("PF %s has no link, and many drivers take a rate only with one: connect it, or set it up (ip link set %s up)", t.pf.Name, t.pf.Name)
	case s == netdev.VFRate && errors.Is(err, syscall.EINVAL) && cfg.MinTxMbps != nil && *cfg.MinTxMbps != 0:
		why = "the NIC's driver refuses it: many support no \"min_tx_rate\", and none a rate above that of the link"
	case s == netdev.VFRate && errors.Is(err, syscall.EINVAL):
		why = "the NIC's driver refuses it: the rate may be above that of the link, or below what the NIC can do"
	case errors.Is(err, syscall.EINVAL):
		why = "the NIC's driver refuses the value; the host's kernel log (dmesg) may say why"
	case errors.Is(err, syscall.EPERM):
		why = "the NIC's firmware or the host does not allow it"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, why)
}

// attach moves the interface to the sandbox. What a driver may refuse is set before, on the host, so that the move is of the name alone.
func (c *call) attach(ctx context.Context, cfg *Config, link netdev.Link, r *Record) (netdev.Link, error) {
	want := link
	want.AltNames = nil // they are the host's (udev's), and any of them could clash with a name in the sandbox
	want.MTU = cmp.Or(cfg.MTU, link.MTU)
	if cfg.MAC != "" {
		want.MAC, _ = net.ParseMAC(cfg.MAC) // it was one before
	}
	if !want.Same(netdev.LinkMAC, link) {
		want.Up = false // many drivers take none while it is up
	}
	if err := c.change(ctx, netdev.Host, "link ", link, want, netdev.LinkUp, netdev.LinkAltNames, netdev.LinkMTU, netdev.LinkMAC); err != nil {
		return link, err
	}
	if err := c.step("move"); err != nil {
		return link, err
	}
	if err := c.Kernel.MoveLink(netdev.Host, link.Index, c.netns, c.ifName); err != nil {
		return link, fmt.Errorf("VF %s: %w", r.Device, err)
	}
	moved, err := c.inSandbox(c.netns, r.Parent)
	if err != nil {
		return link, err
	}
	if moved == nil {
		return link, fmt.Errorf("VF %s: the kernel moved it, but it is not in sandbox %s", r.Device, c.netns)
	}
	want = *moved
	want.Promisc, want.AllMulticast, want.Up = r.PodLink.Promisc, r.PodLink.AllMulticast, true
	if err := c.change(ctx, c.netns, "link ", *moved, want, netdev.LinkPromisc, netdev.LinkAllMulticast, netdev.LinkUp); err != nil {
		return want, err
	}
	return c.attached(ctx, cfg, r)
}

// attached is the interface once it is up. A driver may have reset it meanwhile, and give it the MAC that the PF was told only then.
func (c *call) attached(ctx context.Context, cfg *Config, r *Record) (netdev.Link, error) {
	var link netdev.Link
	err := settle(ctx, func() error {
		now, err := c.inSandbox(c.netns, r.Parent)
		switch {
		case err != nil:
			return err
		case now == nil:
			return fmt.Errorf("VF %s is not in sandbox %s any more", r.Device, c.netns)
		case cfg.MAC != "" && now.MAC.String() != cfg.MAC:
			return fmt.Errorf("VF %s was given MAC %s, but its driver has it at %s: %w", r.Device, cfg.MAC, now.MAC, syscall.EAGAIN)
		}
		link = *now
		return nil
	})
	return link, err
}

// change sets those settings of a link that differ, in their order, and stops at the first error. Each is a step of its name behind prefix.
func (p *Plugin) change(ctx context.Context, netns, prefix string, now, want netdev.Link, settings ...netdev.LinkSetting) error {
	for _, s := range settings {
		if now.Same(s, want) {
			continue
		}
		if err := p.step(prefix + string(s)); err != nil {
			return err
		}
		if err := p.setLink(ctx, netns, s, want); err != nil {
			return err
		}
	}
	return nil
}

// inSandbox finds the interface of a device in a network namespace; nil when it is not there.
func (p *Plugin) inSandbox(netns, parent string) (*netdev.Link, error) {
	links, err := p.Kernel.Links(netns)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Parent == parent {
			return &l, nil
		}
	}
	return nil, nil // not there is an answer
}

// result is what the caller is told of the interface.
func (c *call) result(cfg *Config, t *target, r *Record, link netdev.Link) *types100.Result {
	i := &types100.Interface{Name: c.ifName, Sandbox: c.netns, PciID: string(r.Device)}
	if t.link != nil {
		i.Mac, i.Mtu = link.MAC.String(), link.MTU
	} else {
		i.Mtu = t.pf.MTU
		if !netdev.IsZeroMAC(r.Want.MAC) {
			i.Mac = r.Want.MAC
		}
	}
	return &types100.Result{CNIVersion: version.Current(), Interfaces: []*types100.Interface{i}, DNS: cfg.DNS}
}

// address runs IPAM and gives the interface, if there is one, what it decided.
func (c *call) address(ctx context.Context, cfg *Config, result *types100.Result, link netdev.Link) (netdev.Addressing, error) {
	if err := c.step("ipam"); err != nil {
		return netdev.Addressing{}, err
	}
	ipam, err := c.ipamAdd(ctx, cfg)
	if err != nil {
		return netdev.Addressing{}, err
	}
	for _, ip := range ipam.IPs {
		ip.Interface = new(0)
	}
	result.IPs, result.Routes = ipam.IPs, ipam.Routes
	if ipam.DNS.Nameservers != nil || ipam.DNS.Domain != "" || ipam.DNS.Search != nil || ipam.DNS.Options != nil {
		result.DNS = ipam.DNS
	}
	a, err := addressingOf(ipam)
	if err != nil {
		return netdev.Addressing{}, fmt.Errorf("IPAM %s: its result: %w", cfg.IPAM, err)
	}
	if link.Index == 0 {
		return a, nil
	}
	if err := c.step("addresses"); err != nil {
		return netdev.Addressing{}, err
	}
	return a, c.Kernel.Configure(ctx, c.netns, link.Index, a)
}

// addressingOf translates the result of an IPAM plugin.
func addressingOf(r *types100.Result) (netdev.Addressing, error) {
	var a netdev.Addressing
	for _, ip := range r.IPs {
		address, ok := netip.AddrFromSlice(ip.Address.IP)
		bits, _ := ip.Address.Mask.Size()
		if !ok {
			return a, fmt.Errorf("%q is no address", ip.Address.String())
		}
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		a.Addresses = append(a.Addresses, netdev.Address{Prefix: netip.PrefixFrom(address.Unmap(), bits), Gateway: gateway.Unmap()})
	}
	for _, r := range r.Routes {
		destination, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if !ok {
			return a, fmt.Errorf("%q is no destination of a route", r.Dst.String())
		}
		gateway, _ := netip.AddrFromSlice(r.GW)
		a.Routes = append(a.Routes, netdev.IPRoute{
			Destination: netip.PrefixFrom(destination.Unmap(), bits), Gateway: gateway.Unmap(),
			MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope,
		})
	}
	return a, nil
}

// rollBack undoes a failed ADD. The cause stays what the caller is told first.
func (c *call) rollBack(ctx context.Context, cfg *Config, r *Record, cause error) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if cfg.IPAM != "" {
		errs = append(errs, c.ipamDel(ctx, cfg.IPAM))
	}
	left, err := c.undo(ctx, r)
	errs = append(append(errs, left...), err, c.removeDeviceInfo(cfg.DeviceInfoFile))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w; and it could not be undone, the next DEL tries again: %s", cause, err.Error())
	}
	return cause
}
