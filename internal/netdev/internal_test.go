// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestDefaultRouteIsRecognisedInEveryForm(t *testing.T) {
	t.Parallel()
	network := func(cidr string) *net.IPNet {
		_, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, tc := range map[string]struct {
		dst  *net.IPNet
		want bool
	}{
		"nil, as netlink up to 1.3.0": {nil, true},
		"0.0.0.0/0":                   {network("0.0.0.0/0"), true},
		"0.0.0.0/0 in 16 bytes":       {&net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, true},
		"::/0":                        {network("::/0"), true},
		"0.0.0.0/1":                   {network("0.0.0.0/1"), false},
		"0.0.0.0/32":                  {network("0.0.0.0/32"), false},
		"2000::/3":                    {network("2000::/3"), false},
		"10.0.0.0/8":                  {network("10.0.0.0/8"), false},
	} {
		if got := isDefault(netlink.Route{Dst: tc.dst}); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}

func TestInterruptedListingIsTriedAgainButNotForEver(t *testing.T) {
	t.Parallel()
	for interruptions, want := range map[int]error{0: nil, 1: nil, maxDumps - 1: nil, maxDumps: netlink.ErrDumpInterrupted} {
		calls := 0
		got, err := dump(func() ([]int, error) {
			if calls++; calls <= interruptions {
				return []int{666}, netlink.ErrDumpInterrupted
			}
			return []int{1}, nil
		})
		if !errors.Is(err, want) || (want == nil && (len(got) != 1 || got[0] != 1)) || (want != nil && got != nil) {
			t.Errorf("after %d interruptions: %v, %v, want %v", interruptions, got, err, want)
		}
	}
}

func TestBootIDThatIsMissingOrEmptyIsAnError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "boot_id")
	l := &Linux{bootIDPath: path}
	if _, err := l.BootID(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	for content, want := range map[string]string{"": "", "\n": "", "b5e1\n": "b5e1"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := l.BootID(); id != want || (err == nil) != (want != "") || (err != nil && !strings.Contains(err.Error(), path)) {
			t.Errorf("%q: BootID = %q, %v, want %q", content, id, err, want)
		}
	}
}
