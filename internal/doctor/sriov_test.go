// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/internal/testenv"
	"github.com/plexus-cni/plexus/nad"
	"github.com/plexus-cni/plexus/sriov"
)

// nic is a sysfs with the PF pf0, 0000:03:00.0, and VFs from 0000:03:02.0 on: the driver of each, and its interface, "" for none.
func nic(vfs [][2]string) *sysfs.FS {
	files := fstest.MapFS{}
	const bus = "devices/pci0000:00/"
	link := func(at, target string) { files[at] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)} }
	iface := func(device, name string) {
		files[bus+device+"/net/"+name+"/type"] = &fstest.MapFile{Data: []byte("1\n")}
		link("class/net/"+name, "../../"+bus+device+"/net/"+name)
		link(bus+device+"/net/"+name+"/device", "../../../"+device)
	}
	device := func(address, driver string) {
		link("bus/pci/devices/"+address, "../../../"+bus+address)
		if driver != "" {
			link(bus+address+"/driver", "../../../bus/pci/drivers/"+driver)
		}
	}
	const pf = "0000:03:00.0"
	device(pf, "i40e")
	iface(pf, "pf0")
	files[bus+pf+"/sriov_totalvfs"] = &fstest.MapFile{Data: []byte("64\n")}
	files[bus+pf+"/sriov_numvfs"] = &fstest.MapFile{Data: fmt.Appendf(nil, "%d\n", len(vfs))}
	for i, vf := range vfs {
		address := fmt.Sprintf("0000:03:02.%d", i)
		device(address, vf[0])
		link(fmt.Sprintf("%s%s/virtfn%d", bus, pf, i), "../"+address)
		link(bus+address+"/physfn", "../"+pf)
		if vf[1] != "" {
			iface(address, vf[1])
		}
	}
	return sysfs.From(files)
}

// nicKernel has the PF, and tells of VFs.
type nicKernel struct {
	*netdev.Linux

	pf netdev.Link
	vf netdev.VF
}

func (k nicKernel) Links(netns string) ([]netdev.Link, error) {
	links, err := k.Linux.Links(netns)
	if netns == "" {
		links = append(links, k.pf)
	}
	return links, err
}

func (k nicKernel) VF(string, int) (netdev.VF, error) { return k.vf, nil }

func TestSRIOV(t *testing.T) {
	t.Parallel()
	up := netdev.Link{Name: "pf0", Up: true, Carrier: true}
	wanted := netdev.VF{MAC: "02:00:00:00:00:01", VLAN: netdev.VLAN{ID: 7, Proto: netdev.VLANProto8021Q}, LinkState: netdev.LinkStateAuto}
	other := wanted
	other.VLAN.ID = 8
	for name, tc := range map[string]struct {
		vfs   [][2]string
		pf    netdev.Link
		vf    netdev.VF
		gone  bool
		want  []string
		texts []string
	}{
		"all is well":              {vfs: [][2]string{{"iavf", ""}, {"iavf", "pf0v1"}, {"vfio-pci", ""}}, pf: up, vf: wanted},
		"a PF that is down":        {vfs: [][2]string{{"iavf", ""}}, pf: netdev.Link{Name: "pf0"}, vf: wanted, want: []string{SRIOVPFDown}, texts: []string{"1 VFs", "is down"}},
		"a PF without a carrier":   {vfs: [][2]string{{"iavf", ""}}, pf: netdev.Link{Name: "pf0", Up: true}, vf: wanted, want: []string{SRIOVPFDown}, texts: []string{"no carrier"}},
		"a VF without a driver":    {vfs: [][2]string{{"iavf", ""}, {"", ""}}, pf: up, vf: wanted, want: []string{SRIOVVFDriver}, texts: []string{"VF 0000:03:02.1"}},
		"a VF that nobody knows":   {vfs: [][2]string{{"iavf", ""}, {"iavf", ""}}, pf: up, vf: wanted, want: []string{SRIOVVFLost}, texts: []string{"VF 0000:03:02.1"}},
		"a VF with other settings": {vfs: [][2]string{{"iavf", ""}}, pf: up, vf: other, want: []string{SRIOVVFSettings}, texts: []string{"VF 0000:03:02.0", "vlan is 8", "should be 7"}},
		"no VFs any more":          {pf: up, vf: wanted, want: []string{SRIOVVFLost}, texts: []string{"the node no longer has it"}},
		"a sandbox that is gone":   {vfs: [][2]string{{"iavf", ""}}, pf: up, vf: wanted, gone: true, want: []string{SRIOVRecordOrphan}, texts: []string{"pod default/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t, "")
			kernel := nicKernel{netdev.NewLinux(), tc.pf, tc.vf}
			n.Kernel, n.Sysfs = kernel, nic(tc.vfs)
			r := &sriov.Record{
				Version: 1, Owner: sriov.Owner{ContainerID: "c", IfName: "net1", Pod: "default/a"}, Device: "0000:03:02.0", Want: wanted, Attached: true,
				NetNS: "/nonexistent",
			}
			if !tc.gone {
				var err error
				r.NetNS = testenv.NetNS(t)
				if r.NetNSID, err = kernel.NetNSID(r.NetNS); err != nil {
					t.Fatal(err)
				}
			}
			if err := record.Open[sriov.Record](n.Paths.SRIOV).Save("0000:03:02.0", r); err != nil {
				t.Fatal(err)
			}
			found := slices.DeleteFunc(n.examine(t), func(f Finding) bool { return !strings.HasPrefix(f.Code, "sriov") && f.Severity == Info })
			var codes []string
			for _, f := range found {
				codes = append(codes, f.Code)
			}
			if !slices.Equal(codes, tc.want) {
				t.Fatalf("found %s; want %q", show(found), tc.want)
			}
			for _, text := range tc.texts {
				if !strings.Contains(found[0].Object+": "+found[0].Text, text) {
					t.Errorf("%+v; want %q in it", found[0], text)
				}
			}
		})
	}
}

func TestStaleMarksOfSRIOVCNI(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	n.write(t, "legacy-sriov/pci/0000:03:02.1", "/nonexistent")
	n.write(t, "legacy-sriov/pci/0000:03:02.2", testenv.NetNS(t))
	found := n.examine(t)
	at := slices.IndexFunc(found, func(f Finding) bool { return f.Code == SRIOVStaleMark })
	if at < 0 || !strings.Contains(found[at].Text, "marked 1 device ") || !strings.Contains(found[at].Text, "0000:03:02.1") {
		t.Errorf("found %s", show(found))
	}
}

// accelerator is a sysfs with a QAT accelerator (PCI class 0x0b40) that has two VFs, and no NIC: one VF has its driver, one none.
func accelerator() *sysfs.FS {
	files := fstest.MapFS{}
	const bus, pf = "devices/pci0000:00/", "0000:3d:00.0"
	link := func(at, target string) { files[at] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)} }
	for address, driver := range map[string]string{pf: "c6xx", "0000:3d:01.0": "c6xxvf", "0000:3d:01.1": ""} {
		link("bus/pci/devices/"+address, "../../../"+bus+address)
		if driver != "" {
			link(bus+address+"/driver", "../../../bus/pci/drivers/"+driver)
		}
		files[bus+address+"/class"] = &fstest.MapFile{Data: []byte("0x0b4000\n")}
	}
	files[bus+pf+"/sriov_totalvfs"] = &fstest.MapFile{Data: []byte("16\n")}
	files[bus+pf+"/sriov_numvfs"] = &fstest.MapFile{Data: []byte("2\n")}
	for i, vf := range []string{"0000:3d:01.0", "0000:3d:01.1"} {
		link(fmt.Sprintf("%s%s/virtfn%d", bus, pf, i), "../"+vf)
		link(bus+vf+"/physfn", "../"+pf)
	}
	return sysfs.From(files)
}

// parentKernel tells of a VF's interface in one network namespace.
type parentKernel struct {
	nicKernel

	netns string
}

func (k parentKernel) Links(netns string) ([]netdev.Link, error) {
	links, err := k.nicKernel.Links(netns)
	if netns == k.netns {
		links = append(links, netdev.Link{Name: "net1", Up: true, Parent: "0000:03:02.0"})
	}
	return links, err
}

func TestSRIOVAccusesNoInnocent(t *testing.T) {
	t.Parallel()
	const device = "0000:03:02.0"
	kernel := nicKernel{netdev.NewLinux(), netdev.Link{Name: "pf0", Up: true, Carrier: true}, netdev.VF{}}
	inNamespace := func(t *testing.T, n *testNode, name string) string {
		t.Helper()
		n.write(t, "netns/.keep", "")
		path := n.path("netns", name)
		if err := os.Symlink(testenv.NetNS(t), path); err != nil {
			t.Fatal(err)
		}
		n.Kernel = parentKernel{kernel, path}
		return path
	}
	for name, tc := range map[string]struct {
		sysfs *sysfs.FS
		given func(t *testing.T, n *testNode)
		want  []string
	}{
		"an accelerator and its VFs":              {sysfs: accelerator()},
		"a driver that a vendor made of vfio-pci": {sysfs: nic([][2]string{{"mlx5_vfio_pci", ""}})},
		"a driver that only reserves":             {sysfs: nic([][2]string{{"pci-stub", ""}})},
		"a living pod of sriov-cni has it": {
			sysfs: nic([][2]string{{"iavf", ""}}),
			given: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "legacy-sriov/pci/"+device, testenv.NetNS(t))
			},
		},
		"host-device gave it to a pod on record": {
			sysfs: nic([][2]string{{"iavf", ""}}),
			given: func(t *testing.T, n *testNode) {
				t.Helper()
				list, err := nad.Normalize([]byte(`{"cniVersion":"1.0.0","name":"n","type":"host-device"}`), nad.Defaults{})
				if err != nil {
					t.Fatal(err)
				}
				plan := &delegate.Plan{
					Version: 1, ConfName: "plexus", Began: time.Now(), Complete: true, Pod: pod.Ref{Namespace: "default", Name: "a"},
					Sandbox:     delegate.Sandbox{ContainerID: "c", NetNS: testenv.NetNS(t), IfName: "eth0"},
					Attachments: []delegate.Attachment{{Network: "default/n", IfName: "net1", State: delegate.Attached, List: list, Device: device}},
				}
				if err := record.Open[delegate.Plan](n.path("state", "records")).Save("c-eth0", plan); err != nil {
					t.Fatal(err)
				}
			},
		},
		"it is in a namespace that somebody lives in": {
			sysfs: nic([][2]string{{"iavf", ""}}),
			given: func(t *testing.T, n *testNode) {
				t.Helper()
				n.write(t, "proc/1/ns/.keep", "")
				if err := os.Symlink(inNamespace(t, n, "living"), n.path("proc", "1", "ns", "net")); err != nil {
					t.Fatal(err)
				}
			},
		},
		"it is in a namespace that nobody lives in": {
			sysfs: nic([][2]string{{"iavf", ""}}),
			given: func(t *testing.T, n *testNode) { t.Helper(); inNamespace(t, n, "idle") },
			want:  []string{"it is in network namespace ", "/netns/idle, in which no process runs"},
		},
		"it is nowhere": {
			sysfs: nic([][2]string{{"iavf", ""}}),
			want:  []string{"it is in no network namespace"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t, "")
			n.Kernel, n.Sysfs = kernel, tc.sysfs
			if tc.given != nil {
				tc.given(t, n)
			}
			found := slices.DeleteFunc(n.examine(t), func(f Finding) bool { return !strings.HasPrefix(f.Code, "sriov") })
			if (len(found) > 0) != (len(tc.want) > 0) {
				t.Fatalf("found %s; want %q", show(found), tc.want)
			}
			for _, text := range tc.want {
				if !strings.Contains(found[0].Text, text) {
					t.Errorf("%q; want %q in it", found[0].Text, text)
				}
			}
		})
	}
}
