// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"errors"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// PCI is what is read of the host's devices; see [sysfs.FS].
type PCI interface {
	// VF finds a virtual function.
	VF(sysfs.Address) (*sysfs.VF, error)
	// Representor finds the representor of a VF by its PF's interface, "" for none.
	Representor(pfNetDev string, index int) (string, error)
}

// completeDeviceInfo fills in what neither device plugin nor CNI plugin wrote about a VF and the host knows (Device Information
// Specification 1.1.0: pf-pci-address, representor-device). It informs: what can not be found out is left out.
func (c *call) completeDeviceInfo(info *annotations.DeviceInfo) {
	if info == nil || c.PCI == nil {
		return
	}
	var address string
	var pf, representor *string
	switch {
	case info.PCI != nil:
		address, pf, representor = info.PCI.PCIAddress, &info.PCI.PFPCIAddress, &info.PCI.RepresentorDevice
	case info.VDPA != nil:
		address, pf, representor = info.VDPA.PCIAddress, &info.VDPA.PFPCIAddress, &info.VDPA.RepresentorDevice
	default:
		return
	}
	if *pf != "" && *representor != "" {
		return
	}
	a, err := sysfs.ParseAddress(address)
	if err != nil {
		return // device plugins for other devices write their names there
	}
	vf, err := c.PCI.VF(a)
	if err != nil {
		if !errors.Is(err, sysfs.ErrNotVF) && !errors.Is(err, sysfs.ErrNotFound) {
			c.log.Warn("find out whose VF a device is", "device", address, "error", err)
		}
		return
	}
	if *pf == "" {
		*pf = string(vf.PF)
	}
	if *representor == "" {
		if *representor, err = c.PCI.Representor(vf.PFNetDev, vf.Index); err != nil {
			c.log.Warn("find the representor of a VF", "device", address, "error", err)
		}
	}
}
