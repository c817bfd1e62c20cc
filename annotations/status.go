// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Status is one object of the network-status annotation: an interface that a network gave the pod. NPWG v1.3 §5.
// The order of the fields is that of the keys.
type Status struct {
	// Name is namespace/name of the NetworkAttachmentDefinition, or the name of a network that has none.
	Name      string `json:"name"`
	Interface string `json:"interface,omitempty"`
	// IPs are bare addresses.
	IPs []string `json:"ips,omitempty"`
	MAC string   `json:"mac,omitempty"`
	// MTU is in bytes.
	MTU int `json:"mtu,omitempty"`
	// Default marks the pod's default interface.
	Default    bool        `json:"default,omitempty"`
	DNS        types.DNS   `json:"dns"`
	DeviceInfo *DeviceInfo `json:"device-info,omitempty"`
	// Gateway are the gateways of the default routes over this interface.
	Gateway []string `json:"gateway,omitempty"`
}

// Attached is what one attachment contributed to a pod.
type Attached struct {
	// Network is the name for the status.
	Network string
	// IfName is the name that was asked for, for the attachment's interface in the sandbox.
	IfName string
	// IsOwn reports whether a path is the sandbox's network namespace; nil where that is not known: then any path is.
	IsOwn func(path string) bool
	// Default marks the attachment of the default network.
	Default bool
	// Result is what the plugins returned, of any CNI version; nil for nothing.
	Result types.Result
	// DeviceInfo is what is known about the device; nil for nothing.
	DeviceInfo *DeviceInfo
}

// StatusOf returns the status of one attachment: an object for each interface that [PodInterfaces] finds in its result.
func StatusOf(a Attached) ([]Status, error) {
	result, err := currentResult(a.Result)
	if err != nil {
		return nil, fmt.Errorf("status of network %s: %w", a.Network, err)
	}
	interfaces := podInterfaces(result, a.IfName, a.isOwn)
	list := make([]Status, len(interfaces))
	for i, each := range interfaces {
		list[i] = Status{
			Name: a.Network, Interface: each.Name, MAC: each.MAC, MTU: each.MTU, DNS: *result.DNS.Copy(), DeviceInfo: a.DeviceInfo,
		}
		for _, ip := range each.IPs {
			list[i].IPs = append(list[i].IPs, ip.Address.IP.String())
		}
	}
	list[defaultPlace(interfaces)].Default = a.Default
	for _, gw := range defaultGateways(result.Routes) {
		s := &list[gatewayPlace(interfaces, gw)]
		s.Gateway = append(s.Gateway, gw.String())
	}
	return list, nil
}

func (a Attached) isOwn(sandbox string) bool {
	if a.IsOwn == nil {
		return strings.HasPrefix(sandbox, "/")
	}
	return a.IsOwn(sandbox)
}

// defaultPlace is where the pod's default interface is: the first that has an address with a gateway, else the first.
func defaultPlace(interfaces []PodInterface) int {
	return max(0, slices.IndexFunc(interfaces, func(i PodInterface) bool {
		return slices.ContainsFunc(i.IPs, func(ip *types100.IPConfig) bool { return ip.Gateway != nil })
	}))
}

// gatewayPlace is where a default route belongs, which in a result names no interface: where an address has its gateway, else where a
// subnet holds it, else first.
func gatewayPlace(interfaces []PodInterface, gw net.IP) int {
	for _, belongs := range []func(*types100.IPConfig) bool{
		func(ip *types100.IPConfig) bool { return ip.Gateway.Equal(gw) },
		func(ip *types100.IPConfig) bool { return ip.Address.Contains(gw) },
	} {
		if i := slices.IndexFunc(interfaces, func(i PodInterface) bool { return slices.ContainsFunc(i.IPs, belongs) }); i >= 0 {
			return i
		}
	}
	return 0
}

// defaultGateways returns the gateways of the default routes, each once; a default route without one leads to no gateway.
func defaultGateways(routes []*types.Route) []net.IP {
	var list []net.IP
	for _, r := range routes {
		ones, bits := r.Dst.Mask.Size()
		if ones != 0 || bits == 0 || r.GW == nil || slices.ContainsFunc(list, r.GW.Equal) {
			continue
		}
		list = append(list, r.GW)
	}
	return list
}

// FormatStatus writes the network-status annotation, byte for byte as it is written in clusters today: each object indented by 4
// blanks, the brackets of the array close to the first and the last.
func FormatStatus(list []Status) (string, error) {
	objects := make([]string, len(list))
	for i, s := range list {
		object, err := json.MarshalIndent(s, "", "    ")
		if err != nil {
			return "", fmt.Errorf("format network-status: %w", err)
		}
		objects[i] = string(object)
	}
	return "[" + strings.Join(objects, ",") + "]", nil
}

// ParseStatus reads the network-status annotation, by whomever it was written; "" is no status. Unknown keys are ignored.
func ParseStatus(text string) ([]Status, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > MaxNetworksBytes {
		return nil, fmt.Errorf("network-status has %d bytes, and Kubernetes allows %d: remove the annotation and recreate the pod", len(text), MaxNetworksBytes)
	}
	var list []Status
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("network-status %s: %w: recreate the pod to have it written anew", quoted(text), jsonError(err))
	}
	if list == nil {
		return nil, errors.New("network-status is null: recreate the pod to have it written anew")
	}
	for i, s := range list {
		if s.Name == "" {
			return nil, fmt.Errorf("network-status: object %d has no name: recreate the pod to have it written anew", i+1)
		}
	}
	return list, nil
}
