// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/dirwatch"
	"github.com/plexus-cni/plexus/internal/pause"
	"github.com/plexus-cni/plexus/nad"
)

const (
	// settle is how long a folder has to be left alone before it is looked at again: who writes a file often writes another. One that
	// is never left alone is looked at after settleMost.
	settle     = 100 * time.Millisecond
	settleMost = 2 * time.Second
	// retryPause is how long it is waited, after what failed, for a change that mends it; idlePause, when all is well: the kernel tells
	// nobody of the removal of a folder that is mounted here.
	retryPause = 10 * time.Second
	idlePause  = 30 * time.Second
	// The rest that is given to a folder where another program takes our file away doubles from the first to the last: it is not left
	// without, and the two do not keep the disk busy. It is forgotten after contestPast.
	firstRest   = 200 * time.Millisecond
	lastRest    = 5 * time.Second
	contestPast = time.Minute
)

// Node is what is installed on a node.
type Node struct {
	Conf Conf
	// Kubeconfig is written when it has a Path.
	Kubeconfig Kubeconfig
	Programs   Programs
	// Reread reads the further keys again after they could not be used: the file may have been corrected.
	Reread func() (map[string]json.RawMessage, error)
	// Retry is the pause before what failed is tried again; 0 is ten seconds.
	Retry time.Duration
	Log   *slog.Logger

	// What Keep remembers: what it wrote last, what it logged last of configuration, mesh and programs, and who quarrels with it.
	written                                          []byte
	saidOfConf, saidOfGC, saidOfMesh, saidOfPrograms said
	contest, takers                                  contest
	// installed is set once all programs are those of this release.
	installed bool

	mu       sync.Mutex
	state    error
	programs error
	tried    bool
}

// Ready is the error, if any, because of which pods do not come to Plexus on this node, or not as they should.
func (n *Node) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.tried {
		return errors.Join(errors.New("the network configuration has not been written yet"), n.programs)
	}
	return errors.Join(n.state, n.programs)
}

// Alive is an ErrGone if a folder was removed on the host while it is mounted here. The kernel tells nobody; who starts this container
// again gets the folder that is there by then.
func (n *Node) Alive() error {
	all := []error{checkThere(n.Conf.Dir)}
	if n.Programs.To != "" {
		all = append(all, checkThere(n.Programs.To))
	}
	return errors.Join(all...)
}

// Keep installs the programs, writes the configuration, and again whenever the primary's changes, until ctx ends; the same for the
// kubeconfig and the service account. Programs that somebody takes away, as an upgrade of the folder's other plugins may, it puts back.
// What is installed stays when Keep ends. What fails is logged, and tried again; the one error is that of Alive.
func (n *Node) Keep(ctx context.Context) error {
	dirs := n.folders(nil)
	for ctx.Err() == nil {
		var err error
		if dirs, err = n.look(ctx, dirs); err != nil {
			return err
		}
	}
	return nil
}

// look acts, waits until it is time to look again, and returns the folders to watch then.
func (n *Node) look(ctx context.Context, dirs []string) ([]string, error) {
	w, err := dirwatch.New(dirs...) // first, so that no change after act is missed
	if err == nil {
		defer w.Close()
	}
	if gone := n.Alive(); gone != nil {
		return nil, gone
	}
	next := n.act()
	if also := n.folders(next.also); !slices.Equal(also, dirs) {
		return also, nil
	}
	switch {
	case next.rest > 0:
		pause.For(ctx, next.rest)
	case err == nil:
		patience := idlePause
		if next.failed {
			patience = n.retry()
		}
		err = wait(ctx, w, patience)
	}
	if err != nil && ctx.Err() == nil {
		n.Log.Error("changes are noticed late", "every", n.retry(), "error", err)
		pause.For(ctx, n.retry())
	}
	return dirs, nil
}

func (n *Node) retry() time.Duration { return cmp.Or(n.Retry, retryPause) }

// folders are those whose changes count, with those that the configuration depends on.
func (n *Node) folders(also []string) []string {
	dirs := []string{n.Conf.Dir}
	if n.Kubeconfig.Path != "" {
		dirs = append(dirs, n.Kubeconfig.AccountDir, filepath.Dir(n.Kubeconfig.Path))
	}
	if len(n.Programs.Names) > 0 {
		dirs = append(dirs, n.Programs.To)
	}
	return append(dirs, also...)
}

// turn is what an act leaves.
type turn struct {
	// also are further folders to watch.
	also []string
	// rest is how long to wait before the next act in any case.
	rest time.Duration
	// failed asks for another act soon, also without a change.
	failed bool
}

// act makes everything as it has to be: the programs before the configuration by which the runtime uses them.
func (n *Node) act() turn {
	programs, kubeconfig, conf := n.keepPrograms(), n.writeKubeconfig(), n.writeConf()
	return turn{also: conf.also, rest: max(programs.rest, conf.rest), failed: programs.failed || kubeconfig.failed || conf.failed}
}

// wait returns when something has changed and nothing more does, or when it is time to try again.
func wait(ctx context.Context, w *dirwatch.Watch, patience time.Duration) error {
	next, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := w.Wait(next); err != nil {
		if next.Err() != nil && ctx.Err() == nil {
			return nil // it is time
		}
		return err
	}
	most, cancel := context.WithTimeout(ctx, settleMost)
	defer cancel()
	for most.Err() == nil {
		if err := waitAtMost(most, w, settle); errors.Is(err, context.DeadlineExceeded) {
			break
		} else if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func waitAtMost(ctx context.Context, w *dirwatch.Watch, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return w.Wait(ctx)
}

func (n *Node) writeConf() turn {
	if len(n.Programs.missing().Names) > 0 {
		return turn{failed: true} // a runtime that does not find the plugin starts no pod at all
	}
	if n.Conf.ExtraErr != nil && n.Reread != nil {
		n.Conf.Extra, n.Conf.ExtraErr = n.Reread()
	}
	o, err := n.Conf.Write()
	n.mu.Lock()
	n.state, n.tried = err, true
	n.mu.Unlock()
	n.tell(o, err)
	t := turn{also: o.folders, failed: err != nil && !errors.Is(err, ErrNoPrimary) && !errors.Is(err, ErrNotFirst)}
	if !o.Wrote {
		return t
	}
	t.rest = n.contest.rest(time.Now(), bytes.Equal(o.data, n.written))
	n.written = o.data
	if t.rest > 0 && len(o.Strangers) == 0 {
		n.Log.Warn("another program took Plexus' configuration away; it is there again", "path", filepath.Join(n.Conf.Dir, ConfName),
			"fix", "let that program leave the files of others alone (Cilium: cni.exclusive=false), or take it off the node", "nextLookIn", t.rest)
	}
	return t
}

// said is what was logged last, so that it is logged once.
type said string

func (s *said) isNew(text string) bool {
	isNew := text != string(*s)
	*s = said(text)
	return isNew
}

// tell logs what is new about the configuration.
func (n *Node) tell(o Outcome, err error) {
	if n.saidOfConf.isNew(fmt.Sprint(o.Warnings, err)) {
		for _, w := range o.Warnings {
			n.Log.Warn("network configuration passed over", "reason", w)
		}
		switch {
		case errors.Is(err, ErrNoPrimary):
			n.Log.Warn("waiting for the primary network's configuration", "error", err)
		case errors.Is(err, ErrNotFirst):
			n.Log.Error("network configuration without effect", "error", err)
		case err != nil:
			n.Log.Error("network configuration not written; what was there stays", "error", err)
		}
	}
	if n.saidOfGC.isNew(fmt.Sprint(o.Collected)) && o.Collected {
		n.Log.Info("under CRI-O, the primary network is told that nothing of it is in use, and may give it to others", "primary", o.Primary,
			"fix", `set "disableGC": true in its file, if the node's runtime is CRI-O; containerd never asks`)
	}
	if n.saidOfMesh.isNew(fmt.Sprint(o.Mesh, o.Twice)) && len(o.Mesh) > 0 {
		n.Log.Info("a service mesh has chained its plugin to Plexus, where it is kept", "plugins", o.Mesh)
		if len(o.Twice) > 0 {
			n.Log.Warn("a service mesh has chained its plugin to Plexus and to the primary network: it runs twice for each pod", "plugins", o.Twice, "primary", o.Primary,
				"fix", "name the primary's file in the mesh's installation (Istio: cni.cniConfFileName); Linkerd's plugin may run twice")
		}
	}
	if len(o.Strangers) > 0 {
		n.Log.Warn("another program put plugins into Plexus' configuration; they were taken out", "plugins", o.Strangers,
			"fix", "let that program put them into the file of the primary network, which Plexus follows", "primary", o.Primary)
	}
	if o.Wrote {
		n.Log.Info("network configuration written", "path", filepath.Join(n.Conf.Dir, ConfName), "primary", o.Primary)
	}
}

// contest is the memory of a quarrel with another program about our file.
type contest struct {
	last  time.Time
	count int
}

// rest is how long to let things be after our file was written, again if nothing but its being there has changed.
func (c *contest) rest(now time.Time, again bool) time.Duration {
	if !again {
		*c = contest{}
		return 0
	}
	if now.Sub(c.last) > contestPast {
		c.count = 0
	}
	c.last = now
	c.count++
	return min(firstRest<<min(c.count-1, 10), lastRest)
}

func (n *Node) writeKubeconfig() turn {
	if n.Kubeconfig.Path == "" {
		return turn{}
	}
	err := n.Kubeconfig.Write()
	if err != nil {
		n.Log.Error("kubeconfig not written; what was there stays", "error", err)
	}
	return turn{failed: err != nil}
}

// InstallPrograms puts the programs of this release there. What fails is logged, said by Ready, and tried again by Keep.
func (n *Node) InstallPrograms() { n.keepPrograms() }

// keepPrograms puts the programs of this release there, and later those that somebody took away. It leaves those alone that are there by
// then, also if they are others: two releases must not fight for a name.
func (n *Node) keepPrograms() turn {
	todo, putBack := n.Programs, n.installed
	if putBack {
		todo = n.Programs.missing()
	}
	var err error
	if len(todo.Names) > 0 {
		err = todo.Install()
	}
	n.mu.Lock()
	n.programs = err
	n.mu.Unlock()
	isNew := n.saidOfPrograms.isNew(fmt.Sprint(err))
	switch {
	case err != nil:
		if isNew {
			n.Log.Error("programs not installed; those that were there stay", "error", err)
		}
		return turn{failed: true}
	case len(todo.Names) == 0 || !putBack:
		n.installed = true
		return turn{}
	}
	rest := n.takers.rest(time.Now(), true)
	n.Log.Warn("somebody took Plexus' programs away; they are there again", "folder", n.Programs.To, "programs", todo.Names, "nextLookIn", rest)
	return turn{rest: rest}
}

// Uninstall takes the configuration off the node, so that the runtime calls the primary again, and then what it needed. What
// is not there is no error. Sandboxes that Plexus attached should be gone before: without the plugin nobody gives back what
// their networks hold.
func (n *Node) Uninstall() error {
	conf := filepath.Join(n.Conf.Dir, ConfName)
	if err := isOurs(conf); err != nil {
		return err
	}
	paths := []string{conf}
	if n.Kubeconfig.Path != "" {
		paths = append(paths, n.Kubeconfig.Path, filepath.Join(filepath.Dir(n.Kubeconfig.Path), tokenName))
	}
	for _, name := range n.Programs.Names {
		paths = append(paths, filepath.Join(n.Programs.To, name))
	}
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return denied(filepath.Dir(p), fmt.Errorf("uninstall: %w", err))
		}
	}
	// The kubeconfig has a folder of its own beside the configuration. One that is not empty is somebody else's too.
	if dir := filepath.Dir(n.Kubeconfig.Path); n.Kubeconfig.Path != "" && filepath.Dir(dir) == filepath.Clean(n.Conf.Dir) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			return denied(filepath.Dir(dir), fmt.Errorf("uninstall: %w", err))
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
		return denied(path, fmt.Errorf("uninstall: %w", err))
	}
	list, err := nad.Normalize(data, nad.Defaults{Name: network, CNIVersion: "0.3.1"})
	if err != nil || !slices.Contains(list.Types(), config.PluginType) {
		return fmt.Errorf("uninstall: %s is not Plexus' configuration: remove it yourself if it is to go", path)
	}
	return nil
}
