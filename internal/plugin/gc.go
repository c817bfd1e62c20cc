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

// validAttachments reads the runtime's list. Without one nothing can be told from stale, so that is refused.
func validAttachments(stdin []byte) (map[types.GCAttachment]bool, error) {
	var conf struct {
		Valid *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
		// libcni wrote this key before the specification was corrected, and writes both today.
		Old *[]types.GCAttachment `json:"cni.dev/attachments"`
	}
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, fmt.Errorf("%w: cni.dev/valid-attachments: %w", config.ErrInvalid, err)
	}
	list := conf.Valid
	if list == nil {
		list = conf.Old
	}
	if list == nil {
		return nil, fmt.Errorf("%w: GC without \"cni.dev/valid-attachments\": the runtime has to say what is alive", config.ErrInvalid)
	}
	valid := make(map[types.GCAttachment]bool, len(*list))
	for _, a := range *list {
		valid[a] = true
	}
	return valid, nil
}

// collection gathers what GC hands to the delegates.
type collection struct {
	alive map[types.GCAttachment]bool
	lists []*nad.List
	seen  map[string]bool
	// unknown is set when not all that is alive is known: then nothing may be called stale.
	unknown bool
}

func (g *collection) addLists(p *delegate.Plan) {
	for i := range p.Attachments {
		g.addList(p.Attachments[i].List)
	}
}

// addList adds one list of each network name: delegates tell networks apart by it.
func (g *collection) addList(l *nad.List) {
	if !g.seen[l.Name()] {
		g.seen[l.Name()] = true
		g.lists = append(g.lists, l)
	}
}

func (g *collection) addAlive(p *delegate.Plan) {
	for i := range p.Attachments {
		g.alive[types.GCAttachment{ContainerID: p.Sandbox.ContainerID, IfName: p.Attachments[i].IfName}] = true
	}
}

// gcTimeout bounds a GC, which keeps every ADD and DEL of the node waiting: for less than their patience. What it does not get to
// is on record for the next.
const gcTimeout = 40 * time.Second

func (c *call) gc(ctx context.Context, valid map[types.GCAttachment]bool) error {
	lock, err := c.lockAll(ctx, true)
	if err != nil {
		return err
	}
	defer c.unlock(lock)
	ctx, cancel := context.WithTimeout(ctx, gcTimeout)
	defer cancel()

	g := &collection{alive: maps.Clone(valid), seen: map[string]bool{}}
	if network, err := c.configuredDefault(); err == nil && network != nil {
		g.addList(network.List)
	}
	errs := []error{c.gcRecords(ctx, valid, g), c.gcLegacy(ctx, valid, g)}
	if !g.unknown {
		alive := slices.SortedFunc(maps.Keys(g.alive), func(a, b types.GCAttachment) int {
			return cmp.Or(strings.Compare(a.ContainerID, b.ContainerID), strings.Compare(a.IfName, b.IfName))
		})
		c.trace.begin("gc")
		errs = append(errs, c.executor(c.cfg.CNIDir).GC(ctx, g.lists, alive))
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

// gcRecords undoes the records whose container is gone. Those of another Plexus configuration are that one's business, and alive. So
// is a record that can not be read: whose it is can not be told; the DEL of its container sees to it.
func (c *call) gcRecords(ctx context.Context, valid map[types.GCAttachment]bool, g *collection) error {
	keys, err := c.records.Keys()
	if err != nil {
		return err
	}
	var dead []*delegate.Plan
	errs := []error{c.keepUnrecorded(keys, valid, g)}
	users := map[string]string{} // a container that is not dead, by network namespace
	for _, k := range keys {
		plan, err := c.loadRecord(k)
		if errors.Is(err, record.ErrCorrupt) {
			c.log.Error("a record can not be read: GC leaves it to the DEL of its container", "error", err)
			plan, err = c.fromCache(k)
		} else if err == nil && plan.Config == c.cfg.Name && !valid[types.GCAttachment{ContainerID: plan.Sandbox.ContainerID, IfName: plan.Sandbox.IfName}] {
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
		g.addLists(plan)
		g.addAlive(plan)
	}
	for _, plan := range dead {
		if user, used := users[plan.Sandbox.NetNS]; used && user != plan.Sandbox.ContainerID {
			plan.Sandbox.NetNS = "" // the path is another sandbox's by now
		}
		if err := c.collect(ctx, key(plan.Sandbox), plan); err != nil {
			errs = append(errs, fmt.Errorf("container %s: %w", plan.Sandbox.ContainerID, err))
			g.addAlive(plan) // what is left is still held
		}
	}
	return errors.Join(errs...)
}

// keepUnrecorded has what libcni's cache tells of living sandboxes kept that have no record: it is lost, or was set aside by a CHECK.
func (c *call) keepUnrecorded(keys []string, valid map[types.GCAttachment]bool, g *collection) error {
	var errs []error
	for a := range valid {
		sandbox := delegate.Sandbox{ContainerID: a.ContainerID, IfName: a.IfName}
		if slices.Contains(keys, key(sandbox)) {
			continue
		}
		plan, unreadable, err := legacy.FromCache(c.cfg.CNIDir, sandbox)
		if err == nil && len(unreadable) > 0 {
			err = fmt.Errorf("%w: container %s has no record, and of libcni's cache %v can not be read: nothing is called stale until its DEL", record.ErrCorrupt, a.ContainerID, unreadable)
		}
		if err != nil {
			g.unknown = true
			errs = append(errs, err)
		}
		if plan != nil {
			g.addLists(plan)
			g.addAlive(plan)
		}
	}
	return errors.Join(errs...)
}

// collect undoes the record of a sandbox that is gone. Its lock may still be held by plugins that a killed call left behind.
func (c *call) collect(ctx context.Context, k string, plan *delegate.Plan) error {
	lock, err := c.lockOne(ctx, k)
	if err != nil {
		return err
	}
	defer c.unlock(lock)
	plan.Sandbox.NetNS = c.liveNetNS(plan.Sandbox.NetNS)
	c.log.Info("collect a sandbox that is gone", "pod", plan.Pod.String(), "containerID", plan.Sandbox.ContainerID)
	defer c.inherit(lock)()
	return c.undo(ctx, &state{plan: plan, dir: c.cfg.CNIDir})
}

// fromCache is what libcni's cache tells of the sandbox whose record is named k. It changes nothing. An error says that not all of
// its attachments are known.
func (c *call) fromCache(k string) (*delegate.Plan, error) {
	sandbox, ok := sandboxOf(k)
	if !ok {
		return nil, fmt.Errorf("%w: %s names no sandbox", record.ErrCorrupt, k)
	}
	plan, unreadable, err := legacy.FromCache(c.cfg.CNIDir, sandbox)
	if err == nil && (plan == nil || len(unreadable) > 0) {
		err = fmt.Errorf("%w: %s, and libcni's cache does not make up for it: nothing is called stale until the DEL of its container, or until the file is deleted", record.ErrCorrupt, k)
	}
	return plan, err
}

// gcLegacy does the same for the state of the meta-plugin that was here before, which knows neither the interface of the container nor
// whose it is.
func (c *call) gcLegacy(ctx context.Context, valid map[types.GCAttachment]bool, g *collection) error {
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
		if err != nil {
			g.unknown = true
			errs = append(errs, err)
			continue
		}
		if plan == nil {
			continue // its DEL was faster
		}
		g.addLists(plan)
		// A container that this runtime does not list may be another runtime's, and live.
		if alive || c.liveNetNS(plan.Sandbox.NetNS) != "" {
			g.addAlive(plan)
			continue
		}
		plan.Sandbox.NetNS = ""
		if err := c.undo(ctx, &state{plan: plan, dir: c.cfg.LegacyCNIDir, legacy: true}); err != nil {
			errs = append(errs, fmt.Errorf("container %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}
