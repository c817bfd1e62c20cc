// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs_test

import (
	"path"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/internal/sysfs"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in, want string
	}{
		"is taken as it is":                     {"0000:03:02.1", "0000:03:02.1"},
		"is brought to lower case":              {"00AB:CD:1E.7", "00ab:cd:1e.7"},
		"may have the five digits of VMD":       {"10000:01:00.0", "10000:01:00.0"},
		"may have a domain of 32 bits":          {"ffffffff:01:00.0", "ffffffff:01:00.0"},
		"has no more than that":                 {"100000000:01:00.0", ""},
		"has its domain":                        {"03:02.1", ""},
		"has a domain of four digits":           {"000:03:02.1", ""},
		"has one spelling only":                 {"00000:03:02.1", ""},
		"has no slot above 1f":                  {"0000:03:20.1", ""},
		"has no function above 7":               {"0000:03:02.8", ""},
		"has a function":                        {"0000:03:02", ""},
		"has one function":                      {"0000:03:02.1.1", ""},
		"is hexadecimal":                        {"0000:0g:02.1", ""},
		"is without signs":                      {"0000:+3:02.1", ""},
		"is in ASCII":                           {"0000:03:0２.1", ""},
		"is not empty":                          {"", ""},
		"has no blanks":                         {" 0000:03:02.1", ""},
		"has no newline at its end":             {"0000:03:02.1\n", ""},
		"is not the root of a bus":              {"pci0000:00", ""},
		"is not a path":                         {"../0000:03:02.1", ""},
		"is not a path below either":            {"0000:03:02.1/..", ""},
		"is not a name of the auxiliary bus":    {"mlx5_core.sf.4", ""},
		"is short enough to be one in an error": {strings.Repeat("0", 1<<16), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := sysfs.ParseAddress(tc.in)
			if string(got) != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("ParseAddress(%.80q) = %q, %v, want %q", tc.in, got, err, tc.want)
			}
			if err != nil && (len(err.Error()) > 200 || !strings.Contains(err.Error(), "0000:03:02.1")) {
				t.Errorf("the error is %v, want one that is short and shows how to write it", err)
			}
		})
	}
}

func TestValidateDeviceID(t *testing.T) {
	t.Parallel()
	for id, valid := range map[string]bool{
		"0000:03:02.1": true, "00AB:cd:1e.7": true, "mlx5_core.sf.4": true, "pds_core.vDPA.0": true, "mlx5_core.eth-rep.12": true,
		"": false, "mlx5_core.sf": false, "mlx5_core.sf.": false, "mlx5_core.sf.x": false, ".sf.4": false, "mlx5_core..4": false,
		"a.b.c.4": false, "../../etc.sf.4": false, "mlx5 core.sf.4": false, "mlx5_core.sf.4\n": false, "..": false, "/dev/vfio/4": false,
		strings.Repeat("a", 64) + ".sf.4": false,
	} {
		if err := sysfs.ValidateDeviceID(id); (err == nil) != valid {
			t.Errorf("ValidateDeviceID(%q) = %v, want it valid: %t", id, err, valid)
		}
	}
}

// What is accepted is one element of a path, and the one spelling of its device.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"0000:03:02.1", "10000:01:00.0", "00AB:CD:1E.7", "03:02.1", "0000:03:20.1", "mlx5_core.sf.4", "../x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		address, err := sysfs.ParseAddress(s)
		if err == nil {
			if again, againErr := sysfs.ParseAddress(string(address)); againErr != nil || again != address {
				t.Errorf("ParseAddress(%q) = %q, and of that %q, %v", s, address, again, againErr)
			}
			if !strings.EqualFold(s, string(address)) || len(s) < len("0000:03:02.1") || len(s) > len("00000000:03:02.1") {
				t.Errorf("ParseAddress(%q) = %q", s, address)
			}
		}
		switch valid := sysfs.ValidateDeviceID(s); {
		case err == nil && valid != nil:
			t.Errorf("%q is an address and no device: %v", s, valid)
		case valid == nil && (path.Base(s) != s || s == "." || s == ".."):
			t.Errorf("%q is a device and a path", s)
		}
	})
}
