// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// Kernel is what is asked of the node's kernel.
type Kernel interface {
	BootID() (string, error)
	IsNetNS(path string) (bool, error)
	Links(netns string) ([]netdev.Link, error)
	DefaultRoutes(netns string) ([]netdev.Route, error)
}

// Node is a node to look at.
type Node struct {
	// StateDirs are Plexus' folders of state (key cniDir): the records are in their subfolder records.
	StateDirs []string
	// Kernel is nil when the namespaces cannot be seen from here: then only what is on record is told.
	Kernel Kernel
	// Driver names the driver of a device, by the address on its bus, "" when it has none.
	Driver func(device string) string
	Now    func() time.Time
}

// State sums up a pod, or an interface.
type State string

// The states.
const (
	// Attached: all is as it should be, as far as can be seen.
	Attached State = "attached"
	// Attaching: the ADD is at work, or was until a moment ago.
	Attaching State = "attaching"
	// Failed: the ADD failed or stopped midway, or the undo did, or something is not as Plexus left it.
	Failed State = "failed"
	// Gone: the pod's network namespace is no more, and what was leased for it still is.
	Gone State = "gone"
	// Unmanaged marks an interface that is in a pod and not on record.
	Unmanaged State = "unmanaged"
)

// Pod is one sandbox on record.
type Pod struct {
	// Namespace and Name are empty for a sandbox that belongs to no pod.
	Namespace   string    `json:"namespace,omitempty"`
	Name        string    `json:"name,omitempty"`
	UID         string    `json:"uid,omitempty"`
	ContainerID string    `json:"containerID"`
	NetNS       string    `json:"netns,omitempty"`
	StateDir    string    `json:"stateDir"`
	Began       time.Time `json:"began,omitzero"`
	State       State     `json:"state"`
	// Seen is set when the network namespace was looked at.
	Seen       bool        `json:"seen"`
	Interfaces []Interface `json:"interfaces"`
	// Problems say what is wrong and how to fix it, one line each.
	Problems []string `json:"problems,omitempty"`
}

// Interface is an interface of a pod, or what should be one.
type Interface struct {
	Name string `json:"name"`
	// Network is "" for an interface that is not on record.
	Network string `json:"network,omitempty"`
	Default bool   `json:"default,omitempty"`
	// State is attached, attaching (planned, no more is known yet), failed or unmanaged.
	State State `json:"state"`
	// Plugins are the types of the plugins that made it.
	Plugins []string `json:"plugins,omitempty"`
	// HostLink is the link of the host that it hangs on: a master, a bridge.
	HostLink string `json:"hostLink,omitempty"`
	// Device is the address of its device on the bus.
	Device string `json:"device,omitempty"`
	// Driver is the device's driver where that keeps it from having an interface (DPDK).
	Driver string `json:"driver,omitempty"`
	// Recorded is what the plugins reported.
	Recorded *Recorded `json:"recorded,omitempty"`
	// Live is what the kernel tells; nil when there is no such interface, or the namespace was not looked at.
	Live  *Live  `json:"live,omitempty"`
	Error string `json:"error,omitempty"`
}

// Recorded is what plugins reported of an interface.
type Recorded struct {
	MAC       string         `json:"mac,omitempty"`
	MTU       int            `json:"mtu,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// Live is an interface as the kernel has it.
type Live struct {
	Up            bool           `json:"up"`
	Carrier       bool           `json:"carrier"`
	MAC           string         `json:"mac,omitempty"`
	MTU           int            `json:"mtu"`
	Addresses     []netip.Prefix `json:"addresses,omitempty"`
	DefaultRoutes []DefaultRoute `json:"defaultRoutes,omitempty"`
}

// DefaultRoute is a default route through an interface.
type DefaultRoute struct {
	Family int `json:"family"` // 4 or 6
	// Gateway is not valid for a route without one.
	Gateway netip.Addr `json:"gateway,omitzero"`
}

// Ref is "namespace/name" of the pod, or the ID of the container when it is none.
func (p *Pod) Ref() string {
	if p.Name == "" {
		return p.ContainerID
	}
	return p.Namespace + "/" + p.Name
}

// MTU is what the kernel tells, or else the plugins; 0 when neither does.
func (i *Interface) MTU() int {
	switch {
	case i.Live != nil:
		return i.Live.MTU
	case i.Recorded != nil:
		return i.Recorded.MTU
	}
	return 0
}

// MAC is what the kernel tells, or else the plugins.
func (i *Interface) MAC() string {
	switch {
	case i.Live != nil:
		return i.Live.MAC
	case i.Recorded != nil:
		return i.Recorded.MAC
	}
	return ""
}

// Addresses are what the kernel tells, link-local ones only where there are no others, or else what the plugins reported.
func (i *Interface) Addresses() []netip.Prefix {
	if i.Live == nil {
		if i.Recorded == nil {
			return nil
		}
		return i.Recorded.Addresses
	}
	global := slices.DeleteFunc(slices.Clone(i.Live.Addresses), func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	if len(global) == 0 {
		return i.Live.Addresses
	}
	return global
}

// attachingFor is how long an ADD may take, by the kubelet's own limit and a bit: what is still planned then has been left behind.
const attachingFor = 5 * time.Minute

// Pods tells of all sandboxes on record, by pod, the newest of a pod first. The second result are problems of the records themselves.
// The error is the disk's.
func (n *Node) Pods() ([]Pod, []string, error) {
	bootID := ""
	if n.Kernel != nil {
		var err error
		if bootID, err = n.Kernel.BootID(); err != nil {
			return nil, nil, err
		}
	}
	var pods []Pod
	var problems []string
	for _, dir := range n.StateDirs {
		records := record.Open[delegate.Plan](filepath.Join(dir, "records"))
		keys, err := records.Keys()
		if err != nil {
			return nil, nil, err
		}
		for _, k := range keys {
			plan, err := load(records, k)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				continue // its DEL was faster
			case err != nil:
				problems = append(problems, err.Error())
				continue
			}
			pods = append(pods, n.pod(dir, plan, bootID))
		}
	}
	slices.SortStableFunc(pods, func(a, b Pod) int { return cmp.Or(cmp.Compare(a.Ref(), b.Ref()), b.Began.Compare(a.Began)) })
	return pods, problems, nil
}

func load(records *record.Store[delegate.Plan], key string) (*delegate.Plan, error) {
	plan, err := records.Load(key)
	if errors.Is(err, record.ErrCorrupt) {
		return nil, fmt.Errorf("%w: the DEL of its container sets it aside", err)
	}
	if err != nil {
		return nil, err
	}
	if err := plan.Validate(); err != nil {
		return nil, fmt.Errorf("record %s: %w", key, err)
	}
	return plan, nil
}

// pod puts together what is on record and what the kernel tells.
func (n *Node) pod(dir string, plan *delegate.Plan, bootID string) Pod {
	p := Pod{
		Namespace: plan.Pod.Namespace, Name: plan.Pod.Name, UID: plan.Pod.UID,
		ContainerID: plan.Sandbox.ContainerID, NetNS: plan.Sandbox.NetNS, StateDir: dir, Began: plan.Began, State: Attached,
		Interfaces: []Interface{},
	}
	young := n.Now().Sub(plan.Began) < attachingFor
	for i := range plan.Attachments {
		p.add(&plan.Attachments[i], young)
	}
	if !plan.Complete && p.State == Attached {
		p.State = Attaching
		if !young {
			p.fail("its ADD did not finish: delete the pod, so that its networks are released")
		}
	}
	if n.Kernel != nil {
		n.look(&p, plan.BootID != "" && plan.BootID != bootID)
	}
	return p
}

func (p *Pod) fail(format string, args ...any) {
	p.Problems = append(p.Problems, fmt.Sprintf(format, args...))
	p.State = Failed
}

// add adds the interfaces of an attachment.
func (p *Pod) add(a *delegate.Attachment, young bool) {
	shown := interfacesOf(a, p.NetNS)
	state, reason := Attached, cmp.Or(a.Error, a.AddError)
	switch {
	case a.State == delegate.UndoFailed || reason != "":
		state = Failed
		what := "could not be undone; the next DEL or GC tries again"
		if a.Error == "" {
			what = "the ADD failed"
		}
		p.fail("%s: %s: %s", a, what, oneLine(reason))
	case a.State == delegate.Planned && young:
		state = Attaching
	case a.State == delegate.Planned:
		state = Failed
	}
	for i := range shown {
		shown[i].State, shown[i].Error = state, reason
	}
	p.Interfaces = append(p.Interfaces, shown...)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// look compares with what the network namespace holds.
func (n *Node) look(p *Pod, otherBoot bool) {
	is, err := n.Kernel.IsNetNS(p.NetNS)
	switch {
	case p.NetNS == "" || otherBoot || (err == nil && !is):
		p.Seen = true
		p.State = Gone
		p.Problems = append(p.Problems, "its network namespace is gone: what its networks leased is released when the runtime next calls DEL or GC, or by the first ADD after a reboot")
		return
	case err != nil:
		p.Problems = append(p.Problems, notSeen(err))
		return
	}
	links, err := n.Kernel.Links(p.NetNS)
	var routes []netdev.Route
	if err == nil {
		routes, err = n.Kernel.DefaultRoutes(p.NetNS)
	}
	if err != nil {
		p.Problems = append(p.Problems, notSeen(err))
		return
	}
	p.Seen = true
	for i := range p.Interfaces {
		n.compare(p, &p.Interfaces[i], links, routes)
	}
	for _, l := range links {
		known := slices.ContainsFunc(p.Interfaces, func(i Interface) bool { return i.Name == l.Name })
		if !known && l.Name != "lo" && (l.Up || !isFallback(l.Name)) {
			p.Interfaces = append(p.Interfaces, Interface{Name: l.Name, State: Unmanaged, Live: live(l, routes)})
		}
	}
}

// isFallback reports whether an interface is a fallback device, which the kernel's tunnel modules make in each network namespace
// (sysctl net.core.fb_tunnels_only_for_init_net). They are down unless the pod uses them.
func isFallback(name string) bool {
	return slices.Contains([]string{"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0"}, name)
}

// notSeen tells that a namespace could not be entered.
func notSeen(err error) string {
	return fmt.Sprintf("its network namespace cannot be examined, which takes root on the node: %v", err)
}

// compare looks for a recorded interface, and tells what is not as the plugins reported it.
func (n *Node) compare(p *Pod, i *Interface, links []netdev.Link, routes []netdev.Route) {
	if at := slices.IndexFunc(links, func(l netdev.Link) bool { return l.Name == i.Name }); at >= 0 {
		i.Live = live(links[at], routes)
	}
	if i.State != Attached {
		return // nothing can be expected of it
	}
	if i.Live == nil {
		if i.Device != "" && n.Driver != nil {
			if driver := n.Driver(i.Device); (&sysfs.Device{Driver: driver}).IsUserspace() {
				i.Driver = driver
				return
			}
		}
		if i.Recorded == nil {
			return // its plugins reported no interface
		}
		i.State = Failed
		p.fail("interface %s (network %s) is no longer there: delete the pod, so that it is created again", i.Name, i.Network)
		return
	}
	if !i.Live.Up {
		i.State = Failed
		p.fail("interface %s (network %s) is down: find out what did that, or delete the pod, so that it is created again", i.Name, i.Network)
		return // and so has lost addresses
	}
	if i.Recorded == nil {
		return
	}
	for _, want := range i.Recorded.Addresses {
		if !slices.ContainsFunc(i.Live.Addresses, func(got netip.Prefix) bool { return got.Addr() == want.Addr() }) {
			i.State = Failed
			p.fail("interface %s (network %s) has lost its address %s: delete the pod, so that it is created again", i.Name, i.Network, want)
		}
	}
}

func live(l netdev.Link, routes []netdev.Route) *Live {
	v := &Live{Up: l.Up, Carrier: l.Carrier, MAC: l.MAC.String(), MTU: l.MTU, Addresses: l.Addrs}
	for _, r := range routes {
		if r.IfName == l.Name {
			v.DefaultRoutes = append(v.DefaultRoutes, DefaultRoute{Family: int(r.Family), Gateway: r.Gateway})
		}
	}
	return v
}
