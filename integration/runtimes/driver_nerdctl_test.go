// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"context"
	"fmt"

	gocni "github.com/containerd/go-cni"
	"github.com/containernetworking/cni/libcni"
)

// nerdctl is its OCI hook (nerdctl 03ead5c8e397, pkg/ocihook/ocihook.go): one list for each --net, by name.
func nerdctl(r *request) (gocni.CNI, error) {
	options := []gocni.Opt{gocni.WithPluginDir([]string{r.BinDir})}
	for _, name := range r.Networks {
		list, err := libcni.LoadNetworkConf(r.ConfDir, name)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", name, err)
		}
		options = append(options, gocni.WithConfListBytes(list.Bytes))
	}
	return gocni.New(options...)
}

func nerdctlOptions(r *request) []gocni.NamespaceOpts {
	options := []gocni.NamespaceOpts{
		gocni.WithLabels(map[string]string{"IgnoreUnknown": "1"}),
		gocni.WithArgs("NERDCTL_CNI_DHCP_HOSTNAME", r.PodName),
	}
	if r.IP != "" {
		options = append(options, gocni.WithArgs("IP", r.IP))
	}
	if r.MAC != "" {
		options = append(options, gocni.WithArgs("MAC", r.MAC))
	}
	return options
}

// nerdctlRun is the hook createRuntime. The container may be restarted under its ID, so its former networks are removed first, without
// a namespace, and errors of that are ignored. After a failed set-up nothing is removed: the hook postStop returns early then.
func nerdctlRun(ctx context.Context, r *request, resp *response) error {
	network, err := nerdctl(r)
	if err != nil {
		return err
	}
	if err = network.Remove(ctx, r.ID, "", nerdctlOptions(r)...); err != nil {
		resp.Teardown = err.Error()
	}
	result, err := network.Setup(ctx, r.ID, r.NetNS, nerdctlOptions(r)...)
	if err != nil {
		resp.Forgotten = true
		return err
	}
	for i, raw := range result.Raw() {
		resp.Results[fmt.Sprint("eth", i)] = raw
	}
	return nil
}

// nerdctlStop is the hook postStop: the process, and with it the namespace, is gone.
func nerdctlStop(ctx context.Context, r *request, resp *response) error {
	network, err := nerdctl(r)
	if err != nil {
		return err
	}
	resp.Forgotten = true
	return network.Remove(ctx, r.ID, "", nerdctlOptions(r)...)
}
