// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/plexus-cni/plexus/internal/pod"
)

// DefaultCheckpoint is where the kubelet's device manager keeps what it gave to whom, unless its root directory was moved.
const DefaultCheckpoint = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"

// maxCheckpointBytes bounds the file: some kilobytes for each container that has devices.
const maxCheckpointBytes = 16 << 20

// readCheckpoint reads which devices a pod has. The kubelet replaces the file as a whole, so that it is never seen half written.
func readCheckpoint(path, uid string) ([]pod.Device, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, maxCheckpointBytes+1))
	if err != nil {
		return nil, err
	}
	devices, err := parseCheckpoint(data, uid)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return devices, nil
}

// parseCheckpoint reads the format of Kubernetes 1.20 and later. Its checksum is one over Go values of the kubelet and means nothing to
// others. The file has containers in no order, and not the pod's: they are sorted by name. A pod that is not in it was given
// nothing, or is not written yet: that cannot be told, and is an error.
func parseCheckpoint(data []byte, uid string) ([]pod.Device, error) {
	if len(data) > maxCheckpointBytes {
		return nil, fmt.Errorf("more than %d bytes", maxCheckpointBytes)
	}
	var checkpoint struct {
		Data struct {
			PodDeviceEntries []struct {
				PodUID        string
				ContainerName string
				ResourceName  string
				// DeviceIDs are by NUMA node; -1 stands for none.
				DeviceIDs map[int64][]string
			}
		}
	}
	if err := json.Unmarshal(data, &checkpoint); err != nil {
		return nil, fmt.Errorf("not a device checkpoint of Kubernetes 1.20 or later: %w", err)
	}
	containers := map[string][]pod.Device{}
	for _, e := range checkpoint.Data.PodDeviceEntries {
		if e.PodUID != uid {
			continue
		}
		for _, ids := range e.DeviceIDs {
			for _, id := range ids {
				containers[e.ContainerName] = append(containers[e.ContainerName], pod.Device{Resource: e.ResourceName, ID: id})
			}
		}
	}
	if len(containers) == 0 {
		return nil, errors.New("the pod is not in it (yet)")
	}
	var devices []pod.Device
	for _, name := range slices.Sorted(maps.Keys(containers)) {
		devices = append(devices, sortedDevices(containers[name])...)
	}
	return distinct(devices, func(d pod.Device) [2]string { return [2]string{d.Resource, d.ID} }), nil
}
