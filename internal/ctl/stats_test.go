// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// counting is a kernel whose VFs have counted their number.
type counting struct{}

func (counting) LinkStats(string) ([]netdev.LinkStats, error) {
	return []netdev.LinkStats{{Name: "lo", Index: 1}, {Name: "eth0", Index: 2, Rx: netdev.Counters{Packets: 7}}}, nil
}

func (counting) VFStats(pf string, id int) (netdev.LinkStats, error) {
	if pf != "pf0" {
		return netdev.LinkStats{}, netdev.ErrNoLink
	}
	return netdev.LinkStats{Rx: netdev.Counters{Packets: uint64(id)}}, nil
}

// TestCountersOfAVFWithoutInterfaceAreThePFs: a program drives the VF of net1, whose PF counts.
func TestCountersOfAVFWithoutInterfaceAreThePFs(t *testing.T) {
	t.Parallel()
	const bus, pf, vf = "devices/pci0000:00/", "0000:03:00.0", "0000:03:02.5"
	files := fstest.MapFS{bus + pf + "/sriov_totalvfs": {Data: []byte("8\n")}, bus + pf + "/sriov_numvfs": {Data: []byte("8\n")}, bus + pf + "/net/pf0/type": {Data: []byte("1\n")}}
	for at, target := range map[string]string{
		"bus/pci/devices/" + pf: "../../../" + bus + pf, "bus/pci/devices/" + vf: "../../../" + bus + vf,
		bus + pf + "/virtfn5": "../" + vf, bus + vf + "/physfn": "../" + pf, "class/net/pf0": "../../" + bus + pf + "/net/pf0", bus + pf + "/net/pf0/device": "../../../" + pf,
	} {
		files[at] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)}
	}
	pod := &inspect.Pod{Namespace: "shop", Name: "web", Interfaces: []inspect.Interface{
		{Name: "eth0"}, {Name: "net1", Device: vf, Driver: "vfio-pci"}, {Name: "net2", Device: pf, Driver: "vfio-pci"},
	}}
	got, err := sample(counting{}, sysfs.From(files), pod)
	if err != nil {
		t.Fatal(err)
	}
	want := []netdev.LinkStats{{Name: "eth0", Index: 2, Rx: netdev.Counters{Packets: 7}}, {Name: "net1", Index: -6, Rx: netdev.Counters{Packets: 5}}}
	if diff := cmp.Diff(want, got.Stats); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
