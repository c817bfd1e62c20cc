// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// leaveSocket leaves the file of a socket that nobody listens on.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOneCheckHidesNoOther(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	d := &Doctor{Timeout: 500 * time.Millisecond}
	good := newFinding(PluginSlow, "plugin x", "slow", "mend")
	found := d.run(t.Context(), nil, []check{
		{"panics", func(context.Context, *node) ([]Finding, error) { panic("at the disco") }},
		{"hangs", func(context.Context, *node) ([]Finding, error) { <-never; return nil, nil }},
		{"fails", func(context.Context, *node) ([]Finding, error) {
			return []Finding{good}, errors.New("half way")
		}},
		{"heeds its time", func(ctx context.Context, _ *node) ([]Finding, error) {
			<-ctx.Done()
			return []Finding{good}, ctx.Err()
		}},
		{"succeeds", func(context.Context, *node) ([]Finding, error) { return []Finding{good}, nil }},
	})
	var got []string
	for _, f := range found {
		got = append(got, f.Code+" "+f.Object)
	}
	want := []string{
		"check-failed check panics", "check-failed check hangs", "plugin-slow plugin x", "check-failed check fails",
		"plugin-slow plugin x", "check-failed check heeds its time", "plugin-slow plugin x",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %s\nwant %q", show(found), want)
	}
}
