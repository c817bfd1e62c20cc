// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"time"

	"github.com/plexus-cni/plexus/internal/dirwatch"
	"github.com/plexus-cni/plexus/internal/inspect"
)

// settle is how long changes are gathered before the next look: a pod that starts makes dozens within some milliseconds.
const settle = 100 * time.Millisecond

// netnsWatcher tells of changes in a network namespace.
type netnsWatcher interface {
	Watch(ctx context.Context, netns string, changed func()) error
}

// watcher shows pods, again after each change of their records or namespaces.
type watcher struct {
	out io.Writer
	// show writes what there is, and returns the pods.
	show func(w io.Writer) ([]inspect.Pod, error)
	// stateDirs have the records.
	stateDirs []string
	// kernel is nil where only the records are looked at.
	kernel netnsWatcher
	// clear is written before each look: what clears a terminal, or parts one look from the next.
	clear string
}

// run goes on until ctx is done, which is how it ends.
func (w *watcher) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := make(chan struct{}, 1)
	changed := func() {
		select {
		case changes <- struct{}{}:
		default: // one is on its way
		}
	}
	failed := make(chan error, 1)
	if err := w.watchRecords(ctx, changed, failed); err != nil {
		return err
	}
	watched := map[string]context.CancelFunc{}
	var last []byte
	for {
		var text bytes.Buffer
		pods, err := w.show(&text)
		if err != nil {
			return err
		}
		if !bytes.Equal(text.Bytes(), last) || last == nil {
			if _, err := io.WriteString(w.out, w.separator(last == nil)+text.String()); err != nil {
				return err
			}
			last = append([]byte{}, text.Bytes()...)
		}
		w.watchNamespaces(ctx, pods, watched, changed)
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-changes:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
	}
}

// separator stands before a look.
func (w *watcher) separator(first bool) string {
	if first && w.clear == "\n" {
		return ""
	}
	return w.clear
}

// watchRecords watches the folders of records, from before the first look.
func (w *watcher) watchRecords(ctx context.Context, changed func(), failed chan<- error) error {
	var dirs []string
	for _, dir := range w.stateDirs {
		dirs = append(dirs, filepath.Join(dir, "records"))
	}
	records, err := dirwatch.New(dirs...)
	if err != nil {
		return err
	}
	go func() {
		defer records.Close()
		for {
			switch err := records.Wait(ctx); {
			case ctx.Err() != nil:
				return
			case err != nil:
				failed <- err
				return
			}
			changed()
		}
	}()
	return nil
}

// watchNamespaces watches the namespaces of the pods that are shown, and no longer those of others.
func (w *watcher) watchNamespaces(ctx context.Context, pods []inspect.Pod, watched map[string]context.CancelFunc, changed func()) {
	if w.kernel == nil {
		return
	}
	shown := map[string]bool{}
	for _, p := range pods {
		if p.NetNS == "" || p.State == inspect.Gone || shown[p.NetNS] {
			continue
		}
		shown[p.NetNS] = true
		if watched[p.NetNS] != nil {
			continue
		}
		each, cancel := context.WithCancel(ctx)
		watched[p.NetNS] = cancel
		go func() {
			// What cannot be watched is looked at again with the next change of the records, and says itself that it cannot be entered.
			_ = w.kernel.Watch(each, p.NetNS, changed)
		}()
		changed() // what changed between the look and the watch
	}
	for netns, cancel := range watched {
		if !shown[netns] {
			cancel()
			delete(watched, netns)
		}
	}
}
