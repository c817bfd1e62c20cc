// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command daemon answers lookups from a folder of manifests behind the socket of the node's daemon: daemon SOCKET-FOLDER MANIFEST-FOLDER.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/internal/source/remote"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: daemon SOCKET-FOLDER MANIFEST-FOLDER")
		os.Exit(2)
	}
	// It serves until it can not, or is killed.
	fmt.Fprintln(os.Stderr, serve(context.Background(), filepath.Join(os.Args[1], remote.SocketName), os.Args[2]))
	os.Exit(1)
}

func serve(ctx context.Context, socket, manifests string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // one that a killed daemon left is in the way
	}
	syscall.Umask(0o177)
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := remote.Serve(ctx, conn, manifest.New(manifests)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
}
