// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/nad"
)

// now is the time of the tests, and the boot the one that lasts.
var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

const boot = "this-boot"

// kernel is a node in memory.
type kernel struct {
	links  map[string][]netdev.Link
	routes map[string][]netdev.Route
	err    error
}

func (k *kernel) BootID() (string, error) { return boot, nil }

func (k *kernel) IsNetNS(path string) (bool, error) {
	_, ok := k.links[path]
	return ok, nil
}

func (k *kernel) Links(path string) ([]netdev.Link, error)          { return k.links[path], k.err }
func (k *kernel) DefaultRoutes(path string) ([]netdev.Route, error) { return k.routes[path], nil }

func link(name string, addrs ...string) netdev.Link {
	l := netdev.Link{Name: name, MTU: 1450, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(len(name))}, Up: true, Carrier: true}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
	}
	return l
}

func list(t *testing.T, conf string) *nad.List {
	t.Helper()
	l, err := nad.Normalize([]byte(conf), nad.Defaults{Name: "n", CNIVersion: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// result is a plugin's: an interface of the sandbox with an address, and one of the host.
func result(ifName, address string) json.RawMessage {
	return fmt.Appendf(nil, `{"cniVersion":"1.0.0","interfaces":[{"name":"host0"},{"name":%q,"mac":"02:00:00:00:00:01","sandbox":"/netns/web"}],
		"ips":[{"address":%q,"interface":1}]}`, ifName, address)
}

// webPlan is a pod on two networks.
func webPlan(t *testing.T) *delegate.Plan {
	t.Helper()
	return &delegate.Plan{
		Version: 1, ConfName: "plexus", BootID: boot, Began: now.Add(-time.Hour), Complete: true,
		Sandbox: delegate.Sandbox{ContainerID: "0123456789abcdef", NetNS: "/netns/web", IfName: "eth0"},
		Pod:     pod.Ref{Namespace: "shop", Name: "web", UID: "u1"},
		Attachments: []delegate.Attachment{
			{
				Network: "cluster-default", IfName: "eth0", Default: true, State: delegate.Attached,
				List: list(t, `{"type":"bridge","bridge":"br0"}`), Result: result("eth0", "10.1.0.2/24"),
			},
			{
				Network: "shop/storage", IfName: "net1", State: delegate.Attached, Device: "0000:03:02.1",
				List: list(t, `{"plugins":[{"type":"macvlan","master":"ens1"},{"type":"tuning"}]}`), Result: result("net1", "10.2.0.2/24"),
			},
		},
	}
}

func webKernel() *kernel {
	return &kernel{
		links: map[string][]netdev.Link{"/netns/web": {link("lo", "127.0.0.1/8"), link("eth0", "10.1.0.2/24", "fe80::1/64"), link("net1", "10.2.0.2/24")}},
		routes: map[string][]netdev.Route{
			"/netns/web": {{IfName: "eth0", Gateway: netip.MustParseAddr("10.1.0.1"), Family: netdev.IPv4}},
		},
	}
}

// nodeWith is a node with these records.
func nodeWith(t *testing.T, k Kernel, plans ...*delegate.Plan) *Node {
	t.Helper()
	dir := t.TempDir()
	records := record.Open[delegate.Plan](filepath.Join(dir, "records"))
	for i, p := range plans {
		if err := records.Save(fmt.Sprintf("%s-%d", p.Sandbox.ContainerID, i), p); err != nil {
			t.Fatal(err)
		}
	}
	return &Node{StateDirs: []string{dir, filepath.Join(dir, "absent")}, Kernel: k, Now: func() time.Time { return now }, Driver: func(string) string { return "" }}
}

var comparable = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.IgnoreFields(Pod{}, "StateDir"),
}

func TestPodsTellsRecordAndKernel(t *testing.T) {
	t.Parallel()
	pods, problems, err := nodeWith(t, webKernel(), webPlan(t)).Pods()
	if err != nil || problems != nil {
		t.Fatal(err, problems)
	}
	want := []Pod{{
		Namespace: "shop", Name: "web", UID: "u1", ContainerID: "0123456789abcdef", NetNS: "/netns/web", Began: now.Add(-time.Hour), State: Attached, Seen: true,
		Interfaces: []Interface{
			{
				Name: "eth0", Network: "cluster-default", Default: true, State: Attached, Plugins: []string{"bridge"}, HostLink: "br0",
				Recorded: &Recorded{MAC: "02:00:00:00:00:01", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}},
				Live: &Live{
					Up: true, Carrier: true, MAC: "02:00:00:00:00:04", MTU: 1450,
					Addresses:     []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fe80::1/64")},
					DefaultRoutes: []DefaultRoute{{Family: 4, Gateway: netip.MustParseAddr("10.1.0.1")}},
				},
			},
			{
				Name: "net1", Network: "shop/storage", State: Attached, Plugins: []string{"macvlan", "tuning"}, HostLink: "ens1", Device: "0000:03:02.1",
				Recorded: &Recorded{MAC: "02:00:00:00:00:01", Addresses: []netip.Prefix{netip.MustParsePrefix("10.2.0.2/24")}},
				Live:     &Live{Up: true, Carrier: true, MAC: "02:00:00:00:00:04", MTU: 1450, Addresses: []netip.Prefix{netip.MustParsePrefix("10.2.0.2/24")}},
			},
		},
	}}
	if diff := cmp.Diff(want, pods, comparable); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := fmt.Sprint(pods[0].Interfaces[0].Addresses()); got != "[10.1.0.2/24]" {
		t.Errorf("addresses to show = %s; want none that is link-local", got)
	}
}

func TestPodsTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*delegate.Plan, *kernel, *Node)
		state  State
		// states are those of the interfaces.
		states string
		says   []string
	}{
		"nothing": {state: Attached, states: "eth0 attached, net1 attached"},
		"an interface is missing": {
			change: func(_ *delegate.Plan, k *kernel, _ *Node) { k.links["/netns/web"] = k.links["/netns/web"][:2] },
			state:  Failed, states: "eth0 attached, net1 failed", says: []string{"interface net1 (network shop/storage) is no longer there: delete the pod"},
		},
		"an interface is down": {
			change: func(_ *delegate.Plan, k *kernel, _ *Node) { k.links["/netns/web"][2] = netdev.Link{Name: "net1"} },
			state:  Failed, states: "eth0 attached, net1 failed", says: []string{"net1 (network shop/storage) is down"},
		},
		"an address is missing": {
			change: func(_ *delegate.Plan, k *kernel, _ *Node) { k.links["/netns/web"][2] = link("net1", "10.2.0.3/24") },
			state:  Failed, states: "eth0 attached, net1 failed", says: []string{"net1 (network shop/storage) has lost its address 10.2.0.2/24"},
		},
		"an address with another prefix length is there": {
			change: func(_ *delegate.Plan, k *kernel, _ *Node) { k.links["/netns/web"][2] = link("net1", "10.2.0.2/32") },
			state:  Attached, states: "eth0 attached, net1 attached",
		},
		"a device with a driver for programs has no interface": {
			change: func(_ *delegate.Plan, k *kernel, n *Node) {
				k.links["/netns/web"] = k.links["/netns/web"][:2]
				n.Driver = func(device string) string { return map[string]string{"0000:03:02.1": "vfio-pci"}[device] }
			},
			state: Attached, states: "eth0 attached, net1 attached vfio-pci",
		},
		"a driver that a vendor made of vfio-pci": {
			change: func(_ *delegate.Plan, k *kernel, n *Node) {
				k.links["/netns/web"] = k.links["/netns/web"][:2]
				n.Driver = func(string) string { return "mlx5_vfio_pci" }
			},
			state: Attached, states: "eth0 attached, net1 attached mlx5_vfio_pci",
		},
		"an attachment whose plugins report no interface": {
			change: func(p *delegate.Plan, k *kernel, _ *Node) {
				p.Attachments[1].Result = json.RawMessage(`{"cniVersion":"1.0.0"}`)
				k.links["/netns/web"] = k.links["/netns/web"][:2]
			},
			state: Attached, states: "eth0 attached, net1 attached",
		},
		"a result that cannot be read": {
			change: func(p *delegate.Plan, _ *kernel, _ *Node) {
				p.Attachments[1].Result = json.RawMessage(`{"cniVersion":"1.0.0","interfaces":[null]}`)
			},
			state: Attached, states: "eth0 attached, net1 attached",
		},
		"an ADD that is at work": {
			change: func(p *delegate.Plan, k *kernel, _ *Node) {
				p.Complete, p.Began = false, now.Add(-time.Minute)
				p.Attachments[1].State, p.Attachments[1].Result = delegate.Planned, nil
				k.links["/netns/web"] = k.links["/netns/web"][:2]
			},
			state: Attaching, states: "eth0 attached, net1 attaching",
		},
		"an ADD that was left midway": {
			change: func(p *delegate.Plan, k *kernel, _ *Node) {
				p.Complete = false
				p.Attachments[1].State, p.Attachments[1].Result = delegate.Planned, nil
				k.links["/netns/web"] = k.links["/netns/web"][:2]
			},
			state: Failed, states: "eth0 attached, net1 failed", says: []string{"its ADD did not finish: delete the pod"},
		},
		"an ADD that failed": {
			change: func(p *delegate.Plan, _ *kernel, _ *Node) {
				p.Complete = false
				p.Attachments[1].State, p.Attachments[1].Result, p.Attachments[1].AddError = delegate.Planned, nil, "plugin macvlan: no\nlink"
			},
			state: Failed, states: "eth0 attached, net1 failed", says: []string{"network shop/storage (interface net1): the ADD failed: plugin macvlan: no link"},
		},
		"an undo that failed": {
			change: func(p *delegate.Plan, _ *kernel, _ *Node) {
				p.Attachments[1].State, p.Attachments[1].Error = delegate.UndoFailed, "busy"
			},
			state: Failed, states: "eth0 attached, net1 failed",
			says: []string{"network shop/storage (interface net1): could not be undone; the next DEL or GC tries again: busy"},
		},
		"the namespace is gone": {
			change: func(_ *delegate.Plan, k *kernel, _ *Node) { clear(k.links) },
			state:  Gone, states: "eth0 attached, net1 attached", says: []string{"its network namespace is gone"},
		},
		"the namespace is of an earlier boot": {
			change: func(p *delegate.Plan, _ *kernel, _ *Node) { p.BootID = "another" },
			state:  Gone, states: "eth0 attached, net1 attached", says: []string{"its network namespace is gone"},
		},
		"the namespace cannot be entered": {
			change: func(_ *delegate.Plan, k *kernel, _ *Node) { k.err = errors.New("not permitted") },
			state:  Attached, states: "eth0 attached, net1 attached", says: []string{"cannot be examined, which takes root on the node: not permitted"},
		},
		"somebody else's interface": {
			change: func(_ *delegate.Plan, k *kernel, _ *Node) {
				k.links["/netns/web"] = append(k.links["/netns/web"], link("wg0"), netdev.Link{Name: "wg1"}, netdev.Link{Name: "tunl0"}, link("gre0"))
			},
			state: Attached, states: "eth0 attached, net1 attached, wg0 unmanaged, wg1 unmanaged, gre0 unmanaged",
		},
		"only the record counts": {
			change: func(_ *delegate.Plan, _ *kernel, n *Node) { n.Kernel = nil },
			state:  Attached, states: "eth0 attached, net1 attached",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, k := webPlan(t), webKernel()
			n := &Node{Kernel: k, Driver: func(string) string { return "" }}
			if tc.change != nil {
				tc.change(plan, k, n)
			}
			stored := nodeWith(t, n.Kernel, plan)
			stored.Driver = n.Driver
			pods, _, err := stored.Pods()
			if err != nil {
				t.Fatal(err)
			}
			var states []string
			for _, i := range pods[0].Interfaces {
				states = append(states, strings.TrimSpace(fmt.Sprintf("%s %s %s", i.Name, i.State, i.Driver)))
			}
			if got := strings.Join(states, ", "); pods[0].State != tc.state || got != tc.states {
				t.Errorf("pod is %s, interfaces %s; want %s, %s", pods[0].State, got, tc.state, tc.states)
			}
			if len(pods[0].Problems) != len(tc.says) {
				t.Fatalf("problems %q; want %d", pods[0].Problems, len(tc.says))
			}
			for i, want := range tc.says {
				if got := pods[0].Problems[i]; !strings.Contains(got, want) || strings.Contains(got, "\n") {
					t.Errorf("problem %q; want one line that says %q", got, want)
				}
			}
		})
	}
}

func TestPodsSortsAndGoesOnAfterABadRecord(t *testing.T) {
	t.Parallel()
	older, newer, other := webPlan(t), webPlan(t), webPlan(t)
	older.Sandbox.ContainerID, older.Began = "older", now.Add(-2*time.Hour)
	newer.Sandbox.ContainerID = "newer"
	other.Pod, other.Sandbox.ContainerID = pod.Ref{}, "container-of-nobody"
	future := webPlan(t)
	future.Version = delegate.PlanVersion + 1
	n := nodeWith(t, nil, older, newer, other, future)
	if err := os.WriteFile(filepath.Join(n.StateDirs[0], "records", "bad.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	pods, problems, err := n.Pods()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pods {
		got = append(got, p.Ref()+" "+p.ContainerID)
	}
	if diff := cmp.Diff([]string{"container-of-nobody container-of-nobody", "shop/web newer", "shop/web older"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(problems) != 2 || !strings.Contains(problems[0], "use the version that wrote it") || !strings.Contains(problems[1], "bad.json") {
		t.Errorf("problems %q; want those of the record of the future, and of bad.json", problems)
	}
}

func TestHostLink(t *testing.T) {
	t.Parallel()
	for conf, want := range map[string]string{
		`{"type":"bridge"}`:                      "cni0",
		`{"type":"bridge","bridge":"br7"}`:       "br7",
		`{"type":"macvlan","master":"ens1"}`:     "ens1",
		`{"type":"macvlan"}`:                     "",
		`{"type":"host-device","device":"ens2"}`: "ens2",
		`{"type":"other","master":{"a":1}}`:      "",
	} {
		if got := hostLink(&delegate.Attachment{List: list(t, conf)}); got != want {
			t.Errorf("hostLink of %s = %q; want %q", conf, got, want)
		}
	}
}

// drawn are pods with everything that a drawing can show, and names that would break its syntax.
func drawn(t *testing.T) []Pod {
	t.Helper()
	k := webKernel()
	k.links["/netns/db"] = []netdev.Link{link("eth0", "10.1.0.3/24", "fd00:1::3/64"), link("wg0", "10.9.0.1/32")}
	db := webPlan(t)
	db.Pod, db.Sandbox.ContainerID, db.Sandbox.NetNS = pod.Ref{Namespace: "shop", Name: `<db>&"\`}, "fedcba9876543210", "/netns/db"
	db.Attachments[0].Result = result("eth0", "10.1.0.3/24")
	db.Attachments[1].Network = "shop/evil\n\x1b[31m"
	gone := webPlan(t)
	gone.Pod, gone.Sandbox.ContainerID, gone.Sandbox.NetNS = pod.Ref{}, "0000111122223333", "/netns/gone"
	gone.Attachments = gone.Attachments[:1]
	pods, _, err := nodeWith(t, k, webPlan(t), db, gone).Pods()
	if err != nil {
		t.Fatal(err)
	}
	return pods
}
