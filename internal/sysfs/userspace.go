// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs

import (
	"slices"
	"strings"
)

// classNetwork is the base class of network controllers (PCI Code and ID Assignment Specification, 02h).
const classNetwork = 0x02

// IsUserspace reports whether the device's driver hands it to a program, without a network interface (DPDK, virtual machines).
func (d *Device) IsUserspace() bool {
	// The variant drivers of vendors that can migrate a VF, such as mlx5_vfio_pci, are vfio-pci and more.
	return slices.Contains([]string{"vfio-pci", "uio_pci_generic", "igb_uio"}, d.Driver) || strings.HasSuffix(strings.ReplaceAll(d.Driver, "_", "-"), "-vfio-pci")
}

// isNetwork reports whether a class is that of network controllers. One that is not known, 0, may be.
func isNetwork(class uint32) bool { return class == 0 || class>>16 == classNetwork }
