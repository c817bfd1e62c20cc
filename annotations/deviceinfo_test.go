// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDeviceInfoReads(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		data string
		want DeviceInfo
	}{
		"pci": {
			`{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.1","vhost-net":"/dev/vhost-net","rdma-device":"mlx5_2","pf-pci-address":"0000:03:00.0","representor-device":"eth5"}}`,
			DeviceInfo{Type: "pci", Version: "1.1.0", PCI: &PCIDevice{PCIAddress: "0000:03:02.1", VhostNet: "/dev/vhost-net", RDMADevice: "mlx5_2", PFPCIAddress: "0000:03:00.0", RepresentorDevice: "eth5"}},
		},
		"vdpa": {
			`{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa1","driver":"vhost","path":"/dev/vhost-vdpa1","pci-address":"0000:03:02.1","pf-pci-address":"0000:03:00.0","representor-device":"eth5"}}`,
			DeviceInfo{Type: "vdpa", Version: "1.1.0", VDPA: &VDPADevice{ParentDevice: "vdpa1", Driver: "vhost", Path: "/dev/vhost-vdpa1", PCIAddress: "0000:03:02.1", PFPCIAddress: "0000:03:00.0", RepresentorDevice: "eth5"}},
		},
		"vhost-user of version 1.0.0": {
			`{"type":"vhost-user","version":"1.0.0","vhost-user":{"mode":"client","path":"/run/s"}}`,
			DeviceInfo{Type: "vhost-user", Version: "1.0.0", VhostUser: &VhostUserDevice{Mode: "client", Path: "/run/s"}},
		},
		"memif, unknown keys ignored": {
			`{"type":"memif","version":"1.1.0","memif":{"role":"master","path":"/run/m","mode":"ethernet","x":1},"y":2}`,
			DeviceInfo{Type: "memif", Version: "1.1.0", Memif: &MemifDevice{Role: "master", Path: "/run/m", Mode: "ethernet"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseDeviceInfo([]byte(tc.data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Errorf("ParseDeviceInfo (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseDeviceInfoRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ data, says string }{
		"nothing":              {"", `device-info "": no valid JSON at byte 0: unexpected end of JSON input: correct the plugin`},
		"null":                 {"null", `type "" is unknown: the plugin that writes it has to give one of pci, vdpa, vhost-user, memif`},
		"array":                {"[]", `device-info "[]": its JSON is of the wrong type (array): write an object`},
		"trailing data":        {`{"type":"pci","version":"1.1.0"} x`, "after top-level value"},
		"unknown type":         {`{"type":"vfio","version":"1.1.0"}`, `type "vfio" is unknown`},
		"no version":           {`{"type":"pci"}`, `version "" is not supported: the plugin that writes it has to give 1.x.y, like 1.1.0`},
		"another version":      {`{"type":"pci","version":"2.0.0"}`, `version "2.0.0" is not supported`},
		"version of two parts": {`{"type":"pci","version":"1.1"}`, `version "1.1" is not supported`},
		"version with letters": {`{"type":"pci","version":"1.1.x"}`, `version "1.1.x" is not supported`},
		"too long":             {`{"type":"pci","version":"1.1.0"}` + strings.Repeat(" ", maxDeviceInfoBytes), "has 65568 bytes: the plugin that writes it has to keep to 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := ParseDeviceInfo([]byte(tc.data)); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("ParseDeviceInfo = %v, %v; want an error saying %q", got, err, tc.says)
			}
		})
	}
}

// FuzzParseDeviceInfo: what is accepted is of a known type and reads back from its JSON.
func FuzzParseDeviceInfo(f *testing.F) {
	f.Add([]byte(`{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.1"}}`))
	f.Add([]byte(`{"type":"memif","version":"1.0.0","memif":{},"pci":null}`))
	f.Add([]byte(`{"type":"vdpa","version":"1.1.x"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := ParseDeviceInfo(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(info)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > maxDeviceInfoBytes {
			return // JSON's escapes are longer than what they stand for
		}
		again, err := ParseDeviceInfo(text)
		if err != nil {
			t.Fatalf("ParseDeviceInfo(%s): %v", text, err)
		}
		if diff := cmp.Diff(info, again); diff != "" {
			t.Errorf("after JSON (-want +got):\n%s", diff)
		}
	})
}
