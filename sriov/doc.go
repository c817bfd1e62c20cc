// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sriov gives one virtual function (VF) of an SR-IOV NIC to a sandbox, and takes it back. It is the CNI plugin of type sriov,
// as a built-in of Plexus and as a program of its own, for the network configurations that exist for sriov-cni.
//
// An ADD in order: the configuration is parsed; the device is found in sysfs and locked; the settings that it has are put on record;
// the PF is told the VF's settings; the interface moves to the sandbox in one message; IPAM; addresses; the record is completed. What can
// be refused is refused before the record.
//
// There is one way to undo, from the record, for a failed ADD, DEL, GC and the next owner's ADD: find the device by its address, wherever
// it is; compare what it is with what it was; set what differs. It can be cut short anywhere and done again.
package sriov
