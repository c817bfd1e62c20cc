// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/plexus-cni/plexus/annotations"
)

// ResultAs returns what the attachment's plugins reported, in a CNI version; nil when they have not.
func (a *Attachment) ResultAs(cniVersion string) (types.Result, error) {
	if len(a.Result) == 0 {
		return nil, nil // no result is an answer, not a failure
	}
	result, err := readResult(a.Result, cniVersion)
	if err != nil {
		return nil, fmt.Errorf("%s: result: %w", a, err)
	}
	if result, err = result.GetAsVersion(cniVersion); err != nil {
		return nil, fmt.Errorf("%s: result as CNI %s: %w", a, cniVersion, err)
	}
	return result, nil
}

// PodInterfaces are the interfaces of the pod that the attachment's plugins reported, and always at least the one that they were asked for;
// see [annotations.PodInterfaces]. netns is the path of the sandbox's network namespace.
func (a *Attachment) PodInterfaces(netns string) ([]annotations.PodInterface, error) {
	result, err := a.ResultAs(types100.ImplementedSpecVersion)
	if err != nil {
		return nil, err
	}
	interfaces, err := annotations.PodInterfaces(result, a.IfName, IsSandbox(netns))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	return interfaces, nil
}

// IsSandbox returns whether a path, of a plugin's result, is the network namespace at netns: by the same path or, while that exists, by
// another (/proc/1/ns/net, /var/run/netns/x).
func IsSandbox(netns string) func(path string) bool {
	return func(path string) bool {
		if netns == "" || path == "" {
			return false
		}
		if filepath.Clean(path) == filepath.Clean(netns) {
			return true
		}
		if !filepath.IsAbs(path) {
			return false // "0" is no file of the working directory
		}
		one, err := os.Stat(netns)
		if err != nil {
			return false // the sandbox is gone
		}
		other, err := os.Stat(path)
		return err == nil && os.SameFile(one, other)
	}
}

// maxResultBytes bounds a plugin's result, which takes a multiple of that to read. Real ones have some hundred bytes to a few KiB.
const maxResultBytes = 256 << 10

// ErrBadOutput marks what a plugin printed or wrote and that cannot be understood.
var ErrBadOutput = errors.New("unusable output of a plugin")

// parseResult reads what a plugin printed on ADD, and returns it as JSON that can be recorded and read again.
func parseResult(raw []byte, confVersion string) (types.Result, json.RawMessage, error) {
	result, err := readResult(raw, confVersion)
	if err != nil {
		return nil, nil, err
	}
	// The library reads an address that is not there, and then writes what it cannot read.
	again, err := json.Marshal(result)
	if err == nil {
		_, err = create.Create(result.Version(), again)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: an address or a route is missing or malformed: %w", ErrBadOutput, err)
	}
	return result, again, nil
}

// readResult reads a result; without a version of its own it has the configuration's, as libcni has it.
func readResult(raw []byte, confVersion string) (types.Result, error) {
	if len(raw) > maxResultBytes {
		return nil, fmt.Errorf("%w: its result has %d bytes, at most %d are accepted", ErrBadOutput, len(raw), maxResultBytes)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, fmt.Errorf("%w: it printed no result", ErrBadOutput)
	}
	resultVersion, err := checkResult(raw)
	if err == nil && resultVersion == "" {
		raw, err = withVersion(raw, confVersion)
	}
	var result types.Result
	if err == nil {
		result, err = create.Create(cmp.Or(resultVersion, confVersion), raw)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadOutput, err)
	}
	return result, nil
}

func withVersion(raw []byte, version string) ([]byte, error) {
	result, err := object(raw)
	if err != nil {
		return nil, err
	}
	if result["cniVersion"], err = json.Marshal(version); err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

// checkResult refuses a result with null in its lists: the CNI library's conversions follow those pointers. It returns the result's
// version.
func checkResult(raw []byte) (string, error) {
	var result struct {
		CNIVersion string            `json:"cniVersion"`
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
	if err := json.Unmarshal(raw, &result); err != nil {
		const most = 128
		return "", fmt.Errorf("%.*q is no CNI result: %w", most, raw, err)
	}
	for _, l := range []struct {
		key   string
		items []json.RawMessage
	}{
		{"interfaces", result.Interfaces},
		{"ips", result.IPs},
		{"routes", result.Routes},
		{"ip4.routes", result.IP4.Routes},
		{"ip6.routes", result.IP6.Routes},
	} {
		for i, item := range l.items {
			if string(item) == "null" {
				return "", fmt.Errorf("%s[%d] is null", l.key, i)
			}
		}
	}
	return result.CNIVersion, nil
}
