// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/legacy"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/nad"
)

// GC gives back everything that belongs to no living sandbox (CNI 1.1.0 §2, GC). The runtime lists the default interface of each
// container only: all recorded attachments of a living container are alive, and that is what the delegates are told.
func (p *Plugin) GC(ctx context.Context, args *skel.CmdArgs) error {
	start := time.Now()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	valid, err := validAttachments(args.StdinData)
	if err != nil {
		return err
	}
	return c.done("GC", start, c.gc(ctx, valid))
}

// validAttachments reads the runtime's list. Without one nothing can be told from stale, so that is refused. null is an empty list: libcni
// makes it of Go's nil slice, which CRI-O has for a network without pods.
func validAttachments(stdin []byte) (map[types.GCAttachment]bool, error) {
	// libcni wrote the second key before the specification was corrected, and writes both today.
	const key, oldKey = "cni.dev/valid-attachments", "cni.dev/attachments"
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, fmt.Errorf("%w: %w", config.ErrInvalid, err)
	}
	raw, ok := conf[key]
	if !ok {
		raw, ok = conf[oldKey]
	}
	if !ok {
		return nil, fmt.Errorf("%w: GC without %q: the runtime has to say what is alive", config.ErrInvalid, key)
	}
	var list []types.GCAttachment
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", config.ErrInvalid, key, err)
	}
	valid := make(map[types.GCAttachment]bool, len(list))
	for _, a := range list {
		valid[a] = true
	}
	return valid, nil
}

// collection gathers what GC hands to the delegates.
type collection struct {
	lists []*nad.List
	seen  map[string]bool
	// alive are the attachments that are alive, by network name: plugins tell networks apart by it.
	alive map[string]map[types.GCAttachment]bool
	// unknown is set when not all that is alive is known: then nothing may be called stale.
	unknown bool
}

func (g *collection) addLists(p *delegate.Plan) {
	for _, a := range slices.Concat(p.Attachments, p.Leftovers) {
		g.addList(a.List)
	}
}

// addList adds each configuration of a network name: two namespaces may have chosen one name for different plugins.
func (g *collection) addList(l *nad.List) {
	if text := string(l.Bytes()); !g.seen[text] {
		g.seen[text] = true
		g.lists = append(g.lists, l)
	}
}

func (g *collection) addAlive(p *delegate.Plan) {
	g.addLists(p)
	for i := range p.Attachments {
		g.add(p.Attachments[i].List.Name(), types.GCAttachment{ContainerID: p.Sandbox.ContainerID, IfName: p.Attachments[i].IfName})
	}
}

func (g *collection) add(network string, a types.GCAttachment) {
	if g.alive[network] == nil {
		g.alive[network] = map[types.GCAttachment]bool{}
	}
	g.alive[network][a] = true
}

// requests are what each network is told: its own attachments.
func (g *collection) requests() []delegate.GCRequest {
	var requests []delegate.GCRequest
	for _, l := range g.lists {
		valid := slices.SortedFunc(maps.Keys(g.alive[l.Name()]), func(a, b types.GCAttachment) int {
			return cmp.Or(strings.Compare(a.ContainerID, b.ContainerID), strings.Compare(a.IfName, b.IfName))
		})
		requests = append(requests, delegate.GCRequest{List: l, Valid: valid})
	}
	return requests
}

// gcTimeout bounds a GC, which keeps every ADD and DEL of the node waiting: for less than their patience. What it does not get to
// is on record for the next.
const gcTimeout = 40 * time.Second

const (
	// collectTimeout is how much of it is for the undo of sandboxes, collectOneTimeout for one of them.
	collectTimeout    = 25 * time.Second
	collectOneTimeout = 10 * time.Second
)

func (c *call) gc(ctx context.Context, valid map[types.GCAttachment]bool) error {
	lock, err := c.lockAll(ctx, true)
	if err != nil {
		return err
	}
	defer c.unlock(lock)
	// Should this call be killed, no ADD comes in between while a plugin goes by what was alive by now.
	defer c.inherit(lock)()
	ctx, cancel := context.WithTimeout(ctx, gcTimeout)
	defer cancel()

	g := &collection{alive: map[string]map[types.GCAttachment]bool{}, seen: map[string]bool{}}
	network, err := c.configuredDefault()
	if err == nil && network != nil {
		g.addList(network.List)
		for a := range valid {
			g.add(network.List.Name(), a) // of a container that nothing else is known of, the runtime still knows that
		}
	}
	errs := []error{c.gcRecords(ctx, valid, g), c.gcMultus(ctx, valid, g)}
	if !g.unknown {
		c.trace.begin("gc")
		errs = append(errs, c.executor(c.cfg.CNIDir).GC(ctx, g.requests()))
	}
	errs = append(errs, c.records.Sweep())
	return errors.Join(errs...)
}

// configuredDefault is the default network if it can be told without a pod; nil if not.
func (c *call) configuredDefault() (*delegate.Network, error) {
	if c.cfg.ClusterNetwork != "" && !c.cfg.ClusterNetworkIsPath() {
		return nil, nil // its list is in the records of its pods
	}
	return c.resolver().DefaultNetwork(nil)
}

// gcRecords undoes the records whose container is gone. Those of another Plexus configuration are that one's business, and alive; so are
// those of another runtime, of which this one knows nothing, as long as their namespace is there. A record that cannot be read is kept:
// whose it is cannot be told; the DEL of its container sees to it.
func (c *call) gcRecords(ctx context.Context, valid map[types.GCAttachment]bool, g *collection) error {
	keys, err := c.records.Keys()
	if err != nil {
		return err
	}
	runtime := callingRuntime()
	var dead []*delegate.Plan
	errs := []error{c.gcUnrecorded(keys, valid, g, &dead)}
	users := map[string]string{} // a container that is not dead, by network namespace
	for _, k := range keys {
		plan, err := c.loadRecord(k)
		if errors.Is(err, record.ErrCorrupt) {
			c.log.Error("a record cannot be read: GC leaves it to the DEL of its container", "error", err)
			plan, err = c.unreadable(k)
		} else if err == nil && c.isDead(plan, runtime, valid) {
			g.addLists(plan)
			dead = append(dead, plan)
			continue
		}
		if err != nil {
			g.unknown = true
			errs = append(errs, err)
			continue
		}
		users[plan.Sandbox.NetNS] = plan.Sandbox.ContainerID
		g.addAlive(plan)
	}
	return errors.Join(append(errs, c.collectAll(ctx, dead, users, g))...)
}

// collectAll undoes sandboxes that are gone, those that were tried last at the end, each in a time of its own. It leaves some of the GC's time to
// the networks' plugins.
func (c *call) collectAll(ctx context.Context, dead []*delegate.Plan, users map[string]string, g *collection) error {
	ctx, cancel := context.WithTimeout(ctx, collectTimeout)
	defer cancel()
	slices.SortStableFunc(dead, func(a, b *delegate.Plan) int { return a.Tried.Compare(b.Tried) })
	var errs []error
	for _, plan := range dead {
		plan.Sandbox.NetNS = c.recordedNetNS(plan)
		if user, used := users[plan.Sandbox.NetNS]; used && user != plan.Sandbox.ContainerID {
			plan.Sandbox.NetNS = "" // the path is another sandbox's by now
		}
		one, cancelOne := context.WithTimeout(ctx, collectOneTimeout)
		err := c.collect(one, plan)
		cancelOne()
		if err != nil {
			errs = append(errs, fmt.Errorf("container %s: %w", plan.Sandbox.ContainerID, err))
			if plan.Sandbox.NetNS != "" {
				g.addAlive(plan) // what is left may still be in use
			}
		}
	}
	return errors.Join(errs...)
}

// isDead reports whether a record is of a sandbox that the runtime has done with.
func (c *call) isDead(p *delegate.Plan, runtime string, valid map[types.GCAttachment]bool) bool {
	if p.ConfName != c.cfg.Name || valid[types.GCAttachment{ContainerID: p.Sandbox.ContainerID, IfName: p.Sandbox.IfName}] {
		return false
	}
	if runtime != "" && p.Runtime == runtime {
		return true
	}
	// Where not even its folder is to be seen, as in another mount namespace, a path that is not there proves nothing.
	return c.netNS(p, p.Sandbox.NetNS) == "" && (strings.HasPrefix(p.Sandbox.NetNS, "/proc/") || fileExists(filepath.Dir(p.Sandbox.NetNS)))
}

// gcUnrecorded sees to sandboxes that have no record, because it is lost or was quarantined, by what libcni's cache tells of them.
func (c *call) gcUnrecorded(keys []string, valid map[types.GCAttachment]bool, g *collection, dead *[]*delegate.Plan) error {
	sandboxes, err := legacy.Sandboxes(c.cfg.CNIDir)
	errs := []error{err}
	for a := range valid {
		if s := (delegate.Sandbox{ContainerID: a.ContainerID, IfName: a.IfName}); !slices.Contains(sandboxes, s) {
			sandboxes = append(sandboxes, s)
		}
	}
	for _, s := range sandboxes {
		if slices.Contains(keys, key(s)) {
			continue
		}
		plan, unreadable, err := c.fromCache(s)
		if err == nil && len(unreadable) > 0 {
			err = fmt.Errorf("%w: container %s has no record, and of libcni's cache %v cannot be read: nothing is called stale until its DEL", record.ErrCorrupt, s.ContainerID, unreadable)
		}
		if err != nil {
			g.unknown = true
			errs = append(errs, err)
		}
		switch {
		case plan == nil:
		case valid[types.GCAttachment{ContainerID: s.ContainerID, IfName: s.IfName}] || c.netNS(plan, plan.Sandbox.NetNS) != "":
			g.addAlive(plan)
		default:
			g.addLists(plan)
			*dead = append(*dead, plan)
		}
	}
	return errors.Join(errs...)
}

// collect undoes the record of a sandbox that is gone. Its lock may still be held by plugins that a killed call left behind.
func (c *call) collect(ctx context.Context, plan *delegate.Plan) error {
	lock, err := c.lockOne(ctx, key(plan.Sandbox))
	if err != nil {
		return err
	}
	defer c.unlock(lock)
	c.log.Info("collect a sandbox that is gone", "pod", plan.Pod.String(), "containerID", plan.Sandbox.ContainerID)
	return c.undo(ctx, &state{plan: plan, dir: c.cfg.CNIDir})
}

// unreadable is what libcni's cache tells of the sandbox whose record, named k, cannot be read. It changes nothing. An error says that
// not all of its attachments are known.
func (c *call) unreadable(k string) (*delegate.Plan, error) {
	sandbox, ok := sandboxOf(k)
	if !ok {
		return nil, fmt.Errorf("%w: %s names no sandbox", record.ErrCorrupt, k)
	}
	plan, unreadable, err := c.fromCache(sandbox)
	if err == nil && (plan == nil || len(unreadable) > 0) {
		err = fmt.Errorf("%w: %s, and libcni's cache does not make up for it: nothing is called stale until the DEL of its container, or until the file is deleted", record.ErrCorrupt, k)
	}
	return plan, err
}

// gcMultus does the same for the state of Multus, which knows neither the interface of the container nor whose it is.
func (c *call) gcMultus(ctx context.Context, valid map[types.GCAttachment]bool, g *collection) error {
	ifNames := make(map[string]string, len(valid))
	for a := range valid {
		ifNames[a.ContainerID] = a.IfName
	}
	ids, err := legacy.Containers(c.cfg.LegacyCNIDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		ifName, alive := ifNames[id]
		if !alive {
			ifName = "eth0" // what every runtime calls it
		}
		plan, err := legacy.Load(c.cfg.LegacyCNIDir, delegate.Sandbox{ContainerID: id, IfName: ifName})
		if errors.Is(err, record.ErrCorrupt) && !alive {
			err = quarantine(filepath.Join(c.cfg.LegacyCNIDir, id))
		}
		if err != nil {
			g.unknown = true
			errs = append(errs, err)
			continue
		}
		if plan == nil {
			continue // its DEL was faster
		}
		g.addLists(plan)
		// A container that this runtime does not list may be another runtime's, and live. So may one whose namespace is not known.
		if alive || plan.Sandbox.NetNS == "" || c.recordedNetNS(plan) != "" {
			g.addAlive(plan)
			continue
		}
		plan.Sandbox.NetNS = ""
		if err := c.undo(ctx, &state{plan: plan, dir: c.cfg.LegacyCNIDir, multus: true}); err != nil {
			errs = append(errs, fmt.Errorf("container %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}
