// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/sriov"
)

// TestKillAtEachStep kills the plugin with SIGKILL at each of its steps; the DEL that follows leaves the VF as it was.
func TestKillAtEachStep(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(0, 0)
	conf, err := json.Marshal(network(vf, "10.80.0.0/24", map[string]any{
		"name": "crash", "vlan": 200, "mac": "02:00:00:00:aa:02", "trust": "on", "max_tx_rate": 50, "mtu": 1300, "spoofchk": "off", "promisc": true, "allMulticast": true,
	}))
	if err != nil {
		t.Fatal(err)
	}
	before := m.state(vf)
	var steps []string
	for step := 1; ; step++ {
		p := m.pod(fmt.Sprintf("crash-%d", step))
		_, err := p.plugin(filepath.Join(*bin, self), "ADD", string(conf), fmt.Sprintf("%s=%d", crashAt, step))
		killed := err != nil && strings.Contains(err.Error(), "signal: killed")
		if err != nil && !killed {
			t.Fatalf("step %d: %v", step, err)
		}
		if killed {
			steps = append(steps, strings.TrimSpace(err.Error()[strings.LastIndex(err.Error(), "step "):]))
		}
		if _, err := p.plugin(filepath.Join(*bin, "sriov"), "DEL", string(conf)); err != nil {
			t.Fatalf("DEL after a kill at %v: %v", steps, err)
		}
		if diff := cmp.Diff(before, m.state(vf)); diff != "" {
			t.Fatalf("DEL after a kill at %v (-before +after):\n%s", steps[len(steps)-1], diff)
		}
		if err := m.kernel.DeleteNetNS(p.netns); err != nil {
			t.Fatal(err)
		}
		if !killed {
			break // it had no more steps
		}
	}
	t.Logf("killed at %d steps: %s", len(steps), strings.Join(steps, ", "))
	if len(steps) < 14 {
		t.Errorf("only %d steps", len(steps))
	}
}

// TestSandboxEndsUnderALiveVF deletes the network namespace of a pod before its DEL: the kernel brings the VF back, under whatever name.
func TestSandboxEndsUnderALiveVF(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(0, 0)
	before := m.state(vf)
	x := m.newPlexus(map[string]map[string]any{"one": network(vf, "10.81.0.0/24", map[string]any{"vlan": 5, "mac": "02:00:00:00:aa:03", "mtu": 1300})}, map[string]string{"dying": "one"})
	for _, taken := range []bool{false, true} {
		p := m.pod("dying")
		x.must(p, "ADD")
		if taken { // net1 is the name of the VF in the pod
			if _, err := command(t.Context(), "", nil, "ip", "link", "add", "net1", "type", "bridge"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _ = command(context.WithoutCancel(t.Context()), "", nil, "ip", "link", "delete", "net1") })
		}
		if err := m.kernel.DeleteNetNS(p.netns); err != nil {
			t.Fatal(err)
		}
		x.must(p, "DEL")
		if diff := cmp.Diff(before, m.state(vf)); diff != "" {
			t.Fatalf("after DEL, name taken=%t (-before +after):\n%s", taken, diff)
		}
	}
}

// TestNextOwnerHealsTheVF has no DEL of the former owner at all, and then a late one.
func TestNextOwnerHealsTheVF(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(1, 1)
	before := m.state(vf)
	x := m.newPlexus(map[string]map[string]any{
		"n5": network(vf, "10.82.0.0/24", map[string]any{"vlan": 5, "trust": "on"}), "n6": network(vf, "10.83.0.0/24", map[string]any{"vlan": 6}),
	}, map[string]string{"former": "n5", "next": "n6"})
	former, next := m.pod("former"), m.pod("next")
	x.must(former, "ADD")
	if _, err := x.call(next, "ADD"); err == nil || !strings.Contains(err.Error(), "default/former") {
		t.Fatalf("the VF of a live pod was given away, or its owner not named: %v", err)
	}
	if err := m.kernel.DeleteNetNS(former.netns); err != nil {
		t.Fatal(err)
	}
	x.must(next, "ADD")
	x.must(former, "DEL") // late
	x.must(next, "CHECK")
	settings, err := m.kernel.VF(m.pfs[1].NetDev, 1)
	if err != nil || settings.VLAN.ID != 6 || settings.Trust {
		t.Errorf("the VF has %+v, %v", settings, err)
	}
	x.must(next, "DEL")
	if diff := cmp.Diff(before, m.state(vf)); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// TestNameTakenInTheSandbox is refused before anything is touched; taken in the last moment, the kernel moves the VF and then fails, and it is
// brought back.
func TestNameTakenInTheSandbox(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(0, 1)
	before := m.state(vf)
	conf, err := json.Marshal(network(vf, "10.84.0.0/24", map[string]any{"name": "taken", "vlan": 9}))
	if err != nil {
		t.Fatal(err)
	}
	for _, late := range []bool{false, true} {
		p := m.pod(fmt.Sprintf("taken-%t", late))
		occupy := func() { p.must("ip", "link", "add", "eth0", "type", "bridge") }
		plugin := &sriov.Plugin{
			Kernel: m.kernel, Sysfs: m.sysfs, Dir: sriov.DefaultDir, LegacyDir: sriov.DefaultLegacyDir,
			Run: (&delegate.Exec{Timeout: stepLimit}).Run, Log: slog.New(slog.DiscardHandler),
			Step: func(name string) error {
				if name == "move" && late {
					occupy()
				}
				return nil
			},
		}
		if !late {
			occupy()
		}
		_, err := plugin.Builtin(t.Context(), conf, []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + p.netns, "CNI_IFNAME=eth0", "CNI_ARGS=", "CNI_PATH=" + *bin,
		})
		if err == nil {
			t.Fatal("two interfaces have one name")
		}
		t.Logf("late=%t: %v", late, err)
		if diff := cmp.Diff(before, m.state(vf)); diff != "" {
			t.Errorf("late=%t: after the failed ADD (-before +after):\n%s", late, diff)
		}
	}
}

// TestNumVFsSetToZeroUnderALivePod takes the VF away from under the pod: DEL has nothing to give back, and says so by success.
func TestNumVFsSetToZeroUnderALivePod(t *testing.T) {
	m := newMachine(t)
	vf, pf := m.vf(1, 0), m.pfs[1]
	x := m.newPlexus(map[string]map[string]any{"one": network(vf, "10.85.0.0/24", map[string]any{"vlan": 5})}, map[string]string{"lost": "one"})
	for _, again := range []bool{false, true} {
		p := m.pod("lost")
		x.must(p, "ADD")
		if err := os.WriteFile("/sys/bus/pci/devices/"+string(pf.Address)+"/sriov_numvfs", []byte("0"), 0o600); err != nil {
			t.Fatal(err)
		}
		if again { // other VFs of the same addresses by the time of the DEL
			m.setNumVFs(pf, vfsPerPF)
		}
		x.must(p, "DEL")
		if !again {
			m.setNumVFs(pf, vfsPerPF)
		}
		if state := m.state(vf); !strings.HasSuffix(state, "files []\n") || strings.Contains(state, "VLAN:{ID:5") {
			t.Errorf("left after DEL:\n%s", state)
		}
		if err := m.kernel.DeleteNetNS(p.netns); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVFIO gives a pod a VF that a program drives, as DPDK does.
func TestVFIO(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(1, 1)
	m.bind(vf, "vfio-pci")
	t.Cleanup(func() { m.bind(vf, "igbvf") })
	before := m.state(vf)
	x := m.newPlexus(map[string]map[string]any{"dpdk": network(vf, "10.86.0.0/24", map[string]any{"vlan": 300, "mac": "02:00:00:00:aa:04", "trust": "on"})}, map[string]string{"user": "dpdk"})
	p := m.pod("user")
	x.must(p, "ADD")
	settings, err := m.kernel.VF(m.pfs[1].NetDev, 1)
	if err != nil || settings.VLAN.ID != 300 || settings.MAC != "02:00:00:00:aa:04" || !settings.Trust {
		t.Errorf("the VF has %+v, %v", settings, err)
	}
	x.must(p, "CHECK")
	x.must(p, "DEL")
	if diff := cmp.Diff(before, m.state(vf)); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// bind gives a device another driver.
func (m *machine) bind(device sysfs.Address, driver string) {
	m.t.Helper()
	dir := "/sys/bus/pci/devices/" + string(device)
	for _, write := range [][2]string{
		{dir + "/driver_override", driver}, {dir + "/driver/unbind", string(device)}, {"/sys/bus/pci/drivers_probe", string(device)},
	} {
		if err := os.WriteFile(write[0], []byte(write[1]), 0o600); err != nil {
			m.t.Fatalf("bind %s to %s: %v", device, driver, err)
		}
	}
	m.eventually(string(device)+" bound to "+driver, func() error {
		d, err := m.sysfs.Device(string(device))
		if err == nil && (d.Driver != driver || (driver == "igbvf" && len(d.NetDevs) == 0)) {
			err = fmt.Errorf("it has the driver %q, interfaces %v", d.Driver, d.NetDevs)
		}
		return err
	})
}

// TestWhatTheNICCanNotDo is told by the kernel alone, explained, and undone.
func TestWhatTheNICCanNotDo(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(0, 0)
	before := m.state(vf)
	for name, tc := range map[string]struct {
		keys map[string]any
		want string
	}{
		"802.1ad":             {map[string]any{"vlan": 5, "vlanProto": "802.1ad"}, "use 802.1q"},
		"link state":          {map[string]any{"vlan": 5, "link_state": "enable"}, "does not support this option"},
		"lowest rate":         {map[string]any{"vlan": 5, "min_tx_rate": 10, "max_tx_rate": 20}, "min_tx_rate"},
		"rate above the link": {map[string]any{"vlan": 5, "max_tx_rate": 100000}, "above that of the link"},
	} {
		x := m.newPlexus(map[string]map[string]any{"one": network(vf, "10.87.0.0/24", tc.keys)}, map[string]string{"refused": "one"})
		p := m.pod("refused")
		_, err := x.call(p, "ADD")
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tc.want)
		}
		t.Logf("%s: %v", name, err)
		if diff := cmp.Diff(before, m.state(vf)); diff != "" {
			t.Errorf("%s: after the failed ADD (-before +after):\n%s", name, diff)
		}
		if err := m.kernel.DeleteNetNS(p.netns); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRateWhileThePFHasNoLink is refused by igb; the message says why.
func TestRateWhileThePFHasNoLink(t *testing.T) {
	m := newMachine(t)
	vf, pf := m.vf(1, 0), m.pfs[1]
	x := m.newPlexus(map[string]map[string]any{"one": network(vf, "10.88.0.0/24", map[string]any{"max_tx_rate": 10})}, map[string]string{"noline": "one"})
	link, err := m.kernel.Link(netdev.Host, pf.NetDev)
	if err != nil {
		t.Fatal(err)
	}
	before := m.state(vf)
	link.Up = false
	if err = m.kernel.SetLink(netdev.Host, netdev.LinkUp, link); err != nil {
		t.Fatal(err)
	}
	_, err = x.call(m.pod("noline"), "ADD")
	if err == nil || !strings.Contains(err.Error(), "has no link") {
		t.Errorf("got %v, want the reason", err)
	}
	link.Up = true
	if err = m.kernel.SetLink(netdev.Host, netdev.LinkUp, link); err != nil {
		t.Fatal(err)
	}
	m.eventually("carrier", func() error { return m.hasCarrier(netdev.Host, pf.NetDev) })
	if diff := cmp.Diff(before, m.state(vf)); diff != "" {
		t.Errorf("after the failed ADD (-before +after):\n%s", diff)
	}
}

// TestCableOutUnderARateLimitedPod has igb refuse to take the rate back: the pod does not terminate for as long, and the next owner gets the
// VF as it was.
func TestCableOutUnderARateLimitedPod(t *testing.T) {
	m := newMachine(t)
	vf, pf := m.vf(1, 0), m.pfs[1]
	x := m.newPlexus(map[string]map[string]any{
		"limited": network(vf, "10.89.0.0/24", map[string]any{"vlan": 5, "max_tx_rate": 10}), "plain": network(vf, "10.90.0.0/24", nil),
	}, map[string]string{"former": "limited", "next": "plain"})
	before := m.state(vf)
	former, next := m.pod("former"), m.pod("next")
	x.must(former, "ADD")
	link, err := m.kernel.Link(netdev.Host, pf.NetDev)
	if err != nil {
		t.Fatal(err)
	}
	link.Up = false
	if err = m.kernel.SetLink(netdev.Host, netdev.LinkUp, link); err != nil {
		t.Fatal(err)
	}
	x.must(former, "DEL")
	settings, err := m.kernel.VF(pf.NetDev, 0)
	if err != nil || settings.VLAN.ID != 0 {
		t.Errorf("the VF has %+v, %v", settings, err)
	}
	// igb drops the rates by itself, when it notices that the link's speed has changed; until then it has this one.
	_, err = x.call(next, "ADD")
	told := err != nil && strings.Contains(err.Error(), "not as it was") && strings.Contains(err.Error(), "rate")
	now, vfErr := m.kernel.VF(pf.NetDev, 0)
	if vfErr != nil {
		t.Fatal(vfErr)
	}
	if was := settings.MaxTxMbps; told && was == 0 || !told && (err != nil || now.MaxTxMbps != 0) {
		t.Errorf("the next owner was told %v, with the rate %d left before its ADD, and %d after it", err, was, now.MaxTxMbps)
	}
	link.Up = true
	if err = m.kernel.SetLink(netdev.Host, netdev.LinkUp, link); err != nil {
		t.Fatal(err)
	}
	m.eventually("carrier", func() error { return m.hasCarrier(netdev.Host, pf.NetDev) })
	x.must(next, "DEL") // also of an ADD that failed
	x.must(next, "ADD")
	x.must(next, "DEL")
	if diff := cmp.Diff(before, m.state(vf)); diff != "" {
		t.Errorf("at the end (-before +after):\n%s", diff)
	}
}

// TestCheckOfAVFWithoutAMACOfItsOwn has a VF that is new, and whose MAC its driver chooses when it comes up, in the pod: igb shows it as the
// administrative one from then on.
func TestCheckOfAVFWithoutAMACOfItsOwn(t *testing.T) {
	m := newMachine(t)
	m.setNumVFs(m.pfs[1], vfsPerPF)
	vf := m.vf(1, 0)
	x := m.newPlexus(map[string]map[string]any{"plain": network(vf, "10.91.0.0/24", nil)}, map[string]string{"checked": "plain"})
	p := m.pod("checked")
	x.must(p, "ADD")
	link, err := m.kernel.Link(p.netns, "net1")
	if err != nil {
		t.Fatal(err)
	}
	m.eventually("MAC of the VF's driver at the PF", func() error {
		settings, err := m.kernel.VF(m.pfs[1].NetDev, 0)
		if err == nil && settings.MAC != link.MAC.String() {
			err = fmt.Errorf("it shows %s", settings.MAC)
		}
		return err
	})
	x.must(p, "CHECK")
	x.must(p, "DEL")
}
