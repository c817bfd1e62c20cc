// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/internal/source/remote"
	"github.com/plexus-cni/plexus/internal/wire"
	"github.com/plexus-cni/plexus/sriov"
)

// checkStatus asks the source, the plugins of each network, and Plexus itself, whether an ADD could be served. What Plexus only repeats of the
// others is left out.
func (d *Doctor) checkStatus(ctx context.Context, n *node) ([]Finding, error) {
	if n.conf == nil {
		return nil, nil // told by another check
	}
	found := checkSource(ctx, n.conf.cfg)
	executor := &delegate.Executor{
		BinDirs: d.binDirs(n.conf.cfg), CacheDir: n.conf.cfg.CNIDir, Plugins: d.exec(n.conf.cfg), Environ: []string{"PATH=" + searchPath},
	}
	repeated := len(found) > 0
	found = append(found, each(ctx, d.concerned(n), func(w network) []Finding {
		err := executor.Status(ctx, w.list)
		if err == nil || errors.Is(err, delegate.ErrInvalid) {
			return nil // a plugin that is not there is told by another check
		}
		return []Finding{newFinding(StatusNetwork, w.object(), oneLine(err.Error()), "fix what its plugin reports ("+w.from+"): until then pods cannot be attached to it")}
	})...)
	if repeated || len(found) > 0 {
		return found, nil
	}
	// As if the configuration were of CNI 1.1.0: earlier ones have no STATUS, and the question is the same.
	conf, err := withKey(n.conf.plugin, "cniVersion", "1.1.0")
	if err != nil {
		return found, err
	}
	if err := d.call(ctx, n.conf.cfg, "STATUS", conf); err != nil && !errors.Is(err, delegate.ErrInvalid) {
		found = append(found, newFinding(StatusPlexus, n.conf.path, oneLine(err.Error()), "fix what it names: until then the container runtime may report the node as not ready, and no pod is attached"))
	}
	return found, nil
}

// exec runs plugins as Plexus does: those that it has in itself are of this program.
func (d *Doctor) exec(cfg *config.Config) *delegate.Exec {
	e := &delegate.Exec{Timeout: min(defaultTimeout, cfg.DelegateTimeout)}
	e.Builtins = map[string]delegate.Builtin{delegate.PassthruType: delegate.Passthru}
	if kernel, ok := d.Kernel.(*netdev.Linux); ok {
		vfs := &sriov.Plugin{
			Kernel: kernel, Sysfs: d.Sysfs, Dir: d.Paths.SRIOV, LegacyDir: d.Paths.LegacySRIOV, Run: e.Run, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		}
		e.Builtins[sriov.Type] = vfs.Builtin
	}
	return e
}

// call runs Plexus, the program that the container runtime runs.
func (d *Doctor) call(ctx context.Context, cfg *config.Config, verb string, conf []byte, environ ...string) error {
	e := &delegate.Exec{Timeout: cfg.DelegateTimeout}
	path, err := delegate.FindProgram(config.PluginType, d.binDirs(cfg))
	if err != nil {
		return err
	}
	environ = append(environ, "CNI_COMMAND="+verb, "CNI_PATH="+strings.Join(d.binDirs(cfg), string(filepath.ListSeparator)), "PATH="+searchPath)
	_, err = e.Program(ctx, path, conf, environ)
	return err
}

// withKey sets a key of a JSON object.
func withKey(object []byte, key, value string) ([]byte, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(object, &keys); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	keys[key] = raw
	return json.Marshal(keys)
}

// checkSource asks whether a lookup would be answered.
func checkSource(ctx context.Context, c *config.Config) []Finding {
	switch {
	case c.DaemonSocketDir != "":
		return checkDaemon(ctx, c.DaemonSocketDir)
	case c.Kubeconfig != "":
		return nil // the API server is asked by another check
	case c.ManifestDir != "":
		if err := manifest.New(c.ManifestDir).Ready(ctx); err != nil {
			return []Finding{newFinding(ManifestsInvalid, "manifestDir "+c.ManifestDir, oneLine(err.Error()), "correct it: until then no pod is attached")}
		}
	}
	return nil
}

func checkDaemon(ctx context.Context, dir string) []Finding {
	object := "daemon socket " + filepath.Join(dir, remote.SocketName)
	const look = "kubectl -n plexus-system get pods -o wide, and the log of the one on this node"
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(dir, remote.SocketName))
	if err != nil {
		return []Finding{newFinding(DaemonUnreachable, object, oneLine(err.Error())+": no pod is attached on this node", "start plexusd on this node: "+look)}
	}
	_ = conn.Close() // the client has its own
	client := remote.NewSocket(dir)
	err = client.Ready(ctx)
	_ = client.Close() // all has been said
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wire.ErrVersion), errors.Is(err, wire.ErrMalformed):
		return []Finding{newFinding(DaemonVersion, object, oneLine(err.Error()), "install plugin and daemon from one release: restart the daemon's pod, which installs the plugin")}
	}
	return []Finding{newFinding(DaemonNotReady, object, oneLine(err.Error()), "look at "+look)}
}
