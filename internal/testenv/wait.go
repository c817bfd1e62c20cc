// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Eventually asks, until the answer is yes, what nobody announces. After limit it ends the test with what was waited for.
func Eventually(tb testing.TB, limit time.Duration, is func() bool, what func() string) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("waited %v in vain: %s", limit, what())
		}
	}
}

// Socket listens on a Unix socket until the end of the test.
func Socket(tb testing.TB) *net.UnixListener {
	tb.Helper()
	dir, err := os.MkdirTemp("", "socket") //nolint:usetesting // Paths of sockets have at most 108 bytes, and folders of tests are named after the tests.
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l
}
