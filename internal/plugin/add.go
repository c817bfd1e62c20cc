// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/source"
)

// Add attaches a sandbox to all networks of its pod (CNI 1.1.0 §2, ADD) and returns the default network's result in the
// configuration's version. It succeeds as a whole, or leaves nothing.
func (p *Plugin) Add(ctx context.Context, args *skel.CmdArgs) (types.Result, error) {
	start := time.Now()
	// While it waits for the disk, the source and the plugins. In this order they are needed.
	go learn(source.Selection{}, types.PluginConf{}, delegate.Plan{}, types100.Result{}, delegate.CacheEntry{}, source.Report{})
	c, err := p.newCall(args)
	if err != nil {
		return nil, err
	}
	result, err := c.add(ctx)
	return result, c.done("ADD", start, err)
}

func (c *call) add(ctx context.Context) (types.Result, error) {
	if err := c.checkNetNS(); err != nil {
		return nil, err
	}
	bootID, err := c.Kernel.BootID()
	if err != nil {
		return nil, err
	}
	// Before the lock: a DEL of the sandbox need not wait for it. And before any plugin runs, which may need what is not ready.
	if err = waitForFile(ctx, c.cfg.ReadinessIndicatorFile); err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c.repair(ctx, bootID)
	leftovers, err := c.undoPreviousADD(ctx)
	if err != nil {
		return nil, err
	}
	c.limiter.release() // what follows may wait for others, and runs no plugin
	src, err := c.Source(c.cfg)
	if err != nil {
		return nil, err
	}
	plan, err := c.plan(ctx, src, bootID)
	if err != nil {
		return nil, err
	}
	plan.Leftovers = leftovers
	if err = c.checkIfNames(plan); err != nil {
		return nil, err
	}
	if err = c.step("record"); err != nil {
		return nil, err
	}
	if err = c.records.Save(key(c.sandbox), plan); err != nil {
		return nil, fmt.Errorf("record the attachments before they are made: %w", err)
	}
	result, err := c.attach(ctx, src, plan)
	if err != nil {
		return nil, c.rollBack(ctx, plan, err)
	}
	return result, nil
}

// checkNetNS refuses what is no network namespace, or the host's own: skel does the latter too, but only after the ADD, when all
// has been done to it.
func (c *call) checkNetNS() error {
	path := c.sandbox.NetNS
	refuse := func(why string) error {
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("CNI_NETNS %s %s", path, why), "")
	}
	is, err := c.Kernel.IsNetNS(path)
	if err != nil {
		return refuse("cannot be read: " + err.Error())
	}
	if !is {
		return refuse("is not a network namespace, or no longer: the container runtime has to make the sandbox anew")
	}
	own, err := c.Kernel.SameNetNS(path)
	if err != nil {
		return refuse("cannot be read: " + err.Error())
	}
	if own && !c.allowOwnNetNS {
		return refuse("is the host's own network namespace, which a pod's networks must not be put into")
	}
	return nil
}

// undoPreviousADD gives back what an earlier ADD for the same sandbox left, when the runtime crashed in between. It returns what could
// not be undone and must not keep a new sandbox of that name from starting: the next DEL of it tries that again.
func (c *call) undoPreviousADD(ctx context.Context) ([]delegate.Attachment, error) {
	s, err := c.loadState(c.sandbox)
	if err != nil || s == nil {
		return nil, err
	}
	c.log.Info("undo what an earlier ADD of this sandbox left", "containerID", c.sandbox.ContainerID, "ifName", c.sandbox.IfName)
	// This ADD may be about a new namespace, in which nothing is to be undone.
	s.plan.Sandbox.NetNS = cmp.Or(s.plan.Sandbox.NetNS, s.recordedNetNS)
	err = c.undo(ctx, s)
	if err != nil && !s.tolerable() {
		return nil, fmt.Errorf("undo what an earlier ADD of this sandbox left: %w", err)
	}
	c.warn("something of an earlier ADD of this sandbox is left; its DEL tries again", err)
	// One of each name: that of the latest sandbox.
	var left []delegate.Attachment
	for _, a := range slices.Concat(s.plan.Attachments, s.plan.Leftovers) {
		if !slices.ContainsFunc(left, func(b delegate.Attachment) bool { return b.IfName == a.IfName && b.List.Name() == a.List.Name() }) {
			left = append(left, a)
		}
	}
	return left, nil
}

// plan finds out all that has to be done, and touches nothing.
func (c *call) plan(ctx context.Context, src source.Source, bootID string) (*delegate.Plan, error) {
	c.trace.begin("lookup")
	selection, err := c.resolver().Lookup(ctx, src)
	if err != nil {
		return nil, err
	}
	c.selects = selection.BySelection()
	for _, w := range selection.Warnings {
		c.log.Warn(w, "pod", c.args.Pod.String(), "containerID", c.sandbox.ContainerID)
	}
	c.trace.begin("plan")
	networks, err := c.resolver().Networks(selection)
	if err != nil {
		return nil, err
	}
	return delegate.NewPlan(delegate.Request{
		Config:        c.cfg.Name,
		BootID:        bootID,
		Runtime:       callingRuntime(),
		NetNSCookie:   c.netNSCookie(),
		Now:           time.Now().UTC().Truncate(time.Second),
		Sandbox:       c.sandbox,
		Args:          c.args,
		RuntimeConfig: c.cfg.RuntimeConfig,
		Networks:      networks,
		Rules:         delegate.RulesOf(c.cfg),
		DeviceInfoDir: c.DeviceInfoDir,
	})
}

// netNSCookie identifies the sandbox's namespace. Without it the path has to do.
func (c *call) netNSCookie() uint64 {
	cookie, err := c.Kernel.NetNSCookie(c.sandbox.NetNS)
	c.warn("identify the network namespace", err)
	return cookie
}

// checkIfNames refuses interface names that the sandbox has already. A plugin would fail on one, and its DEL, which goes by the name,
// would then take away what is somebody else's.
func (c *call) checkIfNames(p *delegate.Plan) error {
	links, err := c.Kernel.Links(c.sandbox.NetNS)
	if err != nil {
		return err
	}
	for i := range p.Attachments {
		a := &p.Attachments[i]
		if slices.ContainsFunc(links, func(l netdev.Link) bool { return l.Name == a.IfName }) {
			return fmt.Errorf("%w: %s: the sandbox has an interface of that name already, and no record of Plexus has it: ask for another name, or have the sandbox made anew", delegate.ErrInvalid, a)
		}
	}
	return nil
}

// attach carries the plan out, up to the record that says so.
func (c *call) attach(ctx context.Context, src source.Source, plan *delegate.Plan) (types.Result, error) {
	if err := c.executor(c.cfg.CNIDir).Add(ctx, plan); err != nil {
		return nil, err
	}
	c.limiter.release() // as above
	result, err := plan.DefaultAttachment().ResultAs(c.cfg.CNIVersion)
	if err != nil {
		return nil, err
	}
	return result, c.complete(ctx, src, plan)
}

// complete records that all is attached, and reports it. Both wait, for the disk and for the API server, and neither for the other: if one
// fails, all is undone. Should the call be killed in between, its record is that of an ADD which was never answered, and the runtime's DEL
// undoes it like any other.
func (c *call) complete(ctx context.Context, src source.Source, plan *delegate.Plan) error {
	if err := c.step("complete"); err != nil {
		return err
	}
	plan.Complete = true
	saved := make(chan error, 1)
	go func() { saved <- c.records.Save(key(c.sandbox), plan) }()
	reported := c.step("report")
	if reported == nil {
		reported = c.report(ctx, src, plan)
	}
	// Before anything is undone: an undo saves the same record.
	if err := <-saved; err != nil {
		return &stepError{step: "complete", err: fmt.Errorf("record the attachments: %w", err)}
	}
	if reported != nil {
		return fmt.Errorf("network status: %w", reported)
	}
	return nil
}

// rollBack undoes a failed ADD. The cause stays what the caller is told first.
func (c *call) rollBack(ctx context.Context, plan *delegate.Plan, cause error) error {
	if _, ok := errors.AsType[*stepError](cause); !ok {
		cause = &stepError{step: c.trace.step, err: cause}
	}
	if err := c.undo(context.WithoutCancel(ctx), &state{plan: plan, dir: c.cfg.CNIDir}); err != nil {
		// In words only: the code is the cause's.
		return fmt.Errorf("%w; and the rollback failed; the next DEL tries again, or else a later call of Plexus does: %s", cause, unmistakable(err.Error()))
	}
	return cause
}

// report tells the source what the pod was given. Pods of the system namespaces that select nothing get no status: theirs is an empty one.
func (c *call) report(ctx context.Context, src source.Source, plan *delegate.Plan) error {
	if src == nil || c.args.Pod.IsZero() {
		return nil
	}
	r := source.Report{Pod: c.args.Pod}
	if c.cfg.IsSystemNamespace(c.args.Pod.Namespace) && !c.selects {
		return src.Report(ctx, r)
	}
	for i := range plan.Attachments {
		if err := c.reportAttachment(&r, &plan.Attachments[i]); err != nil {
			return err
		}
	}
	return src.Report(ctx, r)
}

// reportAttachment adds one attachment to a report.
func (c *call) reportAttachment(r *source.Report, a *delegate.Attachment) error {
	result, err := a.ResultAs(a.List.CNIVersion())
	if err != nil {
		return err
	}
	info, err := a.DeviceInfo()
	if err != nil {
		c.log.Warn("device-info file left out", "network", a.Network, "error", err) // it informs, no more
	}
	c.completeDeviceInfo(info)
	status, err := annotations.StatusOf(annotations.Attached{
		Network: a.Network, IfName: a.IfName, Default: a.Default, Result: result, DeviceInfo: info, IsOwn: delegate.IsSandbox(c.sandbox.NetNS),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	r.Status = append(r.Status, status...)
	interfaces, err := annotations.PodInterfaces(result, a.IfName, delegate.IsSandbox(c.sandbox.NetNS))
	if err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	claimed := a.Claimed
	for _, i := range interfaces {
		r.Interfaces = append(r.Interfaces, source.Interface{Network: a.Network, Name: i.Name, Addresses: i.Addresses(), MAC: i.MAC, Claimed: claimed})
		claimed = nil // a device is one interface's
	}
	return nil
}
