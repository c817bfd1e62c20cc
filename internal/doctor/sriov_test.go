// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/internal/testenv"
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
		"a VF with other settings": {vfs: [][2]string{{"iavf", ""}}, pf: up, vf: other, want: []string{SRIOVVFSettings}, texts: []string{"VF 0000:03:02.0", "vlan is 8", "was to be 7"}},
		"no VFs any more":          {pf: up, vf: wanted, want: []string{SRIOVVFLost}, texts: []string{"the node has it no more"}},
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
	if at < 0 || !strings.Contains(found[at].Text, "marked 1 devices") || !strings.Contains(found[at].Text, "0000:03:02.1") {
		t.Errorf("found %s", show(found))
	}
}
