// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/dirwatch"
	"github.com/plexus-cni/plexus/nad"
)

// settle is how long a folder has to be left alone before it is looked at again: who writes a file often writes another.
const settle = 100 * time.Millisecond

// Node is what is installed on a node.
type Node struct {
	Conf Conf
	// Kubeconfig is written when it has a Path.
	Kubeconfig Kubeconfig
	Log        *slog.Logger
}

// Keep writes the configuration, and again whenever the primary's changes, until ctx ends; the same for the kubeconfig and the service
// account. What is installed stays when Keep ends. The error says that there is nothing to wait for.
func (n *Node) Keep(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	keep := map[string]func(){n.Conf.Dir: n.writeConf}
	if n.Kubeconfig.Path != "" {
		keep[n.Kubeconfig.AccountDir] = n.writeKubeconfig
	}
	var all sync.WaitGroup
	for dir, write := range keep {
		all.Go(func() {
			if err := onChange(ctx, dir, write); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// onChange calls act now, and after each change of dir.
func onChange(ctx context.Context, dir string, act func()) error {
	w, err := dirwatch.New(dir)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		act()
		if err := w.Wait(ctx); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end that was asked for
			}
			return err
		}
		if !untilQuiet(ctx, w) {
			return nil
		}
	}
}

// untilQuiet waits until nothing has changed for a moment, and reports whether ctx goes on.
func untilQuiet(ctx context.Context, w *dirwatch.Watch) bool {
	for {
		quiet, cancel := context.WithTimeout(ctx, settle)
		err := w.Wait(quiet)
		cancel()
		if err != nil {
			return ctx.Err() == nil
		}
	}
}

func (n *Node) writeConf() {
	primary, wrote, warnings, err := n.Conf.Write()
	for _, w := range warnings {
		n.Log.Warn("network configuration passed over", "reason", w)
	}
	switch {
	case errors.Is(err, ErrNoPrimary):
		n.Log.Warn("waiting for the primary network's configuration", "error", err)
	case err != nil:
		n.Log.Error("network configuration not written; what was there stays", "error", err)
	case wrote:
		n.Log.Info("network configuration written", "path", filepath.Join(n.Conf.Dir, ConfName), "primary", primary)
	}
}

func (n *Node) writeKubeconfig() {
	if err := n.Kubeconfig.Write(); err != nil {
		n.Log.Error("kubeconfig not written; what was there stays", "error", err)
	}
}

// Uninstall takes the configuration off the node, so that the runtime calls the primary again, and then what it needed. What
// is not there is no error. Sandboxes that Plexus attached should be gone before: without the plugin nobody gives back what
// their networks hold.
func (n *Node) Uninstall(binDir string, binaries ...string) error {
	conf := filepath.Join(n.Conf.Dir, ConfName)
	if err := isOurs(conf); err != nil {
		return err
	}
	paths := []string{conf}
	if n.Kubeconfig.Path != "" {
		paths = append(paths, n.Kubeconfig.Path, filepath.Join(filepath.Dir(n.Kubeconfig.Path), tokenName))
	}
	for _, b := range binaries {
		paths = append(paths, filepath.Join(binDir, b))
	}
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("uninstall: %w", err)
		}
	}
	return nil
}

// isOurs refuses to remove a configuration that somebody else put into the place of ours.
func isOurs(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("uninstall: %w", err)
	}
	list, err := nad.Normalize(data, nad.Defaults{Name: network, CNIVersion: "0.3.1"})
	if err != nil || !slices.Contains(list.Types(), config.PluginType) {
		return fmt.Errorf("uninstall: %s is not Plexus' configuration: remove it yourself if it is to go", path)
	}
	return nil
}
