// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/plexus-cni/plexus/internal/sysfs"
)

func TestRepresentor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pf     string
		number int
		want   string
	}{
		"pf0vf1, with another controller's and an SF beside it": {"uplink0", 1, "eth1"},
		"the own one before that of another controller":         {"uplink0", 0, "eth0"},
		"pf0vf10 is not pf0vf1":                                 {"uplink0", 10, "eth10"},
		"that of a SmartNIC's host":                             {"uplink0", 3, "eth3"},
		"that of another switch is not ours":                    {"uplink0", 7, ""},
		"none":                                                  {"uplink0", 99, ""},
		"an SF's number is not a VF's":                          {"uplink0", 88, ""},
		"a bare number, of an older kernel":                     {"uplink4", 0, "eth20"},
		"none in legacy mode":                                   {"ens1f0", 0, ""},
		"none in legacy mode, where there is a switch ID":       {"uplink6", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := "switchdev"
			if tc.pf == "ens1f0" {
				file = "legacy"
			}
			if got, err := machine(t, file).Representor(tc.pf, tc.number); err != nil || got != tc.want {
				t.Errorf("%q, %v, want %q", got, err, tc.want)
			}
		})
	}
	t.Run("without a switch", func(t *testing.T) {
		t.Parallel()
		s := grow(t, pfAndVF("net/eth0\n      phys_port_name = p0\n    net/eth1\n      phys_port_name = pf0vf0", ""))
		if got, err := s.Representor("eth0", 0); err != nil || got != "" {
			t.Errorf("%q, %v, want none", got, err)
		}
	})
	t.Run("whose name cannot be read", func(t *testing.T) {
		t.Parallel()
		s := grow(t, pfAndVF("net/eth0\n      phys_switch_id = aa\n    net/eth1\n      phys_port_name ! EIO", ""))
		if got, err := s.Representor("eth0", 0); err == nil || !strings.Contains(err.Error(), "representors of eth0") {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("of an SF", func(t *testing.T) {
		t.Parallel()
		s := machine(t, "switchdev")
		if got, err := s.SFRepresentor("uplink0", 88); err != nil || got != "eth5" {
			t.Errorf("%q, %v, want eth5", got, err)
		}
		if got, err := s.SFRepresentor("uplink0", 1); err != nil || got != "" {
			t.Errorf("VF 1 is SF 1: %q, %v", got, err)
		}
	})
	t.Run("of two that could be it", func(t *testing.T) {
		t.Parallel()
		got, err := machine(t, "switchdev").Representor("uplink0", 8)
		if err == nil || !strings.Contains(err.Error(), "uplink0 has the representors eth7, eth8 for vf 8") {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestSwitchdev(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		machine, netDev string
		want            bool
	}{
		{"legacy", "ens1f0", false}, // EOPNOTSUPP
		{"legacy", "lo", false},     // no such file
		{"switchdev", "uplink0", true},
		{"switchdev", "eth0", true},
		{"switchdev", "enp3s0f0v0", false},
	} {
		if got, err := machine(t, tc.machine).Switchdev(tc.netDev); err != nil || got != tc.want {
			t.Errorf("Switchdev(%s) = %t, %v, want %t", tc.netDev, got, err, tc.want)
		}
	}
}

func TestDeviceOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ machine, netDev, want string }{
		{"legacy", "ens1f0v0", "0000:01:02.0"},
		{"switchdev", "eth0", "0000:03:00.0"},
		{"switchdev", "enp3s0f0s88", "mlx5_core.sf.4"},
		{"odd", "eth4", "0000:02:00.1"},
		{"odd", "vmd0v0", "10000:01:00.1"},
		{"odd", "soc1", "soc_nic.sf.1"},
		{"legacy", "lo", ""},
		{"legacy", "ens1f0.100.5", ""},
		{"legacy", "enx0", ""},
		{"legacy", "bonding_masters", ""},
		{"legacy", "nope", ""},
	} {
		got, err := machine(t, tc.machine).DeviceOf(tc.netDev)
		if got != tc.want || (err == nil) != (tc.want != "") || (err != nil && !errors.Is(err, sysfs.ErrNotFound)) {
			t.Errorf("DeviceOf(%s) = %q, %v, want %q", tc.netDev, got, err, tc.want)
		}
	}
}

func TestLinkType(t *testing.T) {
	t.Parallel()
	s := grow(t, `
devices/virtual
  net/lo
    type = 772
  net/ib0
    type = 32
  net/huge0
    type = 65536
  net/none0
    type = ethernet
  net/empty0
    address = 02:00:00:00:00:01
`)
	for name, want := range map[string]int{"lo": 772, "ib0": 32} {
		if got, err := s.LinkType(name); err != nil || got != want {
			t.Errorf("LinkType(%s) = %d, %v, want %d", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"huge0": `net/huge0/type has "65536"`, "none0": `net/none0/type has "ethernet"`, "empty0": "interface empty0: ", "nope": `no interface "nope"`,
	} {
		if got, err := s.LinkType(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("LinkType(%s) = %d, %v, want an error about %s", name, got, err, want)
		}
	}
}

func TestInterfacesThatAreNone(t *testing.T) {
	t.Parallel()
	s := grow(t, "devices/pci0000:00/0000:03:02.1/net/eth0\n  type = 1\n  phys_switch_id = aa\nclass/net\n  out -> ../../../eth0\n  loop -> loop\n  gone -> ../../devices/gone")
	calls := map[string]func(string) error{
		"Switchdev":     func(n string) error { _, err := s.Switchdev(n); return err },
		"DeviceOf":      func(n string) error { _, err := s.DeviceOf(n); return err },
		"LinkType":      func(n string) error { _, err := s.LinkType(n); return err },
		"Representor":   func(n string) error { _, err := s.Representor(n, 0); return err },
		"SFRepresentor": func(n string) error { _, err := s.SFRepresentor(n, 0); return err },
	}
	for call, do := range calls {
		if err := do("eth0"); err != nil {
			t.Errorf("%s(eth0): %v", call, err)
		}
		for name, want := range map[string]string{
			"": "no name of an interface", ".": "no name of an interface", "..": "no name of an interface", "eth0/../eth0": "no name of an interface",
			"/sys/class/net/eth0": "no name of an interface", "eth0\x00": "no name of an interface",
			"out": "leads out", "loop": "too many levels", "gone": "no such device", "nope": "no such device", strings.Repeat("x", 5000): "no such device",
		} {
			err := do(name)
			if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
				t.Errorf("%s(%.20q): %v, want an error about %s", call, name, err, want)
			}
			if errors.Is(err, sysfs.ErrNotFound) != (want == "no such device") {
				t.Errorf("%s(%.20q): %v matches ErrNotFound: %t", call, name, err, errors.Is(err, sysfs.ErrNotFound))
			}
		}
	}
}

// Wherever the link of an interface leads: the walk ends, within the tree, at a device or nowhere.
func FuzzDeviceOf(f *testing.F) {
	for _, seed := range [][2]string{
		{"../../devices/pci0000:00/0000:03:02.1/net/eth0", "up"},
		{"../../devices/pci0000:00/0000:03:02.1/mlx5_core.sf.4/net/eth0", "../up"},
		{"../../devices/pci0000:00/0000:03:02.1/usb1/1-1/net/eth0", "."},
		{"eth0", "/sys"},
		{"..", ".."},
		{"../../loop/loop/loop/0000:03:02.1", "../loop/loop"},
		{"../../loop/../loop/..//devices/", "devices/../devices"},
		{"\xff", "\x00"},
	} {
		f.Add("eth0", seed[0], seed[1])
	}
	f.Add("../eth0", "", "")
	f.Fuzz(func(t *testing.T, netDev, target, loop string) {
		s := sysfs.From(fstest.MapFS{
			"class/net/eth0": {Mode: fs.ModeSymlink, Data: []byte(target)},
			"loop":           {Mode: fs.ModeSymlink, Data: []byte(loop)},
			"devices/pci0000:00/0000:03:02.1/net/eth0/type":                {Data: []byte("1")},
			"devices/pci0000:00/0000:03:02.1/mlx5_core.sf.4/net/eth0/type": {Data: []byte("1")},
			"devices/pci0000:00/0000:03:02.1/usb1/1-1/net/eth0/type":       {Data: []byte("1")},
		})
		id, err := s.DeviceOf(netDev)
		if err == nil && id != "0000:03:02.1" && id != "mlx5_core.sf.4" {
			t.Errorf("DeviceOf(%q) = %q", netDev, id)
		}
		if err != nil && id != "" {
			t.Errorf("DeviceOf(%q) = %q, %v", netDev, id, err)
		}
		if err == nil && strings.HasPrefix(target, "/") {
			t.Errorf("an absolute link led to %s", id)
		}
	})
}
