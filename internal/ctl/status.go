// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/netdev"
)

// podStatus is what attach shows of one pod.
type podStatus struct {
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	NetNS       string `json:"netns"`
	ContainerID string `json:"containerID"`
	// Networks are the objects of the pod's network-status annotation, completed by MTUs.
	Networks []annotations.Status `json:"networkStatus"`
}

// statusOf reads the network status that Plexus left beside the manifests. Pods of system namespaces get none; then the result tells
// at least of the default network.
func statusOf(s *sandbox, network string, result types.Result) (podStatus, error) {
	status := podStatus{Namespace: s.Pod.Namespace, Name: s.Pod.Name, NetNS: s.NetNS, ContainerID: s.ContainerID}
	text, err := bounded.ReadFile(s.statusFile(), annotations.MaxNetworksBytes)
	switch {
	case err == nil:
		status.Networks, err = annotations.ParseStatus(string(text))
	case errors.Is(err, fs.ErrNotExist):
		status.Networks, err = annotations.StatusOf(annotations.Attached{Network: network, IfName: ifName, Default: true, Result: result, IsOwn: delegate.IsSandbox(s.NetNS)})
	}
	return status, err
}

// addMTU takes from the kernel what many plugins leave out of their result.
func (st *podStatus) addMTU(links []netdev.Link) {
	for i := range st.Networks {
		n := &st.Networks[i]
		at := slices.IndexFunc(links, func(l netdev.Link) bool { return l.Name == n.Interface })
		if n.MTU == 0 && at >= 0 {
			n.MTU = links[at].MTU
		}
	}
}
