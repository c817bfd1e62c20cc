// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"context"
	"errors"
	"time"

	gocni "github.com/containerd/go-cni"
)

// containerd is the network part of its CRI plugin (containerd 2.4.2, internal/cri/server: sandbox_run.go, sandbox_stop.go,
// service_linux.go, status.go).
func containerd(r *request) (gocni.CNI, error) {
	// Its default has the plugin loopback, as a network of its own.
	network, err := gocni.New(gocni.WithMinNetworkCount(2), gocni.WithPluginConfDir(r.ConfDir), gocni.WithPluginMaxConfNum(r.MaxConfNum),
		gocni.WithPluginDir([]string{r.BinDir}))
	if err != nil {
		return nil, err
	}
	return network, network.Load(gocni.WithLoNetwork, gocni.WithDefaultConf)
}

func containerdOptions(r *request) []gocni.NamespaceOpts {
	labels := map[string]string{}
	for _, pair := range r.podArgs() {
		labels[pair[0]] = pair[1]
	}
	return []gocni.NamespaceOpts{
		gocni.WithLabels(labels),
		gocni.WithCapability("io.kubernetes.cri.pod-annotations", map[string]string{"example.com/a": "b"}),
		gocni.WithCapabilityDNS(gocni.DNS{Servers: []string{"10.96.0.10"}}),
		gocni.WithCapabilityCgroupPath("/kubepods/pod" + r.PodUID),
	}
}

// patience is the context of a request of the kubelet's. libcni kills the plugin at its end.
func (r *request) patience(ctx context.Context) context.Context {
	if r.Timeout == 0 {
		return ctx
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// containerdRun is RunPodSandbox. After a failed set-up it tears down once, within a minute. It ignores the error of that, removes the
// namespace and forgets the sandbox: the kubelet's next try has another ID.
func containerdRun(ctx context.Context, r *request, resp *response) error {
	network, err := containerd(r)
	if err != nil {
		return err
	}
	result, err := network.Setup(r.patience(ctx), r.ID, r.NetNS, containerdOptions(r)...)
	if err == nil {
		for i, raw := range result.Raw()[1:] {
			resp.Results["eth"+string(rune('0'+i))] = raw
		}
		if eth0, ok := result.Interfaces["eth0"]; !ok || len(eth0.IPConfigs) == 0 {
			err = errors.New("no network info for the sandbox: eth0 has no address")
		}
	}
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if removeErr := network.Remove(ctx, r.ID, r.NetNS, containerdOptions(r)...); removeErr != nil {
		resp.Teardown = removeErr.Error()
	}
	resp.Forgotten = true
	return err
}

// containerdStop is StopPodSandbox of a sandbox whose set-up succeeded. Its namespace path is empty when the namespace is gone. When the
// error is none, or go-cni takes it for none, it is not called again.
func containerdStop(ctx context.Context, r *request, resp *response) error {
	network, err := containerd(r)
	if err != nil {
		return err
	}
	if err = network.Remove(ctx, r.ID, r.NetNS, containerdOptions(r)...); err != nil {
		return err
	}
	resp.Forgotten = true
	return nil
}

// containerdStatus is CRI's Status.
func containerdStatus(_ context.Context, r *request, _ *response) error {
	network, err := containerd(r)
	if err != nil {
		return err
	}
	return network.Status()
}

// containerdCheck is no part of CRI, but of go-cni.
func containerdCheck(ctx context.Context, r *request, _ *response) error {
	network, err := gocni.New(gocni.WithPluginConfDir(r.ConfDir), gocni.WithPluginMaxConfNum(r.MaxConfNum), gocni.WithPluginDir([]string{r.BinDir}))
	if err != nil {
		return err
	}
	if err = network.Load(gocni.WithDefaultConf); err != nil {
		return err
	}
	return network.Check(ctx, r.ID, r.NetNS, containerdOptions(r)...)
}
