// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command recorder is a CNI plugin for tests. It writes down how it was called, answers an ADD with the result that its configuration
// holds, and misbehaves where its configuration says so. Unless it is told to, it changes nothing on the host.
//
// It is as strict as the reference plugins (1.10.0): an ADD needs a network namespace that is open, and a CHECK the result of the ADD.
//
//	{
//	  "type": "recorder",
//	  "record": "/tmp/t/calls",                                  each call is appended to this file, a JSON object a line
//	  "result": { "ips": [ { "address": "10.1.0.2/24" } ] },     a CNI 1.1.0 result; see below
//	  "resultVersion": "0.4.0",                                  answer in this version instead of the configuration's
//	  "deviceInfo": { "type": "pci" },                           written to runtimeConfig.CNIDeviceInfoFile at ADD
//	  "link": true,                                              ADD makes CNI_IFNAME in the namespace, CHECK looks for it, DEL removes it
//	  "leases": "/tmp/t/leases",                                 ADD leaves a file of the attachment here; DEL removes it, and GC those of others
//	  "on": { "DEL": { "error": { "code": 100, "msg": "no" } } } what a verb does wrong: see misbehaviour
//	}
//
// A result without "interfaces" gets one: CNI_IFNAME in CNI_NETNS. In one that is given, an empty name stands for CNI_IFNAME, and
// the sandbox "self" for CNI_NETNS. Without "result", the previous one is handed on.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
)

// call is what is written down.
type call struct {
	Command     string          `json:"command"`
	ContainerID string          `json:"containerID,omitempty"`
	NetNS       string          `json:"netns,omitempty"`
	IfName      string          `json:"ifname,omitempty"`
	Args        string          `json:"args,omitempty"`
	Path        string          `json:"path,omitempty"`
	Config      json.RawMessage `json:"config"`
}

// config is what the plugin reads of its configuration.
type config struct {
	CNIVersion    string                  `json:"cniVersion"`
	Record        string                  `json:"record"`
	Result        *types100.Result        `json:"result"`
	ResultVersion string                  `json:"resultVersion"`
	PrevResult    json.RawMessage         `json:"prevResult"`
	DeviceInfo    json.RawMessage         `json:"deviceInfo"`
	Link          bool                    `json:"link"`
	Leases        string                  `json:"leases"`
	On            map[string]misbehaviour `json:"on"`
	RuntimeConfig struct {
		DeviceInfoFile string `json:"CNIDeviceInfoFile"`
	} `json:"runtimeConfig"`
	// Valid is nil when the key is not there, or null.
	Valid []types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// misbehaviour is done in the order of its fields. The call then goes on as usual, unless something else is said.
type misbehaviour struct {
	// While names a file: without it, the verb behaves.
	While string `json:"while"`
	// Wait is a Unix socket to connect to. The other end reads the process ID, and closes the connection to let the call go on.
	Wait string `json:"wait"`
	// InChild leaves the waiting to a child process, as a plugin waits for its IPAM plugin.
	InChild bool `json:"inChild"`
	// Stderr and Print are printed; after Print, or so many PrintBytes, the process ends.
	Stderr     string `json:"stderr"`
	Print      string `json:"print"`
	PrintBytes int    `json:"printBytes"`
	// Signal is what the process sends itself.
	Signal syscall.Signal `json:"signal"`
	// Exit is the process's exit code. Without Error or Print, it says nothing.
	Exit int `json:"exit"`
	// Silent ends the process well, without the result that is due.
	Silent bool         `json:"silent"`
	Error  *types.Error `json:"error"`
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "wait" {
		if err := wait(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: verb("ADD"), Del: verb("DEL"), Check: verb("CHECK"), GC: verb("GC"), Status: verb("STATUS"),
	}, version.All, "CNI plugin recorder, for tests")
}

func verb(command string) func(*skel.CmdArgs) error {
	return func(a *skel.CmdArgs) error {
		var c config
		if err := json.Unmarshal(a.StdinData, &c); err != nil {
			return fmt.Errorf("decode configuration: %w", err)
		}
		if err := record(c.Record, call{
			Command: command, ContainerID: a.ContainerID, NetNS: a.Netns, IfName: a.IfName, Args: a.Args, Path: a.Path, Config: a.StdinData,
		}); err != nil {
			return err
		}
		if err := misbehave(c.On[command]); err != nil {
			return err
		}
		switch command {
		case "ADD":
			return c.add(a)
		case "DEL":
			return c.del(a)
		case "CHECK":
			return c.check(a)
		case "GC":
			return c.gc()
		}
		return nil
	}
}

// record appends a call in one write, so that no call is ever written by half.
func record(file string, c call) error {
	var line bytes.Buffer
	if err := json.NewEncoder(&line).Encode(c); err != nil {
		return fmt.Errorf("encode the call: %w", err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("record the call: %w", err)
	}
	_, err = f.Write(line.Bytes())
	return errors.Join(err, f.Close())
}

func misbehave(m misbehaviour) error {
	if _, err := os.Stat(m.While); m.While != "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if m.Wait != "" {
		if err := waitHereOrInChild(m); err != nil {
			return err
		}
	}
	fmt.Fprint(os.Stderr, m.Stderr)
	fmt.Print(m.Print)
	// A reader that has had enough closes the pipe, and SIGPIPE ends the process.
	if _, err := io.Copy(os.Stdout, bytes.NewReader(bytes.Repeat([]byte{'x'}, m.PrintBytes))); err != nil {
		return fmt.Errorf("print %d bytes: %w", m.PrintBytes, err)
	}
	switch {
	case m.Signal != 0:
		return syscall.Kill(os.Getpid(), m.Signal)
	case m.Exit != 0 || m.Print != "" || m.PrintBytes != 0 || m.Silent:
		os.Exit(m.Exit)
	case m.Error != nil:
		return m.Error
	}
	return nil
}

func waitHereOrInChild(m misbehaviour) error {
	if !m.InChild {
		return wait(m.Wait)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self, "wait", m.Wait) //nolint:noctx // Who tests it ends it.
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	return child.Run()
}

// wait connects to a socket, says who it is, and returns when the other end closes the connection.
func wait(socket string) error {
	conn, err := net.Dial("unix", socket) //nolint:noctx // As above.
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintln(conn, os.Getpid()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}

// del goes by names, as real plugins do, and succeeds when there is nothing. Without the namespace there is no link any more.
func (c *config) del(a *skel.CmdArgs) error {
	if c.Leases != "" {
		if err := os.Remove(c.lease(a.ContainerID, a.IfName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !c.Link || a.Netns == "" {
		return nil
	}
	return ns.WithNetNSPath(a.Netns, func(ns.NetNS) error {
		err := netlink.LinkDel(bridge(a.IfName))
		if _, gone := net.InterfaceByName(a.IfName); gone != nil {
			return nil //nolint:nilerr // It is gone, whoever removed it.
		}
		return err
	})
}

// bridge is a link that needs no other end, of a kind that each kernel has.
func bridge(name string) netlink.Link {
	return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
}

func (c *config) check(a *skel.CmdArgs) error {
	if len(c.PrevResult) == 0 {
		return errors.New("required prevResult missing")
	}
	if _, err := version.NewResult(c.CNIVersion, c.PrevResult); err != nil {
		return fmt.Errorf("prevResult: %w", err)
	}
	if c.Leases != "" {
		if _, err := os.Stat(c.lease(a.ContainerID, a.IfName)); err != nil {
			return err
		}
	}
	if !c.Link {
		return nil
	}
	return ns.WithNetNSPath(a.Netns, func(ns.NetNS) error {
		_, err := net.InterfaceByName(a.IfName)
		return err
	})
}

// gc drops what is of no valid attachment (CNI 1.1.0 §2, GC). Without a list it drops nothing: it would be all.
func (c *config) gc() error {
	if c.Valid == nil {
		return errors.New(`no array "cni.dev/valid-attachments"`)
	}
	if c.Leases == "" {
		return nil
	}
	valid := map[string]bool{}
	for _, a := range c.Valid {
		valid[c.lease(a.ContainerID, a.IfName)] = true
	}
	files, err := filepath.Glob(filepath.Join(c.Leases, "*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if !valid[f] {
			err = errors.Join(err, os.Remove(f))
		}
	}
	return err
}

func (c *config) lease(containerID, ifName string) string {
	return filepath.Join(c.Leases, containerID+" "+ifName)
}

// take makes what the attachment holds.
func (c *config) take(a *skel.CmdArgs) error {
	netns, err := ns.GetNS(a.Netns)
	if err != nil {
		return fmt.Errorf("open netns %q: %w", a.Netns, err)
	}
	defer func() { _ = netns.Close() }()
	if c.Leases != "" {
		if err = errors.Join(os.MkdirAll(c.Leases, 0o755), os.WriteFile(c.lease(a.ContainerID, a.IfName), nil, 0o600)); err != nil {
			return err
		}
	}
	if !c.Link {
		return nil
	}
	return netns.Do(func(ns.NetNS) error {
		return netlink.LinkAdd(bridge(a.IfName))
	})
}

// add prints the result.
func (c *config) add(a *skel.CmdArgs) error {
	if err := c.take(a); err != nil {
		return err
	}
	if file := c.RuntimeConfig.DeviceInfoFile; file != "" && len(c.DeviceInfo) > 0 {
		if err := os.WriteFile(file, c.DeviceInfo, 0o600); err != nil {
			return fmt.Errorf("write device info: %w", err)
		}
	}
	if c.Result == nil && len(c.PrevResult) > 0 {
		_, err := os.Stdout.Write(c.PrevResult)
		return err
	}
	result := &types100.Result{}
	if c.Result != nil {
		result = c.Result
	}
	result.CNIVersion = types100.ImplementedSpecVersion
	if result.Interfaces == nil {
		result.Interfaces = []*types100.Interface{{Sandbox: "self"}}
	}
	for _, i := range result.Interfaces {
		if i.Name == "" {
			i.Name = a.IfName
		}
		if i.Sandbox == "self" {
			i.Sandbox = a.Netns
		}
	}
	if c.ResultVersion != "" {
		return types.PrintResult(result, c.ResultVersion)
	}
	return types.PrintResult(result, c.CNIVersion)
}
