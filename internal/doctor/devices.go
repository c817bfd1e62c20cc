// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/plexus-cni/plexus/internal/inspect"
)

// kubeletSocket is the kubelet's own among those of device plugins.
const kubeletSocket = "kubelet.sock"

// checkDevices looks whether the kubelet and the device plugins answer. How many devices there are, the API server knows.
func (d *Doctor) checkDevices(ctx context.Context, n *node) ([]Finding, error) {
	used := slices.ContainsFunc(n.chosen, func(p inspect.Pod) bool {
		return slices.ContainsFunc(p.Interfaces, func(i inspect.Interface) bool { return i.Device != "" })
	})
	if !used && d.Choose != nil {
		return nil, nil
	}
	var found []Finding
	resources := filepath.Join(d.Paths.Kubelet, "pod-resources", kubeletSocket)
	if _, err := os.Stat(d.Paths.Kubelet); err == nil && n.conf != nil && n.conf.cfg.DaemonSocketDir != "" {
		if err := dial(ctx, resources); err != nil {
			found = append(found, newFinding(DevicesUnknown, "kubelet socket "+resources, oneLine(err.Error())+": which devices a pod was given cannot be found out, so that pods of networks with a device are not attached", "start the kubelet; it may have another root folder (--root-dir)"))
		}
	}
	dir := filepath.Join(d.Paths.Kubelet, "device-plugins")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return found, err
	}
	for _, e := range entries {
		if e.Type() != os.ModeSocket || e.Name() == kubeletSocket {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := dial(ctx, path); errors.Is(err, syscall.ECONNREFUSED) {
			found = append(found, newFinding(DevicePluginGone, "device plugin "+path, fmt.Sprintf("no process listens on %s, so pods are not given its devices", e.Name()), "start that device plugin's pod on this node; if it is no longer used, remove the socket"))
		}
	}
	return found, nil
}

func dial(ctx context.Context, socket string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}
