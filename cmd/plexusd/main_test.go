// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/dirwatch"
)

// TestUninstall runs alone: a command sets the process' loggers.
func TestUninstall(t *testing.T) {
	conf, bin := t.TempDir(), t.TempDir()
	kubeconfig := filepath.Join(conf, "plexus.d", "kubeconfig")
	primary := filepath.Join(conf, "10-a.conf")
	files := map[string]string{
		filepath.Join(conf, "00-plexus.conflist"): `{"cniVersion":"1.0.0","name":"plexus","plugins":[{"type":"plexus"}]}`,
		primary:                                  `{"type":"bridge"}`,
		kubeconfig:                               "x",
		filepath.Join(conf, "plexus.d", "token"): "x",
		filepath.Join(bin, "plexus"):             "x",
		filepath.Join(bin, "plexusd"):            "x",
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := newCommand()
	cmd.SetArgs([]string{"uninstall", "--stay", "--conf-dir=" + conf, "--bin-dir=" + bin, "--one-shot-kubeconfig=" + kubeconfig})
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	w, err := dirwatch.New(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for entries := []os.DirEntry{nil}; len(entries) > 0; {
		if entries, err = os.ReadDir(bin); err != nil {
			t.Fatal(err)
		}
		if len(entries) > 0 {
			if err = w.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("it did not stay: %v", err)
	case <-time.After(100 * time.Millisecond): // it would have ended by now
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	files[filepath.Dir(kubeconfig)] = "" // its folder goes too
	for path := range files {
		if _, err := os.Stat(path); (err == nil) != (path == primary) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestCommandRefuses runs alone: a command sets the process' loggers.
func TestCommandRefuses(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(`{"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"a daemon of no node":         {[]string{"serve", "--node-name="}, "NODE_NAME"},
		"no work at all":              {[]string{"serve", "--node-name=n1", "--max-in-flight=0"}, "--max-in-flight 0"},
		"a kubeconfig that is not":    {[]string{"serve", "--node-name=n1", "--kubeconfig=" + none}, none},
		"a lookup without kubeconfig": {[]string{"lookup", "--kubeconfig=" + none}, none},
		"a socket without its path":   {[]string{"lookup", "--kubeconfig=" + kubeconfig, "--pod-resources-socket=kubelet.sock"}, "--pod-resources-socket"},
		"an unknown level":            {[]string{"version", "--log-level=loud"}, "loud"},
		"programs that are not there": {[]string{"install", "--bin-source=" + none, "--bin-dir=" + t.TempDir()}, none},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := newCommand()
			cmd.SetArgs(tc.args)
			cmd.SetOut(&bytes.Buffer{})
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("plexusd %v = %v, want an error saying %q", tc.args, err, tc.says)
			}
		})
	}
}
