// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plexus-cni/plexus"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/install"
	"github.com/plexus-cni/plexus/internal/source/remote"
)

// accountDir is where a pod's service account is mounted.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// nodeOptions are the flags about what is installed on a node.
type nodeOptions struct {
	confDir    string
	primary    string
	pluginConf string
	socketDir  string
	binDir     string
	binSource  string
	hostLinks  bool

	oneShotKubeconfig string
}

func (o *nodeOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.confDir, "conf-dir", "/etc/cni/net.d", "the runtime's folder of network configurations, by the same path here and on the host")
	f.StringVar(&o.primary, "primary", "", "file name of the cluster's own network configuration; empty for the lexically first that is not ours")
	f.StringVar(&o.pluginConf, "plugin-conf", "", "JSON file with further keys for the plugin's configuration; it need not exist")
	f.StringVar(&o.socketDir, "socket-dir", "/run/plexus", "folder of the daemon's socket, by the same path here and on the host")
	f.StringVar(&o.binDir, "bin-dir", config.DefaultBinDir, "folder that the runtime runs plugins from, by the same path here and on the host")
	f.StringVar(&o.binSource, "bin-source", ownFolder(), "folder to install the programs from")
	f.BoolVar(&o.hostLinks, "host-links", false, "install also where the mount table shows other paths for these folders: on the host, links lead there")
}

// ownFolder is where this program is, and in the image the plugin too.
func ownFolder() string {
	self, err := os.Executable()
	if err != nil {
		return "."
	}
	return filepath.Dir(self)
}

// programs are what is installed: lookups without a daemon take this program as well.
func (o *nodeOptions) programs() []string {
	if o.oneShotKubeconfig != "" {
		return []string{config.PluginType, remote.ProgramName}
	}
	return []string{config.PluginType}
}

// asNode is what the flags ask for.
func (o *nodeOptions) asNode() *install.Node {
	extra, err := o.extra()
	node := &install.Node{
		Conf: install.Conf{
			Dir: o.confDir, Primary: o.primary, SocketDir: o.socketDir, BinDir: o.binDir, Kubeconfig: o.kubeconfigPath(),
			Extra: extra, ExtraErr: err, MountTable: install.MountTable,
		},
		Programs: install.Programs{From: o.binSource, To: o.binDir, Names: o.programs()},
		Reread:   o.extra,
		Log:      slog.Default(),
	}
	if o.hostLinks {
		node.Conf.MountTable = ""
	}
	if host := os.Getenv("KUBERNETES_SERVICE_HOST"); o.oneShotKubeconfig != "" && host != "" {
		node.Kubeconfig = install.Kubeconfig{
			Path:       o.kubeconfigPath(),
			Server:     "https://" + net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT")),
			AccountDir: accountDir,
		}
	}
	return node
}

// kubeconfigPath is where lookups without a daemon have their kubeconfig.
func (o *nodeOptions) kubeconfigPath() string {
	if o.oneShotKubeconfig == "" || filepath.IsAbs(o.oneShotKubeconfig) {
		return o.oneShotKubeconfig
	}
	return filepath.Join(o.confDir, o.oneShotKubeconfig)
}

func (o *nodeOptions) extra() (map[string]json.RawMessage, error) {
	if o.pluginConf == "" {
		return nil, nil
	}
	data, err := os.ReadFile(o.pluginConf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--plugin-conf: %w", err)
	}
	extra, err := install.ParseExtra(data)
	if err != nil {
		return nil, fmt.Errorf("--plugin-conf %s: %w", o.pluginConf, err)
	}
	return extra, nil
}

func newInstall() *cobra.Command {
	o := nodeOptions{}
	var keep bool
	h := httpOptions{}
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Put the plugin and its configuration onto this node",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node := o.asNode()
			if keep {
				return runAll(cmd.Context(), []func(context.Context) error{
					node.Keep,
					func(ctx context.Context) error {
						return h.serve(ctx, node.Alive, daemon.Check{Name: "installation", Error: node.Ready})
					},
				})
			}
			err := node.Programs.Install()
			if err != nil {
				return err
			}
			if node.Kubeconfig.Path != "" {
				if err = node.Kubeconfig.Write(); err != nil {
					return err
				}
			}
			outcome, err := node.Conf.Write()
			for _, w := range outcome.Warnings {
				slog.Warn("network configuration passed over", "reason", w)
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "installed in front of", outcome.Primary)
			return nil
		},
	}
	o.add(cmd.Flags())
	o.addOneShot(cmd.Flags())
	cmd.Flags().BoolVar(&keep, "keep", false, "go on, and follow changes of the primary's configuration and of the service account's token")
	h.add(cmd.Flags())
	return cmd
}

func (o *nodeOptions) addOneShot(f *pflag.FlagSet) {
	f.StringVar(&o.oneShotKubeconfig, "one-shot-kubeconfig", "", "look up without a daemon, by this kubeconfig, a path or a name in --conf-dir; in a pod it is written from the service account")
}

// httpOptions are the flags about what probes and Prometheus ask.
type httpOptions struct{ listen string }

func (o *httpOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "listen", "127.0.0.1:9652", "address of /healthz, /readyz and /metrics; empty for none")
}

// serve answers probes of what has no daemon.
func (o *httpOptions) serve(ctx context.Context, alive func() error, checks ...daemon.Check) error {
	return keepHTTP(ctx, o.listen, daemon.NewMetrics(plexus.Version()).Handler(alive, checks...), retryPause, slog.Default())
}

func newUninstall() *cobra.Command {
	o := nodeOptions{}
	var stay bool
	h := httpOptions{}
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the configuration and the plugin off this node; drain it before",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node := o.asNode()
			node.Kubeconfig.Path = o.kubeconfigPath() // also outside a pod
			if err := node.Uninstall(); err != nil {
				return err
			}
			slog.Info("uninstalled", "confDir", o.confDir, "binDir", o.binDir)
			if !stay {
				return nil
			}
			return h.serve(cmd.Context(), func() error { return nil })
		},
	}
	o.add(cmd.Flags())
	o.addOneShot(cmd.Flags())
	cmd.Flags().BoolVar(&stay, "stay", false, "end only when told to, as the container of a DaemonSet has to")
	h.add(cmd.Flags())
	return cmd
}
