// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"path/filepath"
	"strings"
)

// ipam is what is looked at of the section of that name, of host-local.
type ipam struct {
	Type    string `json:"type"`
	DataDir string `json:"dataDir"`
	span
	Ranges [][]span `json:"ranges"`
}

// span is a range of host-local's.
type span struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

// pool is what one address of an attachment is taken from: a set of ranges.
type pool struct {
	network *network
	// dir has the leases.
	dir    string
	ranges []addresses
}

// addresses are those from first to last.
type addresses struct {
	first, last netip.Addr
	subnet      netip.Prefix
	// gateway is not given away, where it is between first and last.
	gateway netip.Addr
}

// parsePools reads the pools of a plugin's section ipam; none for other plugins than host-local.
func parsePools(w *network, raw json.RawMessage, leases string) ([]pool, error) {
	var i ipam
	if err := json.Unmarshal(raw, &i); err != nil {
		return nil, fmt.Errorf("ipam: %w", plainly(err))
	}
	if i.Type != "host-local" {
		return nil, nil
	}
	sets := i.Ranges
	if i.Subnet != "" {
		sets = append([][]span{{i.span}}, sets...)
	}
	var pools []pool
	for _, set := range sets {
		p := pool{network: w, dir: filepath.Join(cmp.Or(i.DataDir, leases), w.list.Name())}
		for _, s := range set {
			a, err := s.parse()
			if err != nil {
				return nil, fmt.Errorf("ipam: %w", err)
			}
			p.ranges = append(p.ranges, a)
		}
		pools = append(pools, p)
	}
	return pools, nil
}

// plainly says in the words of JSON what is wrong with a value, rather than in those of Go.
func plainly(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%q is a JSON %s, which it cannot be", e.Field, e.Value)
	}
	return err
}

// parse completes a range as host-local does.
func (s span) parse() (addresses, error) {
	subnet, err := netip.ParsePrefix(s.Subnet)
	if err != nil {
		return addresses{}, fmt.Errorf("subnet %q is not a CIDR: write it like 10.56.0.0/24 or fd00:56::/64", s.Subnet)
	}
	if subnet.Bits() > subnet.Addr().BitLen()-2 {
		return addresses{}, fmt.Errorf("subnet %s is too small to give away addresses", subnet)
	}
	subnet = subnet.Masked()
	a := addresses{subnet: subnet, first: subnet.Addr().Next(), last: lastOf(subnet), gateway: subnet.Addr().Next()}
	if subnet.Addr().Is4() {
		a.last = a.last.Prev() // the broadcast address
	}
	for _, part := range []struct {
		key, text string
		to        *netip.Addr
	}{{"rangeStart", s.RangeStart, &a.first}, {"rangeEnd", s.RangeEnd, &a.last}, {"gateway", s.Gateway, &a.gateway}} {
		if part.text == "" {
			continue
		}
		if *part.to, err = netip.ParseAddr(part.text); err != nil {
			return addresses{}, fmt.Errorf("%s %q is not an address: write it like 10.56.0.10", part.key, part.text)
		}
		*part.to = part.to.Unmap()
		if part.key != "gateway" && !subnet.Contains(*part.to) {
			return addresses{}, fmt.Errorf("%s %s is not in subnet %s", part.key, part.text, subnet)
		}
	}
	if a.last.Less(a.first) {
		return addresses{}, fmt.Errorf("rangeEnd %s is before rangeStart %s", a.last, a.first)
	}
	return a, nil
}

// lastOf is the last address of a subnet.
func lastOf(p netip.Prefix) netip.Addr {
	last := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	addr, _ := netip.AddrFromSlice(last)
	return addr
}

func (a addresses) contains(addr netip.Addr) bool {
	return addr.BitLen() == a.first.BitLen() && !addr.Less(a.first) && !a.last.Less(addr)
}

func (a addresses) overlaps(b addresses) bool {
	return a.first.BitLen() == b.first.BitLen() && !a.last.Less(b.first) && !b.last.Less(a.first)
}

// size is how many there are to give away, at most math.MaxInt64.
func (a addresses) size() int64 {
	number := func(addr netip.Addr) *big.Int { return new(big.Int).SetBytes(addr.AsSlice()) }
	n := new(big.Int).Sub(number(a.last), number(a.first))
	if !n.IsInt64() || n.Int64() == math.MaxInt64 {
		return math.MaxInt64
	}
	size := n.Int64() + 1
	if a.contains(a.gateway) {
		size--
	}
	return size
}

func (a addresses) String() string { return a.first.String() + "-" + a.last.String() }

func (p *pool) contains(addr netip.Addr) bool {
	for _, r := range p.ranges {
		if r.contains(addr) {
			return true
		}
	}
	return false
}

func (p *pool) size() int64 {
	var size int64
	for _, r := range p.ranges {
		if s := r.size(); s > math.MaxInt64-size {
			return math.MaxInt64
		}
		size += r.size()
	}
	return size
}

func (p *pool) String() string {
	var texts []string
	for _, r := range p.ranges {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, ", ")
}
