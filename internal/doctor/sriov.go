// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/sriov"
)

// leftover is how interfaces are named that came back to the host under a name that was taken (the kernel: dev<index>), or whose move
// was cut short (sriov-cni: temp_<index>).
var leftover = regexp.MustCompile(`^(dev|temp_)[0-9]+$`)

// vfRecord is a record of a VF, or why it cannot be read.
type vfRecord struct {
	device string
	*sriov.Record
	err error
}

// checkSRIOV compares PFs and VFs with the records.
func (d *Doctor) checkSRIOV(_ context.Context, n *node) ([]Finding, error) {
	pfs, err := d.Sysfs.PFs()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	records, err := d.vfRecords()
	if err != nil {
		return nil, err
	}
	if d.Choose != nil {
		records = slices.DeleteFunc(records, func(r vfRecord) bool {
			return r.Record == nil || !slices.ContainsFunc(n.chosen, func(p inspect.Pod) bool { return p.ContainerID == r.Owner.ContainerID })
		})
	}
	used := slices.ContainsFunc(d.concerned(n), func(w network) bool { return slices.Contains(w.list.Types(), sriov.Type) })
	var found []Finding
	if used && !slices.ContainsFunc(pfs, func(p sysfs.PF) bool { return p.NumVFs > 0 }) {
		found = append(found, newFinding(SRIOVNoVFs, "SR-IOV", noVFs(pfs), "create VFs: echo COUNT > /sys/class/net/PF/device/sriov_numvfs, and have the node's configuration do so at boot"))
	}
	for _, r := range records {
		found = append(found, d.vfFindings(n, r)...)
	}
	taken := d.takenDevices(n, records)
	for _, pf := range pfs {
		found = append(found, d.pfFindings(n, pf, taken)...)
	}
	if d.Choose != nil {
		return found, nil
	}
	if n.linksErr == nil {
		found = append(found, leftovers(n.links)...)
	}
	return append(found, d.staleMarks()...), nil
}

func noVFs(pfs []sysfs.PF) string {
	if len(pfs) == 0 {
		return "there are networks of type sriov, but no device of this node can have VFs: SR-IOV is off in the firmware, or the node has no such NIC"
	}
	var names []string
	for _, pf := range pfs {
		names = append(names, fmt.Sprintf("%s (%s, up to %d)", pf.NetDev, pf.Address, pf.TotalVFs))
	}
	return "there are networks of type sriov, but no device has VFs: " + list(names)
}

func (d *Doctor) vfRecords() ([]vfRecord, error) {
	store := record.Open[sriov.Record](d.Paths.SRIOV)
	keys, err := store.Keys()
	if err != nil {
		return nil, err
	}
	var records []vfRecord
	for _, k := range keys {
		r, err := store.Load(k)
		if !errors.Is(err, fs.ErrNotExist) {
			records = append(records, vfRecord{device: k, Record: r, err: err})
		}
	}
	return records, nil
}

// pfFindings look at a PF that has VFs.
func (d *Doctor) pfFindings(n *node, pf sysfs.PF, taken map[string]bool) []Finding {
	isUsed := slices.ContainsFunc(pf.VFs, func(a sysfs.Address) bool { return taken[string(a)] })
	if pf.NumVFs == 0 || (d.Choose != nil && !isUsed) {
		return nil
	}
	var found []Finding
	if link := linkNamed(n.links, pf.NetDev); link != nil && (!link.Up || !link.Carrier) {
		state, mend := "is down", "ip link set "+pf.NetDev+" up, and have the node's network configuration do so"
		if link.Up {
			state, mend = "has no carrier", "check the cable and the switch port"
		}
		found = append(found, newFinding(SRIOVPFDown, "PF "+pf.NetDev, fmt.Sprintf("%s (%s, %d VFs) %s: its VFs reach nobody", pf.NetDev, pf.Address, pf.NumVFs, state), mend))
	}
	if d.Choose != nil {
		return found
	}
	for _, address := range pf.VFs {
		vf, err := d.Sysfs.Device(string(address))
		if err != nil {
			continue // it went away
		}
		object := "VF " + vf.ID
		switch {
		case vf.Driver == "":
			found = append(found, newFinding(SRIOVVFDriver, object, fmt.Sprintf("it is bound to no driver (PF %s): no pod can use it", pf.NetDev), "bind it to its own driver, or to vfio-pci for DPDK: echo "+vf.ID+" > /sys/bus/pci/drivers_probe"))
		case !vf.IsUserspace() && !slices.Contains(reserving(), vf.Driver) && len(vf.NetDevs) == 0 && len(vf.RDMA) == 0 && !taken[vf.ID]:
			found = append(found, d.lostVF(n, pf, vf)...)
		}
	}
	return found
}

// reserving are the drivers that only keep others from a device.
func reserving() []string { return []string{"pci-stub", "xen-pciback", "pciback"} }

// takenDevices are those that somebody is known to have: by a record of the plugin sriov, by the record of a pod, whatever plugin gave it the
// device, or by a mark of sriov-cni whose sandbox is there.
func (d *Doctor) takenDevices(n *node, records []vfRecord) map[string]bool {
	taken := map[string]bool{}
	for _, r := range records {
		taken[r.device] = true
	}
	for i := range n.pods {
		for j := range n.pods[i].Interfaces {
			taken[n.pods[i].Interfaces[j].Device] = true
		}
	}
	_, living := d.marks()
	for _, device := range living {
		taken[device] = true
	}
	return taken
}

// lostVF says in which namespace a VF is that nobody is known to have; nothing if that is one of a pod, or of somebody who lives.
func (d *Doctor) lostVF(n *node, pf sysfs.PF, vf *sysfs.Device) []Finding {
	netns := n.devicesIn(d)[vf.Parent]
	what := fmt.Sprintf("it has no interface on the node (PF %s, driver %s), and ", pf.NetDev, vf.Driver)
	if netns == "" {
		return []Finding{newFinding(SRIOVVFLost, "VF "+vf.ID, what+"it is in no network namespace in "+d.Paths.NetNS,
			"look for a process that holds its namespace (lsns -t net), and end it; or bind the VF again: echo "+vf.ID+" > /sys/bus/pci/drivers/"+vf.Driver+"/unbind, then > bind")}
	}
	isPods := slices.ContainsFunc(n.pods, func(p inspect.Pod) bool { return p.NetNS == netns })
	lives, err := d.inhabited()
	if id, idErr := d.Kernel.NetNSID(netns); isPods || err != nil || idErr != nil || lives[id] {
		return nil
	}
	return []Finding{newFinding(SRIOVVFLost, "VF "+vf.ID, what+"it is in network namespace "+netns+", in which no process runs and which no record names",
		"once `crictl pods` does not list its sandbox either: ip netns delete "+filepath.Base(netns)+", which brings the VF back")}
}

// devicesIn maps the devices of interfaces to the namespaces in the runtime's folder that they are in. It is read once, when it is needed.
func (n *node) devicesIn(d *Doctor) map[string]string {
	if n.devices != nil {
		return n.devices
	}
	n.devices = map[string]string{}
	entries, err := os.ReadDir(d.Paths.NetNS)
	if err != nil {
		return n.devices // there are none
	}
	for _, e := range entries {
		netns := filepath.Join(d.Paths.NetNS, e.Name())
		links, err := d.Kernel.Links(netns)
		if err != nil {
			continue // it went, or is none
		}
		for _, l := range links {
			n.devices[l.Parent] = netns
		}
	}
	return n.devices
}

// vfFindings compare a VF with its record.
func (d *Doctor) vfFindings(n *node, r vfRecord) []Finding {
	object := "VF " + r.device
	if r.err != nil {
		return []Finding{newFinding(RecordCorrupt, object, oneLine(r.err.Error()), "remove the file once you know that the VF is free: `plexusctl status` shows which pod has it")}
	}
	id, err := d.Kernel.NetNSID(r.NetNS)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && r.NetNSID != "" && id != r.NetNSID) {
		known := slices.ContainsFunc(n.records, func(p recorded) bool { return p.plan != nil && p.plan.Sandbox.ContainerID == r.Owner.ContainerID })
		if known {
			return nil // told, and given back, with its pod
		}
		return []Finding{newFinding(SRIOVRecordOrphan, object, fmt.Sprintf("it is on record for %s, which is gone", r.Owner), "nothing to do: the next ADD that uses the VF releases it first; do not remove the record, or the VF keeps its settings")}
	}
	vf, err := d.Sysfs.VF(r.Device)
	if errors.Is(err, sysfs.ErrNotFound) || errors.Is(err, sysfs.ErrNotVF) {
		return []Finding{newFinding(SRIOVVFLost, object, fmt.Sprintf("it was given to %s, but the node no longer has it", r.Owner), "delete the pod; find out what changed sriov_numvfs while VFs were in use")}
	}
	if err != nil {
		return []Finding{newFinding(CheckFailed, object, oneLine(err.Error()), "run as root on the node")}
	}
	return d.vfSettings(object, vf, r)
}

// vfSettings compare what the PF enforces with what the pod's network asked for.
func (d *Doctor) vfSettings(object string, vf *sysfs.VF, r vfRecord) []Finding {
	if vf.PFNetDev == "" || !r.Attached {
		return nil
	}
	live, err := d.Kernel.VF(vf.PFNetDev, vf.Index)
	if err != nil {
		return []Finding{newFinding(CheckFailed, object, oneLine(err.Error()), "run as root on the node")}
	}
	var differ []string
	for _, s := range []netdev.VFSetting{netdev.VFVLAN, netdev.VFMAC, netdev.VFRate, netdev.VFSpoofCheck, netdev.VFTrust, netdev.VFLinkState} {
		if s == netdev.VFMAC && netdev.IsZeroMAC(r.Want.MAC) {
			continue // the driver's choice
		}
		if !live.Same(s, r.Want) && !r.Want.Same(s, r.VF) { // what the network did not ask for is the administrator's
			differ = append(differ, fmt.Sprintf("%s is %s, and should be %s", s, live.Value(s), r.Want.Value(s)))
		}
	}
	if len(differ) == 0 {
		return nil
	}
	return []Finding{newFinding(SRIOVVFSettings, object, fmt.Sprintf("of %s: %s", r.Owner, strings.Join(differ, "; ")), "find out what else configures VFs (ip link set "+vf.PFNetDev+fmt.Sprintf(" vf %d", vf.Index)+"), and delete the pod: the next one sets them again")}
}

func leftovers(links []netdev.Link) []Finding {
	var found []Finding
	for _, l := range links {
		if leftover.MatchString(l.Name) && l.Parent != "" {
			found = append(found, newFinding(SRIOVLeftoverName, "interface "+l.Name, fmt.Sprintf("device %s has a temporary name, from its way to a pod or back", l.Parent), "ip link set "+l.Name+" down; ip link set "+l.Name+" name NAME, with its former name"))
		}
	}
	return found
}

// marks are the devices that sriov-cni marked as given away, to sandboxes that are gone and to those that are, or may be, there. Each is a
// file with the path of a network namespace.
func (d *Doctor) marks() (stale, living []string) { //nolint:nonamedreturns // two lists of one type
	dir := filepath.Join(d.Paths.LegacySRIOV, "pci")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil // sriov-cni was never here
	}
	for _, e := range entries {
		netns, err := readSmall(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if _, err := d.Kernel.NetNSID(strings.TrimSpace(string(netns))); errors.Is(err, fs.ErrNotExist) {
			stale = append(stale, e.Name())
		} else {
			living = append(living, e.Name())
		}
	}
	return stale, living
}

func (d *Doctor) staleMarks() []Finding {
	stale, _ := d.marks()
	if len(stale) == 0 {
		return nil
	}
	return []Finding{newFinding(SRIOVStaleMark, filepath.Join(d.Paths.LegacySRIOV, "pci"), fmt.Sprintf("sriov-cni marked %s as given to sandboxes that are gone: %s", finding.Numbered(len(stale), "device"), list(stale)), "nothing to do: Plexus ignores them; if sriov-cni is still in use, remove them")}
}
