// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/nad"
)

// Kernel is what an Executor changes in a sandbox itself; all else is done by plugins.
type Kernel interface {
	// SetDefaultRoutes makes one interface of the sandbox hold the default routes of the families that r names.
	SetDefaultRoutes(ctx context.Context, netns string, r netdev.DefaultRoutes) error
	// Links lists the interfaces of a sandbox.
	Links(netns string) ([]netdev.Link, error)
}

// Executor runs plans with the CNI plugins of the host.
type Executor struct {
	// BinDirs are searched for plugins, in order.
	BinDirs []string
	// CacheDir holds libcni's result cache, in its subfolder results. It is scratch: the record is the truth.
	CacheDir string
	Plugins  invoke.Exec
	Kernel   Kernel
	// Warn is told what an undo gives up; nil for nobody.
	Warn func(string)
	// Step is called with a name before each step with an effect, and its error ends the ADD there; nil for none. Tests
	// fail and kill at each of them.
	Step func(name string) error
}

// Add attaches the sandbox to all networks of the plan, in order, one at a time (NPWG §7.3). When it fails, what is left in
// the plan is what was begun: [Executor.Del] undoes it. Nothing has been touched if a plugin is not there.
func (e *Executor) Add(ctx context.Context, p *Plan) error {
	for i := range p.Attachments {
		a := &p.Attachments[i]
		if err := e.findPlugins(a.List); err != nil {
			failure := a.failed(err)
			p.Attachments = nil
			return failure
		}
	}
	for i := range p.Attachments {
		if err := e.attach(ctx, p.Sandbox, &p.Attachments[i]); err != nil {
			p.Attachments[i].AddError = err.Error()
			err = p.Attachments[i].failed(fmt.Errorf("%w%s", err, missingLink(p.Attachments[i].List)))
			p.Attachments = p.Attachments[:i+1]
			return err
		}
	}
	if err := e.step("routes"); err != nil {
		return err
	}
	return e.takeDefaultRoutes(ctx, p)
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

// findPlugins makes sure that all plugins of a list are there.
func (e *Executor) findPlugins(l *nad.List) error {
	for _, t := range l.Types() {
		path, err := e.Plugins.FindInPath(t, e.BinDirs)
		if err == nil && strings.HasPrefix(path, builtinPath) && listOptsOut(l, t) {
			_, err = findProgram(t, e.BinDirs)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listOptsOut reports whether a list wants the program of a type that Plexus has built in.
func listOptsOut(l *nad.List, pluginType string) bool {
	list, err := libcni.NetworkConfFromBytes(l.Bytes())
	return err == nil && slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool {
		return p.Network.Type == pluginType && optsOut(p.Bytes)
	})
}

// missingLink says what a plugin's "Link not found" keeps to itself: which link of the host its configuration names in vain. It is ""
// when there is nothing to say.
func missingLink(l *nad.List) string {
	var list struct {
		Plugins []struct {
			Master          string `json:"master"`
			Device          string `json:"device"`
			LinkInContainer bool   `json:"linkInContainer"`
		} `json:"plugins"`
	}
	if json.Unmarshal(l.Bytes(), &list) != nil {
		return "" // keys of these names that mean something else
	}
	for _, p := range list.Plugins {
		for _, key := range [][2]string{{"master", p.Master}, {"device", p.Device}} {
			if key[1] == "" || p.LinkInContainer {
				continue
			}
			if _, err := net.InterfaceByName(key[1]); err != nil {
				return fmt.Sprintf("; its %q is %q, which this host does not have: correct it in the network's configuration", key[0], key[1])
			}
		}
	}
	return ""
}

func (e *Executor) attach(ctx context.Context, s Sandbox, a *Attachment) error {
	if err := e.step("attach " + a.IfName); err != nil {
		return err
	}
	list, err := parseList(a)
	if err != nil {
		return err
	}
	if err = e.prepareDeviceInfo(a); err != nil {
		return err
	}
	result, err := e.cni().AddNetworkList(ctx, list, a.runtimeConf(s))
	if err != nil {
		return trimLibcni(err)
	}
	if a.Result, err = json.Marshal(result); err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	a.State = Attached
	if err := e.verify(s, a); err != nil {
		return err
	}
	return e.step("attached " + a.IfName)
}

// Del undoes every attachment of the plan, in reverse order, and goes on after an error: what could not be undone is what is left
// in the plan, for the next try. It is the one way to undo: for DEL, rollback, GC and repair.
func (e *Executor) Del(ctx context.Context, p *Plan) error {
	var left []Attachment
	var errs []error
	for _, a := range slices.Backward(p.Attachments) {
		if err := e.detach(ctx, p.Sandbox, &a); err != nil {
			if a.neverWas(err, p.Began) {
				e.warn(fmt.Sprintf("%s: given up: its plugins refuse the DEL with the words of the ADD that they refused: %v", &a, err))
				continue
			}
			err = a.failed(err)
			a.State, a.Error = Failed, err.Error()
			left = append(left, a)
			errs = append(errs, err)
		}
	}
	slices.Reverse(left)
	p.Attachments = left
	return errors.Join(errs...)
}

// giveUpAfter is how long an attachment that never came about is tried to be undone all the same. What made its plugins fail may
// have been something that passes; a wrong configuration, which is kept on record as it was, does not.
const giveUpAfter = 5 * time.Minute

// neverWas reports whether an attachment need not be undone: its plugins refused the ADD, and for a while they have refused the DEL
// with the same words. They fail before they do anything, as on a configuration that they can not read, and always will.
func (a *Attachment) neverWas(undo error, began time.Time) bool {
	if errors.Is(undo, context.DeadlineExceeded) || errors.Is(undo, context.Canceled) || errors.Is(undo, ErrKilled) {
		return false // a plugin that was cut short may have done anything
	}
	return a.AddError != "" && undo.Error() == a.AddError && !began.IsZero() &&
		time.Since(began).Abs() > giveUpAfter // a clock that was ahead at ADD must not keep the pod until then
}

func (e *Executor) warn(text string) {
	if e.Warn != nil {
		e.Warn(text)
	}
}

func (e *Executor) detach(ctx context.Context, s Sandbox, a *Attachment) error {
	if err := e.step("detach " + a.IfName); err != nil {
		return err
	}
	list, err := listWithResult(a)
	if err != nil {
		return err
	}
	if err := e.cni().DelNetworkList(ctx, list, a.runtimeConf(s)); err != nil {
		return trimLibcni(err)
	}
	_ = os.Remove(e.cacheFile(s, a) + cacheTmp) // a killed call may have left it, or not
	return removeDeviceInfo(a)
}

// Check asks the plugins of each attachment whether all is as their ADD left it. Attachments whose configuration is older than
// the verb are passed over.
func (e *Executor) Check(ctx context.Context, p *Plan) error {
	for i := range p.Attachments {
		a := &p.Attachments[i]
		list, err := listWithResult(a)
		if err != nil {
			return a.failed(err)
		}
		err = e.cni().CheckNetworkList(ctx, list, a.runtimeConf(p.Sandbox))
		if err != nil && !errors.Is(err, libcni.ErrorCheckNotSupp) {
			return a.failed(trimLibcni(err))
		}
	}
	return nil
}

// Status asks the plugins of a network whether they could serve an ADD (CNI 1.1.0). For an older configuration, whose plugins
// know no STATUS, it is enough that they are there.
func (e *Executor) Status(ctx context.Context, l *nad.List) error {
	if err := e.findPlugins(l); err != nil {
		return fmt.Errorf("network %s: %w", l.Name(), err)
	}
	list, err := libcni.NetworkConfFromBytes(l.Bytes())
	if err != nil {
		return fmt.Errorf("network %s: %w", l.Name(), err)
	}
	if err := e.cni().GetStatusNetworkList(ctx, list); err != nil {
		return fmt.Errorf("network %s: %w", l.Name(), err)
	}
	return nil
}

// GC hands the attachments that are alive to the plugins of each network (CNI 1.1.0), so that they drop all others. It goes on
// after an error.
func (e *Executor) GC(ctx context.Context, lists []*nad.List, valid []types.GCAttachment) error {
	var errs []error
	for _, l := range lists {
		list, err := libcni.NetworkConfFromBytes(l.Bytes())
		if err == nil {
			err = e.cni().GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", l.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func (e *Executor) cni() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(e.BinDirs, e.CacheDir, e.Plugins)
}

func (e *Executor) step(name string) error {
	if e.Step == nil {
		return nil
	}
	return e.Step(name)
}

// runtimeConf is what libcni needs of the sandbox and the attachment. It is the same on every verb.
func (a *Attachment) runtimeConf(s Sandbox) *libcni.RuntimeConf {
	args := make(map[string]any, len(a.CapabilityArgs))
	for k, v := range a.CapabilityArgs {
		args[k] = v
	}
	return &libcni.RuntimeConf{ContainerID: s.ContainerID, NetNS: s.NetNS, IfName: a.IfName, Args: a.Args, CapabilityArgs: args}
}

func parseList(a *Attachment) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(a.List.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", nad.ErrInvalid, err)
	}
	return list, nil
}

// listWithResult is the list with the recorded result as each plugin's prevResult. libcni puts its cached one in its place if
// there is one; the two differ only when a crash lost either.
func listWithResult(a *Attachment) (*libcni.NetworkConfigList, error) {
	list, err := parseList(a)
	if err != nil || len(a.Result) == 0 {
		return list, err
	}
	ok, err := version.GreaterThanOrEqualTo(list.CNIVersion, "0.4.0")
	if err != nil || !ok {
		return list, err // DEL got a prevResult only in CNI 0.4.0
	}
	result, err := a.ResultAs(list.CNIVersion)
	if err != nil {
		return list, nil // it was damaged on disk: plugins have to do without, rather than the pod be stuck
	}
	for i, plugin := range list.Plugins {
		if list.Plugins[i], err = libcni.InjectConf(plugin, map[string]any{"prevResult": result}); err != nil {
			return nil, fmt.Errorf("plugin %s: previous result: %w", plugin.Network.Type, err)
		}
	}
	return list, nil
}

// trimLibcni takes off the layer in which libcni repeats what our own error says: which plugin it was.
func trimLibcni(err error) error {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "plugin type=") {
		return inner
	}
	return err
}
