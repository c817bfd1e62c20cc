// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// legacyState is what sriov-cni keeps of an attachment: the configuration that it used, and how the VF was.
type legacyState struct {
	Name     string `json:"name"`
	DeviceID string `json:"deviceID"`
	Orig     struct {
		HostIFName, AdminMAC, EffectiveMAC string
		SpoofChk, Trust                    bool
		Vlan, VlanQoS, VlanProto           int
		MinTxRate, MaxTxRate               int
		LinkState                          uint32
		MTU                                int
	} `json:"OrigVfState"`
}

// maxLegacyBytes bounds a file of sriov-cni's; they are a few KiB long.
const maxLegacyBytes = 1 << 20

// legacyFile is where sriov-cni keeps the state of an attachment.
func (p *Plugin) legacyFile(containerID, ifName string) string {
	return filepath.Join(p.LegacyDir, containerID+"-"+ifName)
}

// legacyMark is where sriov-cni keeps the network namespace that it gave a device to.
func (p *Plugin) legacyMark(device sysfs.Address) string {
	return filepath.Join(p.LegacyDir, "pci", string(device))
}

// legacyFree refuses a device that sriov-cni gave to a sandbox that lives.
func (p *Plugin) legacyFree(device sysfs.Address) error {
	netns, err := readSmall(p.legacyMark(device))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the mark that sriov-cni left on VF %s: %w", device, err)
	}
	path := strings.TrimSpace(string(netns))
	if _, err := p.Kernel.NetNSID(path); errors.Is(err, fs.ErrNotExist) {
		return nil // its sandbox is gone, and the mark means nothing
	} else if err != nil {
		return fmt.Errorf("the mark that sriov-cni left on VF %s: %w", device, err)
	}
	return fmt.Errorf("%w: sriov-cni gave %s to sandbox %s: it is free when that one's DEL is done", ErrInUse, device, path)
}

// releaseLegacy takes back what sriov-cni gave to this attachment, before Plexus took over.
func (c *call) releaseLegacy(ctx context.Context) error {
	file := c.legacyFile(c.containerID, c.ifName)
	r, err := c.loadLegacy(file)
	if err != nil || r == nil {
		return err
	}
	unlock, err := c.lock(ctx, r.Device)
	if err != nil {
		return err
	}
	defer unlock()
	if other, err := c.load(r.Device); err != nil || other != nil {
		// It was given to another pod since: what is on file is history.
		return errors.Join(err, c.forgetLegacy(file, r))
	}
	// From here on it is ours, whatever interrupts us.
	if err := c.records().Save(string(r.Device), r); err != nil {
		return fmt.Errorf("record VF %s: %w", r.Device, err)
	}
	if err := c.undo(ctx, r); err != nil {
		return err
	}
	return c.forgetLegacy(file, r)
}

func (p *Plugin) forgetLegacy(file string, r *Record) error {
	for _, path := range []string{p.legacyMark(r.Device), file} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("state of sriov-cni: %w", err)
		}
	}
	return nil
}

// loadLegacy translates a state of sriov-cni into a record; nil when there is none, or when its device is there no more.
func (c *call) loadLegacy(file string) (*Record, error) {
	data, err := readSmall(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // never attached is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("state of sriov-cni: %w", err)
	}
	var s legacyState
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("state of sriov-cni: %s: %w: remove the file if the VF is in order", file, err)
	}
	device, err := sysfs.ParseAddress(s.DeviceID)
	if err != nil {
		return nil, fmt.Errorf("state of sriov-cni: %s: %w: remove the file if the VF is in order", file, err)
	}
	r := &Record{
		Version: recordVersion, Device: device, Attached: true, NetNS: c.netns,
		Owner: Owner{ContainerID: c.containerID, IfName: c.ifName, Network: s.Name, Pod: podOf(c.args)},
		Link:  Link{Name: s.Orig.HostIFName, MAC: s.Orig.EffectiveMAC, MTU: s.Orig.MTU},
		VF: netdev.VF{
			MAC: s.Orig.AdminMAC, VLAN: netdev.VLAN{ID: s.Orig.Vlan, QoS: s.Orig.VlanQoS, Proto: netdev.VLANProto8021Q},
			MinTxMbps: s.Orig.MinTxRate, MaxTxMbps: s.Orig.MaxTxRate,
			SpoofCheck: s.Orig.SpoofChk, Trust: s.Orig.Trust, LinkState: netdev.LinkStateAuto,
		},
	}
	const ethP8021AD = 0x88a8
	if s.Orig.VlanProto == ethP8021AD {
		r.VF.VLAN.Proto = netdev.VLANProto8021AD
	}
	if states := []string{netdev.LinkStateAuto, netdev.LinkStateEnable, netdev.LinkStateDisable}; int(s.Orig.LinkState) < len(states) {
		r.VF.LinkState = states[s.Orig.LinkState]
	}
	if r.BootID, err = c.Kernel.BootID(); err != nil {
		return nil, err
	}
	if c.netns != "" {
		if r.NetNSID, err = c.Kernel.NetNSID(c.netns); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return r, c.completeLegacy(r)
}

// completeLegacy adds what sriov-cni does not keep: the VF's number, and its device as the kernel names it.
func (c *call) completeLegacy(r *Record) error {
	vf, err := c.Sysfs.VF(r.Device)
	if errors.Is(err, sysfs.ErrNotFound) {
		return nil // nothing to undo, and undo finds that out
	}
	if err != nil {
		return err
	}
	r.VF.ID = vf.Index
	device, err := c.Sysfs.Device(string(r.Device))
	if err != nil {
		return err
	}
	if r.Link.Name != "" {
		r.Parent = device.Parent
	}
	if netdev.IsZeroMAC(r.VF.MAC) && r.VF.MAC == "" {
		now, err := c.Kernel.VF(vf.PFNetDev, vf.Index)
		if err != nil {
			return err
		}
		r.VF.MAC = now.MAC // sriov-cni did not keep it, so it did not change it
	}
	return nil
}

// readSmall reads a file of sriov-cni's. It opens no FIFO for good, and follows no symbolic link.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, maxLegacyBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxLegacyBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxLegacyBytes)
	}
	return data, nil
}
