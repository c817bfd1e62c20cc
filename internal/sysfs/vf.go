// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrNotVF says that a device is something else than a VF.
	ErrNotVF = errors.New("not a VF")
	// ErrNoUplink says that the interface of a PF is not here, or cannot be told from others.
	ErrNoUplink = errors.New("the PF has no network interface here")
)

// uplinkError is an [ErrNoUplink] in words.
type uplinkError string

func (e uplinkError) Error() string { return string(e) }

// Is reports whether target is [ErrNoUplink].
func (e uplinkError) Is(target error) bool { return target == ErrNoUplink }

// VF is a virtual function.
type VF struct {
	Address Address
	// Index is its number on its PF, from 0.
	Index int
	// PF is the function that it belongs to.
	PF Address
	// PFNetDev is the PF's network interface; in switchdev mode, the uplink.
	PFNetDev string
}

// VF finds a VF. The error matches [ErrNotFound] if the host has no such device, and [ErrNotVF] if it is something else.
func (s *FS) VF(address Address) (*VF, error) {
	dir, err := s.deviceDir(string(address))
	if err != nil {
		return nil, err
	}
	pfDir, err := s.resolve(dir + "/physfn")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.explainNotVF(string(address))
	}
	if err != nil {
		return nil, fmt.Errorf("VF %s: %w", address, err)
	}
	vf := &VF{Address: addressOf(dir), PF: addressOf(pfDir)}
	vfs, err := s.vfsOf(pfDir)
	if err != nil {
		return nil, fmt.Errorf("VF %s: %w", address, err)
	}
	i := slices.IndexFunc(vfs, func(v numbered) bool { return v.address == vf.Address })
	if i < 0 {
		return nil, fmt.Errorf("VF %s: its PF %s does not count it among its VFs: it is about to be removed, try again", address, vf.PF)
	}
	vf.Index = vfs[i].number
	if vf.PFNetDev, err = s.uplink(pfDir); err != nil {
		return nil, fmt.Errorf("VF %s: PF %s %w", address, vf.PF, err)
	}
	return vf, nil
}

// explainNotVF says what a device is instead; it may also have gone meanwhile.
func (s *FS) explainNotVF(id string) error {
	d, err := s.Device(id)
	switch {
	case err != nil:
		return err
	case d.ID != string(d.PCI):
		return fmt.Errorf("%w: %s is an auxiliary device of %s: name a VF by its PCI address", ErrNotVF, d.ID, d.PCI)
	case d.NumVFs > 0:
		return fmt.Errorf("%w: %s is a PF that has %d VFs: name one of them (`ls -l /sys/bus/pci/devices/%s` lists them as virtfn<N>)", ErrNotVF, d.ID, d.NumVFs, d.ID)
	case d.TotalVFs > 0:
		return fmt.Errorf("%w: %s is a PF that can have %d VFs and has none: write how many there shall be to /sys/bus/pci/devices/%s/sriov_numvfs, and name one of them", ErrNotVF, d.ID, d.TotalVFs, d.ID)
	}
	return fmt.Errorf("%w: %s belongs to no PF: use the host-device plugin for a whole device", ErrNotVF, d.ID)
}

// PF is a network controller that can have VFs.
type PF struct {
	Address Address
	// NetDev is its network interface, in switchdev mode the uplink; "" where it has none here, or where it cannot be told which.
	NetDev string
	// Driver is the driver that it is bound to, "" for none.
	Driver string
	// TotalVFs and NumVFs are how many VFs it can have, and has.
	TotalVFs, NumVFs int
	// VFs are those that it has, by number; holes are left out.
	VFs []Address
}

// PFs lists the network controllers of this host that can have VFs, by address. NVMe drives and accelerators, which may have VFs too, are
// none.
func (s *FS) PFs() ([]PF, error) {
	ids, err := s.list(pciDevices)
	if err != nil {
		return nil, fmt.Errorf("list the PFs: %w", err)
	}
	var pfs []PF
	for _, id := range ids {
		address, dir := addressOf(id), pciDevices+"/"+id
		// This first: a host has hundreds of other functions, its VFs.
		total, err := s.number(dir+"/sriov_totalvfs", 0)
		if err == nil && total > 0 && address != "" {
			var class uint32
			if class, err = s.hex(dir + "/class"); err == nil && !isNetwork(class) {
				continue
			}
			pf := PF{Address: address, TotalVFs: total}
			err = errors.Join(err, s.readPF(dir, &pf))
			pfs = append(pfs, pf)
		}
		if err != nil {
			return nil, fmt.Errorf("PF %s: %w", id, err)
		}
	}
	return pfs, nil
}

func (s *FS) readPF(dir string, pf *PF) error {
	vfs, err := s.vfsOf(dir)
	if err != nil {
		return err
	}
	for _, v := range vfs {
		pf.VFs = append(pf.VFs, v.address)
	}
	if pf.NumVFs, err = s.number(dir+"/sriov_numvfs", 0); err != nil {
		return err
	}
	pf.NetDev, _ = s.uplink(dir) // none is an answer here; whoever needs it for a VF is told why
	pf.Driver, err = s.linkBase(dir + "/driver")
	return err
}

// numbered is a VF as its PF lists it.
type numbered struct {
	number  int
	address Address
}

// vfsOf lists the VFs of a PF by number. There may be holes, and numbers above sriov_numvfs.
func (s *FS) vfsOf(pfDir string) ([]numbered, error) {
	entries, err := s.list(pfDir)
	if err != nil {
		return nil, err
	}
	var vfs []numbered
	for _, e := range entries {
		if !isNumbered(e, "virtfn") {
			continue
		}
		number, err := strconv.Atoi(strings.TrimPrefix(e, "virtfn"))
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", pfDir, e, err)
		}
		base, err := s.linkBase(pfDir + "/" + e)
		if err != nil {
			return nil, err
		}
		if base == "" { // it went meanwhile
			continue
		}
		address, err := ParseAddress(base)
		if err != nil {
			return nil, fmt.Errorf("%s/%s leads to %w", pfDir, e, err)
		}
		vfs = append(vfs, numbered{number, address})
	}
	slices.SortFunc(vfs, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	return vfs, nil
}

// uplink is the PF's own interface among those of its folder: in switchdev mode the representors are there too.
func (s *FS) uplink(pfDir string) (string, error) {
	parent, err := s.parentDir(pfDir)
	if err != nil {
		return "", err
	}
	names, err := s.list(parent + "/net")
	if err != nil {
		return "", err
	}
	var uplinks, others []string
	for _, name := range names {
		port, err := s.attribute(parent + "/net/" + name + "/phys_port_name")
		if err != nil {
			return "", err
		}
		if isNumbered(port, "p") {
			uplinks = append(uplinks, name)
		} else if _, ok := parsePort(port); !ok {
			others = append(others, name)
		}
	}
	if len(uplinks) == 0 {
		uplinks = others // a driver that names no ports, or that names them in its own way
	}
	switch {
	case len(uplinks) == 1:
		return uplinks[0], nil
	case len(uplinks) > 1:
		return "", uplinkError(fmt.Sprintf("has the interfaces %s, and which of them has the VFs cannot be told: one with a phys_port_name p<N> would", strings.Join(uplinks, ", ")))
	case len(names) > 0:
		return "", uplinkError(fmt.Sprintf("has only representors here (%s): bring its uplink back from the network namespace that it is in", strings.Join(names, ", ")))
	}
	return "", uplinkError("has no network interface here: bring it back from the network namespace that it is in, or bind it to its network driver")
}
