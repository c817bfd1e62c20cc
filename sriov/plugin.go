// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

const (
	// DefaultDir is where the records are. It is one for the node: a device is.
	DefaultDir = "/var/lib/cni/plexus/sriov"
	// DefaultLegacyDir is where sriov-cni keeps its state.
	DefaultLegacyDir = "/var/lib/cni/sriov"
	// defaultLockTimeout bounds the wait for another call that is at the same device.
	defaultLockTimeout = time.Minute
	// defaultReturnTimeout bounds the wait for the kernel to bring the device of a sandbox that has ended back to the host. It
	// takes some milliseconds, more on a machine that ends many.
	defaultReturnTimeout = 5 * time.Second
)

// VFs is what a PF does for its VFs.
type VFs interface {
	VF(pf string, id int) (netdev.VF, error)
	SetVF(pf string, s netdev.VFSetting, to netdev.VF) error
}

// Links is what the kernel does with network interfaces; [netdev.Host] stands for the host's namespace.
type Links interface {
	Links(netns string) ([]netdev.Link, error)
	Link(netns, name string) (netdev.Link, error)
	SetLink(netns string, s netdev.LinkSetting, to netdev.Link) error
	MoveLink(from string, index int, to, name string) error
	LinkEvents(ctx context.Context, netns string) (<-chan struct{}, error)
}

// Kernel is what the plugin asks of the host's kernel.
type Kernel interface {
	VFs
	Links
	Configure(ctx context.Context, netns string, index int, a netdev.Addressing) error
	Announce(ctx context.Context, netns string, link netdev.Link, a netdev.Addressing) error
	AwaitDAD(ctx context.Context, netns string, ifNames ...string) error
	NetNSID(path string) (string, error)
	NetNSCookie(path string) (uint64, error)
	BootID() (string, error)
}

// Plugin answers CNI calls for networks of type sriov. Everything it needs from outside comes in by field.
type Plugin struct {
	Kernel Kernel
	Sysfs  *sysfs.FS
	// Dir holds the records, LegacyDir the state that sriov-cni left.
	Dir, LegacyDir string
	// DeviceInfoDir is the only folder in which device-info files are written and removed; "" stands for [DefaultDeviceInfoDir].
	DeviceInfoDir string
	// Run runs another CNI plugin, for IPAM: its configuration on stdin, the environment of CNI, and what it printed.
	Run func(ctx context.Context, plugin string, stdin []byte, environ []string) ([]byte, error)
	Log *slog.Logger
	// LockTimeout and ReturnTimeout bound the waits for another call, and for a device that the kernel brings back; zero stands
	// for a minute, and five seconds.
	LockTimeout, ReturnTimeout time.Duration
	// Step is called with a name before each step with an effect, and its error ends the call there; nil for none. Tests fail
	// and kill at each of them.
	Step func(name string) error
}

// Builtin serves a call within Plexus: stdin, environ, the returned stdout and errors are those of a CNI plugin.
func (p *Plugin) Builtin(ctx context.Context, stdin []byte, environ []string) ([]byte, error) {
	c := call{Plugin: p, stdin: stdin, environ: environ}
	env := map[string]string{}
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		env[key] = value // of one that is named twice the last counts, as for a process
	}
	c.containerID, c.ifName, c.netns, c.args = env["CNI_CONTAINERID"], env["CNI_IFNAME"], env["CNI_NETNS"], env["CNI_ARGS"]
	switch command := env["CNI_COMMAND"]; command {
	case "ADD":
		result, err := c.add(ctx)
		if err != nil {
			return nil, cniError(err)
		}
		return json.Marshal(result)
	case "DEL":
		return nil, cniError(c.del(ctx))
	case "CHECK":
		return nil, cniError(c.check(ctx))
	case "STATUS":
		return nil, cniError(c.status(ctx))
	case "GC":
		return nil, cniError(c.gc(ctx))
	case "VERSION":
		return json.Marshal(version.All)
	default:
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("unknown CNI_COMMAND %q", command), "")
	}
}

// cniError gives an error its code (CNI 1.1.0 §5), unless it has one.
func cniError(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*types.Error](err); ok {
		return types.NewError(e.Code, strings.Replace(err.Error(), e.Error(), e.Msg, 1), e.Details)
	}
	code := types.ErrInternal
	switch {
	case errors.Is(err, ErrInvalid), errors.Is(err, sysfs.ErrNotVF), errors.Is(err, sysfs.ErrNotFound):
		code = types.ErrInvalidNetworkConfig
	case errors.Is(err, ErrInUse), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code = types.ErrTryAgainLater
	case errors.Is(err, record.ErrCorrupt):
		code = types.ErrDecodingFailure
	}
	return types.NewError(code, err.Error(), "")
}

// call is one CNI call.
type call struct {
	*Plugin
	stdin                            []byte
	environ                          []string
	containerID, ifName, netns, args string
}

// lock keeps other calls away from a device.
func (p *Plugin) lock(ctx context.Context, device sysfs.Address) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.LockTimeout, defaultLockTimeout))
	defer cancel()
	lock, err := p.records().Lock(ctx, string(device))
	if err != nil {
		return nil, fmt.Errorf("VF %s: %w", device, err)
	}
	return func() {
		if err := lock.Unlock(); err != nil {
			p.Log.Warn("unlock", "device", device, "error", err)
		}
	}, nil
}

func (p *Plugin) step(name string) error {
	if p.Step == nil {
		return nil
	}
	return p.Step(name)
}

// ipam runs the IPAM plugin with the call's own configuration and environment (CNI 1.1.0 §4), and returns what it printed.
func (c *call) ipam(ctx context.Context, plugin string) ([]byte, error) {
	out, err := c.Run(ctx, plugin, c.stdin, c.environ)
	if err != nil {
		return nil, fmt.Errorf("IPAM %s: %w", plugin, err)
	}
	return out, nil
}

// ipamAdd asks the IPAM plugin for addresses.
func (c *call) ipamAdd(ctx context.Context, cfg *Config) (*types100.Result, error) {
	out, err := c.ipam(ctx, cfg.IPAM)
	if err != nil {
		return nil, err
	}
	var printed types.PluginConf
	if err = json.Unmarshal(out, &printed); err != nil {
		return nil, fmt.Errorf("IPAM %s: its result: %w", cfg.IPAM, err)
	}
	raw, err := version.NewResult(cmp.Or(printed.CNIVersion, cfg.CNIVersion), out)
	if err != nil {
		return nil, fmt.Errorf("IPAM %s: its result: %w", cfg.IPAM, err)
	}
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		return nil, fmt.Errorf("IPAM %s: its result: %w", cfg.IPAM, err)
	}
	if len(result.IPs) == 0 {
		return nil, fmt.Errorf("IPAM %s: it gave no address", cfg.IPAM)
	}
	return result, nil
}
