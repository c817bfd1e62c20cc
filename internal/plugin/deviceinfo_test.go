// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// devices is a host with one VF.
type devices struct {
	vf             sysfs.VF
	representor    string
	vfErr, portErr error
}

func (d devices) VF(a sysfs.Address) (*sysfs.VF, error) {
	if d.vfErr != nil {
		return nil, d.vfErr
	}
	if a != d.vf.Address {
		return nil, sysfs.ErrNotFound
	}
	return &d.vf, nil
}

func (d devices) Representor(pf string, index int) (string, error) {
	if pf != d.vf.PFNetDev || index != d.vf.Index {
		return "", sysfs.ErrNotFound
	}
	return d.representor, d.portErr
}

func TestCompleteDeviceInfo(t *testing.T) {
	t.Parallel()
	host := devices{vf: sysfs.VF{Address: "0000:03:02.1", Index: 1, PF: "0000:03:00.0", PFNetDev: "ens1"}, representor: "ens1_1"}
	broken := errors.New("input/output error")
	pci := func(address, pf, representor string) *annotations.DeviceInfo {
		return &annotations.DeviceInfo{Type: "pci", PCI: &annotations.PCIDevice{PCIAddress: address, PFPCIAddress: pf, RepresentorDevice: representor}}
	}
	vdpa := func(pf, representor string) *annotations.DeviceInfo {
		return &annotations.DeviceInfo{Type: "vdpa", VDPA: &annotations.VDPADevice{PCIAddress: "0000:03:02.1", PFPCIAddress: pf, RepresentorDevice: representor}}
	}
	tests := map[string]struct {
		host       PCI
		info, want *annotations.DeviceInfo
		warns      string
	}{
		"a VF":                           {host, pci("0000:03:02.1", "", ""), pci("0000:03:02.1", "0000:03:00.0", "ens1_1"), ""},
		"a vDPA device of a VF":          {host, vdpa("", ""), vdpa("0000:03:00.0", "ens1_1"), ""},
		"what a plugin wrote stays":      {host, pci("0000:03:02.1", "pf", ""), pci("0000:03:02.1", "pf", "ens1_1"), ""},
		"all of it":                      {devices{vfErr: broken}, pci("0000:03:02.1", "pf", "r"), pci("0000:03:02.1", "pf", "r"), ""},
		"no VF":                          {devices{vfErr: sysfs.ErrNotVF}, pci("0000:03:00.0", "", ""), pci("0000:03:00.0", "", ""), ""},
		"a device that the host has not": {host, pci("0000:03:02.7", "", ""), pci("0000:03:02.7", "", ""), ""},
		"a device that is none of PCI":   {host, pci("dp0", "", ""), pci("dp0", "", ""), ""},
		"another type":                   {host, &annotations.DeviceInfo{Type: "memif", Memif: &annotations.MemifDevice{}}, &annotations.DeviceInfo{Type: "memif", Memif: &annotations.MemifDevice{}}, ""},
		"nothing":                        {host, nil, nil, ""},
		"a host that is not looked at":   {nil, pci("0000:03:02.1", "", ""), pci("0000:03:02.1", "", ""), ""},
		"a host that can not be read":    {devices{vfErr: broken}, pci("0000:03:02.1", "", ""), pci("0000:03:02.1", "", ""), "0000:03:02.1"},
		"a representor that can not be found": {
			devices{vf: host.vf, portErr: broken}, pci("0000:03:02.1", "", ""), pci("0000:03:02.1", "0000:03:00.0", ""), "representor",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			c := &call{Plugin: &Plugin{PCI: tc.host}, log: slog.New(slog.NewTextHandler(&log, nil))}
			c.completeDeviceInfo(tc.info)
			if diff := cmp.Diff(tc.want, tc.info); diff != "" {
				t.Errorf("device-info (-want +got):\n%s", diff)
			}
			if (log.Len() > 0) != (tc.warns != "") || !strings.Contains(log.String(), tc.warns) {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}
