// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/plexus-cni/plexus/annotations"
)

// DefaultDeviceInfoDir is where the device-info files of pods are (Device Information Specification 1.1.0).
const DefaultDeviceInfoDir = "/var/run/k8s.cni.cncf.io/devinfo/cni"

// deviceInfoFile is a file's path within the folder for them; false where it is not within. What else is on the node is none of a network's
// business.
func (p *Plugin) deviceInfoFile(path string) (string, bool) {
	for _, dir := range []string{cmp.Or(p.DeviceInfoDir, DefaultDeviceInfoDir), strings.TrimPrefix(DefaultDeviceInfoDir, "/var")} { // /var/run is /run
		if file, err := filepath.Rel(dir, filepath.Clean(path)); err == nil && filepath.IsAbs(path) && filepath.IsLocal(file) && file != "." {
			return file, true
		}
	}
	return "", false
}

// checkDeviceInfo refuses a file elsewhere.
func (p *Plugin) checkDeviceInfo(path string) error {
	if _, ok := p.deviceInfoFile(path); path != "" && !ok {
		return fmt.Errorf("%w: \"runtimeConfig.CNIDeviceInfoFile\" is %q, it has to be a file in %s: leave it out of the network's configuration, Plexus names one where the capability CNIDeviceInfoFile is declared", ErrInvalid, path, cmp.Or(p.DeviceInfoDir, DefaultDeviceInfoDir))
	}
	return nil
}

// openDeviceInfo opens the folder: no link in it leads out of it.
func (p *Plugin) openDeviceInfo() (*os.Root, error) {
	dir := cmp.Or(p.DeviceInfoDir, DefaultDeviceInfoDir)
	if err := os.MkdirAll(dir, 0o755); err != nil { // pods mount it, to be read
		return nil, err
	}
	return os.OpenRoot(dir)
}

// writeDeviceInfo describes the VF for the pod (Device Information Specification 1.1.0), unless a device plugin did that already: it may
// know more of it.
func (p *Plugin) writeDeviceInfo(path string, t *target) error {
	file, ok := p.deviceInfoFile(path)
	if !ok {
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
	if err == nil {
		err = p.createDeviceInfo(file, data)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("device-info file: %w", err)
	}
	return nil
}

func (p *Plugin) createDeviceInfo(file string, data []byte) error {
	root, err := p.openDeviceInfo()
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // opened for its names
	if err = root.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444) // pods read it; as device plugins do
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// removeDeviceInfo removes the file of a pod. One elsewhere is none, and stays.
func (p *Plugin) removeDeviceInfo(path string) error {
	file, ok := p.deviceInfoFile(path)
	if !ok {
		return nil
	}
	root, err := os.OpenRoot(cmp.Or(p.DeviceInfoDir, DefaultDeviceInfoDir))
	if err == nil {
		err = errors.Join(root.Remove(file), root.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("device-info file: %w", err)
	}
	return nil
}
