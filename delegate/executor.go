// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/nad"
)

// Kernel is what an Executor asks of a sandbox itself; all else is done by plugins.
type Kernel interface {
	// SetDefaultRoutes makes one interface of the sandbox hold the default routes of the families that r names.
	SetDefaultRoutes(ctx context.Context, netns string, r netdev.DefaultRoutes) error
	// Links lists the interfaces of a sandbox.
	Links(netns string) ([]netdev.Link, error)
}

// Runner runs CNI plugins.
type Runner interface {
	// Find reports why the plugin of a call cannot be run; dirs are searched for its program.
	Find(pluginType string, program bool, dirs []string) error
	// RunsIPAM reports whether it is known of a plugin that it runs the program that its "ipam" names.
	RunsIPAM(pluginType string, program bool, dirs []string) bool
	// Call runs a plugin and returns what it printed. A [types.Error] is the plugin's own.
	Call(ctx context.Context, c Call) ([]byte, error)
}

// Executor runs plans with the CNI plugins of the host. It calls the plugins of a list itself, one by one, as libcni would: libcni
// ends a DEL at the first plugin that fails, and hands its cached result to CHECK and DEL in place of the recorded one.
type Executor struct {
	// BinDirs are searched for plugins, in order.
	BinDirs []string
	// CacheDir holds libcni's result cache, in its subfolder results. It is scratch: the record is the truth.
	CacheDir string
	// Environ is the environment that plugins get beside CNI's parameters.
	Environ []string
	Plugins Runner
	Kernel  Kernel
	// Acquire waits until the call may run plugins, and is asked before each of them; nil for no limit. What is required, to undo or to
	// check, it refuses only when ctx is done.
	Acquire func(ctx context.Context, required bool) error
	// Warn is told what does not fail a call; nil for nobody.
	Warn func(string)
	// Step is called with a name before each step with an effect, and its error ends the ADD there; nil for none. Tests
	// fail and kill at each of them.
	Step func(name string) error
	// Progress is called in the course of a Del, after each attachment, while something is left of the plan; nil for nobody.
	Progress func(*Plan)
}

// Failure is what became of one attachment.
type Failure struct {
	Network, IfName string
	cause           error
}

func (a *Attachment) failed(cause error) error {
	return &Failure{Network: a.network(), IfName: a.IfName, cause: cause}
}

func (f *Failure) Error() string { return describe(f.Network, f.IfName) + ": " + f.cause.Error() }

// Unwrap returns what the plugin, or Plexus, says.
func (f *Failure) Unwrap() error { return f.cause }

// findPlugins makes sure that the programs of a network are there, its IPAM's included.
func (e *Executor) findPlugins(plugins []plugin) error {
	for _, p := range plugins {
		if err := e.Plugins.Find(p.name, p.program, e.BinDirs); err != nil {
			return err
		}
		ipam := e.ipamOf(&p)
		if ipam == "" {
			continue
		}
		if err := e.Plugins.Find(ipam, true, e.BinDirs); err != nil {
			return fmt.Errorf("ipam: %w", err)
		}
	}
	return nil
}

// Add attaches the sandbox to all networks of the plan, in order, one at a time (NPWG §7.3). When it fails, what is left in
// the plan is what was begun: [Executor.Del] undoes it. Nothing has been touched if a plugin is not there.
func (e *Executor) Add(ctx context.Context, p *Plan) error {
	lists := make([][]plugin, len(p.Attachments))
	for i := range p.Attachments {
		a := &p.Attachments[i]
		var err error
		if lists[i], err = pluginsOf(a.List); err == nil {
			err = e.findPlugins(lists[i])
		}
		if err != nil {
			err = a.failed(err)
			p.Attachments = nil
			return err
		}
	}
	for i := range p.Attachments {
		a := &p.Attachments[i]
		if err := e.attach(ctx, p.Sandbox, a, lists[i]); err != nil {
			a.AddError = err.Error()
			err = a.failed(fmt.Errorf("%w%s", err, missingLink(lists[i])))
			p.Attachments = p.Attachments[:i+1]
			return err
		}
	}
	if err := e.step("routes"); err != nil {
		return err
	}
	if err := e.takeDefaultRoutes(ctx, p); err != nil {
		return err
	}
	return e.writeCache(p)
}

// missingLink says what a plugin's "Link not found" keeps to itself: which link of the host its configuration names in vain. It is ""
// when there is nothing to say.
func missingLink(plugins []plugin) string {
	for _, p := range plugins {
		if string(p.conf["linkInContainer"]) == "true" {
			continue
		}
		for _, key := range []string{"master", "device"} {
			var link string
			if json.Unmarshal(p.conf[key], &link) != nil || link == "" {
				continue // a key of that name that means something else
			}
			if _, err := net.InterfaceByName(link); err != nil {
				return fmt.Sprintf("; its %q is %q, which this host does not have: correct it in the network's configuration", key, link)
			}
		}
	}
	return ""
}

func (e *Executor) attach(ctx context.Context, s Sandbox, a *Attachment, plugins []plugin) error {
	if err := e.step("attach " + a.IfName); err != nil {
		return err
	}
	begun := 0
	a.Begun = &begun
	if err := e.prepareDeviceInfo(a); err != nil {
		return err
	}
	var result json.RawMessage
	for i := range plugins {
		if err := e.acquire(ctx, false); err != nil {
			return fmt.Errorf("plugin %s: not started: %w", plugins[i].name, err)
		}
		begun++
		var err error
		if result, err = e.add(ctx, s, a, &plugins[i], result); err != nil {
			a.Refused = refused(err)
			return err
		}
	}
	a.State, a.Result = Attached, result
	if err := e.verify(s, a); err != nil {
		return err
	}
	a.Begun = nil
	return e.step("attached " + a.IfName)
}

// refused reports whether a plugin said itself why its ADD failed: one that was cut short may have done anything.
func refused(err error) bool {
	for _, unknown := range []error{context.DeadlineExceeded, context.Canceled, ErrKilled, ErrBadOutput, errStragglers} {
		if errors.Is(err, unknown) {
			return false
		}
	}
	return true
}

// add calls one plugin, with the result of those before it, and returns the result that it printed.
func (e *Executor) add(ctx context.Context, s Sandbox, a *Attachment, p *plugin, previous json.RawMessage) (json.RawMessage, error) {
	var result json.RawMessage
	call, err := e.callOf("ADD", s, a, p, previous)
	if err != nil {
		return nil, err
	}
	call.Check = func(stdout []byte) error {
		var unusable error
		_, result, unusable = parseResult(stdout, a.List.CNIVersion())
		return unusable
	}
	_, err = e.Plugins.Call(ctx, call)
	return result, err
}

// callOf is a call of one plugin about an attachment; previous is the result that it is told, nil for none.
func (e *Executor) callOf(command string, s Sandbox, a *Attachment, p *plugin, previous json.RawMessage) (Call, error) {
	more := map[string]json.RawMessage{}
	if len(previous) > 0 {
		more["prevResult"] = previous
	}
	stdin, err := p.config(a.List, a.CapabilityArgs, more)
	if err != nil {
		return Call{}, fmt.Errorf("plugin %s: encode its configuration: %w", p.name, err)
	}
	return Call{Type: p.name, Program: p.program, Stdin: stdin, Environ: e.environ(command, s, a.IfName, a.Args)}, nil
}

// Del undoes every attachment of the plan, in reverse order, and goes on after an error: what could not be undone is what is left
// in the plan, for the next try. It is the one way to undo: for DEL, rollback, GC and repair.
//
// What earlier tries failed at comes last, and no plugin gets more than half of the time that is left while others wait, so that one
// that hangs does not keep the others from their DEL when the runtime cuts each try short.
func (e *Executor) Del(ctx context.Context, p *Plan) error {
	err := e.detachAll(ctx, p, p.Sandbox, &p.Attachments)
	if len(p.Attachments) > 0 && len(p.Leftovers) > 0 {
		return err // of one name: their DEL could release what today's still use
	}
	return errors.Join(err, e.detachAll(ctx, p, Sandbox{ContainerID: p.Sandbox.ContainerID, IfName: p.Sandbox.IfName}, &p.Leftovers))
}

// detachAll undoes one list of a plan's attachments, and leaves in it what could not be undone.
func (e *Executor) detachAll(ctx context.Context, p *Plan, s Sandbox, list *[]Attachment) error {
	all := slices.Clone(*list) // a snapshot of the plan may be on its way to the disk
	undone := make([]bool, len(all))
	var errs []error
	order := undoOrder(len(all), func(i int) int { return all[i].Tries })
	for n, i := range order {
		a := &all[i]
		err := ctx.Err()
		if err == nil {
			err = e.detach(ctx, s, a, n < len(order)-1)
			if err != nil {
				a.Tries++
			}
		}
		if undone[i] = err == nil; !undone[i] {
			err = a.failed(err)
			a.State, a.Error = UndoFailed, err.Error()
			errs = append(errs, err)
		}
		*list = nil
		for j := range all {
			if !undone[j] {
				*list = append(*list, all[j])
			}
		}
		if e.Progress != nil && p.Left() {
			e.Progress(p)
		}
	}
	return errors.Join(errs...)
}

// undoOrder are the indices below n in the order in which they are undone: from the last to the first, and those that failed least first.
func undoOrder(n int, tries func(int) int) []int {
	order := make([]int, 0, n)
	for i := n - 1; i >= 0; i-- {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return tries(a) - tries(b) })
	return order
}

// share bounds one call of an undo while others wait for theirs.
func share(ctx context.Context, othersWait bool) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || !othersWait {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, time.Until(deadline)/2, errors.New("the rest of the time is for what else has to be undone"))
}

// detach calls the DEL of each plugin of an attachment, from the last to the first, and goes on after an error.
func (e *Executor) detach(ctx context.Context, s Sandbox, a *Attachment, othersWait bool) error {
	if err := e.step("detach " + a.IfName); err != nil {
		return err
	}
	plugins, err := pluginsOf(a.List)
	if err != nil {
		return err
	}
	previous, err := a.previousResult()
	if err != nil {
		return err
	}
	begun := len(plugins)
	if a.Begun != nil {
		begun = min(begun, *a.Begun)
	}
	undo := make([]PluginUndo, len(plugins))
	copy(undo, a.Undo)
	var errs []error
	order := undoOrder(len(plugins), func(i int) int { return undo[i].Tries })
	for n, i := range order {
		if undo[i].Done {
			continue
		}
		err := e.del(ctx, s, a, &plugins[i], previous, othersWait || n < len(order)-1 || e.ipamOf(&plugins[i]) != "")
		switch {
		case err != nil && i < begun:
			undo[i].Tries++
			errs = append(errs, err)
			continue
		case err != nil:
			e.warn(fmt.Sprintf("%s: a plugin that was not called on ADD refuses the DEL: %v", a, err))
		}
		undo[i].Done = true
	}
	if len(errs) == 0 {
		e.removeCache(s, a)
		if err := removeDeviceInfo(a); err != nil {
			e.warn(fmt.Sprintf("%s: %v", a, err)) // the next ADD of that name removes it
		}
		return nil
	}
	a.Undo = undo
	if a.Gone = !e.present(s, a); a.Gone {
		for i := range undo {
			if !undo[i].Done && !undo[i].Released {
				undo[i].Released = e.releaseAddresses(ctx, s, a, &plugins[i], previous, othersWait)
			}
		}
	}
	return errors.Join(errs...)
}

func (e *Executor) del(ctx context.Context, s Sandbox, a *Attachment, p *plugin, previous json.RawMessage, othersWait bool) error {
	call, err := e.callOf("DEL", s, a, p, previous)
	if err != nil {
		return err
	}
	if err = e.acquire(ctx, true); err != nil {
		return err
	}
	ctx, cancel := share(ctx, othersWait)
	defer cancel()
	_, err = e.Plugins.Call(ctx, call)
	return err
}

// present reports whether an interface of the attachment may still be in its sandbox.
func (e *Executor) present(s Sandbox, a *Attachment) bool {
	if s.NetNS == "" {
		return false
	}
	links, err := e.Kernel.Links(s.NetNS)
	if err != nil {
		return true // not known
	}
	names := []string{a.IfName}
	if interfaces, err := a.PodInterfaces(s.NetNS); err == nil {
		for _, i := range interfaces {
			names = append(names, i.Name) // a plugin may choose another name (bond)
		}
	}
	return slices.ContainsFunc(links, func(l netdev.Link) bool { return slices.Contains(names, l.Name) })
}

// ipamOf is the IPAM plugin that a plugin is known to run; "" if there is none.
func (e *Executor) ipamOf(p *plugin) string {
	if p.ipam == "" || !e.Plugins.RunsIPAM(p.name, p.program, e.BinDirs) {
		return ""
	}
	return p.ipam
}

// releaseAddresses gives back the addresses of an attachment whose interface is gone and whose plugin refuses its DEL all the same, as
// vlan does when its master is missing: IPAM's DEL needs nothing of that. The plugin would have called it so (CNI 1.1.0 §4). It reports
// whether none is leased any more, as far as that can be told.
func (e *Executor) releaseAddresses(ctx context.Context, s Sandbox, a *Attachment, p *plugin, previous json.RawMessage, othersWait bool) bool {
	ipam := e.ipamOf(p)
	if ipam == "" {
		return true
	}
	call, err := e.callOf("DEL", s, a, p, previous)
	if err == nil {
		own, cancel := share(ctx, othersWait)
		defer cancel()
		call.Type, call.Program = ipam, true
		_, err = e.Plugins.Call(own, call)
	}
	if err != nil {
		e.warn(fmt.Sprintf("%s: its addresses could not be released by their IPAM plugin either: %v", a, err))
	}
	return err == nil
}

// previousResult is the recorded result in the network's version, as CHECK and DEL hand it to plugins; nil for none.
func (a *Attachment) previousResult() (json.RawMessage, error) {
	ok, err := version.GreaterThanOrEqualTo(a.List.CNIVersion(), "0.4.0")
	if err != nil || !ok {
		return nil, err // DEL got a prevResult only in CNI 0.4.0
	}
	result, previous, err := parseResult(a.Result, a.List.CNIVersion())
	if err == nil && result.Version() != a.List.CNIVersion() {
		if result, err = result.GetAsVersion(a.List.CNIVersion()); err == nil {
			previous, err = json.Marshal(result)
		}
	}
	if err != nil {
		return nil, nil //nolint:nilerr // There is none, or it was damaged on disk: plugins have to do without, rather than the pod be stuck.
	}
	return previous, nil
}

// Check asks the plugins of the default network, or of all of them, whether all is as their ADD left it. Networks whose
// configuration is older than the verb, or wants none, are passed over. A plugin that says it has no CHECK is told, and fails nothing.
func (e *Executor) Check(ctx context.Context, p *Plan, all bool) error {
	for i := range p.Attachments {
		a := &p.Attachments[i]
		if !a.List.HasCheck() || (!all && !a.Default) {
			continue
		}
		if err := e.check(ctx, p.Sandbox, a); err != nil {
			return a.failed(err)
		}
	}
	return nil
}

func (e *Executor) check(ctx context.Context, s Sandbox, a *Attachment) error {
	plugins, err := pluginsOf(a.List)
	if err != nil {
		return err
	}
	previous, err := a.previousResult()
	if err != nil {
		return err
	}
	for i := range plugins {
		call, err := e.callOf("CHECK", s, a, &plugins[i], previous)
		if err != nil {
			return err
		}
		if err = e.acquire(ctx, true); err != nil {
			return err
		}
		_, err = e.Plugins.Call(ctx, call)
		if hasNoCheck(err) {
			e.warn(fmt.Sprintf("%s: nothing is known of its state, as a plugin has no CHECK (set \"disableCheck\": true in its configuration): %v", a, err))
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hasNoCheck reports whether a plugin fails a CHECK because it has none. CNI has no code for that; whereabouts, which says "CNI CHECK
// method is not implemented", is the one that is met most.
func hasNoCheck(err error) bool {
	e, ok := errors.AsType[*types.Error](err)
	return ok && (strings.Contains(e.Msg, "not implemented") || (strings.Contains(e.Msg, "CHECK") && strings.Contains(e.Msg, "not supported")))
}

// Status asks the plugins of a network whether they could serve an ADD (CNI 1.1.0). For an older configuration, whose plugins
// know no STATUS, it is enough that they are there.
func (e *Executor) Status(ctx context.Context, l *nad.List) error {
	plugins, err := pluginsOf(l)
	if err == nil {
		err = e.findPlugins(plugins)
	}
	for i := 0; err == nil && i < len(plugins); i++ {
		err = e.callForNetwork(ctx, "STATUS", l, &plugins[i], nil)
	}
	if err != nil {
		return fmt.Errorf("network %s: %w", l.Name(), err)
	}
	return nil
}

// GCRequest is what the plugins of one network are told at GC: which attachments to it are alive.
type GCRequest struct {
	List  *nad.List
	Valid []types.GCAttachment
}

// GC hands the attachments that are alive to the plugins of each network (CNI 1.1.0), so that they drop all others. It goes on
// after an error.
func (e *Executor) GC(ctx context.Context, requests []GCRequest) error {
	var errs []error
	for n, r := range requests {
		if !r.List.HasGC() {
			continue
		}
		if err := e.gc(ctx, r, n < len(requests)-1); err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", r.List.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func (e *Executor) gc(ctx context.Context, r GCRequest, othersWait bool) error {
	ctx, cancel := share(ctx, othersWait)
	defer cancel()
	plugins, err := pluginsOf(r.List)
	// An empty list is "[]": to a plugin, null may be no list at all.
	valid, encodeErr := json.Marshal(append([]types.GCAttachment{}, r.Valid...))
	err = errors.Join(err, encodeErr)
	for i := range plugins {
		// libcni wrote the second key before the specification was corrected, and writes both today.
		err = errors.Join(err, e.callForNetwork(ctx, "GC", r.List, &plugins[i], map[string]json.RawMessage{"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid}))
	}
	return err
}

// callForNetwork calls a verb of CNI 1.1.0 that is about a network and no sandbox. It does nothing for older networks.
func (e *Executor) callForNetwork(ctx context.Context, command string, l *nad.List, p *plugin, more map[string]json.RawMessage) error {
	if ok, err := version.GreaterThanOrEqualTo(l.CNIVersion(), "1.1.0"); err != nil || !ok {
		return err
	}
	stdin, err := p.config(l, nil, more)
	if err == nil {
		err = e.acquire(ctx, true)
	}
	if err == nil {
		_, err = e.Plugins.Call(ctx, Call{Type: p.name, Program: p.program, Stdin: stdin, Environ: e.environ(command, Sandbox{}, "", nil)})
	}
	return err
}

func (e *Executor) acquire(ctx context.Context, required bool) error {
	if e.Acquire == nil {
		return nil
	}
	return e.Acquire(ctx, required)
}

func (e *Executor) warn(text string) {
	if e.Warn != nil {
		e.Warn(text)
	}
}

func (e *Executor) step(name string) error {
	if e.Step == nil {
		return nil
	}
	return e.Step(name)
}
