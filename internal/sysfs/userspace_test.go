// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs

import "testing"

func TestIsUserspace(t *testing.T) {
	t.Parallel()
	for driver, want := range map[string]bool{
		"vfio-pci": true, "uio_pci_generic": true, "igb_uio": true, "mlx5_vfio_pci": true, "hisi-acc-vfio-pci": true,
		"": false, "iavf": false, "mlx5_core": false, "vfio_pci_core": false, "pci-stub": false,
	} {
		if got := (&Device{Driver: driver}).IsUserspace(); got != want {
			t.Errorf("IsUserspace with driver %q = %t", driver, got)
		}
	}
}

func TestIsNetworkByClass(t *testing.T) {
	t.Parallel()
	for class, want := range map[uint32]bool{0x020000: true, 0x020700: true, 0x028000: true, 0: true, 0x0b4000: false, 0x010802: false} {
		if got := isNetwork(class); got != want {
			t.Errorf("isNetwork of class %06x = %t", class, got)
		}
	}
}
