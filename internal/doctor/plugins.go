// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/source/remote"
	"github.com/plexus-cni/plexus/sriov"
)

const (
	// slowVersion is a duration that VERSION, which does nothing, should not take: each ADD takes it at least once more.
	slowVersion = 500 * time.Millisecond
	// searchPath is the PATH of plugins, which may run iptables and others.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// builtin are the types that Plexus serves itself.
func builtin() []string { return []string{delegate.PassthruType, sriov.Type} }

// need is a plugin, and what for.
type need struct {
	pluginType string
	// users are the networks, versions the CNI versions that they want of it.
	users, versions []string
}

// needs are the programs that the networks take, in the order of the networks, Plexus first.
func (d *Doctor) needs(n *node) []need {
	all := []need{{pluginType: config.PluginType, users: []string{n.conf.path}, versions: []string{n.conf.list.CNIVersion()}}}
	add := func(pluginType string, w *network) {
		at := slices.IndexFunc(all, func(x need) bool { return x.pluginType == pluginType })
		if at < 0 {
			at = len(all)
			all = append(all, need{pluginType: pluginType})
		}
		if !slices.Contains(all[at].users, w.name) {
			all[at].users = append(all[at].users, w.name)
		}
		if !slices.Contains(all[at].versions, w.list.CNIVersion()) {
			all[at].versions = append(all[at].versions, w.list.CNIVersion())
		}
	}
	for _, w := range d.concerned(n) {
		for _, p := range w.plugins() {
			if !slices.Contains(builtin(), p.Type) || (p.Builtin != nil && !*p.Builtin) {
				add(p.Type, &w)
			}
			var ipam struct {
				Type string `json:"type"`
			}
			if json.Unmarshal(p.IPAM, &ipam) == nil && ipam.Type != "" {
				add(ipam.Type, &w)
			}
		}
	}
	return all
}

// checkPlugins looks whether the programs are there, run, and speak the versions of the networks.
func (d *Doctor) checkPlugins(ctx context.Context, n *node) ([]Finding, error) {
	if n.conf == nil {
		return nil, nil // told by another check
	}
	binDirs := d.binDirs(n.conf.cfg)
	found := each(ctx, d.needs(n), func(x need) []Finding { return d.checkPlugin(ctx, binDirs, x) })
	if n.conf.cfg.DaemonSocketDir == "" && n.conf.cfg.Kubeconfig != "" {
		path := filepath.Join(n.conf.cfg.BinDir, remote.ProgramName)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o111 == 0 {
			found = append(found, newFinding(PluginMissing, path, "the configuration has \"kubeconfig\", for which Plexus runs this program, but it is missing or not executable", "install it: plexusd install"))
		}
	}
	return found, nil
}

func (d *Doctor) checkPlugin(ctx context.Context, binDirs []string, x need) []Finding {
	object := "plugin " + x.pluginType
	exec := &delegate.Exec{Timeout: defaultTimeout}
	path, err := delegate.FindProgram(x.pluginType, binDirs)
	if err != nil {
		file := filepath.Join(binDirs[0], x.pluginType)
		if info, statErr := os.Stat(file); statErr == nil && info.Mode().IsRegular() {
			return []Finding{newFinding(PluginNotExecutable, object, fmt.Sprintf("%s has mode %04o", file, info.Mode().Perm()), "chmod 0755 "+file)}
		}
		return []Finding{newFinding(PluginMissing, object, fmt.Sprintf("it is not in %s, but %s needs it", strings.Join(binDirs, " or "), list(x.users)), "install it there, or correct \"type\" in the network's configuration")}
	}
	start := time.Now()
	out, err := exec.Program(ctx, path, []byte(`{"cniVersion":"1.0.0"}`), []string{"CNI_COMMAND=VERSION", "PATH=" + searchPath})
	took := time.Since(start)
	var answer struct {
		Supported []string `json:"supportedVersions"`
	}
	if err == nil {
		if err = json.Unmarshal(out, &answer); err == nil && len(answer.Supported) == 0 {
			err = errors.New("its supportedVersions is empty")
		}
	}
	if err != nil {
		return []Finding{newFinding(PluginBroken, object, "VERSION: "+oneLine(err.Error()), "install "+path+" again: it may be damaged, built for another architecture, or miss a library")}
	}
	var found []Finding
	for _, v := range x.versions {
		if !slices.Contains(answer.Supported, v) {
			found = append(found, newFinding(PluginVersion, object, fmt.Sprintf("it does not support CNI %s, which %s asks for; it supports %s", v, list(x.users), strings.Join(answer.Supported, ", ")), "install a newer one as "+path+", or lower \"cniVersion\" in the network's configuration"))
		}
	}
	if took > slowVersion {
		found = append(found, newFinding(PluginSlow, object, fmt.Sprintf("VERSION took %v although it does nothing: each pod waits that long", took.Round(time.Millisecond)), "find out what keeps the node busy, and whether "+path+" is on a slow file system"))
	}
	return found
}

// binDirs are the folders that plugins are looked for in.
func (d *Doctor) binDirs(c *config.Config) []string { return append([]string{c.BinDir}, d.BinDirs...) }

// list names some things.
func list(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
