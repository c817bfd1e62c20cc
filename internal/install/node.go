// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/dirwatch"
	"github.com/plexus-cni/plexus/nad"
)

const (
	// settle is how long a folder has to be left alone before it is looked at again: who writes a file often writes another. One that
	// is never left alone is looked at after settleMost.
	settle     = 100 * time.Millisecond
	settleMost = 2 * time.Second
	// retryPause is how long it is waited, after what failed, for a change that mends it.
	retryPause = 10 * time.Second
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
	Log        *slog.Logger

	// What Keep remembers of the configuration.
	written []byte
	told    string
	contest contest
	// takers is the same of the programs.
	takers contest

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
		return errors.New("the network configuration has not been written yet")
	}
	return errors.Join(n.state, n.programs)
}

// Keep writes the configuration, and again whenever the primary's changes, until ctx ends; the same for the kubeconfig and the service
// account. Programs that somebody takes away, as an upgrade of the folder's other plugins may, it puts back. What is installed stays when
// Keep ends. What fails is logged, and tried again.
func (n *Node) Keep(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { n.follow(ctx, []string{n.Conf.Dir}, n.writeConf) })
	if n.Kubeconfig.Path != "" {
		all.Go(func() {
			n.follow(ctx, []string{n.Kubeconfig.AccountDir, filepath.Dir(n.Kubeconfig.Path)}, n.writeKubeconfig)
		})
	}
	if len(n.Programs.Names) > 0 {
		all.Go(func() { n.follow(ctx, []string{n.Programs.To}, n.putBackPrograms) })
	}
	all.Wait()
}

// turn is what an act leaves.
type turn struct {
	// also are folders to watch, beside those that always are.
	also []string
	// rest is how long to wait before the next act in any case.
	rest time.Duration
	// failed asks for another act soon, also without a change.
	failed bool
}

// follow acts now, and after each change of the folders, until ctx ends.
func (n *Node) follow(ctx context.Context, dirs []string, act func() turn) {
	var also []string
	for ctx.Err() == nil {
		w, err := dirwatch.New(slices.Concat(dirs, also)...)
		if err != nil {
			n.Log.Error("changes are noticed late", "every", retryPause, "error", err)
			also = act().also
			pause(ctx, retryPause)
			continue
		}
		also = n.watch(ctx, w, also, act)
		w.Close()
	}
}

// watch acts after each change until other folders are to be watched, which it returns, or the watch breaks.
func (n *Node) watch(ctx context.Context, w *dirwatch.Watch, also []string, act func() turn) []string {
	for {
		t := act()
		if !slices.Equal(t.also, also) {
			return t.also
		}
		pause(ctx, t.rest)
		if err := wait(ctx, w, t.failed); err != nil {
			if ctx.Err() == nil {
				n.Log.Error("changes are noticed late", "every", retryPause, "error", err)
				pause(ctx, retryPause)
			}
			return also
		}
	}
}

// wait returns when something has changed and nothing more does, or when it is time to try again.
func wait(ctx context.Context, w *dirwatch.Watch, failed bool) error {
	next, cancel := ctx, func() {}
	if failed {
		next, cancel = context.WithTimeout(ctx, retryPause)
	}
	err := w.Wait(next)
	timeUp := next.Err() != nil && ctx.Err() == nil
	cancel()
	if timeUp {
		return nil
	}
	if err != nil {
		return err
	}
	most, cancel := context.WithTimeout(ctx, settleMost)
	defer cancel()
	for most.Err() == nil {
		quiet, cancel := context.WithTimeout(most, settle)
		err := w.Wait(quiet)
		over := quiet.Err() != nil
		cancel()
		if over {
			break
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (n *Node) writeConf() turn {
	o, err := n.Conf.Write()
	n.mu.Lock()
	n.state, n.tried = err, true
	n.mu.Unlock()
	n.tell(o, err)
	t := turn{also: o.folders, failed: err != nil && !errors.Is(err, ErrNoPrimary) && !errors.Is(err, ErrNotFirst)}
	if o.Wrote {
		t.rest = n.contest.rest(time.Now(), bytes.Equal(o.data, n.written))
		n.written = o.data
		if t.rest > 0 {
			n.Log.Warn("another program took Plexus' configuration away; it is there again", "path", filepath.Join(n.Conf.Dir, ConfName),
				"mend", "let that program leave the files of others alone (Cilium: cni.exclusive=false), or take it off the node", "nextLookIn", t.rest)
		}
	}
	return t
}

// tell logs what is new about the configuration.
func (n *Node) tell(o Outcome, err error) {
	text := strings.Join(o.Warnings, "\n")
	if err != nil {
		text += "\n" + err.Error()
	}
	if isNew := text != n.told; isNew {
		n.told = text
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
	err := n.Kubeconfig.Write()
	if err != nil {
		n.Log.Error("kubeconfig not written; what was there stays", "error", err)
	}
	return turn{failed: err != nil}
}

// putBackPrograms leaves those alone that are there, also if they are others: two releases must not fight for a name.
func (n *Node) putBackPrograms() turn {
	missing := n.Programs.missing()
	var err error
	if len(missing.Names) > 0 {
		err = missing.Install()
	}
	n.mu.Lock()
	n.programs = err
	n.mu.Unlock()
	switch {
	case err != nil:
		n.Log.Error("programs not put back: no pod starts without them", "error", err)
		return turn{failed: true}
	case len(missing.Names) == 0:
		return turn{}
	}
	rest := n.takers.rest(time.Now(), true)
	n.Log.Warn("somebody took Plexus' programs away; they are there again", "folder", n.Programs.To, "programs", missing.Names, "nextLookIn", rest)
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
