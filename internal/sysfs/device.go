// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// Device is a PCI function, or one of the auxiliary bus. What a device does not have is empty.
type Device struct {
	// ID is its PCI address, or its name on the auxiliary bus (mlx5_core.sf.4).
	ID string
	// PCI is its address, for one of the auxiliary bus that of the function that it is a part of.
	PCI Address
	// Driver is the driver that it is bound to, "" for none.
	Driver string
	// Vendor and DeviceCode are what its maker is registered by and calls it (8086:10ca), and Class what it is for (0x020000 is
	// Ethernet). These, NUMANode and IOMMUGroup are the PCI function's, for a device of the auxiliary bus too.
	Vendor, DeviceCode, Class uint32
	// NUMANode is where it is plugged in, -1 when that is not known.
	NUMANode int
	// IOMMUGroup is the N of /dev/vfio/N, "" without an IOMMU. It may be another one after a reboot.
	IOMMUGroup string
	// NetDevs are its network interfaces in the network namespace of the reader, by name; those in others do not show. A PF has its
	// representors among them.
	NetDevs []string
	// Parent is how the kernel calls the device of its interfaces (netlink's IFLA_PARENT_DEV_NAME): mostly ID, but a virtio
	// function has a device virtio<N> in between.
	Parent string
	// RDMA are its InfiniBand devices, like mlx5_2.
	RDMA []string
	// TotalVFs is how many VFs it can have; only a PF has any.
	TotalVFs int
	// NumVFs is how many it has.
	NumVFs int
	// SFNum is the number that a scalable function was made with, -1 for what is none.
	SFNum int
}

// Device finds a device by its PCI address or auxiliary name. The error matches [ErrNotFound] if the host does not have it.
func (s *FS) Device(id string) (*Device, error) {
	dir, err := s.deviceDir(id)
	if err != nil {
		return nil, err
	}
	d := &Device{ID: path.Base(dir), NUMANode: -1}
	for _, read := range []func(dir string, d *Device) error{s.readFunction, s.readInterfaces, s.readCounts} {
		if err := read(dir, d); err != nil {
			return nil, fmt.Errorf("device %s: %w", id, err)
		}
	}
	return d, nil
}

// deviceDir is the folder of a device, which has its name.
func (s *FS) deviceDir(id string) (string, error) {
	if err := ValidateDeviceID(id); err != nil {
		return "", err
	}
	name, bus, fix := id, auxiliaryDevices, "ls /sys/bus/auxiliary/devices"
	if address, err := ParseAddress(id); err == nil {
		name, bus, fix = string(address), pciDevices, "lspci -D"
	}
	dir, err := s.resolve(bus + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s: this host has none of that name (`%s` lists those that it has)", ErrNotFound, id, fix)
	}
	if err == nil && path.Base(dir) != name {
		err = fmt.Errorf("%s/%s leads to %s", bus, name, dir)
	}
	if err != nil {
		return "", fmt.Errorf("device %s: %w", id, err)
	}
	return dir, nil
}

// readFunction reads what the device is.
func (s *FS) readFunction(dir string, d *Device) error {
	var err error
	if d.Driver, err = s.linkBase(dir + "/driver"); err != nil {
		return err
	}
	function := functionDir(dir)
	if function == "" {
		return nil
	}
	d.PCI = addressOf(function)
	for _, a := range []struct {
		file string
		to   *uint32
	}{{"vendor", &d.Vendor}, {"device", &d.DeviceCode}, {"class", &d.Class}} {
		if *a.to, err = s.hex(function + "/" + a.file); err != nil {
			return err
		}
	}
	if d.NUMANode, err = s.number(function+"/numa_node", -1); err != nil {
		return err
	}
	d.IOMMUGroup, err = s.linkBase(function + "/iommu_group")
	return err
}

// readInterfaces reads what the device is used by.
func (s *FS) readInterfaces(dir string, d *Device) error {
	var err error
	if d.RDMA, err = s.list(dir + "/infiniband"); err != nil {
		return err
	}
	parent, err := s.parentDir(dir)
	if err != nil {
		return err
	}
	d.Parent = path.Base(parent)
	d.NetDevs, err = s.list(parent + "/net")
	return err
}

// parentDir is the folder that has the folder net of a device: its own, or that of its virtio device.
func (s *FS) parentDir(dir string) (string, error) {
	entries, err := s.list(dir)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(entries, func(e string) bool { return isNumbered(e, "virtio") })
	if i < 0 {
		return dir, nil
	}
	return dir + "/" + entries[i], nil
}

// readCounts reads how many VFs the device has, and which SF it is.
func (s *FS) readCounts(dir string, d *Device) error {
	for _, a := range []struct {
		file   string
		to     *int
		absent int
	}{{"sriov_totalvfs", &d.TotalVFs, 0}, {"sriov_numvfs", &d.NumVFs, 0}, {"sfnum", &d.SFNum, -1}} {
		var err error
		if *a.to, err = s.number(dir+"/"+a.file, a.absent); err != nil {
			return err
		}
	}
	return nil
}

// functionDir is the folder of the PCI function that a folder is of, "" where it is of none.
func functionDir(dir string) string {
	for ; dir != "."; dir = path.Dir(dir) {
		if addressOf(dir) != "" {
			return dir
		}
	}
	return ""
}

// addressOf is the address of the function that has a folder, "" if it is of something else.
func addressOf(dir string) Address {
	address, err := ParseAddress(path.Base(dir))
	if err != nil {
		return ""
	}
	return address
}
