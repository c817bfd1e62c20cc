// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
)

func TestAddGivesAllThatIsAskedForAndDelTakesItBack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	var result types100.Result
	if err := json.Unmarshal([]byte(n.must("ADD", podA(), config(vf3, everything()))), &result); err != nil {
		t.Fatal(err)
	}
	vf, err := n.fake.VF(pf, 3)
	if err != nil {
		t.Fatal(err)
	}
	want := netdev.VF{
		ID: 3, MAC: "02:00:00:00:00:aa", VLAN: netdev.VLAN{ID: 100, QoS: 3, Proto: "802.1q"}, MinTxMbps: 10, MaxTxMbps: 1000, Trust: true, LinkState: "enable",
	}
	if diff := cmp.Diff(want, vf); diff != "" {
		t.Errorf("the PF has (-want +got):\n%s", diff)
	}
	where, link, _ := n.fake.Where(vf3)
	if where != sandbox || link.Name != "net1" || link.MTU != 4000 || link.MAC.String() != "02:00:00:00:00:aa" || !link.Up || !link.Promisc || !link.AllMulticast || len(link.Addrs) != 1 {
		t.Errorf("the interface is in %s: %+v", where, link)
	}
	i := result.Interfaces[0]
	if i.Name != "net1" || i.Mac != "02:00:00:00:00:aa" || i.Mtu != 4000 || i.PciID != vf3 || i.Sandbox != sandbox || *result.IPs[0].Interface != 0 || len(result.Routes) != 1 {
		t.Errorf("result is %+v", result)
	}
	n.must("CHECK", podA(), config(vf3, everything()))
	if other, err := n.fake.VF(pf, 0); err != nil || other.VLAN.ID != 0 || other.Trust {
		t.Errorf("another VF was changed: %+v, %v", other, err)
	}
	for range 2 { // a second DEL is a success
		n.must("DEL", podA(), config(vf3, everything()))
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Fatalf("after DEL (-before +after):\n%s", diff)
		}
	}
}

func TestWhatIsNotAskedForIsNotTouched(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	writes := n.recordWrites()
	n.must("ADD", podA(), config(vf3, nil))
	if diff := cmp.Diff([]string{"MoveLink", "SetLink up"}, writes()); diff != "" {
		t.Errorf("writes of an ADD without options (-want +got):\n%s", diff)
	}
}

// TestFaultAtEachCallIsRolledBack fails each call of the kernel in turn, before its effect and after it.
func TestFaultAtEachCallIsRolledBack(t *testing.T) {
	t.Parallel()
	for _, device := range []string{vf0, vf3} {
		conf := config(device, everything())
		count := newNode(t)
		counter := &nth{chosen: func(int) bool { return false }}
		count.fake.Fault = counter.fault
		count.must("ADD", podA(), conf)
		total, writes := counter.n, 0
		for i := 1; i <= total; i++ {
			op := counter.seen[i-1]
			if isWrite(op) {
				writes++
			}
			for _, after := range []bool{false, true} {
				if after && !isWrite(op) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d %s after=%t", device, i, op, after), func(t *testing.T) {
					n := newNode(t)
					before := n.state()
					n.inject(i, op, after)
					_, err := n.call(t.Context(), "ADD", podA(), conf)
					if op == "Announce" {
						if err != nil {
							t.Fatalf("an announcement that failed has failed the ADD: %v", err)
						}
						return
					}
					if !strings.Contains(fmt.Sprint(err), errFault.Error()) {
						t.Fatalf("got %v, want the fault", err)
					}
					if diff := cmp.Diff(before, n.state()); diff != "" {
						t.Errorf("after the failed ADD (-before +after):\n%s", diff)
					}
				})
			}
		}
		if writes < 11 {
			t.Errorf("only %d writes were tried: %v", writes, counter.seen)
		}
	}
}

// inject fails the call of a number, once.
func (n *node) inject(call int, op string, after bool) {
	calls := 0
	n.fake.Fault = func(string) error {
		calls++
		if calls == call && !after {
			return fmt.Errorf("%w at %s", errFault, op)
		}
		return nil
	}
	if after {
		n.fake.FaultAfter = func(string) error {
			if calls == call {
				return fmt.Errorf("%w after %s", errFault, op)
			}
			return nil
		}
	}
}

// TestDelAfterACrashAtEachStep ends an ADD at each step, without roll-back, as kill -9 does; then a new process gets the DEL, with the sandbox,
// or without.
func TestDelAfterACrashAtEachStep(t *testing.T) {
	t.Parallel()
	conf := config(vf0, everything())
	count := newNode(t)
	counter := &nth{chosen: func(int) bool { return false }}
	count.plugin.Step = counter.fault
	count.must("ADD", podA(), conf)
	if counter.n < 14 {
		t.Fatalf("only %d steps: %v", counter.n, counter.seen)
	}
	for i := 1; i <= counter.n; i++ {
		for _, end := range []string{"sandbox is there", "sandbox is gone", "no CNI_NETNS, sandbox is there", "GC", "next owner"} {
			t.Run(fmt.Sprintf("%d %s/%s", i, counter.seen[i-1], end), func(t *testing.T) {
				n := newNode(t)
				before := n.state()
				crash := &nth{chosen: func(c int) bool { return c >= i }}
				n.plugin.Step = crash.fault
				if _, err := n.call(t.Context(), "ADD", podA(), conf); err == nil {
					t.Fatal("the ADD succeeded")
				}
				n.plugin = n.newPlugin()
				a := podA()
				switch end {
				case "sandbox is gone":
					n.fake.DeleteNetNS(sandbox)
				case "no CNI_NETNS, sandbox is there":
					a.netns = ""
				case "GC":
					n.must("GC", args{}, config("", map[string]any{"cni.dev/valid-attachments": []any{}}))
					n.ipam.leases = map[string]string{} // GC of IPAM is its own
				case "next owner":
					n.fake.DeleteNetNS(sandbox)
					n.must("ADD", podB(), config(vf0, nil))
					n.must("DEL", podB(), config(vf0, nil))
				}
				n.must("DEL", a, conf)
				if end == "sandbox is gone" || end == "next owner" {
					n.restoreSandbox()
				}
				if diff := cmp.Diff(before, n.state()); diff != "" {
					t.Errorf("after DEL (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// restoreSandbox puts an empty sandbox in the place of one that was deleted, so that states can be compared.
func (n *node) restoreSandbox() {
	n.fake.SetNetNS(sandbox, []netdev.Link{{Name: "lo", Index: 1, MTU: 65536, Up: true}, {Name: "eth0", Index: 2, MTU: 1500, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 20}, Up: true}}, nil)
}

// TestDelGoesOnWhereItFailed fails each call of a DEL in turn: the next DEL does the rest.
func TestDelGoesOnWhereItFailed(t *testing.T) {
	t.Parallel()
	conf := config(vf0, everything())
	count := newNode(t)
	count.must("ADD", podA(), conf)
	counter := &nth{chosen: func(int) bool { return false }}
	count.fake.Fault = counter.fault
	count.must("DEL", podA(), conf)
	for i := 1; i <= counter.n; i++ {
		op := counter.seen[i-1]
		for _, after := range []bool{false, true} {
			if after && !isWrite(op) {
				continue
			}
			t.Run(fmt.Sprintf("%d %s after=%t", i, op, after), func(t *testing.T) {
				n := newNode(t)
				before := n.state()
				n.must("ADD", podA(), conf)
				n.inject(i, op, after)
				if _, err := n.call(t.Context(), "DEL", podA(), conf); err == nil && op != "SetLink altnames" && op != "NetNSID" && op != "SetVF mac" {
					t.Error("the DEL told nothing of the fault")
				}
				n.fake.Fault, n.fake.FaultAfter = nil, nil
				n.must("DEL", podA(), conf)
				if diff := cmp.Diff(before, n.state()); diff != "" {
					t.Errorf("after the second DEL (-before +after):\n%s", diff)
				}
			})
		}
	}
}

func TestVFThatAnotherPodHasIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, everything()))
	before := n.state()
	_, err := n.call(t.Context(), "ADD", podB(), config(vf0, nil))
	wantCode(t, err, types.ErrTryAgainLater, "pod default/pod-aaaa", vf0, sandbox)
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("the owner lost something (-before +after):\n%s", diff)
	}
}

func TestLateDelOfAFormerOwnerTouchesNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, everything()))
	n.fake.DeleteNetNS(sandbox)
	n.must("ADD", podB(), config(vf0, map[string]any{"vlan": 200})) // the mark of a sandbox that is gone heals itself
	before := n.fake.String()
	a := podA()
	n.must("DEL", a, config(vf0, everything()))
	a.netns = ""
	n.must("DEL", a, config(vf0, everything()))
	if diff := cmp.Diff(before, n.fake.String()); diff != "" {
		t.Errorf("the new owner lost something (-before +after):\n%s", diff)
	}
	n.must("CHECK", podB(), config(vf0, map[string]any{"vlan": 200}))
}

func TestSecondAddOfOneSandboxUndoesTheFirst(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	n.must("ADD", podA(), config(vf0, everything()))
	n.must("ADD", podA(), config(vf0, map[string]any{"vlan": 7, "ipam": map[string]any{"type": "test-ipam"}}))
	if vf, err := n.fake.VF(pf, 0); err != nil || vf.VLAN.ID != 7 || vf.Trust {
		t.Errorf("VF is %+v, %v", vf, err)
	}
	n.must("DEL", podA(), config(vf0, map[string]any{"ipam": map[string]any{"type": "test-ipam"}}))
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

func TestSandboxThatEndedUnderALiveVF(t *testing.T) {
	t.Parallel()
	for _, hostName := range []string{"", "net1"} { // free on the host, or taken: then the kernel calls it dev<N>
		n := newNode(t)
		if hostName != "" {
			links, err := n.fake.Links(netdev.Host)
			if err != nil {
				t.Fatal(err)
			}
			links[2].AltNames = nil
			n.fake.SetNetNS(netdev.Host, append(links, netdev.Link{Name: hostName, Index: 90}), nil)
		}
		before := n.state()
		n.must("ADD", podA(), config(vf0, everything()))
		n.fake.DeleteNetNS(sandbox)
		n.must("DEL", podA(), config(vf0, everything()))
		n.restoreSandbox()
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Errorf("after DEL (-before +after):\n%s", diff)
		}
	}
}

// TestVFThatCanNotBeReached has a VF in a network namespace whose path is gone, but which lives on: DEL must not keep the pod terminating,
// the VF must stay in its VLAN and not go to another pod, and is put right when it is back.
func TestVFThatCanNotBeReached(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	n.must("ADD", podA(), config(vf0, everything()))
	n.fake.Rename(sandbox, "/proc/77/ns/net") // something holds it
	n.fake.SetNetNS(sandbox, nil, nil)        // another one at that path
	n.must("DEL", podA(), config(vf0, everything()))
	if vf, err := n.fake.VF(pf, 0); err != nil || vf.VLAN.ID != 100 || vf.LinkState != netdev.LinkStateDisable {
		t.Errorf("whoever still has the VF is out of its VLAN, or has a link: %+v, %v", vf, err)
	}
	_, err := n.call(t.Context(), "ADD", podB(), config(vf0, nil))
	wantCode(t, err, types.ErrTryAgainLater, vf0, "lsns")
	n.fake.DeleteNetNS("/proc/77/ns/net")
	n.must("ADD", podB(), config(vf0, nil))
	n.must("DEL", podB(), config(vf0, nil))
	n.restoreSandbox()
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("at the end (-before +after):\n%s", diff)
	}
}

func TestVFThatTheKernelIsOnTheWayWith(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	n.must("ADD", podA(), config(vf0, everything()))
	_, link, _ := n.fake.Where(vf0)
	n.fake.SetNetNS(sandbox, nil, nil)
	n.fake.SetNetNS("dying", []netdev.Link{link}, nil)
	n.plugin.ReturnTimeout = 0 // the default: it comes long before
	n.fake.Fault = func(op string) error {
		if op == "LinkEvents" {
			go n.fake.DeleteNetNS("dying")
		}
		return nil
	}
	n.must("DEL", podA(), config(vf0, everything()))
	n.restoreSandbox()
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

func TestNumVFsSetToZeroUnderALivePod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, everything()))
	n.drivers = map[string]string{}
	n.fake.SetPF(pf, nil)
	n.fake.SetNetNS(sandbox, nil, nil)
	n.must("DEL", podA(), config(vf0, everything()))
	if left := records(t, n); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
	_, err := n.call(t.Context(), "ADD", podA(), config(vf0, nil))
	wantCode(t, err, types.ErrInvalidNetworkConfig, vf0)
}

func TestRebootForgetsTheDeviceAndGivesAddressesBack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.fake.String()
	n.must("ADD", podA(), config(vf0, everything()))
	fresh := newNode(t)
	fresh.dir, fresh.ipam, fresh.fake.Boot = n.dir, n.ipam, "boot-2"
	fresh.plugin = fresh.newPlugin()
	a := podA()
	a.netns = ""
	fresh.must("DEL", a, config(vf0, everything()))
	if diff := cmp.Diff(before, fresh.fake.String()); diff != "" {
		t.Errorf("a VF of the new boot was changed (-before +after):\n%s", diff)
	}
	if len(records(t, fresh)) > 0 || len(n.ipam.leases) > 0 {
		t.Errorf("left: records %v, leases %v", records(t, fresh), n.ipam.leases)
	}
}

func TestUserspaceDriver(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.drivers[vf0] = "vfio-pci"
	links, err := n.fake.Links(netdev.Host)
	if err != nil {
		t.Fatal(err)
	}
	n.fake.SetNetNS(netdev.Host, append(links[:2], links[3]), nil)
	before := n.state()
	keys := everything()
	for _, key := range []string{"mtu", "promisc", "allMulticast"} {
		_, err = n.call(t.Context(), "ADD", podA(), config(vf0, map[string]any{key: keys[key]}))
		wantCode(t, err, types.ErrInvalidNetworkConfig, key, "vfio-pci")
		delete(keys, key)
	}
	var result types100.Result
	if err = json.Unmarshal([]byte(n.must("ADD", podA(), config(vf0, keys))), &result); err != nil {
		t.Fatal(err)
	}
	if i := result.Interfaces[0]; i.PciID != vf0 || i.Mac != "02:00:00:00:00:aa" || i.Mtu != 9000 || len(result.IPs) != 1 {
		t.Errorf("result is %+v", result)
	}
	if vf, vfErr := n.fake.VF(pf, 0); vfErr != nil || vf.VLAN.ID != 100 {
		t.Errorf("VF is %+v, %v", vf, vfErr)
	}
	n.must("CHECK", podA(), config(vf0, keys))
	n.must("DEL", podA(), config(vf0, keys))
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// TestBadInput has all that is refused before anything is touched.
func TestBadInput(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		device  string
		keys    map[string]any
		extra   string
		arrange func(n *node)
		code    uint
		want    []string
	}{
		"no device":                    {keys: map[string]any{"deviceID": ""}, want: []string{"deviceID", "resourceName"}},
		"not an address":               {device: "eth4v0", want: []string{"deviceID", "eth4v0"}},
		"a path":                       {device: "../../etc", want: []string{"deviceID"}},
		"a device that does not exist": {device: "0000:03:02.7", want: []string{"0000:03:02.7"}},
		"the PF":                       {device: pfPCI, want: []string{pfPCI, "PF"}},
		"VLAN 4095":                    {keys: map[string]any{"vlan": 4095}, want: []string{`"vlan"`, "4095", "4094"}},
		"VLAN -1":                      {keys: map[string]any{"vlan": -1}, want: []string{`"vlan"`, "-1"}},
		"VLAN as text":                 {keys: map[string]any{"vlan": "100"}, want: []string{`"vlan"`, "string"}},
		"QoS 8":                        {keys: map[string]any{"vlan": 1, "vlanQoS": 8}, want: []string{`"vlanQoS"`, "8"}},
		"QoS without VLAN":             {keys: map[string]any{"vlanQoS": 1}, want: []string{`"vlanQoS"`, `"vlan"`}},
		"QoS with VLAN 0":              {keys: map[string]any{"vlan": 0, "vlanQoS": 1}, want: []string{`"vlanQoS"`}},
		"protocol without VLAN":        {keys: map[string]any{"vlanProto": "802.1ad"}, want: []string{`"vlanProto"`, `"vlan"`}},
		"unknown protocol":             {keys: map[string]any{"vlan": 1, "vlanProto": "802.1x"}, want: []string{`"vlanProto"`, "802.1x"}},
		"802.1ad with VLAN 0":          {keys: map[string]any{"vlan": 0, "vlanProto": "802.1ad"}, want: []string{"802.1ad"}},
		"min above max":                {keys: map[string]any{"min_tx_rate": 20, "max_tx_rate": 10}, want: []string{"min_tx_rate", "20", "max_tx_rate", "10"}},
		"negative rate":                {keys: map[string]any{"max_tx_rate": -1}, want: []string{"max_tx_rate", "-1"}},
		"trust yes":                    {keys: map[string]any{"trust": "yes"}, want: []string{`"trust"`, "yes", "on"}},
		"spoofchk true":                {keys: map[string]any{"spoofchk": "true"}, want: []string{`"spoofchk"`, "true"}},
		"link state up":                {keys: map[string]any{"link_state": "up"}, want: []string{`"link_state"`, "up"}},
		"malformed MAC":                {keys: map[string]any{"mac": "02:00:00:00:00"}, want: []string{`"mac"`, "02:00:00:00:00"}},
		"multicast MAC":                {keys: map[string]any{"mac": "01:00:5e:00:00:01"}, want: []string{`"mac"`, "multicast"}},
		"zero MAC":                     {keys: map[string]any{"mac": "00:00:00:00:00:00"}, want: []string{`"mac"`, "zero"}},
		"MAC of InfiniBand":            {keys: map[string]any{"mac": "80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01"}, want: []string{`"mac"`}},
		"MAC by CNI_ARGS":              {extra: ";MAC=nonsense", want: []string{"MAC of CNI_ARGS", "nonsense"}},
		"MAC by the pod":               {keys: map[string]any{"runtimeConfig": map[string]any{"mac": "nonsense"}}, want: []string{"runtimeConfig.mac", "nonsense"}},
		"MTU above the PF's":           {keys: map[string]any{"mtu": 9001}, want: []string{`"mtu"`, "9001", "9000", pf}},
		"MTU 10":                       {keys: map[string]any{"mtu": 10}, want: []string{`"mtu"`, "10"}},
		"GUID":                         {keys: map[string]any{"runtimeConfig": map[string]any{"infinibandGUID": "00:11:22:33:44:55:66:77"}}, want: []string{"infinibandGUID", "ib-sriov"}},
		"InfiniBand PF":                {arrange: func(n *node) { n.noLink = true }, want: []string{"InfiniBand", pf}},
		"no driver":                    {arrange: func(n *node) { n.drivers[vf0] = ""; n.moveAway() }, want: []string{vf0, "driver"}},
		"in a namespace of nobody":     {arrange: (*node).moveAway, code: types.ErrTryAgainLater, want: []string{vf0, "lsns"}},
		"the pod has that interface":   {extra: "", arrange: func(n *node) { n.occupy("net1", nil) }, want: []string{"net1"}},
		"it is an alternative name":    {arrange: func(n *node) { n.occupy("eth9", []string{"net1"}) }, want: []string{"net1", "eth9"}},
		"not JSON":                     {keys: map[string]any{"ipam": 5}, want: []string{"ipam"}},
		"sriov-cni gave it away":       {arrange: func(n *node) { n.mark(other) }, code: types.ErrTryAgainLater, want: []string{vf0, other, "sriov-cni"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			if tc.arrange != nil {
				tc.arrange(n)
			}
			before := n.state()
			n.fake.Fault = func(op string) error {
				if isWrite(op) {
					t.Errorf("%s, although the input is bad", op)
				}
				return nil
			}
			device := tc.device
			if device == "" {
				device = vf0
			}
			a := podA()
			a.extra = tc.extra
			_, err := n.call(t.Context(), "ADD", a, config(device, tc.keys))
			code := tc.code
			if code == 0 {
				code = types.ErrInvalidNetworkConfig
			}
			wantCode(t, err, code, tc.want...)
			if diff := cmp.Diff(before, n.state()); diff != "" {
				t.Errorf("-before +after:\n%s", diff)
			}
		})
	}
}

func (n *node) occupy(name string, altNames []string) {
	links, err := n.fake.Links(sandbox)
	if err != nil {
		n.t.Fatal(err)
	}
	n.fake.SetNetNS(sandbox, append(links, netdev.Link{Name: name, Index: 44, AltNames: altNames}), nil)
}

// moveAway puts VF 0 where nobody of Plexus put it.
func (n *node) moveAway() {
	links, err := n.fake.Links(netdev.Host)
	if err != nil {
		n.t.Fatal(err)
	}
	n.fake.SetNetNS(netdev.Host, append(links[:2:2], links[3]), nil)
	n.fake.SetNetNS("/run/netns/elsewhere", links[2:3], nil)
}

// mark is what sriov-cni leaves of VF 0.
func (n *node) mark(netns string) {
	dir := filepath.Join(n.dir, "legacy", "pci")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, vf0), []byte(netns), 0o600)); err != nil {
		n.t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code uint, texts ...string) {
	t.Helper()
	e, ok := errors.AsType[*types.Error](err)
	if !ok {
		t.Fatalf("got %v, want a CNI error", err)
	}
	if e.Code != code {
		t.Errorf("code %d, want %d: %s", e.Code, code, e.Msg)
	}
	for _, text := range texts {
		if !strings.Contains(e.Msg, text) {
			t.Errorf("%q does not say %q", e.Msg, text)
		}
	}
}

// TestWhatOnlyTheKernelCanTell is refused by the driver, explained, and undone.
func TestWhatOnlyTheKernelCanTell(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		keys   map[string]any
		op     string
		err    error
		pfDown bool
		want   []string
	}{
		"802.1ad on a NIC without it":    {map[string]any{"vlan": 5, "vlanProto": "802.1ad"}, "SetVF vlan", syscall.EPROTONOSUPPORT, false, []string{"vlanProto", "802.1q"}},
		"link state on a NIC without it": {map[string]any{"link_state": "enable"}, "SetVF link_state", syscall.EOPNOTSUPP, false, []string{"link_state", "leave it out"}},
		"rate while the PF has no link":  {map[string]any{"max_tx_rate": 100}, "SetVF rate", syscall.EINVAL, true, []string{"rate", pf, "no link"}},
		"lowest rate":                    {map[string]any{"min_tx_rate": 100}, "SetVF rate", syscall.EINVAL, false, []string{"min_tx_rate"}},
		"rate above the link's":          {map[string]any{"max_tx_rate": 100000}, "SetVF rate", syscall.EINVAL, false, []string{"rate", "above that of the link"}},
		"VLAN":                           {map[string]any{"vlan": 5}, "SetVF vlan", syscall.EINVAL, false, []string{"vlan", "dmesg"}},
		"an error of another setting":    {map[string]any{"trust": "on"}, "SetVF trust", syscall.EPROTONOSUPPORT, false, []string{"trust", "protocol not supported"}},
		"not allowed":                    {map[string]any{"trust": "on"}, "SetVF trust", syscall.EPERM, false, []string{"trust", "firmware"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			if tc.pfDown {
				links, err := n.fake.Links(netdev.Host)
				if err != nil {
					t.Fatal(err)
				}
				links[1].Carrier = false
				n.fake.SetNetNS(netdev.Host, links, nil)
			}
			before := n.state()
			n.fake.Fault = func(op string) error {
				if op == tc.op {
					return tc.err
				}
				return nil
			}
			keys := map[string]any{"mac": "02:00:00:00:00:aa"}
			maps.Copy(keys, tc.keys)
			_, err := n.call(t.Context(), "ADD", podA(), config(vf0, keys))
			wantCode(t, err, types.ErrInternal, tc.want...)
			if diff := cmp.Diff(before, n.state()); diff != "" {
				t.Errorf("after the failed ADD (-before +after):\n%s", diff)
			}
		})
	}
}

func TestPrecedenceOfMACs(t *testing.T) {
	t.Parallel()
	const a, b, c = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
	for want, tc := range map[string]struct {
		keys  map[string]any
		extra string
	}{
		a: {map[string]any{"mac": c, "runtimeConfig": map[string]any{"mac": strings.ToUpper(a)}}, ";MAC=" + b},
		b: {map[string]any{"mac": c}, ";MAC=" + b},
		c: {map[string]any{"mac": c}, ""},
	} {
		n := newNode(t)
		p := podA()
		p.extra = tc.extra
		n.must("ADD", p, config(vf0, tc.keys))
		if _, link, _ := n.fake.Where(vf0); link.MAC.String() != want {
			t.Errorf("MAC is %s, want %s", link.MAC, want)
		}
	}
}

// TestCheckNamesWhatHasChanged changes each thing that a VF has.
func TestCheckNamesWhatHasChanged(t *testing.T) {
	t.Parallel()
	setVF := func(s netdev.VFSetting, change func(*netdev.VF)) func(*node) error {
		return func(n *node) error {
			vf, err := n.fake.VF(pf, 0)
			change(&vf)
			return errors.Join(err, n.fake.SetVF(pf, s, vf))
		}
	}
	setLink := func(s netdev.LinkSetting, change func(*netdev.Link)) func(*node) error {
		return func(n *node) error {
			link, err := n.fake.Link(sandbox, "net1")
			down, wasUp := link, link.Up
			down.Up = false // else its MAC cannot be changed
			change(&link)
			link.Up = wasUp && s != netdev.LinkUp && s != netdev.LinkMAC // which the driver would take back
			return errors.Join(err, n.fake.SetLink(sandbox, netdev.LinkUp, down), n.fake.SetLink(sandbox, s, link), n.fake.SetLink(sandbox, netdev.LinkUp, link))
		}
	}
	for want, change := range map[string]func(*node) error{
		`"vlan" is 5, QoS 0`:     setVF(netdev.VFVLAN, func(v *netdev.VF) { v.VLAN = netdev.VLAN{ID: 5, Proto: "802.1q"} }),
		`"mac" is 02:00`:         setVF(netdev.VFMAC, func(v *netdev.VF) { v.MAC = "02:00:00:00:00:bb" }),
		`"rate" is min 0`:        setVF(netdev.VFRate, func(v *netdev.VF) { v.MinTxMbps, v.MaxTxMbps = 0, 5 }),
		`"spoofchk" is on`:       setVF(netdev.VFSpoofCheck, func(v *netdev.VF) { v.SpoofCheck = true }),
		`"trust" is off`:         setVF(netdev.VFTrust, func(v *netdev.VF) { v.Trust = false }),
		`"link_state" is auto`:   setVF(netdev.VFLinkState, func(v *netdev.VF) { v.LinkState = "auto" }),
		"MTU is 1400":            setLink(netdev.LinkMTU, func(l *netdev.Link) { l.MTU = 1400 }),
		"MAC is 02:00:00:00:00:": setLink(netdev.LinkMAC, func(l *netdev.Link) { l.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 0xcc} }),
		"state is down":          setLink(netdev.LinkUp, func(l *netdev.Link) { l.Up = false }),
		"name is net9": func(n *node) error {
			link, err := n.fake.Link(sandbox, "net1")
			link.Up = false // else it cannot be renamed
			return errors.Join(err, n.fake.SetLink(sandbox, netdev.LinkUp, link), n.fake.MoveLink(sandbox, link.Index, sandbox, "net9"))
		},
		"is not in sandbox": func(n *node) error {
			link, err := n.fake.Link(sandbox, "net1")
			return errors.Join(err, n.fake.MoveLink(sandbox, link.Index, netdev.Host, "net9"))
		},
		"is not attached to container aaaa": func(n *node) error {
			_, err := n.call(t.Context(), "DEL", podA(), config(vf0, nil))
			return err
		},
	} {
		n := newNode(t)
		n.must("ADD", podA(), config(vf0, everything()))
		n.must("CHECK", podA(), config(vf0, everything()))
		if err := change(n); err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		_, err := n.call(t.Context(), "CHECK", podA(), config(vf0, everything()))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CHECK says %v, want %q in it", err, want)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("STATUS", args{}, config("", nil))
	n.must("STATUS", args{}, config(vf3, nil))
	_, err := n.call(t.Context(), "STATUS", args{}, config("0000:09:00.1", nil))
	wantCode(t, err, types.ErrPluginNotAvailable, "0000:09:00.1")
	n.ipam.fail = func(string) error { return types.NewError(types.ErrPluginNotAvailable, "pool is empty", "") }
	_, err = n.call(t.Context(), "STATUS", args{}, config("", map[string]any{"ipam": map[string]any{"type": "test-ipam"}}))
	wantCode(t, err, types.ErrPluginNotAvailable, "pool is empty", "test-ipam")
	n.drivers = nil
	_, err = n.call(t.Context(), "STATUS", args{}, config("", nil))
	wantCode(t, err, types.ErrPluginNotAvailable, "sriov_numvfs")
}

func TestGCKeepsWhatIsValidAndWhatIsOfOtherNetworks(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, nil))
	n.must("ADD", podB(), config(vf3, map[string]any{"name": "slow"}))
	valid := func(ids ...string) map[string]any {
		list := []any{}
		for _, id := range ids {
			list = append(list, map[string]string{"containerID": id, "ifname": "net1"})
		}
		return map[string]any{"cni.dev/valid-attachments": list}
	}
	_, err := n.call(t.Context(), "GC", args{}, config("", nil))
	wantCode(t, err, types.ErrInvalidNetworkConfig, "valid-attachments")
	n.must("GC", args{}, config("", valid("aaaa")))
	if left := records(t, n); len(left) != 2 {
		t.Errorf("records left: %v", left)
	}
	n.must("GC", args{}, config("", valid("bbbb")))
	if left := records(t, n); len(left) != 1 || !strings.Contains(left[0], "02.3") {
		t.Errorf("records left: %v", left)
	}
	if where, _, _ := n.fake.Where(vf0); where != netdev.Host {
		t.Errorf("VF 0 is in %s", where)
	}
}

// TestStateOfSRIOVCNI is a pod that was attached by sriov-cni before Plexus took over.
func TestStateOfSRIOVCNI(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		n := newNode(t)
		before := n.state()
		// What sriov-cni does.
		n.must("ADD", podA(), config(vf3, map[string]any{"vlan": 100, "mac": "02:00:00:00:00:aa", "trust": "on", "max_tx_rate": 50}))
		if err := os.RemoveAll(filepath.Join(n.dir, "records")); err != nil {
			t.Fatal(err)
		}
		state := fmt.Sprintf(`{"cniVersion":"0.3.1","name":"fast","type":"sriov","DPDKMode":false,"Master":"eth4","MAC":"02:00:00:00:00:aa","deviceID":%q,"vlan":100,"vlanProto":null,"ContIFNames":"net1",
			"OrigVfState":{"HostIFName":"eth4v3","SpoofChk":true,"Trust":false,"AdminMAC":"00:00:00:00:00:00","EffectiveMAC":"02:00:00:00:00:0d","Vlan":0,"VlanQoS":0,"VlanProto":0,"MinTxRate":0,"MaxTxRate":0,"LinkState":0,"MTU":1500}}`, vf3)
		n.mark(sandbox)
		dir := filepath.Join(n.dir, "legacy")
		if err := errors.Join(os.Rename(filepath.Join(dir, "pci", vf0), filepath.Join(dir, "pci", vf3)), os.WriteFile(filepath.Join(dir, "aaaa-net1"), []byte(state), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err := n.call(t.Context(), "ADD", podB(), config(vf3, nil))
		wantCode(t, err, types.ErrTryAgainLater, "sriov-cni", vf3)
		if gone {
			n.fake.DeleteNetNS(sandbox)
		}
		n.must("DEL", podA(), config(vf3, nil))
		if gone {
			n.restoreSandbox()
		}
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Errorf("after DEL (-before +after):\n%s", diff)
		}
	}
}

func TestDamagedRecordDoesNotTakeAVFOutOfService(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf3, nil))
	file := filepath.Join(n.dir, "records", records(t, n)[0])
	n.must("DEL", podA(), config(vf3, nil))
	for name, content := range map[string]string{"cut short": `{"version":1,`, "of another device": `{"version":1,"device":"0000:03:02.0","owner":{"containerID":"x","ifName":"y"}}`, "empty": `{}`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		n.must("ADD", podA(), config(vf3, nil))
		if _, err := os.Stat(file + ".corrupt"); err != nil {
			t.Errorf("%s: the record was not kept for a person: %v", name, err)
		}
		n.must("DEL", podA(), config(vf3, nil))
	}
	if err := os.WriteFile(file, []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.call(t.Context(), "ADD", podA(), config(vf3, nil)); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("got %v, want an error that names the version", err)
	}
}

func TestDeviceInfo(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.rdma = []string{"mlx5_2", "mlx5_3"}
	file := filepath.Join(n.dir, "info", "some", "fast")
	conf := config(vf3, map[string]any{"runtimeConfig": map[string]any{"CNIDeviceInfoFile": file, "deviceID": vf0}})
	n.must("ADD", podA(), conf)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.0","rdma-device":"mlx5_2,mlx5_3","pf-pci-address":"0000:03:00.0"}}`
	if string(data) != want {
		t.Errorf("device-info file has\n%s, want\n%s", data, want)
	}
	n.must("DEL", podA(), conf)
	if _, err := os.Stat(file); err == nil {
		t.Error("the file is left")
	}
	if err := os.WriteFile(file, []byte("what the device plugin wrote"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.must("ADD", podA(), conf)
	if data, err := os.ReadFile(file); err != nil || string(data) != "what the device plugin wrote" {
		t.Errorf("the device plugin's file has %q, %v", data, err)
	}
}

func TestIPAMThatFailsUndoesAll(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	n.ipam.fail = func(command string) error {
		if command == "ADD" {
			return types.NewError(types.ErrTryAgainLater, "no addresses left", "")
		}
		return nil
	}
	_, err := n.call(t.Context(), "ADD", podA(), config(vf0, everything()))
	wantCode(t, err, types.ErrTryAgainLater, "no addresses left")
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after the failed ADD (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"test-ipam ADD", "test-ipam DEL"}, n.ipam.calls); diff != "" {
		t.Errorf("IPAM was called (-want +got):\n%s", diff)
	}
}

// TestDriverThatTakesAMACLater is i40e: it says yes, and means soon.
func TestDriverThatTakesAMACLater(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	tries := 0
	n.fake.Fault = func(op string) error {
		if op == "SetLink mac" {
			if tries++; tries < 3 {
				return syscall.EADDRNOTAVAIL
			}
		}
		return nil
	}
	n.must("ADD", podA(), config(vf0, everything()))
	n.must("DEL", podA(), config(vf0, everything()))
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}
