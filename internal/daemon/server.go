// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/internal/pause"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/remote"
)

const (
	// maxSessions bounds the open sessions. It is more than a node has pods, of which some are being attached at a time. Further
	// connections wait in the kernel's queue.
	maxSessions = 512
	// idleTimeout ends a session in which nothing is sent. The plugin waits for its delegates between lookup and report; if they take
	// longer it starts another session.
	idleTimeout = 5 * time.Minute
	// acceptPause is the pause after an accept that failed, for want of descriptors.
	acceptPause = 100 * time.Millisecond
)

// Server serves the sessions of a node.
type Server struct {
	Source source.Source
	Log    *slog.Logger
	// Peer is the ID of the user whose programs may ask: root's, but in tests.
	Peer uint32
	// Sessions bounds the open sessions, and Idle how long one may be silent; 0 for the defaults, which only tests change.
	Sessions int
	Idle     time.Duration
}

// Socket is what a daemon listens on.
type Socket struct {
	*net.UnixListener

	path string
	made fs.FileInfo
}

// Check reports whether plugins still find the socket. Who cleans up in its folder, or another daemon that came and went, can leave this
// one where nobody asks it.
func (s *Socket) Check() error {
	info, err := os.Lstat(s.path)
	if err != nil {
		return fmt.Errorf("the socket has been removed: %w", err)
	}
	if !os.SameFile(info, s.made) {
		return fmt.Errorf("the socket %s is another daemon's by now", s.path)
	}
	return nil
}

// Listen makes the socket in dir, mode 0600 in a folder of mode 0700. It replaces the one of a daemon before, so that there is one
// at any time.
func Listen(ctx context.Context, dir string) (*Socket, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("socket folder: %w", err)
	}
	// The folder may be a mount that somebody else made.
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a folder, not a file
		return nil, fmt.Errorf("socket folder: %w", err)
	}
	path := filepath.Join(dir, remote.SocketName)
	// Bound aside and renamed: who connects meets either daemon, never a socket that does not listen yet.
	aside := path + ".new"
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket that a daemon before left: %w", err)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", aside)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %T is no Unix socket", path, l)
	}
	// The file stays when the daemon stops: a new daemon may have put its own there.
	listener.SetUnlinkOnClose(false)
	modeErr := os.Chmod(aside, 0o600)
	made, statErr := os.Lstat(aside) // the name may be somebody else's once it is renamed
	if err = errors.Join(modeErr, statErr, os.Rename(aside, path)); err != nil {
		_ = listener.Close() // what went wrong before is told
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &Socket{UnixListener: listener, path: path, made: made}, nil
}

// Serve serves sessions until ctx ends, which ends them: plugins connect to the next daemon.
func (s *Server) Serve(ctx context.Context, l *Socket) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // wakes AcceptUnix
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, cmp.Or(s.Sessions, maxSessions))
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			<-slots
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept: %w", err)
			}
			s.Log.Error("accept", "error", err)
			pause.For(ctx, acceptPause)
			continue
		}
		all.Go(func() {
			defer func() { <-slots }()
			s.session(ctx, conn)
		})
	}
}

func (s *Server) session(ctx context.Context, conn *net.UnixConn) {
	defer func() { _ = conn.Close() }() // all that was sent was written before
	uid, err := peer(conn)
	if err == nil && uid != s.Peer {
		err = fmt.Errorf("user %d may not ask: only programs of user %d may, as the plugin is", uid, s.Peer)
	}
	if err == nil {
		err = remote.Serve(ctx, &bounded{UnixConn: conn, idle: cmp.Or(s.Idle, idleTimeout)}, s.Source)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		s.Log.Warn("session ended", "error", err)
	}
}

// peer is the user that connected (unix(7), SO_PEERCRED).
func peer(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("peer: %w", err)
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("peer: %w", err)
	}
	return cred.Uid, nil
}

// bounded is a connection whose other side is not waited for endlessly.
type bounded struct {
	*net.UnixConn

	idle time.Duration
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.SetReadDeadline(time.Now().Add(b.idle)); err != nil {
		return 0, err
	}
	return b.UnixConn.Read(p)
}

func (b *bounded) Write(p []byte) (int, error) {
	if err := b.SetWriteDeadline(time.Now().Add(b.idle)); err != nil {
		return 0, err
	}
	return b.UnixConn.Write(p)
}
