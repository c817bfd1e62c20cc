// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package legacy reads the state that Plexus did not write itself: that of the meta-plugin which ran on the node before, and
// libcni's result cache. Sandboxes made by either are taken off their networks without a trace.
package legacy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/nad"
)

// maxFileBytes bounds one state file.
const maxFileBytes = 8 << 20

// containerID is what CNI allows as one; other names in the state folder are not state.
var containerID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)

// attachment is one delegate of the other meta-plugin's state file, <dir>/<containerID>, a JSON array of them. The
// first is the default network.
type attachment struct {
	Name          string `json:"Name"`
	IfnameRequest string `json:"ifnameRequest"`
	// Bytes is the configuration of a bare plugin, or of a list without what was appended to it from a folder.
	Bytes []byte `json:"Bytes"`
	// CNINetworkConfigList is complete where it is there.
	CNINetworkConfigList struct {
		Name         string `json:"Name"`
		CNIVersion   string `json:"CNIVersion"`
		DisableCheck bool   `json:"DisableCheck"`
		Plugins      []struct {
			Bytes []byte `json:"Bytes"`
		} `json:"Plugins"`
	} `json:"CNINetworkConfigList"`
	Conf     json.RawMessage `json:"Conf"`
	ConfList json.RawMessage `json:"ConfList"`
}

// Load makes a plan of the other meta-plugin's state of a sandbox; nil when there is none. A state file that can not be read is
// made up for from libcni's cache in the same folder.
func Load(dir string, s delegate.Sandbox) (*delegate.Plan, error) {
	data, err := bounded.ReadFile(filepath.Join(dir, s.ContainerID), maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no state is an answer, not a failure
	}
	if err != nil {
		return nil, fmt.Errorf("read the former meta-plugin's state: %w", err)
	}
	plan, err := parse(data, s)
	if err != nil {
		if cached, _, cacheErr := FromCache(dir, s); cacheErr != nil || cached != nil {
			return cached, cacheErr
		}
		return nil, fmt.Errorf("the former meta-plugin's state %s can not be read and libcni's cache knows nothing of the container: %w: remove the file once the container's addresses and interfaces are known to be free", filepath.Join(dir, s.ContainerID), err)
	}
	for i := range plan.Attachments {
		a := &plan.Attachments[i]
		cached, err := readCache(filepath.Join(dir, "results", a.List.Name()+"-"+s.ContainerID+"-"+a.IfName))
		if err == nil {
			cached.fill(a)
			// Who has been told of none, as GC, goes by the one of the ADD.
			plan.Sandbox.NetNS = cmp.Or(s.NetNS, cached.NetNS)
		}
	}
	return plan, nil
}

// Containers lists the containers that the other meta-plugin left state of.
func Containers(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the former meta-plugin's state: %w", err)
	}
	var ids []string
	for _, e := range entries {
		// Our own folder of records, and our boot marker, may lie in the same place.
		if e.Type().IsRegular() && containerID.MatchString(e.Name()) && e.Name() != "boot-id" {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Remove forgets the other meta-plugin's state of a container.
func Remove(dir, id string) error {
	if err := os.Remove(filepath.Join(dir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the former meta-plugin's state: %w", err)
	}
	return nil
}

func parse(data []byte, s delegate.Sandbox) (*delegate.Plan, error) {
	var entries []attachment
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, err
	}
	plan := newPlan(s)
	for i := range entries {
		list, err := entries[i].list()
		if err != nil {
			return nil, fmt.Errorf("delegate %d: %w", i, err)
		}
		ifName := entries[i].IfnameRequest
		switch {
		case ifName != "":
		case i == 0:
			ifName = s.IfName
		default:
			ifName = fmt.Sprintf("net%d", i)
		}
		plan.Attachments = append(plan.Attachments, delegate.Attachment{
			Network: cmp.Or(entries[i].Name, list.Name()), IfName: ifName, Default: i == 0, List: list, State: delegate.Attached,
		})
	}
	return plan, nil
}

// list finds the most complete of the several forms in which a delegate's configuration is in the state.
func (a *attachment) list() (*nad.List, error) {
	if l := a.CNINetworkConfigList; len(l.Plugins) > 0 {
		plugins := make([]json.RawMessage, 0, len(l.Plugins))
		for _, p := range l.Plugins {
			plugins = append(plugins, p.Bytes)
		}
		data, err := json.Marshal(map[string]any{
			"name": cmp.Or(l.Name, a.Name), "cniVersion": l.CNIVersion, "disableCheck": l.DisableCheck, "plugins": plugins,
		})
		if err != nil {
			return nil, err
		}
		return nad.Recorded(data, nad.Defaults{Name: a.Name})
	}
	errs := []error{errors.New("it has no configuration")}
	for _, data := range [][]byte{a.Bytes, a.ConfList, a.Conf} {
		if len(data) == 0 {
			continue
		}
		list, err := nad.Recorded(data, nad.Defaults{Name: a.Name})
		if err == nil {
			return list, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func newPlan(s delegate.Sandbox) *delegate.Plan {
	return &delegate.Plan{Version: delegate.PlanVersion, Sandbox: s, Complete: true}
}

// cache is an entry of libcni's result cache.
type cache struct {
	Kind           string                     `json:"kind"`
	ContainerID    string                     `json:"containerId"`
	Config         []byte                     `json:"config"`
	IfName         string                     `json:"ifName"`
	NetworkName    string                     `json:"networkName"`
	NetNS          string                     `json:"netns"`
	CNIArgs        [][2]string                `json:"cniArgs"`
	CapabilityArgs map[string]json.RawMessage `json:"capabilityArgs"`
	Result         json.RawMessage            `json:"result"`
}

func readCache(file string) (*cache, error) {
	data, err := bounded.ReadFile(file, maxFileBytes)
	if err != nil {
		return nil, err
	}
	var c cache
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if c.Kind != "cniCacheV1" {
		return nil, fmt.Errorf("%s is of kind %q", file, c.Kind)
	}
	return &c, nil
}

// fill adds what only the cache knows: the arguments of the ADD and its result.
func (c *cache) fill(a *delegate.Attachment) {
	a.Args, a.CapabilityArgs, a.Result = c.CNIArgs, c.CapabilityArgs, c.Result
}

// FromCache makes a plan of what libcni's cache in dir holds about a sandbox; nil when it holds nothing. Only attachments that were
// made completely are in the cache. Entries of the container that can not be read are listed beside.
func FromCache(dir string, s delegate.Sandbox) (*delegate.Plan, []string, error) {
	files, err := entriesOf(filepath.Join(dir, "results"), s.ContainerID)
	if err != nil {
		return nil, nil, fmt.Errorf("list libcni's cache: %w", err)
	}
	plan := newPlan(s)
	var unreadable []string
	for _, file := range files {
		if ext := filepath.Ext(file); ext == ".corrupt" || ext == ".tmp" {
			continue // set aside, or never finished
		}
		a, err := fromEntry(file, s)
		switch {
		case err != nil:
			unreadable = append(unreadable, file)
		case a != nil:
			plan.Attachments = append(plan.Attachments, *a)
		}
	}
	if len(plan.Attachments) == 0 {
		return nil, unreadable, nil
	}
	// The default network was attached first; the order of the others is not in the cache.
	slices.SortStableFunc(plan.Attachments, func(a, b delegate.Attachment) int {
		if a.Default != b.Default {
			if a.Default {
				return -1
			}
			return 1
		}
		return strings.Compare(a.IfName, b.IfName)
	})
	return plan, unreadable, nil
}

// fromEntry makes an attachment of an entry; nil when the entry is another container's.
func fromEntry(file string, s delegate.Sandbox) (*delegate.Attachment, error) {
	c, err := readCache(file)
	if err != nil {
		return nil, err
	}
	if c.ContainerID != s.ContainerID {
		return nil, nil // another container's is an answer, not a failure
	}
	list, err := nad.Recorded(c.Config, nad.Defaults{Name: c.NetworkName})
	if err != nil {
		return nil, fmt.Errorf("libcni's cache %s: %w", file, err)
	}
	a := &delegate.Attachment{Network: c.NetworkName, IfName: c.IfName, Default: c.IfName == s.IfName, List: list, State: delegate.Attached}
	c.fill(a)
	return a, nil
}

// entriesOf lists the files whose names can be those of a container's entries, sorted: <network>-<containerID>-<ifname>. Every ADD
// comes here, and the folder has an entry for each attachment of the node: so names are only looked at, one by one.
func entriesOf(dir, id string) ([]string, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close() // opened for reading
	var files []string
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			if strings.Contains(name, "-"+id+"-") {
				files = append(files, filepath.Join(dir, name))
			}
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(files)
			return files, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
