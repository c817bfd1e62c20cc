// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
)

const (
	silent    = `{"name":"vf","type":"vf"}`
	declaring = `{"name":"vf","type":"vf","capabilities":{"CNIDeviceInfoFile":true}}`
)

func TestDeviceInfoFilesOfAPlan(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 240)
	tests := map[string]struct {
		config   string
		network  Network
		file, dp string
	}{
		"no device, and nobody who asks":        {silent, Network{Name: "shop/vf"}, "", ""},
		"a plugin that asks":                    {declaring, Network{Name: "shop/vf"}, "cni/shop-vf-c1_net1", ""},
		"a device of a resource":                {silent, Network{Name: "shop/vf", Device: "0000:03:02.1", ResourceName: "intel.com/vf"}, "cni/shop-vf-c1_net1", "dp/intel.com-vf-0000:03:02.1-device.json"},
		"slashes in an ID":                      {silent, Network{Name: "shop/vf", Device: "a/../b", ResourceName: "r/../x"}, "cni/shop-vf-c1_net1", "dp/r-..-x-a-..-b-device.json"},
		"a device of nobody":                    {silent, Network{Name: "shop/vf", Device: "0000:03:02.1"}, "", ""},
		"a device that no file can be about":    {silent, Network{Name: "shop/vf", Device: long, ResourceName: "intel.com/vf"}, "", ""},
		"a network that no file can be about":   {declaring, Network{Name: "shop/" + long + "0123456789", Device: "a", ResourceName: "r"}, "", ""},
		"such a device, and a plugin that asks": {declaring, Network{Name: "shop/vf", Device: long, ResourceName: "intel.com/vf"}, "cni/shop-vf-c1_net1", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.network.List = list(t, tc.config)
			tc.network.Claimed = &pod.ClaimedDevice{Claim: "c"}
			r := request(t, tc.network)
			a := mustPlan(t, r).Attachments[1]
			under := func(file string) string {
				if file == "" {
					return ""
				}
				return filepath.Join(r.DeviceInfoDir, file)
			}
			want := [2]string{under(tc.file), under(tc.dp)}
			if diff := cmp.Diff(want, [2]string{a.DeviceInfoFile, a.DeviceInfoSource}); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if got := string(a.CapabilityArgs[capDeviceInfoFile]); (got == "") != (tc.file == "") || (got != "" && got != `"`+want[0]+`"`) {
				t.Errorf("capability args %s", got)
			}
			if a.Claimed != tc.network.Claimed {
				t.Errorf("claimed %+v", a.Claimed)
			}
		})
	}
	r := request(t, Network{Name: "shop/vf", List: list(t, declaring), Device: "a", ResourceName: "r"})
	r.DeviceInfoDir = ""
	if a := mustPlan(t, r).Attachments[1]; a.DeviceInfoFile != "" || a.DeviceInfoSource != "" {
		t.Errorf("files %q, %q without a folder", a.DeviceInfoFile, a.DeviceInfoSource)
	}
}

func mustPlan(t *testing.T, r Request) *Plan {
	t.Helper()
	p, err := NewPlan(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestX5WhatADevicePluginWrote(t *testing.T) {
	t.Parallel()
	const written = `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.1","rdma-device":"mlx5_2"},"later":7}`
	tests := map[string]struct {
		dp, left string // files before the ADD; "" for none
		file     string // the CNI file after it
		warns    bool
	}{
		"is what the plugin finds":                   {dp: written, file: written},
		"in the place of what a crash left":          {dp: written, left: `{"type":"memif","version":"1.1.0"}`, file: written},
		"is not there, and of a crash nothing stays": {left: `{"type":"memif","version":"1.1.0"}`},
		"is not there":                               {},
		"is no device-info":                          {dp: `{"type":"pci"`, warns: true},
		"is of a type that nobody knows yet":         {dp: `{"type":"quantum","version":"1.1.0"}`, warns: true},
		"is too large":                               {dp: strings.Repeat(" ", maxDeviceInfoBytes) + written, warns: true},
		"is empty":                                   {dp: " ", warns: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := request(t, Network{Name: "shop/vf", List: list(t, silent), Device: "0000:03:02.1", ResourceName: "intel.com/vf"})
			r.DeviceInfoDir = t.TempDir()
			p := mustPlan(t, r)
			a := &p.Attachments[1]
			for path, text := range map[string]string{a.DeviceInfoSource: tc.dp, a.DeviceInfoFile: tc.left} {
				if text != "" {
					if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o444)); err != nil {
						t.Fatal(err)
					}
				}
			}
			e, _ := executor(t, &host{})
			warned := ""
			e.Warn = func(text string) { warned = text }
			if err := e.Add(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(a.DeviceInfoFile)
			if string(got) != tc.file || (tc.file == "" && !errors.Is(err, fs.ErrNotExist)) {
				t.Errorf("file %s, %v; want %s", got, err, tc.file)
			}
			if (warned != "") != tc.warns || (tc.warns && !strings.Contains(warned, a.DeviceInfoSource)) {
				t.Errorf("warned: %q", warned)
			}
			info, err := a.DeviceInfo()
			if err != nil {
				t.Fatal(err)
			}
			want := (*annotations.DeviceInfo)(nil)
			if tc.file != "" {
				want = &annotations.DeviceInfo{Type: "pci", Version: "1.1.0", PCI: &annotations.PCIDevice{PCIAddress: "0000:03:02.1", RDMADevice: "mlx5_2"}}
			}
			if diff := cmp.Diff(want, info); diff != "" {
				t.Errorf("device-info (-want +got):\n%s", diff)
			}
			if err := e.Del(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(r.DeviceInfoDir, "cni", "shop-vf-c1_net1")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after DEL the file is there: %v", err)
			}
			if _, err := os.Stat(filepath.Join(r.DeviceInfoDir, "dp", "intel.com-vf-0000:03:02.1-device.json")); tc.dp != "" && err != nil {
				t.Errorf("the device plugin's own file: %v", err)
			}
		})
	}
}

// TestADeviceInfoFileThatIsNone: opening a pipe would wait for ever.
func TestADeviceInfoFileThatIsNone(t *testing.T) {
	t.Parallel()
	if _, err := readDeviceInfo(t.TempDir()); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("readDeviceInfo of a folder = %v", err)
	}
}
