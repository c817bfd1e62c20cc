// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
)

// defaultDataDir is where host-local keeps what it gave away.
const defaultDataDir = "/var/lib/cni/networks"

// pool is a range of addresses that host-local gives away.
type pool struct {
	d     *definition
	field string
	at    place
	// store is where it keeps what it gave away: networks that share one share the addresses.
	store       string
	first, last netip.Addr
}

func (p pool) String() string { return p.first.String() + " to " + p.last.String() }

// checkIPAM checks the section ipam of a plugin.
func (c *pluginCheck) checkIPAM(use ipamUse) {
	conf := c.conf.fold("ipam")
	if conf == nil || conf.kind != kindObject {
		if use == ipamRequired {
			c.report(KeyMissing, c.conf, "ipam", c.typ+` needs "ipam"`, `add it, for example "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.56.0.0/24"}]]}`)
		}
		return
	}
	typ := conf.fold("type")
	if typ == nil || typ.kind != kindString || typ.text == "" {
		if use == ipamRequired || len(conf.members) > 0 {
			c.report(KeyMissing, conf, "ipam.type", `"ipam" has no type`, "name an IPAM plugin, such as host-local")
		}
		return
	}
	known := knownIPAM()
	p, ok := known[typ.text]
	if !ok {
		c.checkUnknown(typ, "ipam.type", slices.Collect(maps.Keys(known)))
		return
	}
	ipam := &pluginCheck{d: c.d, conf: conf, prefix: c.prefix + "ipam.", typ: typ.text, network: c.network}
	ipam.rules(conf, "", p.keys, []string{"type"})
	capability := func(name string) bool { return c.conf.fold("capabilities").isTrue(name) }
	switch typ.text {
	case "host-local":
		ipam.checkHostLocal(capability("ipRanges"))
	case "static":
		ipam.checkStatic(capability("ips") || c.conf.fold("args") != nil)
	}
	ipam.checkRoutes()
	c.pools = append(c.pools, ipam.pools...)
}

// checkHostLocal holds the rules of host-local (its allocator.LoadIPAMConfig). elsewhere is
// set if pods may bring ranges along.
func (c *pluginCheck) checkHostLocal(elsewhere bool) {
	sets := 0
	if c.conf.fold("subnet") != nil {
		c.checkRange(c.conf, "")
		sets++
	} else {
		c.checkIdle()
	}
	if ranges := c.conf.fold("ranges"); ranges != nil {
		for i, set := range ranges.items {
			c.checkRangeSet(set, fmt.Sprintf("ranges[%d]", i))
			sets++
		}
	}
	if sets == 0 && !elsewhere {
		c.report(KeyMissing, c.conf, "ranges", "host-local has no addresses to assign", `add "ranges", for example [[{"subnet": "10.56.0.0/24"}]]`)
	}
	for _, o := range overlapping(c.pools, func(p pool) string { return p.field }) {
		c.d.report(IPAMOverlap, o.second.at, o.second.field, fmt.Sprintf("%v overlaps with %v (%s)", o.second, o.first, o.first.field), "separate them")
	}
}

// checkIdle looks at the keys of a range that stand beside "ranges", without a subnet: host-local reads them, and that is all.
func (c *pluginCheck) checkIdle() {
	for _, key := range []string{"rangeStart", "rangeEnd", "gateway"} {
		given := c.conf.fold(key)
		if given == nil || given.kind != kindString || given.text == "" {
			continue
		}
		if _, ok := parseIP(given.text); !ok {
			c.report(IPAMInvalid, given, key, fmt.Sprintf("%s %q is not an address", key, short(given.text)), "")
			continue
		}
		c.report(KeyUnknown, given, key, fmt.Sprintf("%q has no effect without \"subnet\" beside it", key), "move it into the range that it belongs to")
	}
}

// checkRangeSet checks ranges of which a pod gets one address.
func (c *pluginCheck) checkRangeSet(set *value, field string) {
	if set.kind != kindList || len(set.items) == 0 {
		c.report(IPAMInvalid, set, field, fmt.Sprintf("it is %s and must be a list of ranges that is not empty", set.kind), `write it like [{"subnet": "10.56.0.0/24"}], in a list of such lists`)
		return
	}
	before := len(c.pools)
	for i, r := range set.items {
		where := fmt.Sprintf("%s[%d]", field, i)
		if r.kind != kindObject {
			c.report(IPAMInvalid, r, where, fmt.Sprintf("it is %s and must be an object", r.kind), `write it like {"subnet": "10.56.0.0/24"}`)
			continue
		}
		c.rules(r, where+".", map[string]rule{"subnet": text(), "rangeStart": text(), "rangeEnd": text(), "gateway": text()}, nil)
		c.checkRange(r, where+".")
	}
	found := c.pools[before:]
	if len(found) > 1 && slices.ContainsFunc(found, func(p pool) bool { return p.first.Is4() != found[0].first.Is4() }) {
		c.report(IPAMInvalid, set, field, "its ranges are of both families: a pod gets an address of only one of them", "give each family a list of its own")
	}
}

// checkRange checks one range, and remembers its addresses.
func (c *pluginCheck) checkRange(r *value, prefix string) {
	subnet, why := parseCIDR(r.str("subnet"))
	at := r.fold("subnet")
	if why != "" || at == nil || at.kind != kindString {
		c.report(IPAMInvalid, cmp.Or(at, r), prefix+"subnet", fmt.Sprintf("subnet %q %s", short(r.str("subnet")), cmp.Or(why, "is not a string")), "write it like 10.56.0.0/24 or fd00:56::/64")
		return
	}
	switch {
	case subnet.Masked() != subnet:
		c.report(IPAMInvalid, at, prefix+"subnet", fmt.Sprintf("subnet %v has host bits set", subnet), fmt.Sprintf("write %v", subnet.Masked()))
		return
	case subnet.Bits() > subnet.Addr().BitLen()-2:
		c.report(IPAMInvalid, at, prefix+"subnet", fmt.Sprintf("subnet %v is too small for host-local", subnet), fmt.Sprintf("make it a /%d or larger", subnet.Addr().BitLen()-2))
		return
	}
	p := pool{d: c.d, field: c.prefix + prefix + "subnet", at: c.d.config.place(at.start), first: subnet.Addr().Next(), last: lastAddr(subnet)}
	p.store = filepath.Join(cmp.Or(c.conf.str("dataDir"), defaultDataDir), c.network)
	sound := true
	for _, key := range []string{"rangeStart", "rangeEnd", "gateway"} {
		given := r.fold(key)
		if given == nil || given.kind != kindString || given.text == "" {
			continue
		}
		addr, ok := parseIP(given.text)
		switch {
		case !ok:
			c.report(IPAMInvalid, given, prefix+key, fmt.Sprintf("%s %q is not an address", key, short(given.text)), "")
		case !subnet.Contains(addr): // a gateway too, since host-local 1.10
			c.report(IPAMInvalid, given, prefix+key, fmt.Sprintf("%s %v is outside of subnet %v", key, addr, subnet), "")
		case key == "rangeStart":
			p.first = addr
			continue
		case key == "rangeEnd":
			p.last = addr
			continue
		default:
			continue
		}
		sound = false
	}
	if sound && p.last.Less(p.first) {
		c.report(IPAMInvalid, cmp.Or(r.fold("rangeStart"), at), prefix+"rangeStart", fmt.Sprintf("rangeStart %v is after rangeEnd %v", p.first, p.last), "swap them")
		return
	}
	if sound {
		c.pools = append(c.pools, p)
	}
}

// outside reports a gateway that the subnet does not lead to. With a route to it that needs no gateway it may be meant so.
func (c *pluginCheck) outside(at *value, field string, gateway netip.Addr, subnet netip.Prefix) {
	if list := c.conf.fold("routes"); list != nil {
		for _, route := range list.items {
			if dst, why := parseCIDR(route.str("dst")); why == "" && dst.Bits() > 0 && dst.Contains(gateway) && route.str("gw") == "" {
				return
			}
		}
	}
	c.report(GatewayOutside, at, field, fmt.Sprintf("gateway %v is outside of subnet %v", gateway, subnet), "correct it, or add a route to it that has no gw")
}

// checkStatic checks the addresses of static. elsewhere is set if pods may bring them along.
func (c *pluginCheck) checkStatic(elsewhere bool) {
	list := c.conf.fold("addresses")
	if list == nil || len(list.items) == 0 {
		if !elsewhere {
			c.report(KeyMissing, c.conf, "addresses", "static has no address to assign", `add "addresses", or let pods name their own with "capabilities": {"ips": true}`)
		}
		return
	}
	for i, item := range list.items {
		field := fmt.Sprintf("addresses[%d]", i)
		if item.kind != kindObject {
			c.report(IPAMInvalid, item, field, fmt.Sprintf("it is %s and must be an object", item.kind), `write it like {"address": "10.56.0.5/24"}`)
			continue
		}
		c.rules(item, field+".", map[string]rule{"address": text(), "gateway": text()}, nil)
		prefix, why := parseCIDR(item.str("address"))
		if why != "" {
			c.report(IPAMInvalid, cmp.Or(item.fold("address"), item), field+".address", fmt.Sprintf("address %q %s", short(item.str("address")), why), "write it like 10.56.0.5/24")
			continue
		}
		gateway := item.str("gateway")
		switch addr, ok := parseIP(gateway); {
		case gateway == "":
		case !ok:
			c.report(IPAMInvalid, item.fold("gateway"), field+".gateway", fmt.Sprintf("gateway %q is not an address", short(gateway)), "")
		case !prefix.Contains(addr):
			c.outside(item.fold("gateway"), field+".gateway", addr, prefix.Masked())
		}
	}
}

// checkRoutes checks the routes of host-local and static.
func (c *pluginCheck) checkRoutes() {
	list := c.conf.fold("routes")
	if list == nil {
		return
	}
	for i, item := range list.items {
		field := fmt.Sprintf("routes[%d]", i)
		if item.kind != kindObject {
			c.report(IPAMInvalid, item, field, fmt.Sprintf("it is %s and must be an object", item.kind), `write it like {"dst": "10.0.0.0/8", "gw": "10.56.0.1"}`)
			continue
		}
		c.rules(item, field+".", map[string]rule{
			"dst": text(), "gw": text(), "mtu": integer(0, 65535), "advmss": integer(0, 65535), "priority": integer(0, 1<<32-1), "table": integer(0, 1<<32-1), "scope": integer(0, 255),
		}, nil)
		dst, why := parseCIDR(item.str("dst"))
		switch {
		case why != "":
			c.report(IPAMInvalid, cmp.Or(item.fold("dst"), item), field+".dst", fmt.Sprintf("dst %q %s", short(item.str("dst")), why), "write it like 10.0.0.0/8, or 0.0.0.0/0 for the default route")
			continue
		case dst.Bits() == 0:
			c.defaultRoute(item.fold("dst"), field+".dst", fmt.Sprintf("the route to %v is a default route", dst))
		case dst.Masked() != dst && dst.Addr().Is4(): // of IPv6 the kernel masks it
			c.report(IPAMInvalid, item.fold("dst"), field+".dst", fmt.Sprintf("dst %v has host bits set, which the kernel refuses", dst), fmt.Sprintf("write %v", dst.Masked()))
		}
		gw := item.str("gw")
		if addr, ok := parseIP(gw); gw != "" && (!ok || addr.Is4() != dst.Addr().Is4()) {
			c.report(IPAMInvalid, item.fold("gw"), field+".gw", fmt.Sprintf("gw %q is not an address of the same family as dst %v", short(gw), dst), "")
		}
	}
}

// defaultRoute reports that a network sets a default route: a pod has one by its default network.
func (c *pluginCheck) defaultRoute(at *value, field, what string) {
	c.report(RouteDefault, at, field, what+", and competes with that of the pod's default network", `remove it, and let pods that want it ask for it by "default-route" in their annotation; keep it only if this is the default network`)
}

// parseCIDR reads what the plugins do (types.ParseCIDR), with the address that is written. It says why not, "" if it could.
func parseCIDR(s string) (netip.Prefix, string) {
	if s == "" {
		return netip.Prefix{}, "is missing"
	}
	ip, subnet, err := net.ParseCIDR(s)
	if err != nil {
		return netip.Prefix{}, "is not a CIDR"
	}
	bits, size := subnet.Mask.Size()
	addr, ok := netip.AddrFromSlice(ip)
	if addr = addr.Unmap(); !ok || addr.BitLen() != size {
		return netip.Prefix{}, "is an IPv4 address written as IPv6"
	}
	return netip.PrefixFrom(addr, bits), ""
}

func parseIP(s string) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(net.ParseIP(s))
	return addr.Unmap(), ok
}

// lastAddr is the last address that host-local gives: for IPv4 not the broadcast address.
func lastAddr(subnet netip.Prefix) netip.Addr {
	bytes := subnet.Addr().AsSlice()
	for i := subnet.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 1 << (7 - i%8)
	}
	if len(bytes) == net.IPv4len {
		bytes[len(bytes)-1]--
	}
	addr, _ := netip.AddrFromSlice(bytes) // as many bytes as before
	return addr
}

type overlap struct{ first, second pool }

// overlapping are pools that have addresses in common with one that begins before them, and is of another owner.
func overlapping(pools []pool, owner func(pool) string) []overlap {
	sorted := slices.SortedStableFunc(slices.Values(pools), func(a, b pool) int { return a.first.Compare(b.first) })
	var found []overlap
	// Of those before, what ends last, and what ends last of the other owners.
	var widest, second *pool
	for i := range sorted {
		p := &sorted[i]
		if widest != nil && widest.first.Is4() != p.first.Is4() {
			widest, second = nil, nil
		}
		other := widest
		if widest != nil && owner(*widest) == owner(*p) {
			other = second
		}
		if other != nil && !other.last.Less(p.first) {
			found = append(found, overlap{*other, *p})
		}
		switch {
		case widest == nil:
			widest = p
		case owner(*widest) == owner(*p):
			if widest.last.Less(p.last) {
				widest = p
			}
		case widest.last.Less(p.last):
			widest, second = p, widest
		case second == nil || second.last.Less(p.last):
			second = p
		}
	}
	return found
}

// checkShared finds networks of several Kubernetes namespaces that take their addresses out of one folder of leases.
func (l *linter) checkShared(pools []pool) {
	stores := map[string][]pool{}
	for _, p := range pools {
		stores[p.store] = append(stores[p.store], p)
	}
	for _, shared := range stores {
		for _, o := range overlapping(shared, func(p pool) string { return p.d.Ref.Namespace }) {
			o.second.d.report(LeasesShared, o.second.at, o.second.field, fmt.Sprintf("%v overlaps with network %s of another namespace, and both keep their leases in %s: pods of one take the addresses of the other", o.second, o.first.d.Ref, o.second.store),
				"give the configuration another \"name\" and a range of its own, unless they are meant to be one network")
		}
	}
}

// checkOverlaps compares networks with each other.
func (l *linter) checkOverlaps(pools []pool) {
	for _, o := range overlapping(pools, func(p pool) string { return p.store }) {
		o.second.d.report(NetworkOverlap, o.second.at, o.second.field, fmt.Sprintf("%v overlaps with network %s (%v)", o.second, o.first.d.Ref, o.first), "separate them, unless no pod and no router is ever in both")
	}
}
