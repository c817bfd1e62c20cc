// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package delegate attaches a sandbox to networks and takes it off again: a [Plan] is pure data and says what has to be
// done, an [Executor] does it with the CNI plugins of the host and undoes it. The JSON of a Plan is the record that Plexus keeps
// of a sandbox.
package delegate

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
)

// PlanVersion is the version of the record's format. A reader accepts its own and older ones.
const PlanVersion = 1

// MaxAttachments bounds the networks of one sandbox.
const MaxAttachments = 300

// maxFileName is the longest file name that Linux file systems take, in bytes.
const maxFileName = 255

// ErrInvalid marks a request that no plan can be made for; its text names the network, the field and the fix.
var ErrInvalid = errors.New("invalid attachment request")

// ErrVersion marks a record of a version that this Plexus does not know.
var ErrVersion = errors.New("unknown record version")

// Sandbox is the network sandbox of a container, as the runtime names it (CNI 1.1.0 §2, parameters).
type Sandbox struct {
	ContainerID string `json:"containerID"`
	// NetNS is the path of the network namespace; "" when it is gone.
	NetNS string `json:"netns,omitempty"`
	// IfName is the interface of the default network.
	IfName string `json:"ifName"`
}

// State says how far an attachment got. It is what was last known on disk: a crash leaves an attachment in a
// state earlier than the kernel's, never later.
type State string

// States of an attachment.
const (
	// Planned: its plugins may have run, or not.
	Planned State = "planned"
	// Attached: its plugins have run, and Result is theirs.
	Attached State = "attached"
	// UndoFailed: an attempt to undo it failed; another one is due.
	UndoFailed State = "failed"
)

// Attachment is one network of a sandbox: everything that ADD, CHECK and DEL of it need.
type Attachment struct {
	// Network is its name in the network status: "namespace/name" of a NAD, else the CNI network name.
	Network string `json:"network"`
	IfName  string `json:"ifName"`
	// Default marks the default network of the pod.
	Default bool `json:"default,omitempty"`
	// List is the final configuration list, as the plugins get it but for what libcni adds on each call.
	List *nad.List `json:"list"`
	// CapabilityArgs are offered to the plugins; each gets what it declares (runtimeConfig).
	CapabilityArgs map[string]json.RawMessage `json:"capabilityArgs,omitempty"`
	Args           [][2]string                `json:"args,omitempty"`
	Device         string                     `json:"device,omitempty"`
	// Claimed is where the device comes from if that is a ResourceClaim.
	Claimed *pod.ClaimedDevice `json:"claimed,omitempty"`
	// DeviceInfoFile is the file that describes the device, for the plugins to read and write; "" for none.
	DeviceInfoFile string `json:"deviceInfoFile,omitempty"`
	// DeviceInfoSource is the file that a device plugin may have described it in before; "" if there can be none.
	DeviceInfoSource string `json:"deviceInfoSource,omitempty"`
	// DefaultRoute are the gateways that the pod's default routes shall use through this attachment; empty but not nil: keep
	// what its plugin sets.
	DefaultRoute []netip.Addr `json:"defaultRoute,omitzero"`
	// Verify is what has to be seen after the ADD; nil for nothing.
	Verify *Asked          `json:"verify,omitempty"`
	State  State           `json:"state"`
	Result json.RawMessage `json:"result,omitempty"`
	// AddError is why its ADD failed; Refused is set when the plugin said so itself, rather than that it was cut short.
	AddError string `json:"addError,omitempty"`
	Refused  bool   `json:"refused,omitempty"`
	// Begun is how many of its plugins a failed ADD had called; nil when that is not known, or all. The others have nothing to undo.
	Begun *int `json:"begun,omitempty"`
	// Undo is how the undo of each plugin stands, by index; nil before the first try that failed.
	Undo []PluginUndo `json:"undo,omitempty"`
	// Tries is how often an undo failed, Error why it did last. Gone is set when its interface was not in the sandbox then.
	Tries int    `json:"tries,omitempty"`
	Error string `json:"error,omitempty"`
	Gone  bool   `json:"gone,omitempty"`
}

// PluginUndo is how the undo of one plugin of an attachment stands.
type PluginUndo struct {
	// Done: its DEL has succeeded. Tries is how often it has not.
	Done  bool `json:"done,omitempty"`
	Tries int  `json:"tries,omitempty"`
	// Released: it refuses its DEL, and its IPAM plugin, if it is known to have one, has released the addresses.
	Released bool `json:"released,omitempty"`
}

// Plan is all that is done for one sandbox by one ADD.
type Plan struct {
	Version int `json:"version"`
	// ConfName is the name of the Plexus configuration that the runtime used: two runtimes may share one folder of records.
	ConfName string `json:"config"`
	// Runtime is the program that called Plexus. Two runtimes may use one configuration, too: the GC of one knows nothing of the other's.
	Runtime string `json:"runtime,omitempty"`
	// BootID is the kernel's boot id at ADD. Sandboxes of an earlier boot are gone, their addresses are still leased.
	BootID  string  `json:"bootID,omitempty"`
	Sandbox Sandbox `json:"sandbox"`
	// NetNSCookie identifies the sandbox's namespace, whose path may become another one's; 0 when that is not known.
	NetNSCookie uint64 `json:"netnsCookie,omitempty"`
	// StateDir is the folder of the result cache where that is not Plexus' own: the attachments were made by Multus.
	StateDir string  `json:"stateDir,omitempty"`
	Pod      pod.Ref `json:"pod,omitzero"`
	// Began is when the ADD was planned.
	Began time.Time `json:"began,omitzero"`
	// Complete is set when the whole ADD succeeded, until an undo begins.
	Complete    bool         `json:"complete,omitempty"`
	Attachments []Attachment `json:"attachments"`
	// Leftovers are attachments of an earlier sandbox of this name, whose namespace is gone, that could not be undone.
	Leftovers []Attachment `json:"leftovers,omitempty"`
	// UndoSince is when the undo of a complete sandbox began, Tried when one was last tried that failed.
	UndoSince time.Time `json:"undoSince,omitzero"`
	Tried     time.Time `json:"tried,omitzero"`
}

// Validate checks a plan that was read from disk, before anything acts on it.
func (p *Plan) Validate() error {
	if p.Version < 1 {
		return fmt.Errorf("version %d", p.Version)
	}
	if p.Version > PlanVersion {
		return fmt.Errorf("%w %d: this Plexus reads 1 to %d; use the version that wrote it, or a newer one", ErrVersion, p.Version, PlanVersion)
	}
	if p.Sandbox.ContainerID == "" || p.Sandbox.IfName == "" {
		return errors.New("no container ID or interface name")
	}
	for i, a := range slices.Concat(p.Attachments, p.Leftovers) {
		if a.List == nil || a.IfName == "" {
			return fmt.Errorf("attachment %d has no configuration list or no interface name", i)
		}
	}
	return nil
}

// Network is one network to plan for, resolved and normalised.
type Network struct {
	// Name is its name in the network status.
	Name string
	List *nad.List
	// Device is the ID of the device that it consumes, "" for none; ResourceName the resource that it is one of, or would be, and Claimed
	// where it comes from if that is a ResourceClaim.
	Device       string
	ResourceName string
	Claimed      *pod.ClaimedDevice
	// Trusted is set for a network that stands in the plugin's own configuration, or in a file that this names: the operator's word.
	Trusted bool
	// RefuseUnsupported has requests refused that no plugin declares, and AllowedCNIArgs are the keys that cni-args may carry although they
	// stand for a request: the word of the NetworkAttachmentDefinition's author.
	RefuseUnsupported bool
	AllowedCNIArgs    []string
	// Element holds the pod's requests; zero for networks that the pod did not select.
	Element annotations.Element
}

// Request is what a plan is made from.
type Request struct {
	Config  string
	Runtime string
	BootID  string
	// NetNSCookie identifies the namespace of the sandbox.
	NetNSCookie uint64
	Now         time.Time
	Sandbox     Sandbox
	Args        pod.Args
	// RuntimeConfig is the runtime's; it goes to the default network only (NPWG §7.5).
	RuntimeConfig map[string]json.RawMessage
	// Networks are in the order of attachment; the first is the default network.
	Networks []Network
	Rules
	// DeviceInfoDir is the base folder of device-info files.
	DeviceInfoDir string
}

// NewPlan decides everything about an ADD. It touches nothing; all validation of what a pod asks for ends here.
func NewPlan(r Request) (*Plan, error) {
	if len(r.Networks) == 0 {
		return nil, fmt.Errorf("%w: no network at all", ErrInvalid)
	}
	if most := cmp.Or(r.MaxNetworks, MaxAttachments); len(r.Networks) > most {
		return nil, fmt.Errorf("%w: %d networks for one pod, at most %d are allowed: select fewer, or raise \"maxNetworksPerPod\" in Plexus' configuration", ErrInvalid, len(r.Networks), most)
	}
	p := &Plan{Version: PlanVersion, ConfName: r.Config, Runtime: r.Runtime, BootID: r.BootID, Began: r.Now, Sandbox: r.Sandbox, NetNSCookie: r.NetNSCookie, Pod: r.Args.Pod}
	names := newNamer(r.Sandbox.IfName)
	routes := map[string]string{} // family -> network that takes its default route
	for i, n := range r.Networks {
		a, err := r.attachment(i, n)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", n.Name, err)
		}
		if a.IfName, err = names.pick(i, n); err != nil {
			return nil, err
		}
		if err := r.addDeviceInfo(a, n); err != nil {
			return nil, fmt.Errorf("network %s: device info file: %w", n.Name, err)
		}
		if name := a.CacheName(r.Sandbox.ContainerID); len(name) > maxFileName {
			return nil, fmt.Errorf("%w: network %s: its result cannot be kept: container ID %.20s… and network name %q make a file name of %d bytes, at most %d are possible: shorten the network's name",
				ErrInvalid, n.Name, r.Sandbox.ContainerID, a.List.Name(), len(name), maxFileName)
		}
		if err := claimDefaultRoutes(routes, n); err != nil {
			return nil, err
		}
		p.Attachments = append(p.Attachments, *a)
	}
	return p, nil
}

// attachment plans one network but for its interface name.
func (r *Request) attachment(i int, n Network) (*Attachment, error) {
	a := &Attachment{
		Network:        n.Name,
		Default:        i == 0,
		CapabilityArgs: map[string]json.RawMessage{},
		Device:         n.Device,
		Claimed:        n.Claimed,
		DefaultRoute:   n.Element.DefaultRoute,
		State:          Planned,
	}
	if a.Default {
		maps.Copy(a.CapabilityArgs, r.RuntimeConfig)
	}
	if n.ResourceName != "" && n.Device == "" && n.List.TakesDevice() {
		return nil, fmt.Errorf("%w: it consumes one of resource %q (plugins %s), and the node gave the pod none: request it in the resources of the pod's containers or in a ResourceClaim",
			ErrInvalid, n.ResourceName, strings.Join(n.List.Types(), ", "))
	}
	for _, check := range []func() error{
		func() error { return r.checkAllowed(n) },
		func() error { return checkCNIArgs(n) },
		func() error { return r.addRequests(a, n) },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	a.Args = r.delegateArgs(n, a.Default)
	a.List = n.List
	if n.Device == "" && len(n.Element.CNIArgs) == 0 && n.Element.IPAMClaimReference == "" {
		return a, nil
	}
	var err error
	a.List, err = n.List.EditPlugins(func(plugin map[string]json.RawMessage) error {
		return editPlugin(plugin, n)
	})
	return a, err
}

// namer gives each attachment its interface name (spec of the multi-network conventions, §4) and refuses to give one twice.
type namer struct {
	defaultIfName string
	owner         map[string]string
}

func newNamer(defaultIfName string) *namer {
	return &namer{defaultIfName: defaultIfName, owner: map[string]string{}}
}

func (n *namer) pick(i int, net Network) (string, error) {
	name := net.Element.Interface
	switch {
	case name != "":
		if err := annotations.ValidateInterfaceName(name); err != nil {
			return "", fmt.Errorf("network %s: %w", net.Name, err)
		}
		if i > 0 && name == n.defaultIfName {
			return "", fmt.Errorf("%w: network %s asks for interface %q, which is the default network's: choose another name", ErrInvalid, net.Name, name)
		}
	case i == 0:
		name = n.defaultIfName
	default:
		name = fmt.Sprintf("net%d", i)
	}
	if other, taken := n.owner[name]; taken {
		return "", fmt.Errorf("%w: networks %s and %s would both get interface %q: ask for distinct names with \"interface\" (without one, the network at position %d is named net%d)", ErrInvalid, other, net.Name, name, i, i)
	}
	n.owner[name] = net.Name
	return name, nil
}

// claimDefaultRoutes refuses two networks that would take over the default route of one family: the conventions know no ECMP.
func claimDefaultRoutes(taken map[string]string, n Network) error {
	for _, f := range n.Element.RouteFamilies() {
		if other, ok := taken[f]; ok {
			return fmt.Errorf("%w: networks %s and %s both take the %s default route (\"default-route\"), and ECMP is not supported: leave it on one of them", ErrInvalid, other, n.Name, f)
		}
		taken[f] = n.Name
	}
	return nil
}

// DefaultAttachment returns the default network's attachment, nil when it is not among what is left of the plan.
func (p *Plan) DefaultAttachment() *Attachment {
	for i := range p.Attachments {
		if p.Attachments[i].Default {
			return &p.Attachments[i]
		}
	}
	return nil
}

// String describes an attachment in messages.
func (a *Attachment) String() string {
	return describe(a.network(), a.IfName)
}

func describe(network, ifName string) string {
	return fmt.Sprintf("network %s (interface %s)", network, ifName)
}

func (a *Attachment) network() string { return cmp.Or(a.Network, a.List.Name()) }
