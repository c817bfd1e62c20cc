// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateDevice(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		device Device
		ok     bool
	}{
		"a PCI address":          {Device{ID: "0000:03:02.1", Resource: "intel.com/vf"}, true},
		"an ID with slashes":     {Device{ID: "a/b"}, true},
		"no ID":                  {Device{Resource: "intel.com/vf"}, false},
		"a line in an ID":        {Device{ID: "a\nb"}, false},
		"a blank in a resource":  {Device{ID: "a", Resource: "b c"}, false},
		"a NUL in an ID":         {Device{ID: "a\x00"}, false},
		"bytes that are no text": {Device{ID: "\xff"}, false},
		"the longest ID":         {Device{ID: strings.Repeat("x", maxDeviceBytes)}, true},
		"an ID that is longer":   {Device{ID: strings.Repeat("x", maxDeviceBytes+1)}, false},
	} {
		if err := tc.device.Validate(); (err == nil) != tc.ok || (err != nil && !errors.Is(err, ErrDevice)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClaimedDeviceIsNamedAsDRADoes(t *testing.T) {
	t.Parallel()
	d := ClaimedDevice{Claim: "c", PodClaim: "p", Request: "r", Driver: "d.example.com", Pool: "n1", Device: "vf1"}
	if got := d.String(); got != "d.example.com/n1/vf1" {
		t.Errorf("String = %q", got)
	}
	shared := d
	shared.Share = "s1"
	if got := shared.String(); got != "d.example.com/n1/vf1 (share s1)" {
		t.Errorf("String of a share = %q", got)
	}
	other := ClaimedDevice{Claim: "other", Driver: d.Driver, Pool: d.Pool, Device: d.Device}
	if d.Allocation() != other.Allocation() || d.Allocation() == shared.Allocation() {
		t.Error("an allocation is not the device and its share alone")
	}
}
