// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/sriov"
)

// refuse has the kernel refuse an operation, until it is told to stop.
func (n *node) refuse(op string, err error) {
	n.fake.Fault = func(asked string) error {
		if asked == op {
			return err
		}
		return nil
	}
}

// TestDriverThatDoesNotTakeASettingBack is igb, ixgbe and others with a rate while the PF's cable is out, or an MTU that is above the PF's by
// now. The pod must not terminate for as long; the VF goes to nobody else before it is as it was.
func TestDriverThatDoesNotTakeASettingBack(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"SetVF rate", "SetVF vlan", "SetVF link_state", "SetVF trust", "SetLink mtu", "SetLink promisc"} {
		for _, heals := range []string{"the next owner", "a second DEL", "GC"} {
			t.Run(op+"/"+heals, func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				before := n.state()
				n.must("ADD", podA(), config(vf0, everything()))
				n.refuse(op, syscall.EINVAL)
				n.must("DEL", podA(), config(vf0, everything()))
				if where, link, _ := n.fake.Where(vf0); where != netdev.Host || link.Name != "eth4v0" || link.MAC.String() != "02:00:00:00:00:0a" {
					t.Errorf("the interface is in %q: %+v", where, link)
				}
				if len(records(t, n)) != 1 {
					t.Error("what is left to do was forgotten")
				}
				_, err := n.call(t.Context(), "ADD", podB(), config(vf0, nil))
				wantCode(t, err, types.ErrTryAgainLater, vf0, strings.Fields(op)[1], "pod-aaaa")
				n.fake.Fault = nil
				switch heals {
				case "the next owner":
					n.must("ADD", podB(), config(vf0, nil))
					n.must("DEL", podB(), config(vf0, nil))
				case "a second DEL":
					n.must("DEL", podA(), config(vf0, everything()))
				case "GC":
					n.must("GC", args{}, config("", map[string]any{"cni.dev/valid-attachments": []any{}}))
				}
				if diff := cmp.Diff(before, n.state()); diff != "" {
					t.Errorf("at the end (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestDriverThatTakesNoAdministrativeMACBack is qede: it never takes the zero MAC. Of a VF that a program drives there is no other to set.
func TestDriverThatTakesNoAdministrativeMACBack(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"iavf", "vfio-pci"} {
		n := newNode(t)
		n.drivers[vf0] = driver
		if driver == "vfio-pci" {
			n.moveAway()
		}
		n.must("ADD", podA(), config(vf0, map[string]any{"mac": "02:00:00:00:00:aa"}))
		n.refuse("SetVF mac", nil)
		n.fake.FaultAfter = func(op string) error {
			vf, err := n.fake.VF(pf, 0)
			if op == "SetVF mac" && netdev.IsZeroMAC(vf.MAC) {
				return syscall.EINVAL
			}
			return err
		}
		n.must("DEL", podA(), config(vf0, map[string]any{"mac": "02:00:00:00:00:aa"}))
		if left := records(t, n); len(left) > 0 {
			t.Errorf("%s: records are left: %v", driver, left)
		}
		n.fake.FaultAfter = nil
		n.must("ADD", podB(), config(vf0, nil))
	}
}

// TestDriverThatIsBusy is one that resets the VF when its PF is told something of it (i40e, ice), and takes nothing meanwhile.
func TestDriverThatIsBusy(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"SetVF trust", "SetVF vlan", "SetVF mac", "SetVF rate", "SetVF spoofchk", "SetVF link_state", "SetLink up", "SetLink mac", "SetLink mtu"} {
		for _, verb := range []string{"ADD", "DEL"} {
			for _, errno := range []syscall.Errno{syscall.EAGAIN, syscall.EBUSY} {
				t.Run(fmt.Sprintf("%s/%s/%s", op, verb, errno), func(t *testing.T) {
					t.Parallel()
					n := newNode(t)
					before := n.state()
					busy := func() {
						var calls atomic.Int32
						n.fake.Fault = func(asked string) error {
							if asked == op && calls.Add(1) <= 2 {
								return errno
							}
							return nil
						}
					}
					if verb == "ADD" {
						busy()
					}
					n.must("ADD", podA(), config(vf0, everything()))
					if verb == "DEL" {
						busy()
					}
					n.must("DEL", podA(), config(vf0, everything()))
					if diff := cmp.Diff(before, n.state()); diff != "" {
						t.Errorf("after DEL (-before +after):\n%s", diff)
					}
				})
			}
		}
	}
}

// TestPFThatShowsTheMACOfTheVFsDriver is igb: once the VF's driver has chosen a MAC, the PF shows it as the administrative one.
func TestPFThatShowsTheMACOfTheVFsDriver(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, nil))
	vf, err := n.fake.VF(pf, 0)
	if err != nil {
		t.Fatal(err)
	}
	vf.MAC = "02:00:00:00:00:0a"
	if err := n.fake.SetVF(pf, netdev.VFMAC, vf); err != nil {
		t.Fatal(err)
	}
	n.must("CHECK", podA(), config(vf0, nil))
	vf.MAC = "02:00:00:00:00:bb" // this one nobody chose
	if err := n.fake.SetVF(pf, netdev.VFMAC, vf); err != nil {
		t.Fatal(err)
	}
	if _, err := n.call(t.Context(), "CHECK", podA(), config(vf0, nil)); err == nil || !strings.Contains(err.Error(), `"mac" is 02:00:00:00:00:bb`) {
		t.Errorf("CHECK says %v, want the MAC in it", err)
	}
}

func TestPodThatAsksForTheVFsOwnMAC(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	conf := config(vf0, map[string]any{"mac": "02:00:00:00:00:0a"})
	n.must("ADD", podA(), conf)
	n.must("CHECK", podA(), conf)
	n.must("DEL", podA(), conf)
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// TestPodThatChangesItsMAC has a trusted VF, which may.
func TestPodThatChangesItsMAC(t *testing.T) {
	t.Parallel()
	for _, shown := range []bool{false, true} { // by the PF
		n := newNode(t)
		before := n.state()
		conf := config(vf0, map[string]any{"trust": "on"})
		n.must("ADD", podA(), conf)
		link, err := n.fake.Link(sandbox, "net1")
		if err != nil {
			t.Fatal(err)
		}
		down, up := link, link
		down.Up, link.MAC = false, net.HardwareAddr{2, 0, 0, 0, 0, 0xee}
		if err = errors.Join(n.fake.SetLink(sandbox, netdev.LinkUp, down), n.fake.SetLink(sandbox, netdev.LinkMAC, link), n.fake.SetLink(sandbox, netdev.LinkUp, up)); err != nil {
			t.Fatal(err)
		}
		if shown {
			vf, vfErr := n.fake.VF(pf, 0)
			vf.MAC = link.MAC.String()
			if err = n.fake.SetVF(pf, netdev.VFMAC, vf); err != nil || vfErr != nil {
				t.Fatal(err, vfErr)
			}
		}
		n.must("DEL", podA(), conf)
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Errorf("shown=%t: after DEL (-before +after):\n%s", shown, diff)
		}
	}
}

func TestRecordThatCanNotBeReadIsNoSuccess(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, nil))
	file := filepath.Join(n.dir, "records", records(t, n)[0])
	if err := os.Rename(file, file+"x"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"version":99}`), 0o600); err != nil { // of a later release
		t.Fatal(err)
	}
	if _, err := n.call(t.Context(), "DEL", podA(), config(vf0, nil)); err == nil {
		t.Error("DEL says that it has given the VF back")
	}
	if err := os.Rename(file+"x", file); err != nil {
		t.Fatal(err)
	}
	n.must("DEL", podA(), config(vf0, nil))
}

// TestConfigurationThatHasGoneBad must not keep what it was, once, used for.
func TestConfigurationThatHasGoneBad(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"DEL", "GC"} {
		n := newNode(t)
		before := n.state()
		n.must("ADD", podA(), config(vf0, nil))
		n.must(verb, podA(), config("", map[string]any{"vlan": "x", "trust": true, "ipam": 5, "deviceID": []int{1}, "cni.dev/valid-attachments": []any{}}))
		if diff := cmp.Diff(before, n.state()); diff != "" {
			t.Errorf("after %s (-before +after):\n%s", verb, diff)
		}
	}
}

func TestPreviousResultWithHoles(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, nil))
	for _, hole := range []string{`{"interfaces":[null],"ips":[{"address":"192.0.2.5/24","interface":0}]}`, `{"ips":[null]}`, `{"routes":[null]}`} {
		var prev map[string]any
		if err := json.Unmarshal([]byte(hole), &prev); err != nil {
			t.Fatal(err)
		}
		for _, v := range []string{"0.3.1", "1.1.0"} {
			prev["cniVersion"] = v
			_, err := n.call(t.Context(), "CHECK", podA(), config(vf0, map[string]any{"cniVersion": v, "prevResult": prev}))
			wantCode(t, err, types.ErrInvalidNetworkConfig, "prevResult", "null")
		}
	}
}

// TestIPAMOfAnotherVersion prints its result as CNI 1.1.0, whatever it was asked.
func TestIPAMOfAnotherVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var result types100.Result
	out := n.must("ADD", podA(), config(vf0, map[string]any{"cniVersion": "0.3.1", "ipam": map[string]any{"type": "test-ipam"}}))
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.CNIVersion != "0.3.1" || len(result.IPs) != 1 {
		t.Errorf("result %s: %v", out, err)
	}
}

// deafOnce loses the events of the host's links once, as a kernel does whose listener is too slow.
type deafOnce struct {
	*netdev.Fake
	calls int
}

func (d *deafOnce) LinkEvents(ctx context.Context, netns string) (<-chan struct{}, error) {
	if d.calls++; d.calls > 1 {
		go d.DeleteNetNS("dying")
		return d.Fake.LinkEvents(ctx, netns)
	}
	events := make(chan struct{})
	close(events)
	return events, nil
}

func TestLostEventsOfLinks(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	n.must("ADD", podA(), config(vf0, everything()))
	_, link, _ := n.fake.Where(vf0)
	n.fake.SetNetNS(sandbox, nil, nil)
	n.fake.SetNetNS("dying", []netdev.Link{link}, nil)
	n.plugin.ReturnTimeout = 0
	n.plugin.Kernel = &deafOnce{Fake: n.fake}
	n.must("DEL", podA(), config(vf0, everything()))
	n.restoreSandbox()
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

func TestVariantOfVFIO(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"mlx5_vfio_pci", "hisi-acc-vfio-pci"} {
		n := newNode(t)
		n.drivers[vf0] = driver
		n.moveAway()
		n.must("ADD", podA(), config(vf0, map[string]any{"vlan": 3}))
	}
}

// TestAllMistakesOfAConfigurationAtOnce names each key, whatever else is wrong.
func TestAllMistakesOfAConfigurationAtOnce(t *testing.T) {
	t.Parallel()
	conf := `{"deviceID":"eth0","vlan":5000,"vlanQoS":8,"vlanProto":"802.1x","mac":"nonsense","spoofchk":true,"trust":"yes","link_state":["up"],
		"min_tx_rate":-1,"max_tx_rate":"10","mtu":5,"ipam":5,"prevResult":{"ips":[null]},"runtimeConfig":{"infinibandGUID":"x"}}`
	want := []string{
		`"spoofchk" is a JSON bool`, `"link_state" is a JSON array`, `"max_tx_rate" is a JSON string`, `"ipam" is a JSON number`, `infinibandGUID`, `"deviceID"`, `"vlan" is 5000`,
		`"vlanQoS" is 8`, `"vlanProto" is "802.1x"`, `"min_tx_rate" is -1`, `"trust" is "yes"`, `"mtu" is 5`, `"mac" is "nonsense"`, `"prevResult" has null`,
	}
	mistakes := sriov.Mistakes([]byte(conf), "")
	for _, w := range want {
		if !slices.ContainsFunc(mistakes, func(err error) bool { return strings.Contains(err.Error(), w) }) {
			t.Errorf("nothing says %s", w)
		}
	}
	_, err := sriov.ParseConfig([]byte(conf), "", false)
	if len(mistakes) != len(want) || !errors.Is(err, sriov.ErrInvalid) || strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), "; ") < len(want)-1 {
		t.Errorf("%d mistakes, want %d: %v", len(mistakes), len(want), err)
	}
	for _, broken := range []string{``, `[]`, `null x`, `{"vlan":`} {
		if len(sriov.Mistakes([]byte(broken), "")) == 0 {
			t.Errorf("%q has none", broken)
		}
	}
}

// TestBoundsOfValues takes each value up to its bounds, and none beyond.
func TestBoundsOfValues(t *testing.T) {
	t.Parallel()
	const most = 10_000_000
	for key, bounds := range map[string][2]int{"vlan": {0, 4094}, "vlanQoS": {0, 7}, "min_tx_rate": {0, most}, "max_tx_rate": {0, most}, "mtu": {68, 1 << 20}} {
		for i, value := range bounds {
			beyond := value + 2*i - 1
			for v, wrong := range map[int]bool{value: false, beyond: true} {
				conf := map[string]any{key: v}
				if key == "vlanQoS" {
					conf["vlan"] = 1
				}
				isThePFs := key == "mtu" && i == 1
				if mistakes := sriov.Mistakes([]byte(config(vf0, conf)), ""); (len(mistakes) > 0) != wrong && !isThePFs {
					t.Errorf("%s %d: %v", key, v, mistakes)
				}
			}
		}
	}
}
