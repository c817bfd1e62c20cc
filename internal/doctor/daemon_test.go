// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/remote"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// readiness is a source of which only Ready counts.
type readiness struct{ err error }

func (r readiness) Lookup(context.Context, source.Query) (*source.Selection, error) {
	return &source.Selection{}, nil
}
func (r readiness) Report(context.Context, source.Report) error { return nil }
func (r readiness) Ready(context.Context) error                 { return r.err }

// serve answers on the daemon's socket in dir.
func serve(t *testing.T, dir string, answer func(conn net.Conn)) {
	t.Helper()
	path := filepath.Join(dir, remote.SocketName)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				answer(conn)
			}()
		}
	}()
}

func TestDaemon(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer func(t *testing.T) func(net.Conn)
		code   string
		text   string
	}{
		"is ready": {answer: func(t *testing.T) func(net.Conn) {
			t.Helper()
			return func(c net.Conn) { _ = remote.Serve(t.Context(), c, readiness{}) }
		}},
		"is not ready": {answer: func(t *testing.T) func(net.Conn) {
			t.Helper()
			return func(c net.Conn) { _ = remote.Serve(t.Context(), c, readiness{errors.New("pods are not listed yet")}) }
		}, code: DaemonNotReady, text: "pods are not listed yet"},
		"is of another version": {answer: func(t *testing.T) func(net.Conn) {
			t.Helper()
			return func(c net.Conn) {
				_, _ = c.Read(make([]byte, 4096))
				body := `{"version":99,"kind":"answer"}`
				_, _ = c.Write(append([]byte{0, 0, 0, byte(len(body))}, body...))
			}
		}, code: DaemonVersion, text: "version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testenv.RequireRoot(t)
			dir := t.TempDir()
			serve(t, dir, tc.answer(t))
			n := newTestNode(t, fmt.Sprintf(`"daemonSocketDir":%q,`, dir))
			found := n.examine(t)
			if tc.code == "" {
				if len(bad(found)) > 0 {
					t.Errorf("found %s", show(found))
				}
				return
			}
			wantOnly(t, found, tc.code, tc.text)
		})
	}
}
