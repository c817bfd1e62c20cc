// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// check compares the VF with its record (CNI 1.1.0 §2, CHECK), and names all that differs.
func (c *call) check(ctx context.Context) error {
	cfg, err := ParseConfig(c.stdin, c.args, false)
	if err != nil {
		return err
	}
	r, err := c.load(cfg.Device)
	if err != nil {
		return err
	}
	if r == nil || !r.Owner.is(c.containerID, c.ifName) || !r.Attached {
		return fmt.Errorf("VF %s is not attached to container %s, interface %s", cfg.Device, c.containerID, c.ifName)
	}
	var errs []error
	differs := func(what, is, want string) {
		if is != want {
			errs = append(errs, fmt.Errorf("VF %s: %s is %s, and was set to %s", cfg.Device, what, is, want))
		}
	}
	vf, err := c.Sysfs.VF(cfg.Device)
	if err != nil {
		return err
	}
	now, err := c.settings(ctx, vf)
	if err != nil && (!errors.Is(err, netdev.ErrVFsUntold) || slices.ContainsFunc(settings(), cfg.asks)) {
		return err
	}
	now.MAC = administrativeMAC(r, now, r.PodLink.MAC)
	for _, s := range settings() {
		if cfg.asks(s) || (s == netdev.VFMAC && err == nil) { // the rest is not the network's
			differs("\""+string(s)+"\"", now.Value(s), r.Want.Value(s))
		}
	}
	if r.Parent != "" {
		link, err := c.inSandbox(c.netns, r.Parent)
		if err != nil {
			return err
		}
		if link == nil {
			return errors.Join(append(errs, fmt.Errorf("VF %s is not in sandbox %s", cfg.Device, c.netns))...)
		}
		differs("the interface's name", link.Name, c.ifName)
		differs("the interface's MAC", link.MAC.String(), r.PodLink.MAC)
		differs("the interface's MTU", fmt.Sprint(link.MTU), fmt.Sprint(r.PodLink.MTU))
		differs("the interface's state", upDown(link.Up), upDown(true))
		errs = append(append(errs, checkAddresses(cfg, *link)...), c.checkUnique(ctx, link.Name))
	}
	if cfg.IPAM != "" {
		_, err := c.ipam(ctx, cfg.IPAM)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func upDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// checkAddresses looks for those of the ADD's result.
func checkAddresses(cfg *Config, link netdev.Link) []error {
	if cfg.PrevResult == nil {
		return nil
	}
	var errs []error
	for _, ip := range cfg.PrevResult.IPs {
		if i := ip.Interface; i == nil || *i < 0 || *i >= len(cfg.PrevResult.Interfaces) || cfg.PrevResult.Interfaces[*i].Name != link.Name {
			continue // of another plugin of the chain
		}
		address, _ := netip.AddrFromSlice(ip.Address.IP)
		bits, _ := ip.Address.Mask.Size()
		if !slices.Contains(link.Addrs, netip.PrefixFrom(address.Unmap(), bits)) {
			errs = append(errs, fmt.Errorf("interface %s has lost its address %s", link.Name, ip.Address.String()))
		}
	}
	return errs
}

// checkUnique looks, without a wait, whether another node has an address of the interface.
func (c *call) checkUnique(ctx context.Context, ifName string) error {
	now, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Kernel.AwaitDAD(now, c.netns, ifName); !errors.Is(err, netdev.ErrTentative) {
		return err
	}
	return nil
}

// status tells whether an ADD could be served (CNI 1.1.0 §2, STATUS): a VF is there to give.
func (c *call) status(ctx context.Context) error {
	cfg, err := ParseConfig(c.stdin, c.args, true)
	if err != nil {
		return err
	}
	if err := c.available(cfg.Device); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	return c.forward(ctx, cfg)
}

// available looks at the VF of the configuration, or, where kubelet chooses one, for any.
func (p *Plugin) available(device sysfs.Address) error {
	if device != "" {
		_, err := p.Sysfs.VF(device)
		return err
	}
	pfs, err := p.Sysfs.PFs()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(pfs, func(pf sysfs.PF) bool { return pf.NumVFs > 0 }) {
		return errors.New("no NIC of this node has a VF: write how many there shall be to /sys/class/net/PF/device/sriov_numvfs")
	}
	return nil
}

// forward calls the IPAM plugin with a verb that came with CNI 1.1.0.
func (c *call) forward(ctx context.Context, cfg *Config) error {
	if cfg.IPAM == "" {
		return nil
	}
	if ok, err := version.GreaterThanOrEqualTo(cfg.CNIVersion, "1.1.0"); err != nil || !ok {
		return err
	}
	_, err := c.ipam(ctx, cfg.IPAM)
	return err
}

// gc takes back the VFs of this network whose attachments are gone (CNI 1.1.0 §2, GC). It goes on after an error.
func (c *call) gc(ctx context.Context) error {
	cfg, err := c.tolerantConfig()
	if err != nil {
		return err
	}
	var conf struct {
		Valid []types.GCAttachment `json:"cni.dev/valid-attachments"`
	}
	if err = json.Unmarshal(c.stdin, &conf); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if conf.Valid == nil {
		return fmt.Errorf("%w: no \"cni.dev/valid-attachments\": without them every VF would look abandoned", ErrInvalid)
	}
	devices, err := c.records().Keys()
	if err != nil {
		return err
	}
	isValid := func(o Owner) bool {
		return slices.Contains(conf.Valid, types.GCAttachment{ContainerID: o.ContainerID, IfName: o.IfName})
	}
	var errs []error
	for _, device := range devices {
		errs = append(errs, c.collect(ctx, sysfs.Address(device), cfg.Network, isValid))
	}
	return errors.Join(append(errs, c.forward(ctx, cfg))...)
}

// collect takes one VF back, if it is of the network and its attachment is not valid any more.
func (p *Plugin) collect(ctx context.Context, device sysfs.Address, network string, isValid func(Owner) bool) error {
	unlock, err := p.lock(ctx, device)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := p.load(device)
	if err != nil || r == nil || r.Owner.Network != network || isValid(r.Owner) {
		return err
	}
	p.Log.Info("take back a VF whose pod is gone", "device", device, "owner", r.Owner.String())
	return p.giveBack(ctx, r)
}
