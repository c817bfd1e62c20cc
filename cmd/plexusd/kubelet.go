// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/plexus-cni/plexus/internal/kube"
)

// kubeletOptions are the flags about where the kubelet tells which devices it gave to pods.
type kubeletOptions struct{ socket, checkpoint string }

func (o *kubeletOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.socket, "pod-resources-socket", kube.DefaultPodResourcesSocket, "the kubelet's podresources socket; it is in pod-resources of the kubelet's root directory")
	f.StringVar(&o.checkpoint, "device-checkpoint", kube.DefaultCheckpoint, "the kubelet's device checkpoint, read when the socket is of no use and the file is there; empty for none")
}

func (o *kubeletOptions) open(count func(call, code string)) (*kube.Kubelet, error) {
	k, err := kube.NewKubelet(kube.KubeletOptions{Socket: o.socket, Checkpoint: o.checkpoint, Count: count})
	if err != nil {
		return nil, fmt.Errorf("--pod-resources-socket: %w", err)
	}
	return k, nil
}
