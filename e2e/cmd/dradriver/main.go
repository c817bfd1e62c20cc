// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command dradriver is a DRA driver for tests. It publishes devices with the attributes by which a meta-plugin finds them, and prepares
// claims by doing nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

type driver struct{ pool string }

func main() {
	name := flag.String("driver", "", "name of the driver")
	resource := flag.String("resource", "", "name of the resource that the devices are of")
	devices := flag.String("devices", "", "names of the devices, separated by commas")
	plain := flag.String("plain", "", "names of devices without those attributes, as of other kinds")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, *name, *resource, split(*devices), split(*plain))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func run(ctx context.Context, name, resource string, devices, plain []string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	node := os.Getenv("NODE_NAME")
	data := "/var/lib/kubelet/plugins/" + name
	if err := os.MkdirAll(data, 0o750); err != nil {
		return err
	}
	d := &driver{pool: node}
	helper, err := kubeletplugin.Start(ctx, d, kubeletplugin.DriverName(name), kubeletplugin.NodeName(node), kubeletplugin.KubeClient(client),
		kubeletplugin.PluginDataDirectoryPath(data), kubeletplugin.RegistrarDirectoryPath("/var/lib/kubelet/plugins_registry"))
	if err != nil {
		return err
	}
	defer helper.Stop()
	var slice resourceslice.Slice
	for _, id := range devices {
		slice.Devices = append(slice.Devices, resourceapi.Device{
			Name: id,
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"k8s.cni.cncf.io/deviceID":     {StringValue: &id},
				"k8s.cni.cncf.io/resourceName": {StringValue: &resource},
				"kind":                         {StringValue: new("link")},
			},
		})
	}
	for _, id := range plain {
		slice.Devices = append(slice.Devices, resourceapi.Device{
			Name: id, Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"kind": {StringValue: new("plain")}},
		})
	}
	if err := helper.PublishResources(ctx, resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{d.pool: {Slices: []resourceslice.Slice{slice}}}}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// PrepareResourceClaims implements [kubeletplugin.DRAPlugin].
func (d *driver) PrepareResourceClaims(_ context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		var result kubeletplugin.PrepareResult
		for _, allocated := range claim.Status.Allocation.Devices.Results {
			result.Devices = append(result.Devices, kubeletplugin.Device{Requests: []string{allocated.Request}, PoolName: allocated.Pool, DeviceName: allocated.Device})
		}
		results[claim.UID] = result
	}
	return results, nil
}

// UnprepareResourceClaims implements [kubeletplugin.DRAPlugin].
func (d *driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := map[types.UID]error{}
	for _, claim := range claims {
		results[claim.UID] = nil
	}
	return results, nil
}

// HandleError implements [kubeletplugin.DRAPlugin].
func (d *driver) HandleError(_ context.Context, err error, message string) {
	fmt.Fprintln(os.Stderr, message, err)
}

// WatchHealthStatus implements [kubeletplugin.DRAPlugin].
func (d *driver) WatchHealthStatus(context.Context, chan<- kubeletplugin.DeviceHealthReport) error {
	return kubeletplugin.ErrHealthNotSupported
}
