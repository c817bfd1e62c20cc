// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Representor finds the host's end of a VF on a NIC in switchdev mode, by the PF's uplink and the VF's number. It is "" when there is none,
// as in legacy mode. The error matches [ErrNotFound] if there is no such uplink.
func (s *FS) Representor(pfNetDev string, index int) (string, error) {
	return s.representor(pfNetDev, port{kind: "vf", number: strconv.Itoa(index)})
}

// SFRepresentor finds the host's end of a scalable function like [FS.Representor], by its [Device.SFNum].
func (s *FS) SFRepresentor(pfNetDev string, number int) (string, error) {
	return s.representor(pfNetDev, port{kind: "sf", number: strconv.Itoa(number)})
}

func (s *FS) representor(pfNetDev string, want port) (string, error) {
	pfDir, err := s.netDevDir(pfNetDev)
	if err != nil {
		return "", err
	}
	switchID, err := s.attribute(pfDir + "/phys_switch_id")
	if err != nil || switchID == "" {
		return "", err
	}
	names, err := s.list(pfDir + "/device/net")
	if err != nil {
		return "", fmt.Errorf("representors of %s: %w", pfNetDev, err)
	}
	var own, external []string
	for _, name := range names {
		dir := pfDir + "/device/net/" + name
		text, err := s.attribute(dir + "/phys_port_name")
		if err != nil {
			return "", fmt.Errorf("representors of %s: %w", pfNetDev, err)
		}
		found, _ := parsePort(text)
		if found.kind != want.kind || found.number != want.number {
			continue
		}
		if id, err := s.attribute(dir + "/phys_switch_id"); err != nil || id != switchID {
			continue // a port of another switch, or on its way out
		}
		if found.external {
			external = append(external, name)
		} else {
			own = append(own, name)
		}
	}
	if len(own) == 0 {
		own = external // on a SmartNIC, whose VFs its host has
	}
	if len(own) > 1 {
		return "", fmt.Errorf("%s has the representors %s for %s %s, and which of them is right cannot be told", pfNetDev, strings.Join(own, ", "), want.kind, want.number)
	}
	return strings.Join(own, ""), nil
}

// port is what a phys_port_name tells of a representor.
type port struct {
	// kind is what it stands for: pf, vf or sf.
	kind   string
	number string
	// external is set if that belongs to another host than the switch does.
	external bool
}

// parsePort reads pf0, pf0vf3, pf0sf88, the same after c1 for another controller's, and 3, as kernels before 4.19 call VF 3. It reports
// whether a name is one of a representor.
func parsePort(name string) (port, bool) {
	if isDecimal(name) {
		return port{kind: "vf", number: name}, true
	}
	var p port
	if rest, ok := strings.CutPrefix(name, "c"); ok {
		controller, function, found := strings.Cut(rest, "pf")
		if !found || !isDecimal(controller) {
			return port{}, false
		}
		name, p.external = "pf"+function, controller != "0"
	}
	function, ok := strings.CutPrefix(name, "pf")
	if !ok {
		return port{}, false
	}
	if isDecimal(function) {
		p.kind, p.number = "pf", function
		return p, true
	}
	for _, kind := range []string{"vf", "sf"} {
		if pf, number, found := strings.Cut(function, kind); found && isDecimal(pf) && isDecimal(number) {
			p.kind, p.number = kind, number
			return p, true
		}
	}
	return port{}, false
}

// Switchdev reports whether an interface says that it is a port of its NIC's switch (phys_switch_id). Some drivers (ice) say so of a PF in
// legacy mode too; what tells for certain is whether there are representors. The error matches [ErrNotFound] if there is no such interface.
func (s *FS) Switchdev(netDev string) (bool, error) {
	dir, err := s.netDevDir(netDev)
	if err != nil {
		return false, err
	}
	id, err := s.attribute(dir + "/phys_switch_id")
	return id != "", err
}

// DeviceOf is the PCI address, or the auxiliary name, of the device of an interface: the nearest one above it in the tree of devices. The
// error matches [ErrNotFound] if there is no such interface, or it is of no such device, as virtual ones are.
func (s *FS) DeviceOf(netDev string) (string, error) {
	dir, err := s.netDevDir(netDev)
	if err != nil {
		return "", err
	}
	// From above: VLAN interfaces like eth0.100.5 have names of the auxiliary bus.
	for dir = path.Dir(dir); dir != "."; dir = path.Dir(dir) {
		base := path.Base(dir)
		if _, err := ParseAddress(base); err == nil || isAuxiliary(base) {
			return base, nil
		}
		if isNumbered(base, "usb") {
			break // above is the host's USB controller, of which the interface is no part
		}
	}
	return "", fmt.Errorf("%w: interface %s is of no PCI or auxiliary device", ErrNotFound, netDev)
}

// LinkType is the kind of an interface as ARPHRD_ of linux/if_arp.h numbers it: 1 is Ethernet, 32 InfiniBand. The error matches
// [ErrNotFound] if there is no such interface.
func (s *FS) LinkType(netDev string) (int, error) {
	dir, err := s.netDevDir(netDev)
	if err != nil {
		return 0, err
	}
	text, err := s.read(dir + "/type")
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", netDev, err)
	}
	kind, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%s/type has %.64q, which is no number of 16 bits", dir, text)
	}
	return int(kind), nil
}

// netDevDir is the folder of an interface.
func (s *FS) netDevDir(name string) (string, error) {
	// What is no name must not become a path.
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("%.64q is no name of an interface", name)
	}
	dir, err := s.resolve(netClass + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: this network namespace has no interface %.64q (`ip link` lists those that it has)", ErrNotFound, name)
	}
	if err != nil {
		return "", fmt.Errorf("interface %s: %w", name, err)
	}
	return dir, nil
}
