// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types040 "github.com/containernetworking/cni/pkg/types/040"
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
	// IfName is the name of the attachment's interface in the sandbox.
	IfName string
	// Default marks the attachment of the default network.
	Default bool
	// Result is what the plugins returned, of any CNI version; nil for nothing.
	Result types.Result
	// DeviceInfo is what is known about the device; nil for nothing.
	DeviceInfo *DeviceInfo
}

// StatusOf returns the status of one attachment: an object for each interface that its result has in the sandbox. A result without
// one, as any result of CNI 0.2.0, gives one object with only what is known without it: name, interface, DNS and, if there are, the
// mark of the default network and the device.
func StatusOf(a Attached) ([]Status, error) {
	result, err := currentResult(a.Result)
	if err != nil {
		return nil, fmt.Errorf("status of network %s: %w", a.Network, err)
	}
	var list []Status
	place := map[int]int{} // of an interface of the result, in the list
	for i, ifc := range result.Interfaces {
		if ifc.Sandbox == "" {
			continue
		}
		place[i] = len(list)
		list = append(list, Status{
			Name: a.Network, Interface: cmp.Or(ifc.Name, a.IfName), MAC: ifc.Mac, MTU: ifc.Mtu,
			DNS: *result.DNS.Copy(), DeviceInfo: a.DeviceInfo,
		})
	}
	if len(list) == 0 {
		return []Status{{Name: a.Network, Interface: a.IfName, Default: a.Default, DNS: *result.DNS.Copy(), DeviceInfo: a.DeviceInfo}}, nil
	}
	ips := placedIPs(result, place, len(list)-1)
	for _, ip := range ips {
		s := &list[ip.place]
		s.IPs = append(s.IPs, ip.Address.IP.String())
	}
	list[defaultPlace(ips)].Default = a.Default
	for _, gw := range defaultGateways(result.Routes) {
		s := &list[gatewayPlace(ips, gw)]
		s.Gateway = append(s.Gateway, gw.String())
	}
	return list, nil
}

// currentResult converts a result to the newest version. It is a plugin's output, and neither libcni's decoding nor its conversion
// minds an entry that is null or an address that is missing.
func currentResult(r types.Result) (*types100.Result, error) {
	if r == nil {
		return &types100.Result{}, nil
	}
	null := errors.New("its result has a null entry: report it to the plugin's maintainers")
	if old, ok := r.(*types040.Result); ok && (slices.Contains(old.Interfaces, nil) || slices.Contains(old.IPs, nil)) {
		return nil, null
	}
	result, err := types100.GetResult(r)
	if err != nil {
		return nil, fmt.Errorf("convert its result: %w", err)
	}
	if slices.Contains(result.Interfaces, nil) || slices.Contains(result.IPs, nil) || slices.Contains(result.Routes, nil) {
		return nil, null
	}
	if slices.ContainsFunc(result.IPs, func(ip *types100.IPConfig) bool { return ip.Address.IP.To16() == nil }) {
		return nil, errors.New("its result has an entry in ips without address: report it to the plugin's maintainers")
	}
	return result, nil
}

// placedIP is an address with the place of its object in the status.
type placedIP struct {
	*types100.IPConfig
	place int
}

// placedIPs places the addresses of a result: by their interface, without one with the last object. An only interface has them
// all. What belongs to an interface outside the sandbox is left out.
func placedIPs(result *types100.Result, place map[int]int, last int) []placedIP {
	var placed []placedIP
	for _, ip := range result.IPs {
		if ip.Interface == nil || len(result.Interfaces) == 1 {
			placed = append(placed, placedIP{ip, last})
		} else if at, ok := place[*ip.Interface]; ok {
			placed = append(placed, placedIP{ip, at})
		}
	}
	return placed
}

// defaultPlace is where the pod's default interface is: with the first address that has a gateway, else first.
func defaultPlace(ips []placedIP) int {
	for _, ip := range ips {
		if ip.Gateway != nil {
			return ip.place
		}
	}
	return 0
}

// gatewayPlace is where a default route belongs, which in a result names no interface: with the address that has its gateway, else
// with the one whose subnet holds it, else first.
func gatewayPlace(ips []placedIP, gw net.IP) int {
	for _, ip := range ips {
		if ip.Gateway.Equal(gw) {
			return ip.place
		}
	}
	for _, ip := range ips {
		if ip.Address.Contains(gw) {
			return ip.place
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
