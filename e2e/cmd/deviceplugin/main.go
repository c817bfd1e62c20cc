// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command deviceplugin is a device plugin for tests. It offers the kubelet devices of one resource, each by its name, and describes each
// one that is allocated in a device-info file, as the SR-IOV device plugin does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// retry is how soon the kubelet is tried again; while it restarts there is nothing to wait for but its socket.
const retry = 200 * time.Millisecond

type plugin struct {
	v1beta1.UnimplementedDevicePluginServer
	resource string
	devices  []string
	infoDir  string
	ended    chan struct{} // a value for each stream that the kubelet has left
}

func main() {
	p := &plugin{ended: make(chan struct{}, 1)}
	flag.StringVar(&p.resource, "resource", "", "name of the resource")
	devices := flag.String("devices", "", "names of the devices, separated by commas")
	dir := flag.String("dir", v1beta1.DevicePluginPath, "folder of the kubelet for device plugins")
	flag.StringVar(&p.infoDir, "info-dir", "/var/run/k8s.cni.cncf.io/devinfo/dp", "folder for device-info files")
	flag.Parse()
	p.devices = strings.Split(*devices, ",")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	p.run(ctx, *dir)
	stop()
}

// run offers the devices, anew whenever the kubelet has gone: it forgets them, and takes the sockets away.
func (p *plugin) run(ctx context.Context, dir string) {
	endpoint := strings.ReplaceAll(p.resource, "/", "-") + ".sock"
	for ctx.Err() == nil {
		if err := p.serve(ctx, dir, endpoint); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, err)
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
		}
	}
}

func (p *plugin) serve(ctx context.Context, dir, endpoint string) error {
	path := filepath.Join(dir, endpoint)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	v1beta1.RegisterDevicePluginServer(server, p)
	go func() { _ = server.Serve(listener) }() // it ends when it is stopped
	defer server.Stop()
	if err := p.register(ctx, dir, endpoint); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-p.ended:
	}
	return nil
}

func (p *plugin) register(ctx context.Context, dir, endpoint string) error {
	connection, err := grpc.NewClient("unix://"+filepath.Join(dir, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }() // it has answered
	_, err = v1beta1.NewRegistrationClient(connection).Register(ctx, &v1beta1.RegisterRequest{Version: v1beta1.Version, Endpoint: endpoint, ResourceName: p.resource})
	return err
}

func (p *plugin) GetDevicePluginOptions(context.Context, *v1beta1.Empty) (*v1beta1.DevicePluginOptions, error) {
	return &v1beta1.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *v1beta1.Empty, stream grpc.ServerStreamingServer[v1beta1.ListAndWatchResponse]) error {
	defer func() { p.ended <- struct{}{} }()
	var devices []*v1beta1.Device
	for _, id := range p.devices {
		devices = append(devices, &v1beta1.Device{ID: id, Health: v1beta1.Healthy})
	}
	if err := stream.Send(&v1beta1.ListAndWatchResponse{Devices: devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (p *plugin) Allocate(_ context.Context, r *v1beta1.AllocateRequest) (*v1beta1.AllocateResponse, error) {
	response := &v1beta1.AllocateResponse{}
	for _, c := range r.ContainerRequests {
		for _, id := range c.DevicesIds {
			if err := p.describe(id); err != nil {
				return nil, err
			}
		}
		response.ContainerResponses = append(response.ContainerResponses, &v1beta1.ContainerAllocateResponse{
			Envs: map[string]string{"DEVICES_" + strings.ToUpper(strings.NewReplacer(".", "_", "/", "_", "-", "_").Replace(p.resource)): strings.Join(c.DevicesIds, ",")},
		})
	}
	return response, nil
}

// describe writes the device-info file of a device (Device Information Specification 1.1.0).
func (p *plugin) describe(id string) error {
	if err := os.MkdirAll(p.infoDir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(p.infoDir, strings.ReplaceAll(p.resource+"-"+id, "/", "-")+"-device.json")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(`{"type":"pci","version":"1.1.0","pci":{"pci-address":"`+id+`"}}`), 0o444)
}
