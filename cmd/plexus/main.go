// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command plexus is the CNI plugin: container runtimes run it for each pod sandbox, with the CNI environment and the
// network configuration on stdin.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus"
	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/logfile"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/plugin"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/internal/source/remote"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/sriov"
)

// deviceInfoDir is fixed by the Device Information Specification 1.1.0.
const deviceInfoDir = "/var/run/k8s.cni.cncf.io/devinfo"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx)
	stop()
	if err == nil {
		return
	}
	if printErr := err.Print(); printErr != nil {
		fmt.Fprintln(os.Stderr, err, printErr)
	}
	os.Exit(1)
}

func run(ctx context.Context) *types.Error {
	if err := boundStdin(); err != nil {
		return err
	}
	vfs := &sriov.Plugin{
		Kernel: netdev.NewLinux(), Sysfs: sysfs.New("/sys"), Dir: sriov.DefaultDir, LegacyDir: sriov.DefaultLegacyDir,
	}
	if filepath.Base(os.Args[0]) == sriov.Type {
		return runSRIOV(ctx, vfs)
	}
	if os.Getenv(delegate.Marker) != "" {
		return types.NewError(types.ErrInvalidNetworkConfig, "a delegate of Plexus, or what it runs, called Plexus: name a network plugin as its type", "")
	}
	p := &plugin.Plugin{
		Environ:       os.Environ(),
		Source:        openSource,
		Kernel:        netdev.NewLinux(),
		Log:           openLog,
		DeviceInfoDir: deviceInfoDir,
		PCI:           sysfs.New("/sys"),
		VFs:           vfs,
		Failed:        func(c *config.Config, verb string, code uint) { countFailure(ctx, c, verb, code) },
	}
	return skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: func(a *skel.CmdArgs) error {
			result, err := p.Add(ctx, a)
			if err != nil {
				return plugin.Error(err)
			}
			return result.Print()
		},
		Del: verb(ctx, func(ctx context.Context, a *skel.CmdArgs) error {
			err := p.Del(ctx, a)
			// skel fails a DEL with the host's own namespace, after it: for ever. Plexus has taken it for none.
			a.NetnsOverride = "true"
			return err
		}),
		Check:  verb(ctx, p.Check),
		GC:     verb(ctx, p.GC),
		Status: verb(ctx, p.Status),
	}, version.All, about())
}

// countFailure has the daemon count a failed call in its metrics. A daemon that is not there, or of a release that does not, counts none.
func countFailure(ctx context.Context, c *config.Config, verb string, code uint) {
	if c.DaemonSocketDir == "" {
		return
	}
	client := remote.NewSocket(c.DaemonSocketDir)
	defer func() { _ = client.Close() }()                                                 // nothing more is asked
	_ = client.Failed(context.WithoutCancel(ctx), remote.Failure{Verb: verb, Code: code}) // the runtime is told in any case
}

// runSRIOV answers as the plugin sriov, which this program is when it is installed under that name.
func runSRIOV(ctx context.Context, p *sriov.Plugin) *types.Error {
	p.Run = (&delegate.Exec{Timeout: config.DefaultDelegateTimeout}).Run
	answer := func(a *skel.CmdArgs) error {
		p.Log = sriovLog(a.StdinData)
		out, err := p.Builtin(ctx, a.StdinData, os.Environ())
		if err == nil {
			_, err = os.Stdout.Write(out)
		}
		return err
	}
	return skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: answer, Del: answer, Check: answer, GC: answer, Status: answer}, version.All, about())
}

// sriovLog opens the log that a configuration of sriov asks for, with the names of levels that sriov-cni has.
func sriovLog(conf []byte) *slog.Logger {
	var c struct {
		LogFile  string `json:"logFile"`
		LogLevel string `json:"logLevel"`
	}
	_ = json.Unmarshal(conf, &c) // what is wrong with it the plugin says
	level := map[string]slog.Level{"debug": slog.LevelDebug, "warning": slog.LevelWarn, "error": slog.LevelError, "panic": slog.LevelError}[c.LogLevel]
	return openLog(config.Log{File: c.LogFile, Level: level, ToStderr: c.LogFile == ""})
}

func verb(ctx context.Context, f func(context.Context, *skel.CmdArgs) error) func(*skel.CmdArgs) error {
	return func(a *skel.CmdArgs) error {
		if err := f(ctx, a); err != nil {
			return plugin.Error(err)
		}
		return nil
	}
}

// boundStdin puts a bounded copy of the configuration in the place of stdin, which skel reads without a limit.
func boundStdin() *types.Error {
	switch os.Getenv("CNI_COMMAND") {
	case "", "VERSION": // they need none
		return nil
	}
	conf, err := io.ReadAll(io.LimitReader(os.Stdin, config.MaxBytes+1))
	if err != nil {
		return types.NewError(types.ErrIOFailure, "read the configuration from stdin: "+err.Error(), "")
	}
	if len(conf) > config.MaxBytes {
		return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("the configuration on stdin has more than %d bytes", config.MaxBytes), "")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return types.NewError(types.ErrIOFailure, err.Error(), "")
	}
	os.Stdin = r
	go func() {
		_, _ = io.Copy(w, bytes.NewReader(conf)) // the reader has gone only when the process has
		_ = w.Close()
	}()
	return nil
}

// openSource picks where cluster knowledge comes from.
func openSource(c *config.Config) (source.Source, error) {
	switch {
	case c.DaemonSocketDir != "":
		return remote.NewSocket(c.DaemonSocketDir), nil
	case c.Kubeconfig != "":
		return remote.NewOneShot(c.Kubeconfig, c.KubeletRootDir, []string{filepath.Dir(os.Args[0]), c.BinDir}), nil
	case c.ManifestDir != "":
		return manifest.New(c.ManifestDir), nil
	}
	return nil, nil // no source is a choice
}

// openLog opens the log that the configuration asks for. A pod gets its networks also when the log can not be written.
func openLog(c config.Log) *slog.Logger {
	out := io.Discard
	if c.ToStderr {
		out = os.Stderr
	}
	options := &slog.HandlerOptions{Level: c.Level}
	if c.File == "" {
		return slog.New(slog.NewTextHandler(out, options))
	}
	file, err := logfile.Open(c.File, logfile.Options{MaxSizeMB: c.MaxSizeMB, MaxBackups: c.MaxBackups, MaxAgeDays: c.MaxAgeDays, Compress: c.Compress})
	if err != nil {
		log := slog.New(slog.NewTextHandler(os.Stderr, options))
		log.Warn("open the log file; logging to stderr", "logFile", c.File, "error", err)
		return log
	}
	if c.ToStderr {
		out = io.MultiWriter(out, file)
	} else {
		out = file
	}
	return slog.New(slog.NewTextHandler(out, options))
}

func about() string { return "CNI meta-plugin Plexus " + plexus.Version() }
