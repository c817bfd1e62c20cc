// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command cnilink is a CNI plugin for tests: it gives a pod the link of the node that is named like the device of its configuration, and
// takes it back. It stands for a plugin of real devices on nodes that have none.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

type conf struct {
	types.PluginConf
	DeviceID  string `json:"deviceID"`
	PCIBusID  string `json:"pciBusID"`
	RuntimeID struct {
		DeviceID string `json:"deviceID"`
	} `json:"runtimeConfig"`
}

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: nothing, GC: nothing, Status: nothing}, version.All, "test plugin cnilink")
}

func nothing(*skel.CmdArgs) error { return nil }

func parse(data []byte) (*conf, error) {
	var c conf
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if c.DeviceID == "" || c.DeviceID != c.PCIBusID || (c.RuntimeID.DeviceID != "" && c.RuntimeID.DeviceID != c.DeviceID) {
		return nil, fmt.Errorf("want one device, got deviceID %q, pciBusID %q, runtimeConfig.deviceID %q", c.DeviceID, c.PCIBusID, c.RuntimeID.DeviceID)
	}
	return &c, nil
}

func add(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	pod, err := netns.GetFromPath(args.Netns)
	if err != nil {
		return err
	}
	defer func() { _ = pod.Close() }() // opened for reading
	link, err := netlink.LinkByName(c.DeviceID)
	if err != nil {
		return fmt.Errorf("device %s: %w", c.DeviceID, err)
	}
	if err := move(nil, link, pod, args.IfName); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(pod)
	if err != nil {
		return err
	}
	defer inside.Close()
	moved, err := inside.LinkByName(args.IfName)
	if err != nil {
		return err
	}
	if err := inside.LinkSetUp(moved); err != nil {
		return err
	}
	return types.PrintResult(&types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{{Name: args.IfName, Mac: moved.Attrs().HardwareAddr.String(), Sandbox: args.Netns}},
	}, c.CNIVersion)
}

func del(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	pod, err := netns.GetFromPath(args.Netns)
	if errors.Is(err, os.ErrNotExist) {
		return nil // and the link with it
	}
	if err != nil {
		return err
	}
	defer func() { _ = pod.Close() }() // opened for reading
	inside, err := netlink.NewHandleAt(pod)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(args.IfName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	host, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }() // opened for reading
	return move(inside, link, host, c.DeviceID)
}

// move takes a link to another namespace under another name, at once.
func move(from *netlink.Handle, link netlink.Link, to netns.NsHandle, name string) error {
	attrs := netlink.LinkAttrs{Index: link.Attrs().Index, Name: name, Namespace: netlink.NsFd(to), TxQLen: -1}
	modify := netlink.LinkModify
	if from != nil {
		modify = from.LinkModify
	}
	return modify(&netlink.Device{LinkAttrs: attrs})
}
