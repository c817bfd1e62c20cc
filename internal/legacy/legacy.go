// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package legacy reads what is known of sandboxes beside the records of Plexus: the state of Multus, which ran on the node before, and
// libcni's result cache. Sandboxes that only these know of are taken off their networks without a trace.
package legacy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/utils"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/nad"
)

// maxFileBytes bounds one state file.
const maxFileBytes = 8 << 20

// attachment is one delegate of Multus' state file, <dir>/<containerID>, a JSON array of them. The
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

// Load makes a plan of Multus' state of a sandbox; nil when there is none. What cannot be read of it is made up for from libcni's cache
// in the same folder; where that knows nothing, the error matches [record.ErrCorrupt], and [Quarantine] takes the file out of the way.
//
// Multus keeps one file for a container, which stands for the sandbox whose interface the cache names, if it names one.
func Load(dir string, s delegate.Sandbox) (*delegate.Plan, error) {
	path := filepath.Join(dir, s.ContainerID)
	data, err := bounded.ReadFile(path, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no state is an answer, not a failure
	}
	if err != nil {
		return nil, fmt.Errorf("read Multus' state: %w", err)
	}
	plan, err := parse(data, s)
	if err != nil {
		cached, _, cacheErr := FromCache(dir, s, nil)
		switch {
		case cacheErr != nil || cached != nil:
			return cached, cacheErr
		case len(bytes.TrimSpace(data)) == 0:
			return newPlan(s), nil // Multus writes the file before it calls a plugin, and had no room for it
		}
		return nil, fmt.Errorf("%w: Multus' state %s cannot be read, and libcni's cache knows nothing of the container: %w", record.ErrCorrupt, path, err)
	}
	if other, err := isOfOther(dir, plan); err != nil || other {
		return nil, err
	}
	for i := range plan.Attachments {
		a := &plan.Attachments[i]
		cached, err := readCache(filepath.Join(dir, results, a.List.Name()+"-"+s.ContainerID+"-"+a.IfName))
		if err == nil {
			fill(a, cached)
			// Who has been told of none, as GC, goes by the one of the ADD.
			plan.Sandbox.NetNS = cmp.Or(s.NetNS, cached.NetNS, sandboxOf(cached.Result), plan.Sandbox.NetNS)
		}
	}
	return plan, nil
}

// isOfOther reports whether the default network of a plan was attached to the container as another interface, so that the plan is not of
// the sandbox that was asked for.
func isOfOther(dir string, p *delegate.Plan) (bool, error) {
	first := p.DefaultAttachment()
	if first == nil {
		return false, nil
	}
	files, err := entriesOf(filepath.Join(dir, results), p.Sandbox.ContainerID)
	if err != nil {
		return false, err
	}
	prefix := first.List.Name() + "-" + p.Sandbox.ContainerID + "-"
	other := false
	for _, file := range files {
		switch ifName, ok := strings.CutPrefix(filepath.Base(file), prefix); {
		case ok && ifName == first.IfName:
			return false, nil
		case ok:
			// A network may be attached twice: the other one then has an interface name of its own in the plan.
			other = other || !slices.ContainsFunc(p.Attachments, func(a delegate.Attachment) bool { return a.IfName == ifName })
		}
	}
	return other, nil
}

// Containers lists the containers that Multus left state of.
func Containers(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list Multus' state: %w", err)
	}
	var ids []string
	for _, e := range entries {
		// Our own folder of records, and our markers, may lie in the same place, and other programs' files.
		if e.Type().IsRegular() && utils.ValidateContainerID(e.Name()) == nil && !isOwnMarker(e.Name()) && isState(filepath.Join(dir, e.Name())) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// isOwnMarker reports whether a name is that of a file which Plexus keeps in its own state folder.
func isOwnMarker(name string) bool { return name == "boot-id" || name == "source-seen" }

// isRuntimeID reports whether a name is a container ID as containerd and CRI-O make them.
func isRuntimeID(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// isState tells a state file, a JSON array, from a log or the like. One that was cut short is known by its name.
func isState(path string) bool {
	if isRuntimeID(filepath.Base(path)) {
		return true
	}
	if filepath.Ext(path) == suffixCorrupt {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return true // whoever reads it says why not
	}
	defer f.Close() // opened for reading
	var first [1]byte
	n, _ := f.Read(first[:])
	return n == 0 && filepath.Ext(path) == "" || first[0] == '['
}

// Remove forgets Multus' state of a container.
func Remove(dir, id string) error {
	if err := os.Remove(filepath.Join(dir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove Multus' state: %w", err)
	}
	return nil
}

const suffixCorrupt = ".corrupt"

// Quarantine takes a file that cannot be read out of the way, and keeps it for a person.
func Quarantine(file string) error {
	if err := os.Rename(file, file+suffixCorrupt); err != nil {
		return fmt.Errorf("quarantine: %w", err)
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

// results is libcni's cache in a state folder.
const results = "results"

func readCache(file string) (*delegate.CacheEntry, error) {
	data, err := bounded.ReadFile(file, maxFileBytes)
	if err != nil {
		return nil, err
	}
	var c delegate.CacheEntry
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if c.Kind != delegate.CacheKind {
		return nil, fmt.Errorf("%s is of kind %q", file, c.Kind)
	}
	return &c, nil
}

// runtimesCache is the folder of libcni's cache that runtimes use.
const runtimesCache = "/var/lib/cni"

// sandboxOf is the network namespace that a result names; "" if it names none. The libcni of older releases of Multus recorded it nowhere else.
func sandboxOf(result []byte) string {
	var r struct {
		Interfaces []struct {
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
	}
	if json.Unmarshal(result, &r) != nil {
		return ""
	}
	for _, i := range r.Interfaces {
		if filepath.IsAbs(i.Sandbox) {
			return i.Sandbox
		}
	}
	return ""
}

// fill adds what only the cache knows: the arguments of the ADD and its result.
func fill(a *delegate.Attachment, c *delegate.CacheEntry) {
	a.Args, a.CapabilityArgs, a.Result = c.Args, c.CapabilityArgs, c.Result
}

// FromCache makes a plan of what libcni's cache in dir holds about a sandbox; nil when it holds nothing. Only attachments that were
// made completely are in the cache. Entries of the container that cannot be read are listed beside.
//
// A container may have several sandboxes, each with its default interface (CNI: an attachment is a container ID and an interface name).
// Entries that Plexus wrote say whose they are; others, and those that cannot be read, as one that is just being written, are left out if
// taken says that another sandbox's record has an attachment with an entry of that file name.
func FromCache(dir string, s delegate.Sandbox, taken func(entry string) bool) (*delegate.Plan, []string, error) {
	files, err := entriesOf(filepath.Join(dir, results), s.ContainerID)
	if err != nil {
		return nil, nil, fmt.Errorf("list libcni's cache: %w", err)
	}
	plan := newPlan(s)
	var unreadable []string
	for _, file := range files {
		c, err := readCache(file)
		if err == nil && (c.ContainerID != s.ContainerID || (c.SandboxIfName != "" && c.SandboxIfName != s.IfName)) {
			continue
		}
		if (err != nil || c.SandboxIfName == "") && filepath.Clean(dir) == runtimesCache {
			continue // the runtime's own, in a folder that it shares with Plexus
		}
		if (err != nil || c.SandboxIfName == "") && taken != nil && taken(filepath.Base(file)) {
			continue
		}
		if err != nil {
			unreadable = append(unreadable, file)
			continue
		}
		a, err := fromEntry(c, s)
		switch {
		case err != nil:
			unreadable = append(unreadable, file)
		case slices.Contains(a.List.Types(), config.PluginType): // the runtime's own entry, in a folder that it shares with Plexus
		default:
			plan.Attachments = append(plan.Attachments, *a)
			plan.Sandbox.NetNS = cmp.Or(s.NetNS, c.NetNS)
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

// fromEntry makes an attachment of an entry.
func fromEntry(c *delegate.CacheEntry, s delegate.Sandbox) (*delegate.Attachment, error) {
	list, err := nad.Recorded(c.Config, nad.Defaults{Name: c.NetworkName})
	if err != nil {
		return nil, err
	}
	a := &delegate.Attachment{Network: c.NetworkName, IfName: c.IfName, Default: c.IfName == s.IfName, List: list, State: delegate.Attached}
	fill(a, c)
	return a, nil
}

// Sandboxes lists the sandboxes that the cache of Plexus has entries of.
func Sandboxes(dir string) ([]delegate.Sandbox, error) {
	names, err := os.ReadDir(filepath.Join(dir, results))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list libcni's cache: %w", err)
	}
	seen := map[delegate.Sandbox]bool{}
	var sandboxes []delegate.Sandbox
	for _, n := range names {
		c, err := readCache(filepath.Join(dir, results, n.Name()))
		if err != nil || c.SandboxIfName == "" {
			continue // what it is of cannot be told
		}
		if s := (delegate.Sandbox{ContainerID: c.ContainerID, IfName: c.SandboxIfName}); !seen[s] {
			seen[s] = true
			sandboxes = append(sandboxes, s)
		}
	}
	return sandboxes, nil
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
			// What was quarantined, or never finished, is no entry.
			if ext := filepath.Ext(name); strings.Contains(name, "-"+id+"-") && ext != suffixCorrupt && ext != ".tmp" {
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
