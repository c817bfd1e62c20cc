// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// change makes a change of the pod's interface, as a program with CAP_NET_ADMIN in the pod can.
func (n *node) change(s netdev.LinkSetting, change func(*netdev.Link)) {
	n.t.Helper()
	link, err := n.fake.Link(sandbox, "net1")
	change(&link)
	if err = errors.Join(err, n.fake.SetLink(sandbox, s, link)); err != nil {
		n.t.Fatal(err)
	}
}

// leave is what a pod can do to its interface, and what a move does not take off.
func (n *node) leave() {
	n.t.Helper()
	n.change(netdev.LinkTraits, func(l *netdev.Link) {
		l.Traits = netdev.Traits{Flags: syscall.IFF_NOARP, TxQueueLen: 1, Mode: 1, GSOMaxSize: 2000, Group: 77, Alias: "left by a pod"}
	})
	n.change(netdev.LinkPromisc, func(l *netdev.Link) { l.Promisc = true })
	n.change(netdev.LinkMTU, func(l *netdev.Link) { l.MTU = 1300 })
	n.fake.Attach(vf0, 101, 102)
}

// TestWhatAPodDidToItsVFIsNotTheNextPods has a pod that leaves programs on its interface, and settings that would make it useless.
func TestWhatAPodDidToItsVFIsNotTheNextPods(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"DEL", "DEL without the sandbox", "GC", "the next owner"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.fake.Attach(vf0, 7) // this one is the host's
			before := n.state()
			n.must("ADD", podA(), config(vf0, nil))
			n.leave()
			if end != "DEL" && end != "GC" {
				n.fake.DeleteNetNS(sandbox)
			}
			switch end {
			case "GC":
				n.must("GC", args{}, config("", map[string]any{"cni.dev/valid-attachments": []any{}}))
			case "the next owner":
				n.must("ADD", podB(), config(vf0, nil))
				if _, link, _ := n.fake.Where(vf0); link.Traits != (netdev.Traits{}) || !slices.Equal(link.Programs, []uint32{7}) {
					t.Errorf("the next pod has %+v", link)
				}
				n.must("DEL", podB(), config(vf0, nil))
			default:
				n.must("DEL", podA(), config(vf0, nil))
			}
			if end != "DEL" && end != "GC" {
				n.restoreSandbox()
			}
			if diff := cmp.Diff(before, n.state()); diff != "" {
				t.Errorf("at the end (-before +after):\n%s", diff)
			}
		})
	}
}

// TestProgramThatSomethingHolds is one that a pinned BPF link keeps on the interface: the pod terminates, and nobody gets the VF with it.
func TestProgramThatSomethingHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		before := n.state()
		n.must("ADD", podA(), config(vf0, nil))
		n.leave()
		n.refuse("SetLink programs", syscall.EBUSY)
		n.must("DEL", podA(), config(vf0, nil))
		_, err := n.call(t.Context(), "ADD", podB(), config(vf0, nil))
		wantCode(t, err, types.ErrTryAgainLater, vf0, "bpftool link")
		n.fake.Fault = nil
		n.must("ADD", podB(), config(vf0, nil))
		n.must("DEL", podB(), config(vf0, nil))
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Errorf("at the end (-before +after):\n%s", diff)
		}
	})
}

// TestVFStaysInItsVLANWhileSomethingHasIt has a process in the pod's network namespace, whose path is gone: see also
// TestVFThatCanNotBeReached.
func TestVFStaysInItsVLANWhileSomethingHasIt(t *testing.T) {
	t.Parallel()
	for _, canCut := range []bool{true, false} { // the link: igb cannot
		n := newNode(t)
		before := n.state()
		n.must("ADD", podA(), config(vf0, map[string]any{"vlan": 100, "spoofchk": "on", "trust": "on"}))
		n.fake.Rename(sandbox, "/proc/77/ns/net")
		if !canCut {
			n.refuse("SetVF link_state", syscall.EOPNOTSUPP)
		}
		for range 2 {
			n.must("DEL", podA(), config(vf0, nil))
			vf, err := n.fake.VF(pf, 0)
			if err != nil || vf.VLAN.ID != 100 || (vf.LinkState == netdev.LinkStateDisable) != canCut {
				t.Errorf("the VF has %+v, %v", vf, err)
			}
		}
		n.fake.DeleteNetNS("/proc/77/ns/net")
		n.fake.Fault = nil
		n.must("DEL", podA(), config(vf0, nil))
		n.restoreSandbox()
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Errorf("once it is home (-before +after):\n%s", diff)
		}
	}
}

// TestWhatAnAdministratorSetsMeanwhileStays: it is neither the network's, nor undone.
func TestWhatAnAdministratorSetsMeanwhileStays(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	conf := config(vf3, map[string]any{"vlan": 100})
	n.must("ADD", podA(), conf)
	vf, err := n.fake.VF(pf, 3)
	if err != nil {
		t.Fatal(err)
	}
	vf.Trust, vf.SpoofCheck, vf.MaxTxMbps, vf.LinkState = true, false, 500, netdev.LinkStateEnable
	for _, s := range []netdev.VFSetting{netdev.VFTrust, netdev.VFSpoofCheck, netdev.VFRate, netdev.VFLinkState} {
		if err = n.fake.SetVF(pf, s, vf); err != nil {
			t.Fatal(err)
		}
	}
	n.must("CHECK", podA(), conf)
	n.must("DEL", podA(), conf)
	want := vf
	want.VLAN.ID = 0
	got, err := n.fake.VF(pf, 3)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, after DEL the PF has (-want +got):\n%s", err, diff)
	}
}

// TestRatesAreSetOneByOne: what is left out stays as it is.
func TestRatesAreSetOneByOne(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		keys        map[string]any
		least, most int
	}{
		"the highest alone": {map[string]any{"max_tx_rate": 1000}, 50, 1000},
		"the lowest alone":  {map[string]any{"min_tx_rate": 70}, 70, 200},
		"none":              {nil, 50, 200},
		"no bound":          {map[string]any{"max_tx_rate": 0}, 50, 0},
		"one rate":          {map[string]any{"max_tx_rate": 50}, 50, 50},
		"its bounds":        {map[string]any{"min_tx_rate": 10_000_000, "max_tx_rate": 10_000_000}, 10_000_000, 10_000_000},
	} {
		n := newNode(t)
		vf, err := n.fake.VF(pf, 3)
		vf.MinTxMbps, vf.MaxTxMbps = 50, 200
		if err = errors.Join(err, n.fake.SetVF(pf, netdev.VFRate, vf)); err != nil {
			t.Fatal(err)
		}
		before := n.state()
		n.must("ADD", podA(), config(vf3, tc.keys))
		if vf, err = n.fake.VF(pf, 3); err != nil || vf.MinTxMbps != tc.least || vf.MaxTxMbps != tc.most {
			t.Errorf("%s: %d to %d Mbit/s, %v", name, vf.MinTxMbps, vf.MaxTxMbps, err)
		}
		n.must("CHECK", podA(), config(vf3, tc.keys))
		n.must("DEL", podA(), config(vf3, tc.keys))
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Errorf("%s: after DEL (-before +after):\n%s", name, diff)
		}
	}
	n := newNode(t)
	vf, err := n.fake.VF(pf, 3)
	vf.MinTxMbps = 50
	if err = errors.Join(err, n.fake.SetVF(pf, netdev.VFRate, vf)); err != nil {
		t.Fatal(err)
	}
	_, err = n.call(t.Context(), "ADD", podA(), config(vf3, map[string]any{"max_tx_rate": 10}))
	wantCode(t, err, types.ErrInvalidNetworkConfig, vf3, "min_tx_rate", "50", "max_tx_rate", "10")
}

// TestBoundsOfAnMTU are what IPv4 needs, and what the PF has.
func TestBoundsOfAnMTU(t *testing.T) {
	t.Parallel()
	for mtu, want := range map[int]int{68: 68, 9000: 9000, 0: 1500} {
		n := newNode(t)
		n.must("ADD", podA(), config(vf0, map[string]any{"mtu": mtu}))
		if _, link, _ := n.fake.Where(vf0); link.MTU != want {
			t.Errorf("\"mtu\" %d: the interface has %d, want %d", mtu, link.MTU, want)
		}
	}
}

// TestPFThatTellsNothingOfItsVFs is virtio-net of a SmartNIC: a network that asks nothing of it is served.
func TestPFThatTellsNothingOfItsVFs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.fake.SetPF(pf, nil)
	before := n.state()
	keys := map[string]any{"mtu": 1400, "promisc": true, "ipam": map[string]any{"type": "test-ipam"}}
	n.must("ADD", podA(), config(vf0, keys))
	n.must("CHECK", podA(), config(vf0, keys))
	n.must("DEL", podA(), config(vf0, keys))
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
	for key, value := range map[string]any{"vlan": 5, "mac": "02:00:00:00:00:aa", "trust": "on", "spoofchk": "off", "max_tx_rate": 5, "link_state": "enable"} {
		_, err := n.call(t.Context(), "ADD", podA(), config(vf0, map[string]any{key: value}))
		wantCode(t, err, types.ErrInvalidNetworkConfig, pf, "tells nothing", strings.TrimPrefix(key, "max_tx_"))
	}
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after what was refused (-before +after):\n%s", diff)
	}
}

// TestVFThatIsNotListedForAMoment is ice, which resets a VF for a MAC, a VLAN and trust, and tells nothing of it meanwhile.
func TestVFThatIsNotListedForAMoment(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"", "SetVF trust", "SetVF vlan", "SetVF mac"} {
		for _, verb := range []string{"ADD", "CHECK", "DEL"} {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t)
				before := n.state()
				hide := func() {
					set, hidden := after == "", 0
					n.fake.Fault = func(op string) error {
						set = set || op == after
						if op == "VF" && set && hidden < 3 {
							hidden++
							return fmt.Errorf("hidden: %w", netdev.ErrNoVF)
						}
						return nil
					}
				}
				for _, v := range []string{"ADD", "CHECK", "DEL"} {
					n.fake.Fault = nil
					if v == verb {
						hide()
					}
					n.must(v, podA(), config(vf0, everything()))
				}
				if diff := cmp.Diff(before, n.state()); diff != "" {
					t.Errorf("%s, not listed after %q: after DEL (-before +after):\n%s", verb, after, diff)
				}
			})
		}
	}
}

// TestPFThatTellsOfItsVFsOnlyWhileItIsUp is bnx2x.
func TestPFThatTellsOfItsVFsOnlyWhileItIsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		links, err := n.fake.Links(netdev.Host)
		if err != nil {
			t.Fatal(err)
		}
		links[1].Up, links[1].Carrier = false, false
		n.fake.SetNetNS(netdev.Host, links, nil)
		n.fake.SetPF(pf, []netdev.FakeVF{})
		_, err = n.call(t.Context(), "ADD", podA(), config(vf0, nil))
		wantCode(t, err, types.ErrInternal, "does not list", "ip link set "+pf+" up")
	})
}

// TestPFThatTakesAMACLater is i40e: the PF says so at once, and shows it later.
func TestPFThatTakesAMACLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, ever := range []bool{true, false} {
			n := newNode(t)
			before := n.state()
			n.plugin.Kernel = &slowMAC{Fake: n.fake, ever: ever}
			_, err := n.call(t.Context(), "ADD", podA(), config(vf0, map[string]any{"mac": "02:00:00:00:00:aa"}))
			if !ever {
				wantCode(t, err, types.ErrInternal, "was told", "02:00:00:00:00:aa", "00:00:00:00:00:00")
				if diff := cmp.Diff(before, n.state()); diff != "" {
					t.Errorf("after the failed ADD (-before +after):\n%s", diff)
				}
				continue
			}
			if _, link, _ := n.fake.Where(vf0); err != nil || link.MAC.String() != "02:00:00:00:00:aa" {
				t.Errorf("the interface is %+v, %v", link, err)
			}
		}
	})
}

// slowMAC shows the MAC that a PF was told only when it was asked three times, or never.
type slowMAC struct {
	*netdev.Fake
	ever  bool
	told  bool
	asked int
}

func (s *slowMAC) SetVF(pf string, setting netdev.VFSetting, to netdev.VF) error {
	s.told = s.told || setting == netdev.VFMAC
	if setting == netdev.VFMAC && !s.ever {
		return nil
	}
	return s.Fake.SetVF(pf, setting, to)
}

func (s *slowMAC) VF(pf string, id int) (netdev.VF, error) {
	vf, err := s.Fake.VF(pf, id)
	if s.told {
		s.asked++
		if s.asked < 4 {
			vf.MAC = "00:00:00:00:00:00"
		}
	}
	return vf, err
}

// TestDriverThatGivesTheMACWhenItIsUp shows another one for a moment, or for good, which is not what the pod asked for.
func TestDriverThatGivesTheMACWhenItIsUp(t *testing.T) {
	t.Parallel()
	for _, ever := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t)
			before := n.state()
			n.plugin.Kernel = &lateMAC{Fake: n.fake, ever: ever}
			out, err := n.call(t.Context(), "ADD", podA(), config(vf0, map[string]any{"mac": "02:00:00:00:00:aa"}))
			if ever {
				if err != nil || !strings.Contains(out, `"mac":"02:00:00:00:00:aa"`) {
					t.Errorf("ADD: %s, %v", out, err)
				}
				return
			}
			wantCode(t, err, types.ErrInternal, "02:00:00:00:00:aa", "02:00:00:00:00:99")
			if diff := cmp.Diff(before, n.state()); diff != "" {
				t.Errorf("after the failed ADD (-before +after):\n%s", diff)
			}
		})
	}
}

// lateMAC shows another MAC of what is up in the sandbox, the first three times or always.
type lateMAC struct {
	*netdev.Fake
	ever  bool
	asked int
}

func (l *lateMAC) Links(netns string) ([]netdev.Link, error) {
	links, err := l.Fake.Links(netns)
	for i := range links {
		if netns == sandbox && links[i].Parent == vf0 && links[i].Up {
			if l.asked++; l.asked < 4 || !l.ever {
				links[i].MAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
			}
		}
	}
	return links, err
}

// TestDriverThatResetsItsVF is i40e and ice with iavf: the interface has its MAC at once.
func TestDriverThatResetsItsVF(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	vfs := []netdev.FakeVF{{Device: vf0, Resets: true, VF: netdev.VF{MAC: "00:00:00:00:00:00", LinkState: netdev.LinkStateAuto, VLAN: netdev.VLAN{Proto: netdev.VLANProto8021Q}}}}
	n.fake.SetPF(pf, vfs)
	before := n.state()
	n.must("ADD", podA(), config(vf0, everything()))
	n.must("CHECK", podA(), config(vf0, everything()))
	n.must("DEL", podA(), config(vf0, everything()))
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// TestTrustIsFirstAndLast: some drivers take a MAC only of a VF that is trusted.
func TestTrustIsFirstAndLast(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	writes := n.recordWrites()
	n.must("ADD", podA(), config(vf0, everything()))
	if added := writes(); added[0] != "SetVF trust" {
		t.Errorf("ADD: %v", added)
	}
	n.must("DEL", podA(), config(vf0, everything()))
	deleted := writes()
	mac := slices.Index(deleted, "SetLink mac")
	if last := len(deleted) - 1; deleted[last] != "SetVF trust" || mac < 0 || mac < slices.Index(deleted, "SetVF mac") {
		t.Errorf("DEL: %v", deleted)
	}
}

// TestInterfaceThatIsUpOnTheHost was brought back by the kernel under another name, and set up by udev.
func TestInterfaceThatIsUpOnTheHost(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	n.must("ADD", podA(), config(vf3, nil))
	n.fake.DeleteNetNS(sandbox)
	where, link, _ := n.fake.Where(vf3)
	link.Up = true
	if err := n.fake.SetLink(where, netdev.LinkUp, link); err != nil || where != netdev.Host || link.Name == "eth4v3" {
		t.Fatalf("the interface is in %q: %+v, %v", where, link, err)
	}
	n.must("DEL", podA(), config(vf3, nil))
	n.restoreSandbox()
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// TestAddressesRoutesAndAnnouncements are what an IPAM plugin says.
func TestAddressesRoutesAndAnnouncements(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ipam.result = `{"cniVersion":"1.1.0","ips":[{"address":"192.0.2.5/24","gateway":"192.0.2.1"},{"address":"2001:db8::5/64"}],
		"routes":[{"dst":"198.51.100.0/24"},{"dst":"203.0.113.0/24","gw":"192.0.2.9","mtu":1300,"advmss":1200,"priority":7,"table":100,"scope":0},{"dst":"2001:db8:9::/48","gw":"2001:db8::1"}]}`
	n.must("ADD", podA(), config(vf0, withIPAM(nil)))
	state := n.fake.String()
	for _, want := range []string{
		"    inet 192.0.2.5/24\n", "    inet6 2001:db8::5/64\n", "198.51.100.0/24 via 192.0.2.1 dev net1\n",
		"203.0.113.0/24 via 192.0.2.9 dev net1 table 100 scope 0 metric 7 mtu 1300 advmss 1200\n", "2001:db8:9::/48 via 2001:db8::1 dev net1\n",
	} {
		if !strings.Contains(state, want) {
			t.Errorf("the sandbox lacks %q:\n%s", want, state)
		}
	}
	if diff := cmp.Diff([]string{"192.0.2.5 is at 02:00:00:00:00:0a", "2001:db8::5 is at 02:00:00:00:00:0a"}, n.fake.Announced()); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	n.ipam.result = `{"cniVersion":"1.1.0","ips":[{"address":"192.0.2.6/24"}],"routes":[{"dst":"198.51.100.0/24","gw":"10.0.0.1"}]}`
	before := n.state()
	if _, err := n.call(t.Context(), "ADD", podB(), config(vf3, withIPAM(nil))); err == nil || !strings.Contains(err.Error(), "198.51.100.0/24") {
		t.Errorf("got %v for a gateway that no subnet has", err)
	}
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after the failed ADD (-before +after):\n%s", diff)
	}
}

// TestAddressThatAnotherNodeHas fails the ADD, as nothing else of an announcement does.
func TestAddressThatAnotherNodeHas(t *testing.T) {
	t.Parallel()
	for fault, fails := range map[error]bool{netdev.ErrDuplicateAddress: true, netdev.ErrNoCarrier: false, netdev.ErrTentative: false, syscall.ENOBUFS: false} {
		n := newNode(t)
		before := n.state()
		n.refuse("Announce", fault)
		_, err := n.call(t.Context(), "ADD", podA(), config(vf0, withIPAM(nil)))
		if (err != nil) != fails {
			t.Errorf("%v: ADD says %v", fault, err)
		}
		if diff := cmp.Diff(before, n.state()); fails && diff != "" {
			t.Errorf("after the failed ADD (-before +after):\n%s", diff)
		}
	}
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, withIPAM(nil)))
	n.refuse("AwaitDAD", netdev.ErrTentative)
	n.must("CHECK", podA(), config(vf0, withIPAM(nil)))
	n.refuse("AwaitDAD", netdev.ErrDuplicateAddress)
	if _, err := n.call(t.Context(), "CHECK", podA(), config(vf0, withIPAM(nil))); err == nil {
		t.Error("CHECK says nothing of an address that another node has")
	}
}

// TestPFThatIsNotOnTheHostAnyMore must not keep a pod terminating: its VF waits for it.
func TestPFThatIsNotOnTheHostAnyMore(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, everything()))
	links, err := n.fake.Links(netdev.Host)
	if err != nil {
		t.Fatal(err)
	}
	n.fake.SetNetNS(netdev.Host, slices.Delete(slices.Clone(links), 1, 2), nil)
	n.must("DEL", podA(), config(vf0, everything()))
	if vf, _ := n.fake.VF(pf, 0); vf.VLAN.ID != 100 || len(records(t, n)) != 1 {
		t.Errorf("what is left to do was forgotten: %+v, %v", vf, records(t, n))
	}
	now, err := n.fake.Links(netdev.Host)
	if err != nil {
		t.Fatal(err)
	}
	n.fake.SetNetNS(netdev.Host, slices.Insert(now, 1, links[1]), nil)
	n.must("DEL", podA(), config(vf0, everything()))
	if left := records(t, n); len(left) != 0 {
		t.Errorf("records are left: %v", left)
	}
	if vf, _ := n.fake.VF(pf, 0); vf.VLAN.ID != 0 {
		t.Errorf("the VF has %+v", vf)
	}
}

// TestVFThatTheHostUses is a port of a bond: to take it would cut the host off.
func TestVFThatTheHostUses(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	links, err := n.fake.Links(netdev.Host)
	if err != nil {
		t.Fatal(err)
	}
	links[2].Master = 99
	n.fake.SetNetNS(netdev.Host, links, nil)
	before := n.state()
	_, err = n.call(t.Context(), "ADD", podA(), config(vf0, nil))
	wantCode(t, err, types.ErrTryAgainLater, vf0, "eth4v0", "bond", "nomaster")
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

// TestInfiniBandPFIsNotAskedForItsVFs: the kernel has no room for them in its answer.
func TestInfiniBandPFIsNotAskedForItsVFs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.noLink = true
	n.refuse("VF", syscall.EMSGSIZE)
	_, err := n.call(t.Context(), "ADD", podA(), config(vf0, nil))
	wantCode(t, err, types.ErrInvalidNetworkConfig, "InfiniBand")
}

// TestFileElsewhereIsNoDeviceInfo: a network's author has a say in a file for the pod, and in no other one of the node.
func TestFileElsewhereIsNoDeviceInfo(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	victim := filepath.Join(n.dir, "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.MkdirAll(filepath.Join(n.dir, "info"), 0o700), os.Symlink(n.dir, filepath.Join(n.dir, "info", "out"))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{victim, filepath.Join(n.dir, "info", "..", "victim"), filepath.Join(n.dir, "info"), "victim", filepath.Join(n.dir, "info", "out", "victim"), n.dir + "/info/../../etc/x"} {
		before := n.state()
		conf := config(vf0, map[string]any{"runtimeConfig": map[string]any{"CNIDeviceInfoFile": path}})
		if !strings.Contains(path, "/out/") { // that one shows only when it is opened
			_, err := n.call(t.Context(), "ADD", podA(), conf)
			wantCode(t, err, types.ErrInvalidNetworkConfig, "CNIDeviceInfoFile", path)
		}
		// An ADD that fails later undoes, as a DEL does.
		_, _ = n.call(t.Context(), "DEL", podA(), conf)
		_, _ = n.call(t.Context(), "ADD", podA(), config("0000:03:00.9", map[string]any{"runtimeConfig": map[string]any{"CNIDeviceInfoFile": path}}))
		if data, err := os.ReadFile(victim); err != nil || string(data) != "precious" {
			t.Fatalf("%s: a file of the node has %q, %v", path, data, err)
		}
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Errorf("%s: -before +after:\n%s", path, diff)
		}
	}
}

// TestVFWithoutAMACOfItsOwn is new: its driver chooses one when the interface comes up, in the pod.
func TestVFWithoutAMACOfItsOwn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	links, err := n.fake.Links(netdev.Host)
	if err != nil {
		t.Fatal(err)
	}
	links[3].MAC = make(net.HardwareAddr, 6)
	n.fake.SetNetNS(netdev.Host, links, nil)
	if out := n.must("ADD", podA(), config(vf3, nil)); !strings.Contains(out, `"mac":"02:ff:00:00:00:03"`) {
		t.Errorf("result %s", out)
	}
	n.must("CHECK", podA(), config(vf3, nil))
	n.must("DEL", podA(), config(vf3, nil))
	if left := records(t, n); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
}
