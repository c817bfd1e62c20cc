// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxDeviceInfoBytes bounds a device-info file, which is a few hundred bytes long.
const maxDeviceInfoBytes = 64 << 10

// DeviceInfo tells a pod about the device behind an interface. NPWG Device Information Specification v1.1.0.
type DeviceInfo struct {
	// Type is pci, vdpa, vhost-user or memif, and names the field that is set.
	Type string `json:"type,omitempty"`
	// Version is that of the specification, like 1.1.0.
	Version   string           `json:"version,omitempty"`
	PCI       *PCIDevice       `json:"pci,omitempty"`
	VDPA      *VDPADevice      `json:"vdpa,omitempty"`
	VhostUser *VhostUserDevice `json:"vhost-user,omitempty"`
	Memif     *MemifDevice     `json:"memif,omitempty"`
}

// PCIDevice is a PCI function; addresses are like 0000:03:02.1.
type PCIDevice struct {
	PCIAddress        string `json:"pci-address,omitempty"`
	VhostNet          string `json:"vhost-net,omitempty"`
	RDMADevice        string `json:"rdma-device,omitempty"`
	PFPCIAddress      string `json:"pf-pci-address,omitempty"`
	RepresentorDevice string `json:"representor-device,omitempty"`
}

// VDPADevice is a vDPA device; its driver is vhost or virtio.
type VDPADevice struct {
	ParentDevice      string `json:"parent-device,omitempty"`
	Driver            string `json:"driver,omitempty"`
	Path              string `json:"path,omitempty"`
	PCIAddress        string `json:"pci-address,omitempty"`
	PFPCIAddress      string `json:"pf-pci-address,omitempty"`
	RepresentorDevice string `json:"representor-device,omitempty"`
}

// VhostUserDevice is the socket of a vhost-user port; its mode is client or server.
type VhostUserDevice struct {
	Mode string `json:"mode,omitempty"`
	Path string `json:"path,omitempty"`
}

// MemifDevice is the socket of a memif port; its role is master or slave, its mode ethernet, ip or inject-punt.
type MemifDevice struct {
	Role string `json:"role,omitempty"`
	Path string `json:"path,omitempty"`
	Mode string `json:"mode,omitempty"`
}

// ParseDeviceInfo reads a device-info file of at most 64 KiB, of a known type and of a version 1.x.y. Unknown keys are ignored: a
// later minor version may add some.
func ParseDeviceInfo(data []byte) (*DeviceInfo, error) {
	if len(data) > maxDeviceInfoBytes {
		return nil, fmt.Errorf("device-info has %d bytes: the plugin that writes it has to keep to %d", len(data), maxDeviceInfoBytes)
	}
	var info DeviceInfo
	if err := json.Unmarshal(data, &info); err != nil {
		return nil, fmt.Errorf("device-info %s: %w: correct the plugin that writes it", quoted(string(data)), jsonError(err))
	}
	if types := []string{"pci", "vdpa", "vhost-user", "memif"}; !slices.Contains(types, info.Type) {
		return nil, fmt.Errorf("device-info: %w", fieldError("type", info.Type, "is unknown: the plugin that writes it has to give one of %s", strings.Join(types, ", ")))
	}
	if !isVersion1(info.Version) {
		return nil, fmt.Errorf("device-info: %w", fieldError("version", info.Version, "is not supported: the plugin that writes it has to give 1.x.y, like 1.1.0"))
	}
	return &info, nil
}

func isVersion1(version string) bool {
	parts := strings.Split(version, ".")
	notNumber := func(part string) bool {
		_, err := strconv.ParseUint(part, 10, 16)
		return err != nil
	}
	return len(parts) == 3 && parts[0] == "1" && !slices.ContainsFunc(parts, notNumber)
}
