// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command vfs looks, inside of the virtual machine, whether its network cards have what it is for: virtual functions with their
// driver, an interface for each, and one of them on vfio-pci. It takes two PFs, an IOMMU, and the modules igb, igbvf, netdevsim,
// vfio_iommu_type1 and vfio-pci.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/e2e/vm/guest"
)

const (
	devices = "/sys/bus/pci/devices"
	// limit is for all of it. Emulated, it takes about three seconds.
	limit = time.Minute
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Println("vfs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var vfs []string
	for _, pf := range []string{guest.PF + "0", guest.PF + "1"} {
		made, err := makeVFs(ctx, pf)
		if err != nil {
			return fmt.Errorf("%s: %w", pf, err)
		}
		vfs = append(vfs, made...)
	}
	if err := bindVFIO(vfs[0]); err != nil {
		return fmt.Errorf("bind %s to vfio-pci: %w", vfs[0], err)
	}
	if err := os.WriteFile("/sys/bus/netdevsim/new_device", []byte("10 1"), 0); err != nil {
		return fmt.Errorf("make a netdevsim: %w", err)
	}
	return nil
}

// makeVFs makes two VFs and returns their PCI addresses once each has its interface.
func makeVFs(ctx context.Context, pf string) ([]string, error) {
	device := filepath.Join("/sys/class/net", pf, "device")
	if err := os.WriteFile(filepath.Join(device, "sriov_numvfs"), []byte("2"), 0); err != nil {
		return nil, err
	}
	var vfs []string
	for i := range 2 {
		function, err := filepath.EvalSymlinks(filepath.Join(device, fmt.Sprintf("virtfn%d", i)))
		if err != nil {
			return nil, err
		}
		name, err := interfaceOf(ctx, function)
		if err != nil {
			return nil, err
		}
		driver, err := driverOf(function)
		if err != nil {
			return nil, err
		}
		fmt.Println(pf, i, filepath.Base(function), driver, name != "")
		vfs = append(vfs, filepath.Base(function))
	}
	return vfs, nil
}

func driverOf(function string) (string, error) {
	driver, err := filepath.EvalSymlinks(filepath.Join(function, "driver"))
	return filepath.Base(driver), err
}

func interfaceOf(ctx context.Context, function string) (string, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if found, err := filepath.Glob(filepath.Join(function, "net", "*")); err != nil || len(found) == 1 {
			return strings.Join(found, ""), err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("%s has no interface: %w", filepath.Base(function), ctx.Err())
		}
	}
}

// bindVFIO gives a VF to vfio-pci, which the kernel does only if an IOMMU keeps the VF's memory accesses apart.
func bindVFIO(vf string) error {
	function := filepath.Join(devices, vf)
	if err := errors.Join(
		os.WriteFile(filepath.Join(function, "driver_override"), []byte("vfio-pci"), 0),
		os.WriteFile(filepath.Join(function, "driver", "unbind"), []byte(vf), 0),
		os.WriteFile("/sys/bus/pci/drivers_probe", []byte(vf), 0),
	); err != nil {
		return err
	}
	driver, err := driverOf(function)
	if err != nil {
		return err
	}
	group, err := filepath.EvalSymlinks(filepath.Join(function, "iommu_group"))
	if err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join("/dev/vfio", filepath.Base(group)))
	fmt.Println(vf, driver, err == nil)
	return err
}
