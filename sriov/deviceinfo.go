// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/plexus-cni/plexus/annotations"
)

// writeDeviceInfo describes the VF for the pod (Device Information Specification 1.1.0), unless a device plugin did that already: it may
// know more of it.
func (p *Plugin) writeDeviceInfo(path string, t *target) error {
	if path == "" {
		return nil
	}
	info := annotations.DeviceInfo{Type: "pci", Version: "1.1.0", PCI: &annotations.PCIDevice{
		PCIAddress: string(t.vf.Address), PFPCIAddress: string(t.vf.PF), RDMADevice: strings.Join(t.device.RDMA, ","),
	}}
	representor, err := p.Sysfs.Representor(t.vf.PFNetDev, t.vf.Index)
	if err != nil {
		p.Log.Warn("find the VF's representor", "device", t.vf.Address, "error", err)
	}
	info.PCI.RepresentorDevice = representor
	data, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("device-info file: %w", err)
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // pods mount it, to be read
		return fmt.Errorf("device-info file: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444) //nolint:gosec // pods read it; as device plugins do
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("device-info file: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("device-info file: %w", err)
	}
	return nil
}

func removeFile(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("device-info file: %w", err)
	}
	return nil
}
