// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// snapshot lists all that attachments leave on a host. Only the reference plugins touch the kernel.
func (w *world) snapshot(ctx context.Context, isReal bool) ([]string, error) {
	all, err := files()
	if err != nil {
		return nil, err
	}
	orphans, err := w.orphans()
	if err != nil {
		return nil, err
	}
	for _, pid := range orphans {
		all = append(all, fmt.Sprintf("process %d", pid))
	}
	if isReal {
		for _, list := range []func() ([]string, error){links, routes, func() ([]string, error) { return w.rules(ctx) }} {
			more, err := list()
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
	}
	slices.Sort(all)
	return all, nil
}

// files are all files that stand for something attached: not host-local's bookkeeping, nor the marks that Plexus keeps of itself.
func files() ([]string, error) {
	var all []string
	for _, dir := range []string{root + "/state", root + "/legacy", root + "/leases", root + "/fabric", root + "/fabric2", root + "/fabric3", "/run/cni", "/run/k8s.cni.cncf.io"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			name := filepath.Base(path)
			if err != nil || d.IsDir() || name == "lock" || name == ".lock" || strings.HasPrefix(name, "last_reserved_ip") || path == root+"/state/boot-id" || strings.HasPrefix(path, root+"/state/slots/") {
				return err
			}
			all = append(all, "file "+path)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func links() ([]string, error) {
	found, err := dump(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, l := range found {
		a := l.Attrs()
		all = append(all, fmt.Sprintf("link %s %s mtu %d", a.Name, l.Type(), a.MTU))
		addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			return nil, err
		}
		for _, addr := range addrs {
			if !addr.IP.IsLinkLocalUnicast() {
				all = append(all, fmt.Sprintf("address %s on %s", addr.IPNet, a.Name))
			}
		}
		qdiscs, err := dump(func() ([]netlink.Qdisc, error) { return netlink.QdiscList(l) })
		if err != nil {
			return nil, err
		}
		for _, q := range qdiscs {
			if kind := q.Type(); kind == "tbf" || kind == "ingress" || kind == "clsact" {
				all = append(all, kind+" on "+a.Name)
			}
		}
	}
	return all, nil
}

func routes() ([]string, error) {
	found, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	var all []string
	for _, r := range found {
		all = append(all, fmt.Sprintf("route %v via %v table %d", r.Dst, r.Gw, r.Table))
	}
	return all, err
}

// rules are the lines of the firewall.
func (w *world) rules(ctx context.Context) ([]string, error) {
	if w.nft == "" {
		return nil, nil
	}
	cmd := exec.CommandContext(ctx, w.nft, "--stateless", "list", "ruleset")
	var out strings.Builder
	cmd.Stdout = &out
	if err := w.start(cmd); err != nil {
		return nil, err
	}
	if err := w.wait(cmd); err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	var all []string
	for line := range strings.Lines(out.String()) {
		all = append(all, "rule "+strings.TrimSpace(line))
	}
	return all, nil
}

// dump lists, again when something changed meanwhile.
func dump[E any](list func() ([]E, error)) ([]E, error) {
	for try := 1; ; try++ {
		found, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == 100 {
			return found, err
		}
	}
}

// inSandbox lists the links of a sandbox that somebody attached.
func inSandbox(netns string) ([]string, error) {
	found, err := netdev.NewLinux().Links(netns)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, l := range found {
		if l.Name != "lo" && !slices.Contains(fallbackTunnels(), l.Name) {
			all = append(all, l.Name)
		}
	}
	return all, nil
}

// fallbackTunnels are links that the kernel puts into each namespace when their modules are loaded.
func fallbackTunnels() []string {
	return []string{"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}
}
