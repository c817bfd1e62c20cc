// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
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
	// It may have been given to another pod since: what is on file is history then.
	if other, err := c.load(r.Device); err != nil || other != nil {
		return errors.Join(err, removeLegacy(file, c.legacyMark(r.Device)))
	}
	if superseded, err := c.isSuperseded(file, r.Device); err != nil || superseded {
		return errors.Join(err, removeLegacy(file))
	}
	// From here on it is ours, whatever interrupts us.
	if err := c.completeLegacy(ctx, r); err != nil {
		return err
	}
	if err := c.records().Save(string(r.Device), r); err != nil {
		return fmt.Errorf("record VF %s: %w", r.Device, err)
	}
	if err := c.giveBack(ctx, r); err != nil {
		return err
	}
	return removeLegacy(file, c.legacyMark(r.Device))
}

func removeLegacy(files ...string) error {
	for _, path := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("state of sriov-cni: %w", err)
		}
	}
	return nil
}

// isSuperseded reports whether sriov-cni has given the device to another attachment after that of a state: sriov-cni does not look whether
// an earlier one has had its DEL.
func (p *Plugin) isSuperseded(file string, device sysfs.Address) (bool, error) {
	own, err := os.Stat(file)
	if err != nil {
		return false, fmt.Errorf("state of sriov-cni: %w", err)
	}
	entries, err := os.ReadDir(p.LegacyDir)
	if err != nil {
		return false, fmt.Errorf("state of sriov-cni: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !info.ModTime().After(own.ModTime()) {
			continue // one that has gone meanwhile is none
		}
		data, err := readSmall(filepath.Join(p.LegacyDir, e.Name()))
		if err != nil {
			continue
		}
		if r, err := parseLegacy(data); err == nil && r.Device == device {
			return true, nil
		}
	}
	return false, nil
}

// loadLegacy translates a state of sriov-cni into a record; nil when there is none. One that cannot be read is none, as it is for
// sriov-cni: a pod must not terminate for ever because of it.
func (c *call) loadLegacy(file string) (*Record, error) {
	data, err := readSmall(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // never attached is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("state of sriov-cni: %w", err)
	}
	r, err := parseLegacy(data)
	if err != nil {
		c.Log.Error("a state of sriov-cni cannot be read: its VF keeps the settings that it has", "file", file, "error", err)
		return nil, nil
	}
	r.Owner.ContainerID, r.Owner.IfName, r.Owner.Pod, r.NetNS = c.containerID, c.ifName, podOf(c.args), c.netns
	if r.NetNS == "" {
		// The mark is of this attachment, unless a later one has taken the VF, which is looked for before anything is touched.
		mark, err := readSmall(c.legacyMark(r.Device))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the mark that sriov-cni left on VF %s: %w", r.Device, err)
		}
		r.NetNS = strings.TrimSpace(string(mark))
	}
	return r, nil
}

// parseLegacy reads a state of sriov-cni. Its owner and its sandbox are not in it.
func parseLegacy(data []byte) (*Record, error) {
	var s legacyState
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	device, err := sysfs.ParseAddress(s.DeviceID)
	if err != nil {
		return nil, err
	}
	o := s.Orig
	r := &Record{
		Version: recordVersion, Device: device, Attached: true, Owner: Owner{Network: s.Name},
		Link: Link{Name: o.HostIFName, MAC: o.EffectiveMAC, MTU: o.MTU},
		VF: netdev.VF{
			MAC: o.AdminMAC, VLAN: netdev.VLAN{ID: o.Vlan, QoS: o.VlanQoS, Proto: netdev.VLANProto8021Q},
			MinTxMbps: o.MinTxRate, MaxTxMbps: o.MaxTxRate,
			SpoofCheck: o.SpoofChk, Trust: o.Trust, LinkState: netdev.LinkStateAuto,
		},
	}
	const ethP8021AD = 0x88a8
	if o.VlanProto == ethP8021AD {
		r.VF.VLAN.Proto = netdev.VLANProto8021AD
	}
	// As in linux/if_link.h; 0, and what is to come, is auto.
	switch o.LinkState {
	case 1:
		r.VF.LinkState = netdev.LinkStateEnable
	case 2:
		r.VF.LinkState = netdev.LinkStateDisable
	}
	const maxName = 15 // bytes of an interface's name (IFNAMSIZ)
	switch {
	case len(o.HostIFName) > maxName || strings.ContainsAny(o.HostIFName, "/: \t\n\x00") || o.HostIFName == "." || o.HostIFName == "..":
		return nil, fmt.Errorf("HostIFName is %.64q, which no interface can be called", o.HostIFName)
	case o.Vlan < 0 || o.Vlan > 4095 || o.VlanQoS < 0 || o.VlanQoS > 7:
		return nil, fmt.Errorf("there is no VLAN %d with QoS %d", o.Vlan, o.VlanQoS)
	case o.MinTxRate < 0 || o.MinTxRate > math.MaxInt32 || o.MaxTxRate < 0 || o.MaxTxRate > math.MaxInt32:
		return nil, fmt.Errorf("there are no rates of %d and %d Mbit/s", o.MinTxRate, o.MaxTxRate)
	case o.MTU < 0 || o.MTU > math.MaxInt32:
		return nil, fmt.Errorf("there is no MTU %d", o.MTU)
	}
	for _, mac := range []string{o.AdminMAC, o.EffectiveMAC} {
		if _, err := net.ParseMAC(mac); err != nil && mac != "" {
			return nil, err
		}
	}
	return r, nil
}

// completeLegacy adds what sriov-cni does not keep: the VF's number, its device as the kernel names it, and which sandbox and boot it is.
func (c *call) completeLegacy(ctx context.Context, r *Record) error {
	var err error
	if r.BootID, err = c.Kernel.BootID(); err != nil {
		return err
	}
	if r.NetNS != "" {
		if r.NetNSID, err = c.Kernel.NetNSID(r.NetNS); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
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
	now, err := c.settings(ctx, vf)
	if err != nil {
		return err
	}
	r.VF.MAC = cmp.Or(r.VF.MAC, now.MAC) // what sriov-cni did not keep, it did not change
	r.Want = now
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
