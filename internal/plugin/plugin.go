// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package plugin implements the verbs of CNI: ADD, DEL, CHECK, GC and STATUS, a file each. They are steps over the packages
// below: configuration, source, plan, record, executor.
package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/resolve"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/sriov"
)

// Kernel is what the verbs ask of the host's kernel.
type Kernel interface {
	delegate.Kernel
	// BootID identifies the current boot.
	BootID() (string, error)
	// SameNetNS reports whether path is the network namespace of the caller.
	SameNetNS(path string) (bool, error)
	// IsNetNS reports whether path is a network namespace that exists.
	IsNetNS(path string) (bool, error)
	// NetNSCookie identifies a network namespace, which no other one of this boot has; 0 where the kernel gives none.
	NetNSCookie(path string) (uint64, error)
}

// Plugin answers CNI calls. Everything it needs from outside comes in by field.
type Plugin struct {
	// Source opens what the configuration names; nil without an error when it names none.
	Source func(*config.Config) (source.Source, error)
	Kernel Kernel
	// Log opens the log that the configuration asks for.
	Log func(config.Log) *slog.Logger
	// DeviceInfoDir is the base folder of device-info files; "" leaves them out.
	DeviceInfoDir string
	// PCI tells about the host's devices; nil leaves out of a network status what no plugin wrote.
	PCI PCI
	// VFs serves networks of type sriov within Plexus, with the call's own log and plugins; nil leaves them to a program.
	VFs *sriov.Plugin
	// LockTimeout bounds the wait for other calls; zero stands for a minute.
	LockTimeout time.Duration
	// Environ is the environment that delegates get beside CNI's parameters.
	Environ []string
	// Step is called before each step of an ADD or DEL; see [delegate.Executor].
	Step func(name string) error
	// Failed is told of each call that fails, by its verb and CNI error code; nil for nobody.
	Failed func(c *config.Config, verb string, code uint)
}

// call is one CNI call: what the verbs share.
type call struct {
	*Plugin
	log     *slog.Logger
	cfg     *config.Config
	args    pod.Args
	sandbox delegate.Sandbox
	records *record.Store[delegate.Plan]
	plugins *delegate.Exec
	binDirs []string
	// selects is set when the pod has selected networks itself.
	selects bool
	// allowOwnNetNS is the caller's CNI_NETNS_OVERRIDE (CNI 1.1.0 §2, parameters).
	allowOwnNetNS bool
	limiter       *limiter
	trace         trace
}

// resolver finds the networks of the call's pod.
func (c *call) resolver() *resolve.Resolver {
	return &resolve.Resolver{Config: c.cfg, Pod: c.args.Pod, PodOptional: c.args.NamespaceAssumed, Warn: func(text string) { c.log.Warn(text) }}
}

// trace notes how long each step of a call takes, for the log.
type trace struct {
	step  string
	since time.Time
	took  []any // a slog attribute for each step that has ended
}

// begin ends the step before.
func (t *trace) begin(step string) {
	now := time.Now()
	if t.step != "" {
		t.took = append(t.took, slog.Duration(t.step, now.Sub(t.since)))
	}
	t.step, t.since = step, now
}

// stepError is a failure of a step that is not the last one: an undo has followed it.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }

func (e *stepError) Unwrap() error { return e.err }

func (p *Plugin) newCall(a *skel.CmdArgs) (*call, error) {
	cfg, err := config.Parse(a.StdinData)
	if err != nil {
		return nil, err
	}
	return p.callOf(a, cfg)
}

// callOf is a call with a configuration that was read.
func (p *Plugin) callOf(a *skel.CmdArgs, cfg *config.Config) (*call, error) {
	start := time.Now()
	args, err := pod.ParseArgs(a.Args, cfg.PodNamespace)
	if err != nil {
		return nil, err
	}
	c := &call{
		Plugin:  p,
		log:     p.Log(cfg.Log),
		cfg:     cfg,
		args:    args,
		sandbox: delegate.Sandbox{ContainerID: a.ContainerID, NetNS: a.Netns, IfName: a.IfName},
		records: record.Open[delegate.Plan](filepath.Join(cfg.CNIDir, "records")),
		plugins: &delegate.Exec{Timeout: cfg.DelegateTimeout},
		binDirs: append([]string{cfg.BinDir}, slices.DeleteFunc(filepath.SplitList(a.Path), func(dir string) bool { return dir == cfg.BinDir })...),
		// The spellings that skel accepts.
		allowOwnNetNS: a.NetnsOverride == "1" || strings.EqualFold(a.NetnsOverride, "true"),
		trace:         trace{step: "prepare", since: start},
	}
	c.plugins.Builtins = c.builtins()
	c.limiter = &limiter{
		slots: record.OpenSlots(filepath.Join(cfg.CNIDir, "slots"), cfg.MaxParallelDelegates), most: cfg.MaxParallelDelegates,
		patience: c.patience(), log: c.log,
	}
	return c, nil
}

// builtins are the plugins that Plexus has in itself.
func (c *call) builtins() map[string]delegate.Builtin {
	b := map[string]delegate.Builtin{delegate.PassthruType: delegate.Passthru}
	if c.VFs != nil {
		vfs := *c.VFs
		vfs.Run, vfs.Log, vfs.Step = c.plugins.Run, c.log, c.Step
		b[sriov.Type] = vfs.Builtin
	}
	return b
}

// executor runs plans whose results are cached under stateDir.
func (c *call) executor(stateDir string) *delegate.Executor {
	return &delegate.Executor{
		BinDirs: c.binDirs, CacheDir: stateDir, Environ: c.Environ, Plugins: c.plugins, Kernel: c.Kernel, Step: c.step, Acquire: c.limiter.acquire,
		Warn: func(text string) { c.log.Warn(text) },
	}
}

// key is the name of a sandbox's record: <containerID>-<ifname>. A "-" of the interface name stands as "/", which no interface name
// has, so that no two sandboxes share a name.
func key(s delegate.Sandbox) string {
	return s.ContainerID + "-" + strings.ReplaceAll(s.IfName, "-", "/")
}

// sandboxOf is the sandbox whose record has the name k.
func sandboxOf(k string) (delegate.Sandbox, bool) {
	i := strings.LastIndexByte(k, '-')
	if i < 0 {
		return delegate.Sandbox{}, false
	}
	return delegate.Sandbox{ContainerID: k[:i], IfName: strings.ReplaceAll(k[i+1:], "/", "-")}, true
}

func (c *call) step(name string) error {
	c.trace.begin(name)
	if c.Step == nil {
		return nil
	}
	return c.Step(name)
}

// done ends a verb: it releases the call's slot, logs the call, once, and puts the pod, or else the container, in front of what the caller is told.
func (c *call) done(verb string, start time.Time, err error) error {
	c.limiter.release()
	log := c.log.With("verb", verb, "pod", c.args.Pod.String(), "containerID", c.sandbox.ContainerID, "took", time.Since(start))
	at := c.trace.step
	if failed, ok := errors.AsType[*stepError](err); ok {
		at = failed.step
	}
	c.trace.begin("")
	log.Debug(verb+" steps", slog.Group("steps", c.trace.took...))
	if err != nil {
		attributes := []any{"step", at}
		if f, ok := errors.AsType[*delegate.Failure](err); ok {
			attributes = append(attributes, "network", f.Network, "interface", f.IfName)
		}
		log.Error(verb+" failed", append(attributes, "error", err)...)
		if c.Failed != nil {
			c.Failed(c.cfg, verb, Error(err).Code)
		}
	} else {
		log.Info(verb + " done")
	}
	switch {
	case err == nil:
		return nil
	case !c.args.Pod.IsZero():
		return fmt.Errorf("pod %s: %w", c.args.Pod, err)
	case c.sandbox.ContainerID != "":
		return fmt.Errorf("container %s: %w", c.sandbox.ContainerID, err)
	}
	return err
}

// learn has encoding/json learn types, which it does when it first meets one: that takes longer than all that is done with values of it.
func learn(values ...any) {
	for _, v := range values {
		_, _ = json.Marshal(v) // the first of a type
	}
}
