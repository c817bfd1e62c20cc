// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// TestIPv6AddressCanBeUsedWhenADDReturns binds to it as a server in the pod does, long before the VF's carrier is there; and its neighbours find it
// once that is.
func TestIPv6AddressCanBeUsedWhenADDReturns(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(0, 0)
	before := m.state(vf)
	x := m.newPlexus(map[string]map[string]any{"six": network(vf, "2001:db8:77::/64", nil)}, map[string]string{"server": "six"})
	p, wire := m.pod("server"), m.wire()
	x.must(p, "ADD")
	link := m.find(p, "net1")
	var address net.IP
	for _, a := range link.Addrs {
		if a.Addr().Is6() && !a.Addr().IsLinkLocalUnicast() {
			address = a.Addr().AsSlice()
		}
	}
	testenv.Do(t, p.netns, func() error {
		server, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: address})
		if err != nil {
			return err
		}
		return server.Close()
	})
	wire.must("ip", "address", "add", "2001:db8:77::200/64", "dev", "wire0", "nodad")
	p.reaches("2001:db8:77::200")
	x.must(p, "CHECK")
	x.must(p, "DEL")
	if diff := cmp.Diff(before, m.state(vf)); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// find is an interface of a pod with its addresses.
func (m *machine) find(p *pod, name string) netdev.Link {
	m.t.Helper()
	links, err := m.kernel.Links(p.netns)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == name {
			return l
		}
	}
	m.t.Fatalf("%s has no %s: %+v", p.id, name, links)
	return netdev.Link{}
}

// TestAddressThatAnotherNodeHasFailsADD has a neighbour on the VF's segment that answers for the address.
func TestAddressThatAnotherNodeHasFailsADD(t *testing.T) {
	m := newMachine(t)
	a, b := m.vf(0, 0), m.vf(0, 1)
	x := m.newPlexus(map[string]map[string]any{
		"first":  network(a, "2001:db8:78::/64", map[string]any{"name": "first"}),
		"second": network(b, "2001:db8:78::/64", map[string]any{"name": "second"}), // leases of its own: the same address
	}, map[string]string{"owner": "first", "late": "second"})
	owner, late := m.pod("owner"), m.pod("late")
	x.must(owner, "ADD")
	m.eventually("carrier of the owner's VF", func() error { return m.hasCarrier(owner.netns, "net1") })
	before := m.state(b)
	m.eventually("an ADD that finds the owner", func() error {
		// As long as its own carrier comes too late for that, the ADD succeeds, with a warning.
		_, err := x.call(late, "ADD")
		if err == nil {
			x.must(late, "DEL")
			return errors.New("ADD succeeded")
		}
		if !strings.Contains(err.Error(), "another node on the link has this address already") {
			t.Fatal(err)
		}
		return nil
	})
	if diff := cmp.Diff(before, m.state(b)); diff != "" {
		t.Errorf("after the failed ADD (-before +after):\n%s", diff)
	}
	x.must(owner, "DEL")
}

// TestWhatAPodDidToItsVFIsNotTheNextPods leaves a program that drops all packets, and settings that make an interface useless.
func TestWhatAPodDidToItsVFIsNotTheNextPods(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(0, 0)
	before := m.state(vf)
	x := m.newPlexus(map[string]map[string]any{"one": network(vf, "10.92.0.0/24", nil)}, map[string]string{"vandal": "one"})
	for _, gone := range []bool{false, true} {
		p := m.pod("vandal")
		x.must(p, "ADD")
		p.must("ip", "link", "set", "net1", "txqueuelen", "1", "alias", "left by a pod", "group", "77")
		p.must("ip", "link", "set", "net1", "gso_max_size", "2000")
		p.must("ip", "link", "set", "net1", "promisc", "on", "allmulticast", "on", "multicast", "off", "arp", "off", "mtu", "1300")
		testenv.Do(t, p.netns, func() error {
			link, err := netlink.LinkByName("net1")
			if err != nil {
				return err
			}
			return netlink.LinkSetXdpFdWithFlags(link, dropAll(t), nl.XDP_FLAGS_SKB_MODE)
		})
		if link, err := m.kernel.Link(p.netns, "net1"); err != nil || len(link.Programs) != 1 {
			t.Fatalf("the pod has %+v, %v", link, err)
		}
		if gone {
			if err := m.kernel.DeleteNetNS(p.netns); err != nil {
				t.Fatal(err)
			}
		}
		x.must(p, "DEL")
		if diff := cmp.Diff(before, m.state(vf)); diff != "" {
			t.Errorf("after DEL, sandbox gone: %t (-before +after):\n%s", gone, diff)
		}
		if err := m.kernel.DeleteNetNS(p.netns); err != nil {
			t.Fatal(err)
		}
	}
}

// dropAll gives the kernel an XDP program that drops each packet.
func dropAll(t *testing.T) int {
	t.Helper()
	instructions, license := []uint64{1<<32 | 0xb7, 0x95}, []byte("GPL\x00")
	var pinned runtime.Pinner
	pinned.Pin(&instructions[0])
	pinned.Pin(&license[0])
	defer pinned.Unpin()
	attr := struct {
		kind, count           uint32
		instructions, license uint64
		_                     [96]byte
	}{kind: unix.BPF_PROG_TYPE_XDP, count: 2, instructions: uint64(uintptr(unsafe.Pointer(&instructions[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		t.Fatalf("load an XDP program: %v", errno)
	}
	t.Cleanup(func() { _ = unix.Close(int(fd)) })
	return int(fd)
}

// TestVFStaysInItsVLANWhileAProcessHasIt ends a sandbox under a process, which holds its namespace and with it the VF.
func TestVFStaysInItsVLANWhileAProcessHasIt(t *testing.T) {
	m := newMachine(t)
	vf := m.vf(1, 0)
	before := m.state(vf)
	x := m.newPlexus(map[string]map[string]any{
		"isolated": network(vf, "10.93.0.0/24", map[string]any{"vlan": 100, "spoofchk": "off"}), "plain": network(vf, "10.94.0.0/24", nil),
	}, map[string]string{"held": "isolated", "next": "plain"})
	held, next := m.pod("held"), m.pod("next")
	x.must(held, "ADD")
	holder := exec.CommandContext(t.Context(), "ip", "netns", "exec", held.id, "sleep", "3600")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	m.eventually("a process in the pod", func() error {
		own, err := os.Readlink("/proc/self/ns/net")
		other, otherErr := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid))
		if err = errors.Join(err, otherErr); err != nil || own == other {
			return fmt.Errorf("it is in %s: %w", other, err)
		}
		return nil
	})
	if err := m.kernel.DeleteNetNS(held.netns); err != nil {
		t.Fatal(err)
	}
	x.must(held, "DEL")
	settings, err := m.kernel.VF(m.pfs[1].NetDev, 0)
	if err != nil || settings.VLAN.ID != 100 {
		t.Errorf("whoever has the VF is out of its VLAN: %+v, %v", settings, err)
	}
	if _, err = x.call(next, "ADD"); err == nil || !strings.Contains(err.Error(), "lsns") {
		t.Errorf("the VF was given away, or nothing told how to free it: %v", err)
	}
	if err = holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // it was killed
	x.must(next, "ADD")
	if settings, err = m.kernel.VF(m.pfs[1].NetDev, 0); err != nil || settings.VLAN.ID != 0 {
		t.Errorf("the next owner has %+v, %v", settings, err)
	}
	x.must(next, "DEL")
	if diff := cmp.Diff(before, m.state(vf)); diff != "" {
		t.Errorf("at the end (-before +after):\n%s", diff)
	}
}

// TestWhatAnAdministratorSetsMeanwhileStays is neither the network's nor undone.
func TestWhatAnAdministratorSetsMeanwhileStays(t *testing.T) {
	m := newMachine(t)
	vf, pf := m.vf(0, 1), m.pfs[0].NetDev
	x := m.newPlexus(map[string]map[string]any{"one": network(vf, "10.95.0.0/24", map[string]any{"vlan": 5})}, map[string]string{"served": "one"})
	p := m.pod("served")
	was, err := m.kernel.VF(pf, 1)
	if err != nil {
		t.Fatal(err)
	}
	x.must(p, "ADD")
	m.eventually("carrier of the PF", func() error { return m.hasCarrier(netdev.Host, pf) }) // else it takes no rate
	set := was
	set.Trust, set.SpoofCheck, set.MaxTxMbps = true, false, 70
	admin := []netdev.VFSetting{netdev.VFTrust, netdev.VFSpoofCheck, netdev.VFRate}
	for _, s := range admin {
		if err = m.kernel.SetVF(pf, s, set); err != nil {
			t.Fatal(err)
		}
	}
	x.must(p, "CHECK")
	x.must(p, "DEL")
	now, err := m.kernel.VF(pf, 1)
	for _, s := range admin {
		if err != nil || !now.Same(s, set) {
			t.Errorf("DEL took back what the administrator set: %s is %s, %v", s, now.Value(s), err)
		}
		if err := m.kernel.SetVF(pf, s, was); err != nil {
			t.Fatal(err)
		}
	}
	if now.VLAN.ID != 0 {
		t.Errorf("the VF has %+v", now)
	}
}

// TestAllVFsOfAPF gives as many as the NIC has to pods, each in a VLAN of its own. The next test has as many again as the others.
func TestAllVFsOfAPF(t *testing.T) {
	m := newMachine(t)
	pf := m.pfs[1]
	count := pf.TotalVFs
	m.setNumVFs(pf, count)
	m.readPFs()
	networks, pods := map[string]map[string]any{}, map[string]string{}
	var before []string
	for i := range count {
		conf := network(m.vf(1, i), "", map[string]any{"vlan": 100 + i})
		delete(conf, "ipam")
		networks[fmt.Sprintf("net-%d", i)], pods[fmt.Sprintf("pod-%d", i)] = conf, fmt.Sprintf("net-%d", i)
		before = append(before, m.state(m.vf(1, i)))
	}
	x := m.newPlexus(networks, pods)
	for i := range count {
		x.must(m.pod(fmt.Sprintf("pod-%d", i)), "ADD")
	}
	for i := range count {
		if settings, err := m.kernel.VF(pf.NetDev, i); err != nil || settings.VLAN.ID != 100+i {
			t.Errorf("VF %d has %+v, %v", i, settings, err)
		}
	}
	for i := range count {
		p := &pod{m: m, id: fmt.Sprintf("pod-%d", i), netns: fmt.Sprintf("/run/netns/pod-%d", i)}
		x.must(p, "CHECK")
		x.must(p, "DEL")
	}
	var after []string
	for i := range count {
		after = append(after, m.state(m.vf(1, i)))
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
	t.Logf("%d VFs", count)
}

// TestPFWithHundredsOfVFs asks the kernel for those of a simulated NIC: from 334 on, their list is longer than what tells its length.
func TestPFWithHundredsOfVFs(t *testing.T) {
	m := newMachine(t)
	for _, count := range []int{256, 400, 700} {
		id := strconv.Itoa(20 + count/100)
		if err := os.WriteFile("/sys/bus/netdevsim/new_device", []byte(id+" 1"), 0o600); err != nil {
			t.Fatalf("make a simulated NIC: %v", err)
		}
		t.Cleanup(func() { _ = os.WriteFile("/sys/bus/netdevsim/del_device", []byte(id), 0o600) })
		dir := "/sys/bus/netdevsim/devices/netdevsim" + id
		if err := errors.Join(
			os.WriteFile("/sys/kernel/debug/netdevsim/netdevsim"+id+"/max_vfs", []byte(strconv.Itoa(count)), 0o600),
			os.WriteFile(filepath.Join(dir, "sriov_numvfs"), []byte(strconv.Itoa(count)), 0o600),
		); err != nil {
			t.Fatal(err)
		}
		found, err := filepath.Glob(filepath.Join(dir, "net", "*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("interfaces %v, %v", found, err)
		}
		pf := filepath.Base(found[0])
		for _, vf := range []int{0, 1, count / 2, count - 1} {
			want := netdev.VF{ID: vf, VLAN: netdev.VLAN{ID: 1 + vf, Proto: netdev.VLANProto8021Q}}
			if err := m.kernel.SetVF(pf, netdev.VFVLAN, want); err != nil {
				t.Fatal(err)
			}
			if got, err := m.kernel.VF(pf, vf); err != nil || got.ID != vf || got.VLAN != want.VLAN {
				t.Errorf("VF %d of %d: %+v, %v", vf, count, got, err)
			}
		}
		if got, err := m.kernel.VF(pf, count); !errors.Is(err, netdev.ErrNoVF) {
			t.Errorf("VF %d of %d: %+v, %v, want ErrNoVF", count, count, got, err)
		}
		if link, err := m.kernel.Link(netdev.Host, pf); err != nil || link.Name != pf {
			t.Errorf("PF with %d VFs: %+v, %v", count, link, err)
		}
		if links, err := m.kernel.Links(netdev.Host); err != nil || len(links) < 3 {
			t.Errorf("links of the host, with a PF of %d VFs: %d, %v", count, len(links), err)
		}
	}
}
