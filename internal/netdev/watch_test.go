// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"context"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestWatchTellsOfChanges(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	changes, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- netdev.NewLinux().Watch(ctx, a, func() {
			select {
			case changes <- struct{}{}:
			default: // one is told already
			}
		})
	}()
	h := testenv.Handle(t, a)
	link, err := h.LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	// The watch may not be there yet, and whether it is, only a change tells.
	for told := false; !told; {
		if err := h.LinkSetDown(link); err != nil {
			t.Fatal(err)
		}
		if err := h.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changes:
			told = true
		case err := <-done:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("after the end of its context: %v", err)
	}
	if err := netdev.NewLinux().Watch(t.Context(), "/nonexistent", nil); err == nil {
		t.Error("no error for a namespace that is not there")
	}
}
