// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// ResultAs returns what the attachment's plugins reported, in a CNI version; nil when they have not.
func (a *Attachment) ResultAs(cniVersion string) (types.Result, error) {
	if len(a.Result) == 0 {
		return nil, nil // no result is an answer, not a failure
	}
	if err := checkResult(a.Result); err != nil {
		return nil, fmt.Errorf("%s: result: %w", a, err)
	}
	result, err := create.CreateFromBytes(a.Result)
	if err != nil {
		return nil, fmt.Errorf("%s: result: %w", a, err)
	}
	if result, err = result.GetAsVersion(cniVersion); err != nil {
		return nil, fmt.Errorf("%s: result as CNI %s: %w", a, cniVersion, err)
	}
	return result, nil
}

// Addresses are the addresses, with prefix lengths, that the attachment's plugins reported.
func (a *Attachment) Addresses() ([]netip.Prefix, error) {
	r, err := a.ResultAs(types100.ImplementedSpecVersion)
	if err != nil || r == nil {
		return nil, err
	}
	result, err := types100.NewResultFromResult(r)
	if err != nil {
		return nil, fmt.Errorf("%s: result: %w", a, err)
	}
	var addresses []netip.Prefix
	for _, ip := range result.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			ones, _ := ip.Address.Mask.Size()
			addresses = append(addresses, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	return addresses, nil
}

// checkResult refuses a result with null in its lists: the CNI library's conversions follow those pointers. Whatever else is
// wrong with it, the library says.
func checkResult(raw []byte) error {
	var lists struct {
		Interfaces []json.RawMessage `json:"interfaces"`
		IPs        []json.RawMessage `json:"ips"`
		Routes     []json.RawMessage `json:"routes"`
		IP4        struct {
			Routes []json.RawMessage `json:"routes"`
		} `json:"ip4"`
		IP6 struct {
			Routes []json.RawMessage `json:"routes"`
		} `json:"ip6"`
	}
	if json.Unmarshal(raw, &lists) != nil {
		return nil // not a result at all, which the library tells
	}
	for _, l := range []struct {
		key   string
		items []json.RawMessage
	}{
		{"interfaces", lists.Interfaces},
		{"ips", lists.IPs},
		{"routes", lists.Routes},
		{"ip4.routes", lists.IP4.Routes},
		{"ip6.routes", lists.IP6.Routes},
	} {
		for i, item := range l.items {
			if string(item) == "null" {
				return fmt.Errorf("%s[%d] is null", l.key, i)
			}
		}
	}
	return nil
}
