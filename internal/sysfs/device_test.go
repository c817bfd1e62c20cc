// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plexus-cni/plexus/internal/sysfs"
)

func TestDevice(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		machine, id string
		want        sysfs.Device
	}{
		"a PF": {"legacy", "0000:01:00.0", sysfs.Device{
			ID: "0000:01:00.0", PCI: "0000:01:00.0", Driver: "i40e", Vendor: 0x8086, DeviceCode: 0x1572, Class: 0x020000, NUMANode: 1,
			IOMMUGroup: "14", NetDevs: []string{"ens1f0"}, Parent: "0000:01:00.0", TotalVFs: 64, NumVFs: 5, SFNum: -1,
		}},
		"a VF with an RDMA device": {"switchdev", "0000:03:00.2", sysfs.Device{
			ID: "0000:03:00.2", PCI: "0000:03:00.2", Driver: "mlx5_core", Vendor: 0x15b3, DeviceCode: 0x101e, Class: 0x020000, NUMANode: -1,
			NetDevs: []string{"enp3s0f0v0"}, Parent: "0000:03:00.2", RDMA: []string{"mlx5_2"}, SFNum: -1,
		}},
		"a VF of vfio-pci has no interface": {"legacy", "0000:01:02.2", sysfs.Device{
			ID: "0000:01:02.2", PCI: "0000:01:02.2", Driver: "vfio-pci", NUMANode: -1, IOMMUGroup: "42", Parent: "0000:01:02.2", SFNum: -1,
		}},
		"a VF in a pod shows no interface": {"legacy", "0000:01:03.1", sysfs.Device{
			ID: "0000:01:03.1", PCI: "0000:01:03.1", Driver: "iavf", NUMANode: -1, Parent: "0000:01:03.1", SFNum: -1,
		}},
		"a VF without a driver": {"legacy", "0000:01:03.4", sysfs.Device{
			ID: "0000:01:03.4", PCI: "0000:01:03.4", NUMANode: -1, Parent: "0000:01:03.4", SFNum: -1,
		}},
		"an SF is part of its PF": {"switchdev", "mlx5_core.sf.4", sysfs.Device{
			ID: "mlx5_core.sf.4", PCI: "0000:03:00.0", Driver: "mlx5_core.sf", Vendor: 0x15b3, DeviceCode: 0x101d, Class: 0x020000, NUMANode: -1,
			NetDevs: []string{"enp3s0f0s88"}, Parent: "mlx5_core.sf.4", RDMA: []string{"mlx5_3"}, SFNum: 88,
		}},
		"an auxiliary device that is no SF": {"switchdev", "mlx5_core.eth.0", sysfs.Device{
			ID: "mlx5_core.eth.0", PCI: "0000:03:00.0", Driver: "mlx5_core.eth", Vendor: 0x15b3, DeviceCode: 0x101d, Class: 0x020000, NUMANode: -1,
			Parent: "mlx5_core.eth.0", SFNum: -1,
		}},
		"an auxiliary device of no PCI function": {"odd", "soc_nic.sf.1", sysfs.Device{
			ID: "soc_nic.sf.1", NUMANode: -1, NetDevs: []string{"soc1"}, Parent: "soc_nic.sf.1", SFNum: 0,
		}},
		"a VF behind VMD": {"odd", "10000:01:00.1", sysfs.Device{
			ID: "10000:01:00.1", PCI: "10000:01:00.1", NUMANode: -1, NetDevs: []string{"vmd0v0"}, Parent: "10000:01:00.1", SFNum: -1,
		}},
		"the interface of a virtio VF is below its virtio device": {"odd", "0000:02:00.1", sysfs.Device{
			ID: "0000:02:00.1", PCI: "0000:02:00.1", Driver: "virtio-pci", Vendor: 0x1af4, NUMANode: -1, NetDevs: []string{"eth4"}, Parent: "virtio4", SFNum: -1,
		}},
		"a virtio VF in a pod has its parent all the same": {"odd", "0000:02:00.2", sysfs.Device{
			ID: "0000:02:00.2", PCI: "0000:02:00.2", Driver: "virtio-pci", NUMANode: -1, Parent: "virtio5", SFNum: -1,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := machine(t, tc.machine).Device(tc.id)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDeviceIsNotFound(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"0000:09:00.0":   "no such device: 0000:09:00.0: this host has none of that name (`lspci -D` lists those that it has)",
		"mlx5_core.sf.9": "no such device: mlx5_core.sf.9: this host has none of that name (`ls /sys/bus/auxiliary/devices` lists those that it has)",
	} {
		if _, err := machine(t, "legacy").Device(id); !errors.Is(err, sysfs.ErrNotFound) || err.Error() != want {
			t.Errorf("Device(%q): %v, want %s", id, err, want)
		}
	}
	if _, err := sysfs.New(filepath.Join(t.TempDir(), "none")).Device("0000:09:00.0"); !errors.Is(err, sysfs.ErrNotFound) {
		t.Errorf("without /sys: %v", err)
	}
}

func TestDeviceOutOfOrder(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ tree, want string }{
		"a path instead of a device": {"devices/x", `"../../0000:03:02.1" is neither a PCI address`},
		"a vendor that is no number": {"vendor = intel", `0000:03:02.1/vendor has "intel"`},
		"an empty vendor":            {"vendor = ", `0000:03:02.1/vendor has ""`},
		"a class of 40 bits":         {"class = 0x0200000000", `0000:03:02.1/class has "0x0200000000"`},
		"a NUMA node of words":       {"numa_node = first", `0000:03:02.1/numa_node has "first", which is no number from -1`},
		"fewer VFs than none":        {"sriov_totalvfs = -1", `0000:03:02.1/sriov_totalvfs has "-1", which is no number from 0`},
		"VFs without number":         {"sriov_numvfs = ", `0000:03:02.1/sriov_numvfs has ""`},
		"more VFs than a number has": {"sriov_numvfs = 99999999999999999999", `0000:03:02.1/sriov_numvfs has "99999999999999999999"`},
		"an SF of words":             {"sfnum = eighty-eight", `0000:03:02.1/sfnum has "eighty-eight"`},
		"a huge file":                {"numa_node = " + strings.Repeat("1", 5000), "0000:03:02.1/numa_node has more than 4096 bytes"},
		"a huge number of blanks":    {"numa_node = 1" + strings.Repeat("\t", 5000), "0000:03:02.1/numa_node has more than 4096 bytes"},
		"a file that fails":          {"vendor ! EIO", "input/output error"},
		"a driver that is a file":    {"driver = igb", "driver"},
		"interfaces that are a file": {"net = eth0", "net"},
		"a loop":                     {"net -> ../0000:03:02.1/net", "too many levels of symbolic links"},
		"a loop of two":              {"net -> infiniband\n  infiniband -> net", "too many levels of symbolic links"},
		"a link to a host's file":    {"vendor -> /etc/hostname", "vendor leads out of the file system"},
		"a link out of the tree":     {"vendor -> ../../../../vendor", "vendor leads out of the file system"},
		"a link out of it and in":    {"vendor -> ../../../../sys/devices/pci0000:00/0000:03:02.1/device", "vendor leads out of the file system"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := "0000:03:02.1"
			if strings.Contains(name, "path") {
				id = "../../" + id
			}
			got, err := grow(t, "devices/pci0000:00/0000:03:02.1\n  "+tc.tree).Device(id)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), id) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
				t.Errorf("%+v, %v, want an error of one line about %s", got, err, tc.want)
			}
		})
	}
}

func TestDeviceUnderAnotherName(t *testing.T) {
	t.Parallel()
	s := grow(t, `
devices/pci0000:00/0000:03:02.1
  vendor = 0x8086
bus/pci/devices
  0000:03:02.2 -> ../../../devices/pci0000:00/0000:03:02.1
  0000:03:02.3 -> 0000:03:02.3
  0000:03:02.4 -> ../../../../0000:03:02.4
`)
	for id, want := range map[string]string{
		"0000:03:02.2": "bus/pci/devices/0000:03:02.2 leads to devices/pci0000:00/0000:03:02.1",
		"0000:03:02.3": "too many levels",
		"0000:03:02.4": "leads out",
	} {
		if _, err := s.Device(id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Device(%s): %v, want %s", id, err, want)
		}
	}
}

// What this machine's kernel says of interfaces makes sense, be it a laptop or a server.
func TestInterfacesOfThisMachine(t *testing.T) {
	t.Parallel()
	s := sysfs.New("/sys")
	for _, name := range names(t, "/sys/class/net") {
		if name == "bonding_masters" {
			continue
		}
		_, err1 := s.LinkType(name)
		_, err2 := s.Switchdev(name)
		_, err3 := s.Representor(name, 0)
		id, err4 := s.DeviceOf(name)
		if errors.Is(err4, sysfs.ErrNotFound) {
			err4 = nil
		}
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if id == "" {
			continue
		}
		d, err := s.Device(id)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range d.NetDevs {
			if back, err := s.DeviceOf(name); err != nil || back != id {
				t.Errorf("device %s has interface %s, that is of %s, %v", id, name, back, err)
			}
		}
	}
	if kind, err := s.LinkType("lo"); err != nil || kind != 772 {
		t.Errorf("lo has type %d, %v, want 772", kind, err)
	}
	if id, err := s.DeviceOf("lo"); !errors.Is(err, sysfs.ErrNotFound) {
		t.Errorf("lo is of device %q, %v", id, err)
	}
}

// So does what it says of PCI functions.
func TestFunctionsOfThisMachine(t *testing.T) {
	t.Parallel()
	s := sysfs.New("/sys")
	pfs, err := s.PFs()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range names(t, "/sys/bus/pci/devices") {
		d, err := s.Device(id)
		if err != nil || d.ID != id || string(d.PCI) != id || d.Vendor == 0 || d.DeviceCode == 0 {
			t.Errorf("Device(%s) = %+v, %v", id, d, err)
			continue
		}
		if isPF := slices.ContainsFunc(pfs, func(pf sysfs.PF) bool { return pf.Address == d.PCI }); isPF != (d.TotalVFs > 0) {
			t.Errorf("%s can have %d VFs, and is a PF: %t", id, d.TotalVFs, isPF)
		}
		if vf, err := s.VF(d.PCI); err == nil && vf.PF == vf.Address {
			t.Errorf("%s is its own PF", id)
		}
	}
}

// names are those in a folder of this machine's kernel. The test is skipped if it has none: it is no Linux, or has no PCI.
func names(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		tb.Skipf("nothing in %s: %v", dir, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func BenchmarkDevice(b *testing.B) {
	s, ids := sysfs.New("/sys"), names(b, "/sys/bus/pci/devices")
	for b.Loop() {
		if _, err := s.Device(ids[len(ids)-1]); err != nil {
			b.Fatal(err)
		}
	}
}
