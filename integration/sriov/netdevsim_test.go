// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// TestSettingsOfASimulatedNIC sets what the emulated NIC has not: netdevsim has VFs in name only, but keeps all settings.
func TestSettingsOfASimulatedNIC(t *testing.T) {
	m := newMachine(t)
	if _, err := os.Stat("/sys/bus/netdevsim"); err != nil {
		testenv.Missing(t, "the kernel has no netdevsim; `make e2e-sriov` says why at its beginning: %v", err)
	}
	if err := os.WriteFile("/sys/bus/netdevsim/new_device", []byte("10 1"), 0o600); err != nil {
		t.Fatalf("make a simulated NIC: %v", err)
	}
	t.Cleanup(func() { _ = os.WriteFile("/sys/bus/netdevsim/del_device", []byte("10"), 0o600) })
	dir := "/sys/bus/netdevsim/devices/netdevsim10"
	if err := os.WriteFile(filepath.Join(dir, "sriov_numvfs"), []byte("3"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "net", "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("interfaces %v, %v", found, err)
	}
	pf := filepath.Base(found[0])
	before, err := m.kernel.VF(pf, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := netdev.VF{
		ID: 2, MAC: "02:00:00:00:aa:05", VLAN: netdev.VLAN{ID: 10, QoS: 2, Proto: netdev.VLANProto8021AD}, MinTxMbps: 5, MaxTxMbps: 50,
		SpoofCheck: !before.SpoofCheck, Trust: !before.Trust, LinkState: netdev.LinkStateDisable,
	}
	for _, to := range []netdev.VF{want, before} {
		for _, s := range []netdev.VFSetting{netdev.VFTrust, netdev.VFVLAN, netdev.VFMAC, netdev.VFRate, netdev.VFSpoofCheck, netdev.VFLinkState} {
			if err := m.kernel.SetVF(pf, s, to); err != nil {
				t.Fatal(err)
			}
			got, err := m.kernel.VF(pf, 2)
			if err != nil || !got.Same(s, to) {
				t.Errorf("%s is %s, want %s: %v", s, got.Value(s), to.Value(s), err)
			}
		}
		got, err := m.kernel.VF(pf, 2)
		if diff := cmp.Diff(to, got); diff != "" || err != nil {
			t.Errorf("-want +got (%v):\n%s", err, diff)
		}
	}
	for _, id := range []int{0, 1} {
		if other, err := m.kernel.VF(pf, id); err != nil || other.VLAN.ID != 0 {
			t.Errorf("VF %d has %+v, %v", id, other, err)
		}
	}
	if _, err := m.kernel.VF(pf, 3); !errors.Is(err, netdev.ErrNoVF) {
		t.Errorf("VF 3: got %v, want ErrNoVF", err)
	}
}
