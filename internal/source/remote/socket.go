// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/plexus-cni/plexus/internal/dirwatch"
)

// SocketName is the name of the daemon's socket in its folder, the configuration's daemonSocketDir.
const SocketName = "plexus.sock"

// NewSocket returns a Client of the daemon whose socket is in dir. Until a call's deadline it waits for a daemon that is not there
// yet, and connects again when the daemon is restarted.
func NewSocket(dir string) *Client { return NewSocketOf(dir, 0) }

// NewSocketOf is NewSocket for a daemon that another user runs, as in tests: it trusts sockets of owner, a user ID.
func NewSocketOf(dir string, owner uint32) *Client {
	path := filepath.Join(dir, SocketName)
	c := newClient("daemon socket "+path, func(ctx context.Context) (io.ReadWriteCloser, error) { return dialSocket(ctx, path, owner) })
	c.watch = func() (watcher, error) { return dirwatch.New(dir) }
	return c
}

func dialSocket(ctx context.Context, path string, owner uint32) (io.ReadWriteCloser, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it does not exist: is plexusd running on this node?")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFinal, err)
	}
	if err = checkSocket(info, owner); err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errors.New("no daemon listens: plexusd has stopped, or is being restarted")
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

// checkSocket refuses what somebody else than the daemon could have put there or could talk through: whoever answers says what a
// pod is attached to.
func checkSocket(info fs.FileInfo, owner uint32) error {
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w: it is no socket but %s: remove it, and restart plexusd", errFinal, info.Mode())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != owner {
		return fmt.Errorf("%w: it belongs to user %d, and must to user %d: run plexusd as that user, and make sure that nobody else can write to the folder", errFinal, st.Uid, owner)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("%w: others can write to it (mode %04o): chmod 0600", errFinal, perm)
	}
	return nil
}
