// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// recordVersion is the version of the record's format.
const recordVersion = 1

// Record is what is kept on disk of a VF from before the first change until all of it is undone: who has it, and how it was. There is
// one for each device, named after its address, so that a VF has one owner at most.
type Record struct {
	Version int   `json:"version"`
	Owner   Owner `json:"owner"`
	// NetNS is the path of the owner's network namespace, NetNSID which one that was.
	NetNS   string `json:"netns"`
	NetNSID string `json:"netnsID"`
	// NetNSCookie is a number that only that namespace has had in this boot; 0 in older records, and with older kernels.
	NetNSCookie uint64 `json:"netnsCookie,omitempty"`
	// BootID is the boot in which all this was true: a VF does not survive its end.
	BootID string        `json:"bootID"`
	Device sysfs.Address `json:"device"`
	// Parent is what the kernel calls the device behind the interface; "" when the VF has none, as with a userspace driver.
	Parent string `json:"parent,omitempty"`
	// VF and Link are how the VF was before.
	VF   netdev.VF `json:"vf"`
	Link Link      `json:"link,omitzero"`
	// Want is how the owner wants it; PodLink, its interface in the pod.
	Want    netdev.VF `json:"want"`
	PodLink Link      `json:"podLink,omitzero"`
	// Attached is set when the ADD was complete.
	Attached bool `json:"attached,omitempty"`
	// Released is set when the owner has no claim any more, but not all could be undone.
	Released bool `json:"released,omitempty"`
}

// Owner is the attachment that a VF was given to.
type Owner struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
	// Network is the name of the CNI network.
	Network string `json:"network"`
	// Pod is for people.
	Pod string `json:"pod,omitempty"`
}

// Link is the part of a VF's interface that is given back.
type Link struct {
	Name         string   `json:"name,omitempty"`
	MAC          string   `json:"mac,omitempty"`
	MTU          int      `json:"mtu,omitempty"` // bytes
	AltNames     []string `json:"altNames,omitempty"`
	Up           bool     `json:"up,omitempty"`
	Promisc      bool     `json:"promisc,omitempty"`
	AllMulticast bool     `json:"allMulticast,omitempty"`
	// Traits are nil where nobody looked at them: in older records, and of what sriov-cni had given away.
	Traits *netdev.Traits `json:"traits,omitempty"`
	// Programs are the BPF programs that the host had on it.
	Programs []uint32 `json:"programs,omitempty"`
}

func linkOf(l netdev.Link) Link {
	return Link{
		Name: l.Name, MAC: l.MAC.String(), MTU: l.MTU, AltNames: l.AltNames, Up: l.Up, Promisc: l.Promisc, AllMulticast: l.AllMulticast,
		Traits: &l.Traits, Programs: l.Programs,
	}
}

// on is how an interface that is now shall be, but for its name, to be as the record has it.
func (l Link) on(now netdev.Link) netdev.Link {
	now.Up, now.Promisc, now.AllMulticast, now.AltNames = l.Up, l.Promisc, l.AllMulticast, l.AltNames
	now.MTU = cmp.Or(l.MTU, now.MTU)                                             // sriov-cni did not always keep it
	if mac, err := net.ParseMAC(l.MAC); err == nil && !netdev.IsZeroMAC(l.MAC) { // igbvf chooses one when it comes up
		now.MAC = mac
	}
	if l.Traits != nil {
		now.Traits = *l.Traits
	}
	now.Programs = slices.DeleteFunc(slices.Clone(now.Programs), func(id uint32) bool { return !slices.Contains(l.Programs, id) })
	return now
}

// validate checks a record that was read from disk, before anything acts on it.
func (r *Record) validate(device sysfs.Address) error {
	if r.Version > recordVersion {
		return fmt.Errorf("it has version %d, this plugin reads up to %d: use the version that wrote it, or a newer one", r.Version, recordVersion)
	}
	if r.Version < 1 || r.Device != device || r.Owner.ContainerID == "" || r.Owner.IfName == "" {
		return fmt.Errorf("%w: it is of device %q, owner %q", record.ErrCorrupt, r.Device, r.Owner.ContainerID)
	}
	return nil
}

func (o Owner) String() string {
	who := "container " + o.ContainerID
	if o.Pod != "" {
		who = "pod " + o.Pod + ", " + who
	}
	return who + ", interface " + o.IfName
}

// is reports whether the record is of this attachment.
func (o Owner) is(containerID, ifName string) bool {
	return o.ContainerID == containerID && o.IfName == ifName
}

// load reads the record of a device; nil when there is none.
func (p *Plugin) load(device sysfs.Address) (*Record, error) {
	r, err := p.records().Load(string(device))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a free device is an answer
	}
	if err == nil {
		err = r.validate(device)
	}
	if err != nil {
		return nil, fmt.Errorf("VF %s: its record in %s: %w", device, p.Dir, err)
	}
	return r, nil
}

// find looks for the device of an attachment: first the one that the configuration names, which it nearly always is. The record has to be
// loaded again under the device's lock.
func (p *Plugin) find(hint sysfs.Address, containerID, ifName string) (sysfs.Address, error) {
	if hint != "" {
		r, err := p.load(hint)
		if err != nil && !errors.Is(err, record.ErrCorrupt) {
			return "", err // not to be taken for free
		}
		if err == nil && r != nil && r.Owner.is(containerID, ifName) {
			return hint, nil
		}
	}
	keys, err := p.records().Keys()
	if err != nil {
		return "", err
	}
	for _, key := range keys {
		r, err := p.load(sysfs.Address(key))
		if err == nil && r != nil && r.Owner.is(containerID, ifName) {
			return r.Device, nil
		}
	}
	return "", nil
}

func (p *Plugin) records() *record.Store[Record] { return record.Open[Record](p.Dir) }
