// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// podman is the CNI backend of Podman 4 (containers/common 2f131eecb402, libnetwork/cni/run.go). Of the Kubernetes keys it sends the
// container's name alone.
func podmanConf(r *request, ifName string) *libcni.RuntimeConf {
	args := [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", r.PodName}}
	if r.MAC != "" {
		args = append(args, [2]string{"MAC", r.MAC})
	}
	if r.IP != "" {
		args = append(args, [2]string{"IP", r.IP})
	}
	return &libcni.RuntimeConf{ContainerID: r.ID, NetNS: r.NetNS, IfName: ifName, Args: args, CapabilityArgs: map[string]any{}}
}

// podmanRun is Setup. When a network fails, it tears down those that it has set up and the failed one, and ignores errors of that.
func podmanRun(ctx context.Context, r *request, resp *response) error {
	cni := libcni.NewCNIConfig([]string{r.BinDir}, nil)
	for i, name := range r.Networks {
		ifName := fmt.Sprint("eth", i)
		list, err := libcni.LoadNetworkConf(r.ConfDir, name)
		if err != nil {
			return err
		}
		result, err := cni.AddNetworkList(ctx, list, podmanConf(r, ifName))
		if err == nil {
			if resp.Results[ifName], err = types100.NewResultFromResult(result); err == nil {
				err = podmanReads(resp.Results[ifName])
			}
		}
		if err != nil {
			begun := *r
			begun.Networks = r.Networks[:i+1]
			if teardownErr := podmanStop(ctx, &begun, resp); teardownErr != nil {
				resp.Teardown = teardownErr.Error()
			}
			resp.Forgotten = true
			return err
		}
	}
	return nil
}

// podmanReads is what makes Podman refuse a result.
func podmanReads(result *types100.Result) error {
	for _, i := range result.Interfaces {
		if _, err := net.ParseMAC(i.Mac); i.Sandbox != "" && err != nil {
			return err
		}
	}
	for _, ip := range result.IPs {
		if ip.Interface != nil && *ip.Interface >= len(result.Interfaces) {
			return fmt.Errorf("invalid cni result, interface index %d out of range", *ip.Interface)
		}
	}
	return nil
}

// podmanStop is Teardown, of all networks also after an error, with the configuration and arguments that libcni has cached.
func podmanStop(ctx context.Context, r *request, resp *response) error {
	cni := libcni.NewCNIConfig([]string{r.BinDir}, nil)
	var errs []error
	for i, name := range r.Networks {
		list, rt, err := cachedNetwork(cni, name, podmanConf(r, fmt.Sprint("eth", i)))
		if err != nil {
			rt = podmanConf(r, fmt.Sprint("eth", i))
			if list, err = libcni.LoadNetworkConf(r.ConfDir, name); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, cni.DelNetworkList(ctx, list, rt))
	}
	resp.Forgotten = true
	return errors.Join(errs...)
}

// cachedNetwork is the configuration and the arguments of the ADD of an attachment, from libcni's cache.
func cachedNetwork(cni *libcni.CNIConfig, name string, rt *libcni.RuntimeConf) (*libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	text, cached, err := cni.GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: name}, rt)
	if err != nil {
		return nil, nil, err
	}
	if text == nil {
		return nil, nil, fmt.Errorf("network %s is not in libcni's cache", name)
	}
	list, err := libcni.NetworkConfFromBytes(text)
	return list, cached, err
}
