// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// netnsDir is where named network namespaces are.
	netnsDir = "/run/netns"
	// goneWithin bounds the wait for what the kernel removes in the background: the links of a namespace that is deleted.
	goneWithin = 5 * time.Second
)

// kinds is what the demo must not leave.
type kinds int

const (
	links kinds = iota
	namespaces
	leases
	records
	allKinds
)

func (k kinds) String() string {
	return [...]string{"links of the node", "network namespaces", "address leases", "records"}[k]
}

// snapshot is what the machine holds, by kind, sorted.
type snapshot [allKinds][]string

func (st *stage) snapshot() (snapshot, error) {
	var s snapshot
	found, err := netlink.LinkList()
	if err != nil {
		return s, fmt.Errorf("list links: %w", err)
	}
	for _, l := range found {
		s[links] = append(s[links], l.Attrs().Name)
	}
	// Others may come and go there at the same time.
	if s[namespaces], err = files(netnsDir, func(path string) bool { return slices.Contains(st.scene.netns, filepath.Base(path)) }); err != nil {
		return s, err
	}
	// host-local keeps a lock and the last address that it gave beside the leases, which are named by their address.
	if s[leases], err = files(leasesDir, isLease); err != nil {
		return s, err
	}
	// Records of Plexus and plexusctl, and libcni's results beside them.
	s[records], err = files(st.state(), func(path string) bool {
		return strings.HasSuffix(path, ".json") || filepath.Base(filepath.Dir(path)) == "results"
	})
	for _, list := range s {
		slices.Sort(list)
	}
	return s, err
}

func isLease(path string) bool {
	_, err := netip.ParseAddr(filepath.Base(path))
	return err == nil
}

// files lists files below a folder; one that does not exist has none.
func files(dir string, match func(path string) bool) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !e.IsDir() && match(path) {
			list = append(list, path)
		}
		return err
	})
	return list, err
}

// left is what is there now and was not before.
func left(before, now snapshot) []string {
	var list []string
	for k := range allKinds {
		for _, name := range now[k] {
			if !slices.Contains(before[k], name) {
				list = append(list, fmt.Sprintf("%s: %s", k, name))
			}
		}
	}
	return list
}

// prove compares the machine with what it was before. attached is nil when the show did not get that far.
func (st *stage) prove(ctx context.Context, before snapshot, attached *snapshot) error {
	ctx, cancel := context.WithTimeout(ctx, goneWithin)
	defer cancel()
	for {
		now, err := st.snapshot()
		if err != nil {
			return err
		}
		rest := left(before, now)
		if len(rest) > 0 && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(retryAfter):
			}
			continue
		}
		st.scr.plain("")
		st.scr.plain(fmt.Sprintf("  %-20s %8s %9s %8s", "", "before", "attached", "after"))
		for k := range allKinds {
			during := "?"
			if attached != nil {
				during = strconv.Itoa(len(attached[k]))
			}
			st.scr.plain(fmt.Sprintf("  %-20s %8d %9s %8d", k, len(before[k]), during, len(now[k])))
		}
		st.scr.plain("")
		if len(rest) > 0 {
			return fmt.Errorf("left behind: %s", strings.Join(rest, "\nleft behind: "))
		}
		st.scr.done("nothing is left: no link, no namespace, no lease, no record")
		return nil
	}
}
