// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	// now is how the PF has it.
	now netdev.VF
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
	t, err := c.look(cfg.Device)
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

// alive reports whether the owner's sandbox is the one that it was.
func (p *Plugin) alive(r *Record) (bool, error) {
	boot, err := p.Kernel.BootID()
	if err != nil || boot != r.BootID {
		return false, err
	}
	id, err := p.Kernel.NetNSID(r.NetNS)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && id == r.NetNSID, err
}

// look finds out all that has to be known of the VF, and touches nothing.
func (p *Plugin) look(address sysfs.Address) (*target, error) {
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
	if t.now, err = p.Kernel.VF(t.vf.PFNetDev, t.vf.Index); err != nil {
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

// infiniBand is ARPHRD_INFINIBAND, as sysfs tells the type of a link.
const infiniBand = 32

// refuse says what can not be, before anything is touched.
func (c *call) refuse(cfg *Config, t *target) error {
	if kind, err := c.Sysfs.LinkType(t.vf.PFNetDev); err != nil {
		return fmt.Errorf("PF %s: %w", t.vf.PFNetDev, err)
	} else if kind == infiniBand {
		return fmt.Errorf("%w: PF %s of VF %s is InfiniBand, which is not supported yet: use the ib-sriov plugin for this network", ErrInvalid, t.vf.PFNetDev, cfg.Device)
	}
	if cfg.MTU > t.pf.MTU {
		return fmt.Errorf("%w: \"mtu\" is %d, more than that of PF %s, %d: lower it, or raise that of the PF (ip link set %s mtu %d)", ErrInvalid, cfg.MTU, t.pf.Name, t.pf.MTU, t.pf.Name, cfg.MTU)
	}
	if t.link == nil {
		for key, value := range map[string]bool{"mtu": cfg.MTU != 0, "promisc": cfg.Promisc != nil, "allMulticast": cfg.AllMulticast != nil} {
			if value {
				return fmt.Errorf("%w: %q can not be set: VF %s has the userspace driver %s and so no interface; leave it to the program that drives it", ErrInvalid, key, cfg.Device, t.device.Driver)
			}
		}
		return nil
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
	r := &Record{
		Version: recordVersion,
		Owner:   Owner{ContainerID: c.containerID, IfName: c.ifName, Network: cfg.Network, Pod: podOf(c.args)},
		NetNS:   c.netns, NetNSID: id, BootID: boot,
		Device: cfg.Device, VF: t.now, Want: cfg.want(t.now),
	}
	if t.link == nil {
		return r, nil
	}
	r.Parent, r.Link = t.device.Parent, linkOf(*t.link)
	r.PodLink = Link{Name: c.ifName, MAC: r.Link.MAC, MTU: r.Link.MTU, Up: true, Promisc: r.Link.Promisc, AllMulticast: r.Link.AllMulticast}
	if cfg.MAC != "" {
		r.PodLink.MAC = cfg.MAC
	}
	if cfg.MTU != 0 {
		r.PodLink.MTU = cfg.MTU
	}
	if cfg.Promisc != nil {
		r.PodLink.Promisc = *cfg.Promisc
	}
	if cfg.AllMulticast != nil {
		r.PodLink.AllMulticast = *cfg.AllMulticast
	}
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
	if t.link != nil {
		if err := c.Kernel.Announce(ctx, c.netns, link, addressing); err != nil {
			// Peers learn of it a little later.
			c.Log.Warn("announce the addresses", "device", r.Device, "error", err)
		}
	}
	return converted, nil
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
	})
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

// attach moves the interface to the sandbox.
func (c *call) attach(ctx context.Context, cfg *Config, link netdev.Link, r *Record) (netdev.Link, error) {
	set := func(netns string, s netdev.LinkSetting, to netdev.Link) error {
		if err := c.step("link " + string(s)); err != nil {
			return err
		}
		return c.setLink(ctx, netns, s, to)
	}
	if link.Up {
		// Kernels of old do not rename what is up.
		link.Up = false
		if err := set(netdev.Host, netdev.LinkUp, link); err != nil {
			return link, err
		}
	}
	if len(link.AltNames) > 0 {
		// They are the host's (udev's), and any of them could clash with a name in the sandbox.
		link.AltNames = nil
		if err := set(netdev.Host, netdev.LinkAltNames, link); err != nil {
			return link, err
		}
	}
	moved, err := c.move(ctx, cfg, link, r)
	if err != nil {
		return link, err
	}
	moved.Promisc, moved.AllMulticast, moved.Up = r.PodLink.Promisc, r.PodLink.AllMulticast, true
	if r.PodLink.Promisc != r.Link.Promisc {
		if err := set(c.netns, netdev.LinkPromisc, moved); err != nil {
			return moved, err
		}
	}
	if r.PodLink.AllMulticast != r.Link.AllMulticast {
		if err := set(c.netns, netdev.LinkAllMulticast, moved); err != nil {
			return moved, err
		}
	}
	return moved, set(c.netns, netdev.LinkUp, moved)
}

// move is the one message. When the kernel refuses a part of it, the device is brought back: it has moved all the same.
func (c *call) move(ctx context.Context, cfg *Config, link netdev.Link, r *Record) (netdev.Link, error) {
	err := settle(ctx, func() error {
		if err := c.step("move"); err != nil {
			return err
		}
		m := netdev.Move{Name: c.ifName, MTU: cfg.MTU}
		if cfg.MAC != "" && link.MAC.String() != cfg.MAC {
			m.MAC = cfg.MAC
		}
		refused := c.Kernel.MoveLink(netdev.Host, link.Index, c.netns, m)
		if refused == nil {
			return nil
		}
		back, err := c.comeBack(ctx, r, errors.Is(refused, syscall.EADDRNOTAVAIL))
		if err != nil {
			return fmt.Errorf("%s; and it could not be brought back: %w", refused.Error(), err)
		}
		link = back
		return refused
	}, syscall.EADDRNOTAVAIL, syscall.EACCES)
	if err != nil {
		return link, fmt.Errorf("VF %s: %w", r.Device, err)
	}
	moved, err := c.inSandbox(c.netns, r.Parent)
	if err != nil {
		return link, err
	}
	if moved == nil {
		return link, fmt.Errorf("VF %s: the kernel moved it, but it is not in sandbox %s", r.Device, c.netns)
	}
	return *moved, nil
}

// comeBack finds the interface on the host again, for another try. Where its driver did not take the MAC that the PF was told, it has
// yet to learn of it.
func (c *call) comeBack(ctx context.Context, r *Record, reset bool) (netdev.Link, error) {
	back, err := c.home(ctx, r)
	if err == nil && back == nil {
		err = fmt.Errorf("%w: that of VF %s", netdev.ErrNoLink, r.Device)
	}
	if err != nil {
		return netdev.Link{}, err
	}
	if reset {
		err = c.reset(ctx, back)
	}
	return *back, err
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
	errs = append(append(errs, left...), err, removeFile(cfg.DeviceInfoFile))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w; and it could not be undone, the next DEL tries again: %s", cause, err.Error())
	}
	return cause
}
