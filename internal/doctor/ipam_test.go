// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/plexus-cni/plexus/nad"
)

func testNetwork(tb testing.TB) *network {
	tb.Helper()
	list, err := nad.Normalize([]byte(`{"cniVersion":"1.0.0","name":"n","type":"bridge"}`), nad.Defaults{})
	if err != nil {
		tb.Fatal(err)
	}
	return &network{name: "n", list: list}
}

func TestPoolsAreCompletedAsHostLocalDoes(t *testing.T) {
	t.Parallel()
	for ipam, want := range map[string]struct {
		pools string
		size  int64
		err   string
	}{
		`{"type":"host-local","subnet":"10.0.0.0/24"}`:                                               {pools: "10.0.0.1-10.0.0.254", size: 253},
		`{"type":"host-local","subnet":"10.0.0.0/24","gateway":"10.0.0.254"}`:                        {pools: "10.0.0.1-10.0.0.254", size: 253},
		`{"type":"host-local","subnet":"10.0.0.0/24","rangeStart":"10.0.0.8","rangeEnd":"10.0.0.9"}`: {pools: "10.0.0.8-10.0.0.9", size: 2},
		`{"type":"host-local","subnet":"10.0.0.0/30"}`:                                               {pools: "10.0.0.1-10.0.0.2", size: 1},
		`{"type":"host-local","subnet":"fd00::/126"}`:                                                {pools: "fd00::1-fd00::3", size: 2},
		`{"type":"host-local","subnet":"fd00::/64"}`:                                                 {pools: "fd00::1-fd00::ffff:ffff:ffff:ffff", size: math.MaxInt64},
		`{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/30"},{"subnet":"10.1.0.0/30"}]]}`:       {pools: "10.0.0.1-10.0.0.2, 10.1.0.1-10.1.0.2", size: 2},
		`{"type":"host-local","ranges":[[{"subnet":"fd00::/32"},{"subnet":"fd01::/32"}]]}`:           {pools: "fd00::1-fd00:0:ffff:ffff:ffff:ffff:ffff:ffff, fd01::1-fd01:0:ffff:ffff:ffff:ffff:ffff:ffff", size: math.MaxInt64},
		`{"type":"dhcp"}`: {},
		`{"type":"host-local","subnet":"10.0.0.0"}`:                                                  {err: "subnet"},
		`{"type":"host-local","subnet":"10.0.0.0/24","rangeStart":"10.0.1.1"}`:                       {err: "not in subnet"},
		`{"type":"host-local","subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}`: {err: "before"},
		`{"type":"host-local","subnet":"10.0.0.0/24","gateway":"x"}`:                                 {err: "gateway"},
		`{"type":"host-local","subnet":"10.0.0.0/31"}`:                                               {err: "too small"},
		`{"type":7}`: {err: "ipam"},
	} {
		t.Run(ipam, func(t *testing.T) {
			t.Parallel()
			pools, err := parsePools(testNetwork(t), []byte(ipam), "/leases")
			switch {
			case want.err != "":
				if err == nil || !strings.Contains(err.Error(), want.err) {
					t.Errorf("error %v; want %q", err, want.err)
				}
			case err != nil:
				t.Error(err)
			case want.pools == "" && len(pools) > 0 || want.pools != "" && (len(pools) != 1 || pools[0].String() != want.pools || pools[0].size() != want.size || pools[0].dir != "/leases/n"):
				t.Errorf("%+v; want %+v", pools, want)
			}
		})
	}
}

func FuzzParsePools(f *testing.F) {
	for _, seed := range []string{
		`{"type":"host-local","subnet":"10.0.0.0/24"}`, `{"type":"host-local","ranges":[[{"subnet":"fd00::/0"}]]}`, `{"type":"host-local","subnet":"0.0.0.0/32"}`,
		`{"type":"host-local","subnet":"255.255.255.255/32","gateway":"::1"}`,
	} {
		f.Add([]byte(seed))
	}
	w := testNetwork(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		pools, err := parsePools(w, data, "/leases")
		if err != nil {
			return
		}
		for _, p := range pools {
			if p.size() < 0 {
				t.Errorf("%s: %d addresses", &p, p.size())
			}
			for _, r := range p.ranges {
				if r.last.Less(r.first) || !r.contains(r.first) || !r.contains(r.last) {
					t.Errorf("%s does not contain its ends", r)
				}
			}
		}
	})
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	between := func(first, last string) addresses {
		return addresses{first: netip.MustParseAddr(first), last: netip.MustParseAddr(last)}
	}
	a := between("10.0.0.10", "10.0.0.20")
	for _, tc := range []struct {
		b    addresses
		want bool
	}{
		{between("10.0.0.20", "10.0.0.30"), true},
		{between("10.0.0.12", "10.0.0.13"), true},
		{between("10.0.0.1", "10.0.0.200"), true},
		{between("10.0.0.21", "10.0.0.30"), false},
		{between("10.0.0.1", "10.0.0.9"), false},
		{between("::", "ffff::"), false},
	} {
		if a.overlaps(tc.b) != tc.want || tc.b.overlaps(a) != tc.want {
			t.Errorf("%s and %s: want %v", a, tc.b, tc.want)
		}
	}
}
