// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/sysfs"
)

func TestVF(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		machine string
		want    sysfs.VF
	}{
		"the first":                                     {"legacy", sysfs.VF{Address: "0000:01:02.0", Index: 0, PF: "0000:01:00.0", PFNetDev: "ens1f0"}},
		"one above a gap":                               {"legacy", sysfs.VF{Address: "0000:01:02.2", Index: 2, PF: "0000:01:00.0", PFNetDev: "ens1f0"}},
		"the tenth, which sorts second":                 {"legacy", sysfs.VF{Address: "0000:01:03.2", Index: 10, PF: "0000:01:00.0", PFNetDev: "ens1f0"}},
		"one above sriov_numvfs":                        {"legacy", sysfs.VF{Address: "0000:01:03.4", Index: 12, PF: "0000:01:00.0", PFNetDev: "ens1f0"}},
		"one in a pod":                                  {"legacy", sysfs.VF{Address: "0000:01:03.1", Index: 9, PF: "0000:01:00.0", PFNetDev: "ens1f0"}},
		"of an uplink among representors":               {"switchdev", sysfs.VF{Address: "0000:03:00.3", Index: 1, PF: "0000:03:00.0", PFNetDev: "uplink0"}},
		"of an uplink without name, of an older kernel": {"switchdev", sysfs.VF{Address: "0000:43:00.2", Index: 0, PF: "0000:43:00.0", PFNetDev: "uplink4"}},
		"of a virtio PF":                                {"odd", sysfs.VF{Address: "0000:02:00.2", Index: 1, PF: "0000:02:00.0", PFNetDev: "eth3"}},
		"behind VMD":                                    {"odd", sysfs.VF{Address: "10000:01:00.1", Index: 0, PF: "10000:01:00.0", PFNetDev: "vmd0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := machine(t, tc.machine).VF(tc.want.Address)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("an address in upper case", func(t *testing.T) {
		t.Parallel()
		s := grow(t, pfAndVF("net/eth0", ""))
		if vf, err := s.VF("00AB:01:00.1"); err != nil || vf.Address != "00ab:01:00.1" {
			t.Errorf("%+v, %v", vf, err)
		}
		if d, err := s.Device("00AB:01:00.1"); err != nil || d.ID != "00ab:01:00.1" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func TestVFIsSomethingElse(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		machine, id string
		kind        error
		want        string
	}{
		"a PF with VFs": {
			"legacy", "0000:01:00.0", sysfs.ErrNotVF,
			"not a VF: 0000:01:00.0 is a PF that has 5 VFs: name one of them (`ls -l /sys/bus/pci/devices/0000:01:00.0` lists them as virtfn<N>)",
		},
		"a PF without VFs": {
			"legacy", "0000:01:00.2", sysfs.ErrNotVF,
			"not a VF: 0000:01:00.2 is a PF that can have 7 VFs and has none: write how many there shall be to /sys/bus/pci/devices/0000:01:00.2/sriov_numvfs, and name one of them",
		},
		"a PF that can have none": {
			"legacy", "0000:01:00.3", sysfs.ErrNotVF,
			"not a VF: 0000:01:00.3 belongs to no PF: use the host-device plugin for a whole device",
		},
		"another PCI device": {
			"legacy", "0000:00:01.0", sysfs.ErrNotVF,
			"not a VF: 0000:00:01.0 belongs to no PF: use the host-device plugin for a whole device",
		},
		"an SF": {
			"switchdev", "mlx5_core.sf.4", sysfs.ErrNotVF,
			"not a VF: mlx5_core.sf.4 is an auxiliary device of 0000:03:00.0: name a VF by its PCI address",
		},
		"nothing": {
			"legacy", "0000:09:00.0", sysfs.ErrNotFound,
			"no such device: 0000:09:00.0: this host has none of that name (`lspci -D` lists those that it has)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := machine(t, tc.machine).VF(sysfs.Address(tc.id)); !errors.Is(err, tc.kind) || err.Error() != tc.want {
				t.Errorf("%+v, %v, want %s", got, err, tc.want)
			}
		})
	}
}

// pfAndVF is a PF with these interfaces and files, and its one VF.
func pfAndVF(netDevs, files string) string {
	return `
devices/pci00ab:00
  00ab:01:00.0
    sriov_totalvfs = 2
    sriov_numvfs = 1
    virtfn0 -> ../00ab:01:00.1
    ` + netDevs + `
    ` + files + `
  00ab:01:00.1
    physfn -> ../00ab:01:00.0
`
}

func TestUplink(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ netDevs, want, wantErr string }{
		"the only interface, without a port name":             {"net/eth0", "eth0", ""},
		"the only interface, with a name of its driver's own": {"net/eth0\n      phys_port_name = lan", "eth0", ""},
		"the only interface that is no representor": {
			"net/eth0\n      phys_port_name = pf0vf0\n    net/eth1\n      phys_port_name = p0s1\n    net/eth2\n      phys_port_name = pf0sf1", "eth1", "",
		},
		"the one with a port before those without": {"net/eth0\n    net/eth1\n      phys_port_name = p1\n    net/eth2", "eth1", ""},
		"the one of a port of two digits":          {"net/eth0\n      phys_port_name = p10", "eth0", ""},
		"one that is on its way out":               {"net/eth0\n      phys_port_name ! EINVAL", "eth0", ""},
		"none here": {
			"net", "", "PF 00ab:01:00.0 has no network interface here: bring it back from the network namespace that it is in, or bind it to its network driver",
		},
		"none at all": {"", "", "PF 00ab:01:00.0 has no network interface here"},
		"only representors here": {
			"net/eth0\n      phys_port_name = pf0vf0\n    net/eth1\n      phys_port_name = 3", "",
			"PF 00ab:01:00.0 has only representors here (eth0, eth1): bring its uplink back",
		},
		"two ports": {
			"net/eth0\n      phys_port_name = p0\n    net/eth1\n      phys_port_name = p1", "",
			"PF 00ab:01:00.0 has the interfaces eth0, eth1, and which of them has the VFs cannot be told",
		},
		"two without names":           {"net/eth0\n    net/eth1", "", "has the interfaces eth0, eth1, and which"},
		"one whose name is a failure": {"net/eth0\n      phys_port_name ! EIO", "", "input/output error"},
		"one whose name is huge":      {"net/eth0\n      phys_port_name = " + strings.Repeat("p", 5000), "", "phys_port_name has more than 4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := grow(t, pfAndVF(tc.netDevs, ""))
			vf, err := s.VF("00ab:01:00.1")
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) || !strings.Contains(err.Error(), "VF 00ab:01:00.1") {
					t.Errorf("%+v, %v, want an error about %s", vf, err, tc.wantErr)
				}
			} else if err != nil || vf.PFNetDev != tc.want {
				t.Errorf("%+v, %v, want PF interface %s", vf, err, tc.want)
			}
			if pfs, err := s.PFs(); err != nil || len(pfs) != 1 || pfs[0].NetDev != tc.want {
				t.Errorf("PFs() = %+v, %v, want one with interface %q", pfs, err, tc.want)
			}
		})
	}
}

func TestVFOutOfOrder(t *testing.T) {
	t.Parallel()
	const eth0 = "net/eth0"
	for name, tc := range map[string]struct{ tree, want string }{
		"a VF that its PF does not know": {
			strings.ReplaceAll(pfAndVF(eth0, ""), "virtfn0 -> ../00ab:01:00.1", "virtfn0 -> ../00ab:01:00.2"),
			"VF 00ab:01:00.1: its PF 00ab:01:00.0 does not count it among its VFs",
		},
		"a link that cannot be read": {pfAndVF(eth0, "virtfn1 ! EIO"), "input/output error"},
		"a link to no address":       {pfAndVF(eth0, "virtfn3 -> ../elsewhere"), `virtfn3 leads to "elsewhere" is no PCI address`},
		"a number without bounds":    {pfAndVF(eth0, "virtfn99999999999999999999 -> ../00ab:01:00.2"), "value out of range"},
		"a physfn that loops":        {strings.ReplaceAll(pfAndVF(eth0, ""), "../00ab:01:00.0", "physfn"), "too many levels"},
		"a physfn that escapes":      {strings.ReplaceAll(pfAndVF(eth0, ""), "../00ab:01:00.0", "../../../../x"), "leads out"},
		"an absolute physfn":         {strings.ReplaceAll(pfAndVF(eth0, ""), "../00ab:01:00.0", "/sys/devices/pci00ab:00/00ab:01:00.0"), "leads out"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := grow(t, tc.tree).VF("00ab:01:00.1"); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%+v, %v, want an error about %s", got, err, tc.want)
			}
		})
	}
	t.Run("another VF that is about to go", func(t *testing.T) {
		t.Parallel()
		if vf, err := grow(t, pfAndVF(eth0, "virtfn1 ! ENOENT")).VF("00ab:01:00.1"); err != nil || vf.Index != 0 {
			t.Errorf("%+v, %v", vf, err)
		}
	})
	t.Run("what only looks like a VF's link", func(t *testing.T) {
		t.Parallel()
		s := grow(t, pfAndVF(eth0, "virtfn -> ../00ab:01:00.1\n    virtfnx -> ../00ab:01:00.1\n    virtfn-1 -> ../00ab:01:00.1"))
		if vf, err := s.VF("00ab:01:00.1"); err != nil || vf.Index != 0 {
			t.Errorf("%+v, %v", vf, err)
		}
	})
}

func TestPFs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]sysfs.PF{
		"legacy": {
			{
				Address: "0000:01:00.0", NetDev: "ens1f0", Driver: "i40e", TotalVFs: 64, NumVFs: 5,
				VFs: []sysfs.Address{"0000:01:02.0", "0000:01:02.2", "0000:01:03.1", "0000:01:03.2", "0000:01:03.4"},
			},
			{Address: "0000:01:00.1", Driver: "igb", TotalVFs: 7, NumVFs: 1, VFs: []sysfs.Address{"0000:01:10.1"}},
			{Address: "0000:01:00.2", NetDev: "eth8", Driver: "igb", TotalVFs: 7},
		},
		"switchdev": {
			{Address: "0000:03:00.0", NetDev: "uplink0", Driver: "mlx5_core", TotalVFs: 4, NumVFs: 2, VFs: []sysfs.Address{"0000:03:00.2", "0000:03:00.3"}},
			{Address: "0000:43:00.0", NetDev: "uplink4", Driver: "mlx5_core", TotalVFs: 8, NumVFs: 1, VFs: []sysfs.Address{"0000:43:00.2"}},
			{Address: "0000:63:00.0", NetDev: "uplink6", Driver: "ice", TotalVFs: 8, NumVFs: 1, VFs: []sysfs.Address{"0000:63:01.0"}},
		},
		"odd": {
			{Address: "0000:02:00.0", NetDev: "eth3", Driver: "virtio-pci", TotalVFs: 2, NumVFs: 2, VFs: []sysfs.Address{"0000:02:00.1", "0000:02:00.2"}},
			{Address: "10000:01:00.0", NetDev: "vmd0", TotalVFs: 2, NumVFs: 1, VFs: []sysfs.Address{"10000:01:00.1"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := machine(t, name).PFs()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("of a host without PCI", func(t *testing.T) {
		t.Parallel()
		if got, err := grow(t, "devices/virtual/net/lo").PFs(); err != nil || got != nil {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("are PCI functions", func(t *testing.T) {
		t.Parallel()
		if got, err := grow(t, "bus/pci/devices/function\n  sriov_totalvfs = 8").PFs(); err != nil || got != nil {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("names what it cannot read", func(t *testing.T) {
		t.Parallel()
		got, err := grow(t, strings.ReplaceAll(pfAndVF("net/eth0", ""), "numvfs = 1", "numvfs = one")).PFs()
		if err == nil || !strings.Contains(err.Error(), `sriov_numvfs has "one"`) || !strings.Contains(err.Error(), "PF 00ab:01:00.0") {
			t.Errorf("%v, %v", got, err)
		}
	})
}
