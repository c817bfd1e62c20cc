// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// CacheEntry is an entry of libcni's result cache, a file <cache>/results/<network>-<containerID>-<ifname>. The record is the truth;
// these make up for one that is lost or damaged, and tell what other users of libcni attached.
type CacheEntry struct {
	Kind        string `json:"kind"`
	ContainerID string `json:"containerId"`
	// Config is the configuration list.
	Config         []byte                     `json:"config"`
	IfName         string                     `json:"ifName"`
	NetworkName    string                     `json:"networkName"`
	NetNS          string                     `json:"netns,omitempty"`
	Args           [][2]string                `json:"cniArgs,omitempty"`
	CapabilityArgs map[string]json.RawMessage `json:"capabilityArgs,omitempty"`
	Result         json.RawMessage            `json:"result,omitempty"`
	// SandboxIfName is a key of Plexus: the interface of the default network, by which a container's sandboxes are told apart.
	SandboxIfName string `json:"plexusSandboxIfName,omitempty"`
}

// CacheKind is the kind of entries that libcni writes since CNI 0.7.
const CacheKind = "cniCacheV1"

// CacheName is the file name of an attachment's entry.
func (a *Attachment) CacheName(containerID string) string {
	return fmt.Sprintf("%s-%s-%s", a.List.Name(), containerID, a.IfName)
}

// cacheFile is libcni's cache entry of an attachment.
func (e *Executor) cacheFile(s Sandbox, a *Attachment) string {
	return filepath.Join(e.CacheDir, "results", a.CacheName(s.ContainerID))
}

// writeCache writes the entry of each attachment, as libcni does: without a flush.
func (e *Executor) writeCache(p *Plan) error {
	if err := os.MkdirAll(filepath.Join(e.CacheDir, "results"), 0o700); err != nil {
		return fmt.Errorf("result cache: %w", err)
	}
	for i := range p.Attachments {
		a := &p.Attachments[i]
		data, err := json.Marshal(CacheEntry{
			Kind: CacheKind, ContainerID: p.Sandbox.ContainerID, Config: a.List.Bytes(), IfName: a.IfName, NetworkName: a.List.Name(),
			NetNS: p.Sandbox.NetNS, Args: a.Args, CapabilityArgs: a.CapabilityArgs, Result: a.Result, SandboxIfName: p.Sandbox.IfName,
		})
		if err == nil {
			err = os.WriteFile(e.cacheFile(p.Sandbox, a), data, 0o600)
		}
		if err != nil {
			return fmt.Errorf("%s: result cache: %w", a, err)
		}
	}
	return nil
}

// removeCache removes an attachment's entry. One that stays belongs to nobody, as it has no record, and goes with the next GC.
func (e *Executor) removeCache(s Sandbox, a *Attachment) {
	if err := os.Remove(e.cacheFile(s, a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.warn(fmt.Sprintf("%s: result cache: %v", a, err))
	}
}
