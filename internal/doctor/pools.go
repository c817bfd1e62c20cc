// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/internal/inspect"
)

const (
	// nearly is the part of a pool in percent, from which on it is worth a word.
	nearly = 90
	// young is how old a lease may be whose container nothing is known of yet: its ADD may be at work.
	young = 5 * time.Minute
	// maxLeases bounds the files that are read of one folder.
	maxLeases = 100_000
)

// lease is a file of host-local's.
type lease struct {
	file        string
	address     netip.Addr
	containerID string
	modified    time.Time
}

// checkPools looks at the addresses that host-local gives away on this node, and at those that networks have in common.
func (d *Doctor) checkPools(ctx context.Context, n *node) ([]Finding, error) {
	var found []Finding
	var pools []pool
	networks := n.networks // overlaps are between any two
	for i := range networks {
		own, problems := d.poolsOf(&networks[i])
		pools = append(pools, own...)
		found = append(found, problems...)
	}
	leases, err := d.leases(ctx, pools)
	if err != nil {
		return found, err
	}
	concerned := d.concerned(n)
	isConcerned := func(w *network) bool {
		return slices.ContainsFunc(concerned, func(c network) bool { return c.key() == w.key() })
	}
	leaked := d.leaked(n, leases)
	for i := range pools {
		if isConcerned(pools[i].network) {
			found = append(found, pools[i].usage(leases[pools[i].dir], leaked[pools[i].dir])...)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(leaked)) {
		at := slices.IndexFunc(pools, func(p pool) bool { return p.dir == dir })
		object := "leases in " + dir
		if at >= 0 {
			if !isConcerned(pools[at].network) {
				continue
			}
			object = pools[at].network.object()
		} else if d.Choose != nil {
			continue
		}
		found = append(found, leakFinding(object, leaked[dir]))
	}
	found = append(found, overlaps(pools, isConcerned)...)
	found = append(found, d.clusterOverlaps(pools, isConcerned)...)
	if n.linksErr == nil {
		found = append(found, nodeOverlaps(pools, n, isConcerned)...)
	}
	return append(found, addressConflicts(n.pods, n.chosen)...), nil
}

// poolsOf reads the pools of a network.
func (d *Doctor) poolsOf(w *network) ([]pool, []Finding) {
	var pools []pool
	var found []Finding
	for _, p := range w.plugins() {
		switch {
		case p.Type == "flannel":
			own, err := d.flannelPool(w)
			if err == nil {
				pools = append(pools, own...)
			}
		case len(p.IPAM) > 0:
			own, err := parsePools(w, p.IPAM, d.Paths.Leases)
			if err != nil {
				found = append(found, newFinding(PoolInvalid, w.object(), oneLine(err.Error()), "correct it in "+w.from))
				continue
			}
			pools = append(pools, own...)
		}
	}
	return pools, found
}

// flannelPool is what flannel makes of the subnets that its daemon tells.
func (d *Doctor) flannelPool(w *network) ([]pool, error) {
	data, err := readSmall(d.Paths.Flannel)
	if err != nil {
		return nil, err
	}
	var pools []pool
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key != "FLANNEL_SUBNET" && key != "FLANNEL_IPV6_SUBNET" {
			continue
		}
		raw, err := json.Marshal(map[string]string{"type": "host-local", "subnet": value})
		if err != nil {
			return nil, err
		}
		own, err := parsePools(w, raw, d.Paths.Leases)
		if err != nil {
			return nil, err
		}
		pools = append(pools, own...)
	}
	return pools, nil
}

// leases reads the leases of the pools, and those in host-local's own folder that no network is known for, by folder.
func (d *Doctor) leases(ctx context.Context, pools []pool) (map[string][]lease, error) {
	var dirs []string
	for _, p := range pools {
		dirs = append(dirs, p.dir)
	}
	entries, err := os.ReadDir(d.Paths.Leases)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(d.Paths.Leases, e.Name()))
		}
	}
	slices.Sort(dirs)
	found := map[string][]lease{}
	for _, dir := range slices.Compact(dirs) {
		if found[dir], err = readLeases(ctx, dir); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// readLeases reads a folder of host-local's: a file for each address, with the container's ID and, on a second line, its interface.
func readLeases(ctx context.Context, dir string) ([]lease, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var leases []lease
	for _, e := range entries[:min(len(entries), maxLeases)] {
		address, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue // a lock, or the last address that was given away
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		file := filepath.Join(dir, e.Name())
		data, err := readSmall(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // given back meanwhile
		}
		if err != nil {
			return nil, err
		}
		info, err := e.Info()
		if err != nil {
			continue // as before
		}
		id, _, _ := strings.Cut(string(data), "\n")
		leases = append(leases, lease{file: file, address: address.Unmap(), containerID: strings.TrimSpace(id), modified: info.ModTime()})
	}
	return leases, nil
}

// usage tells how full a pool is.
func (p *pool) usage(leases, leaked []lease) []Finding {
	used := int64(0)
	for _, l := range leases {
		if p.contains(l.address) {
			used++
		}
	}
	size := p.size()
	text := fmt.Sprintf("%s: %d of %d addresses are in use, %d are free", p, used, size, max(size-used, 0))
	if size == math.MaxInt64 {
		text = fmt.Sprintf("%s: %d addresses are in use", p, used)
	}
	grow := "widen rangeStart and rangeEnd, or the subnet, in " + p.network.from + ", or add a range to its set in \"ranges\": existing leases stay valid"
	if n := slices.IndexFunc(leaked, func(l lease) bool { return p.contains(l.address) }); n >= 0 {
		grow = "release the leases of containers that are gone, see " + PoolLeak + "; else " + grow
	}
	switch {
	case used >= size:
		return []Finding{newFinding(PoolExhausted, p.network.object(), text+": the next pod gets none", grow)}
	case used >= size-size/100*(100-nearly)-size%100*(100-nearly)/100 && size != math.MaxInt64:
		return []Finding{newFinding(PoolNearlyExhausted, p.network.object(), text, grow)}
	}
	return []Finding{newFinding(PoolUsage, p.network.object(), text, "")}
}

// leaked are the leases of containers that nobody knows, by folder. What a record holds is its own affair.
func (d *Doctor) leaked(n *node, leases map[string][]lease) map[string][]lease {
	known := map[string]bool{}
	for _, r := range n.records {
		switch {
		case r.plan != nil:
			known[r.plan.Sandbox.ContainerID] = true
		case r.key != "":
			// A record that cannot be read holds its container's leases still.
			if i := strings.LastIndexByte(r.key, '-'); i > 0 {
				known[r.key[:i]] = true
			}
		}
	}
	found := map[string][]lease{}
	for dir, list := range leases {
		for _, l := range list {
			if known[l.containerID] || d.Now().Sub(l.modified) < young {
				continue
			}
			// Without one, host-local was killed while it wrote the lease: no DEL will ever find it.
			if l.containerID != "" && d.isAlive(n, l.containerID) {
				known[l.containerID] = true
				continue
			}
			found[dir] = append(found[dir], l)
		}
	}
	return found
}

// isAlive looks for a container that Plexus has no record of: it may be older than Plexus, or another runtime's.
func (d *Doctor) isAlive(n *node, id string) bool {
	if strings.ContainsAny(id, "/\x00") || id == "." || id == ".." {
		return false // no container has such a name, and it is to be part of a path
	}
	for _, dir := range d.Paths.Sandboxes {
		if _, err := os.Stat(filepath.Join(dir, id)); err == nil {
			return true
		}
	}
	results := d.Paths.Results
	if n.conf != nil {
		results = append(slices.Clone(results), filepath.Join(n.conf.cfg.LegacyCNIDir, "results"))
	}
	for _, dir := range results {
		for _, netns := range cachedNetNS(dir, id) {
			// What cannot be told may be alive.
			if is, err := d.Kernel.IsNetNS(netns); is || err != nil {
				return true
			}
		}
	}
	return false
}

// cachedNetNS are the namespaces that libcni's cache has for a container.
func cachedNetNS(dir, id string) []string {
	literal := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	files, err := filepath.Glob(filepath.Join(literal.Replace(dir), "*-"+literal.Replace(id)+"-*"))
	if err != nil {
		return nil
	}
	var found []string
	for _, file := range files {
		data, err := readSmall(file)
		if err != nil {
			continue
		}
		var entry struct {
			ContainerID string `json:"containerId"`
			NetNS       string `json:"netns"`
		}
		if json.Unmarshal(data, &entry) == nil && entry.ContainerID == id {
			found = append(found, entry.NetNS)
		}
	}
	return found
}

func leakFinding(object string, leaks []lease) Finding {
	var texts, files []string
	for _, l := range leaks {
		owner := "no container: the file is empty"
		if l.containerID != "" {
			owner = fmt.Sprintf("container %.12s", l.containerID)
		}
		texts = append(texts, fmt.Sprintf("%s (%s)", l.address, owner))
		files = append(files, l.file)
	}
	const most = 8
	remove := "rm " + strings.Join(files[:min(len(files), most)], " ")
	if len(files) > most {
		remove += " … (" + fmt.Sprint(len(files)-most) + " more)"
	}
	return newFinding(PoolLeak, object, "leased to containers that are gone and not on record: "+list(texts),
		"once `crictl pods` does not list them either: "+remove)
}

// overlaps finds addresses that two networks give away.
func overlaps(pools []pool, concerned func(*network) bool) []Finding {
	var found []Finding
	for i := range pools {
		for j := range pools[:i] {
			a, b := &pools[j], &pools[i]
			if a.network.name == b.network.name || (!concerned(a.network) && !concerned(b.network)) {
				continue
			}
			r, s, ok := a.common(b)
			switch {
			case !ok:
			case a.dir == b.dir && a.network.owner() != b.network.owner():
				found = append(found, newFinding(PoolShared, a.network.object()+" and "+b.network.name, fmt.Sprintf("both give away addresses of %s and %s, and keep their leases in %s: pods of one take those of the other", r, s, a.dir),
					"give one of them another \"name\" in its configuration, and a range of its own, unless they are meant to be one network"))
			case a.dir == b.dir:
				// One folder of leases knows of all that it gave away.
			default:
				found = append(found, newFinding(PoolOverlap, a.network.object()+" and "+b.network.name, fmt.Sprintf("both give away addresses of %s and %s", r, s),
					"separate their ranges, unless no pod and no router is ever in both: a pod in both has two routes to one address"))
			}
		}
	}
	return found
}

func (p *pool) common(q *pool) (addresses, addresses, bool) {
	for _, r := range p.ranges {
		for _, s := range q.ranges {
			if r.overlaps(s) {
				return r, s, true
			}
		}
	}
	return addresses{}, addresses{}, false
}

// clusterOverlaps finds addresses that are the cluster's own.
func (d *Doctor) clusterOverlaps(pools []pool, concerned func(*network) bool) []Finding {
	ranges := slices.Clone(d.Ranges)
	if manifest, err := readSmall(d.Paths.APIServer); err == nil {
		for text := range strings.SplitSeq(serviceRange(manifest), ",") {
			if p, err := netip.ParsePrefix(strings.TrimSpace(text)); err == nil {
				ranges = append(ranges, Range{Use: "service", Prefix: p.Masked()})
			}
		}
	}
	if subnets, err := readSmall(d.Paths.Flannel); err == nil {
		for line := range strings.Lines(string(subnets)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if p, err := netip.ParsePrefix(value); err == nil && (key == "FLANNEL_NETWORK" || key == "FLANNEL_IPV6_NETWORK") {
				ranges = append(ranges, Range{Use: "pod", Prefix: p.Masked()})
			}
		}
	}
	var found []Finding
	for i := range pools {
		p := &pools[i]
		if !concerned(p.network) {
			continue
		}
		for _, c := range ranges {
			if c.Use == "pod" && p.network.isDefault {
				continue // where they belong
			}
			if slices.ContainsFunc(p.ranges, func(a addresses) bool { return a.subnet.Overlaps(c.Prefix) }) {
				found = append(found, newFinding(PoolOverlap, p.network.object(), fmt.Sprintf("%s is within the cluster's %s addresses, %s", p, c.Use, c.Prefix), "give it a range of its own: pods of this network would look for that part of the cluster on their own link"))
			}
		}
	}
	return found
}

// nodeOverlaps finds addresses of the node itself.
func nodeOverlaps(pools []pool, n *node, concerned func(*network) bool) []Finding {
	var found []Finding
	for i := range pools {
		p := &pools[i]
		if !concerned(p.network) {
			continue
		}
		own := hostLinks(p.network)
		for _, link := range n.links {
			for _, addr := range link.Addrs {
				if addr.Addr().IsLoopback() || addr.Addr().IsLinkLocalUnicast() {
					continue
				}
				f, ok := p.meets(link.Name, addr, slices.Contains(own, link.Name))
				if ok {
					found = append(found, f)
				}
			}
		}
	}
	return found
}

// meets compares a pool with an address of the node. On the network's own link it is in the same subnet, and must not be given away; a bridge has
// the gateway's.
func (p *pool) meets(link string, addr netip.Prefix, own bool) (Finding, bool) {
	for _, r := range p.ranges {
		switch {
		case own && r.contains(addr.Addr()) && r.gateway != addr.Addr():
			return newFinding(PoolNodeAddress, p.network.object(), fmt.Sprintf("%s contains %s, the node's own address on %s: a pod may get it too", p, addr.Addr(), link),
				"exclude it with rangeStart and rangeEnd in "+p.network.from), true
		case !own && addr.Bits() < addr.Addr().BitLen() && r.subnet.Overlaps(addr.Masked()) && r.gateway != addr.Addr():
			return newFinding(PoolOverlap, p.network.object(), fmt.Sprintf("%s is within %s, the node's own subnet on %s", p, addr.Masked(), link),
				"give it a range of its own, or name that link as \"master\" if it is to be the same network"), true
		}
	}
	return Finding{}, false
}

// addressConflicts finds addresses that two pods of a network have.
func addressConflicts(all, chosen []inspect.Pod) []Finding {
	type place struct {
		network string
		address netip.Addr
	}
	users := map[place][]string{}
	for i := range all {
		if all[i].State == inspect.Gone {
			continue
		}
		for j := range all[i].Interfaces {
			each := &all[i].Interfaces[j]
			if each.Network == "" {
				continue
			}
			for _, a := range each.Addresses() {
				if !a.Addr().IsLinkLocalUnicast() {
					at := place{each.Network, a.Addr()}
					users[at] = append(users[at], all[i].Ref())
				}
			}
		}
	}
	var found []Finding
	for at, pods := range users {
		slices.Sort(pods)
		if pods = slices.Compact(pods); len(pods) > 1 && slices.ContainsFunc(chosen, func(p inspect.Pod) bool { return slices.Contains(pods, p.Ref()) }) {
			found = append(found, newFinding(AddressConflict, "network "+at.network, fmt.Sprintf("%s is the address of several pods: %s", at.address, list(pods)), "give each its own (IPAM static gives all pods the same; ask for \"ips\" in the annotation), and delete all but one of the pods"))
		}
	}
	slices.SortFunc(found, compareFindings)
	return found
}
