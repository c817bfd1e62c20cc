// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/e2e/image"
)

// tools is the folder with the programs of the guest, and of the preparation, as their packages have them.
type tools struct{ dir string }

func (t tools) busybox() string { return filepath.Join(t.dir, "bin", "busybox") }

// unxz writes what is in an xz file to w. busybox's does not know the filter that a kernel is compressed with.
func (t tools) unxz(ctx context.Context, file string, w io.Writer) error {
	xz := unpacked(t.dir, "usr/bin/xz")
	cmd := exec.CommandContext(ctx, xz[0], append(xz[1:], "--decompress", "--stdout", file)...)
	var failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &failure
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("uncompress %s: %w: %s", file, err, bytes.TrimSpace(failure.Bytes()))
	}
	return nil
}

// uncompressModules writes all modules of a folder as they are loaded: the guest's first process and its busybox know no
// compressed ones, as Debian has since Linux 6.10 or so.
func (t tools) uncompressModules(ctx context.Context, dir string) error {
	var files []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko.xz") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	xz := unpacked(t.dir, "usr/bin/xz")
	for some := range slices.Chunk(files, 500) { // As long as a command line may be.
		if err := command(ctx, xz[0], slices.Concat(xz[1:], []string{"--decompress"}, some)...); err != nil {
			return err
		}
	}
	return nil
}

// extract unpacks a folder of an archive, name.tar.xz, into dir.
func (t tools) extract(ctx context.Context, archive, folder, dir string) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	tar := exec.CommandContext(ctx, t.busybox(), "tar", "-x", "-C", dir, "-f", "-", folder)
	var failure bytes.Buffer
	tar.Stdin, tar.Stderr = read, &failure
	err = errors.Join(tar.Start(), read.Close())
	if err != nil {
		return errors.Join(err, write.Close())
	}
	err = errors.Join(t.unxz(ctx, archive, write), write.Close())
	if errTar := tar.Wait(); errTar != nil {
		err = errors.Join(err, fmt.Errorf("unpack %s: %w: %s", archive, errTar, bytes.TrimSpace(failure.Bytes())))
	}
	return err
}

// toolPrograms are what the guest has of iproute2.
func toolPrograms() []string { return []string{"/bin/ip", "/sbin/bridge", "/sbin/devlink", "/sbin/tc"} }

// addTo adds iproute2 and the libraries that it is linked with.
func (t tools) addTo(spec image.Spec) error {
	for _, program := range toolPrograms() {
		to := path.Join("/sbin", path.Base(program))
		delete(spec.Links, path.Join("/bin", path.Base(program))) // That of busybox.
		spec.Files[to] = filepath.Join(t.dir, program)
	}
	// The loader is where the programs say that it is, the libraries where the loader looks.
	spec.Files["/lib64/"+loader] = filepath.Join(t.dir, "lib", libraries, loader)
	pending := toolPrograms()
	for len(pending) > 0 {
		file := pending[0]
		pending = pending[1:]
		needed, err := importedLibraries(filepath.Join(t.dir, file))
		if err != nil {
			return err
		}
		for _, name := range needed {
			to := path.Join("/lib", libraries, name)
			if _, ok := spec.Files[to]; ok {
				continue
			}
			from, err := t.findLibrary(name)
			if err != nil {
				return err
			}
			spec.Files[to] = filepath.Join(t.dir, from)
			pending = append(pending, from)
		}
	}
	// Names of tables and protocols: Debian has moved them from the one folder to the other.
	for _, dir := range []string{"etc/iproute2", "usr/share/iproute2"} {
		names, err := fs.Glob(os.DirFS(t.dir), dir+"/*")
		if err != nil {
			return err
		}
		for _, name := range names {
			if info, err := os.Stat(filepath.Join(t.dir, name)); err == nil && info.Mode().IsRegular() {
				spec.Files["/"+name] = filepath.Join(t.dir, name)
			}
		}
	}
	return nil
}

func importedLibraries(file string) ([]string, error) {
	program, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = program.Close() }()
	return program.ImportedLibraries()
}

// findLibrary is the path of a library among the tools' packages.
func (t tools) findLibrary(name string) (string, error) {
	for _, dir := range []string{"lib", "usr/lib"} {
		found := filepath.Join(dir, libraries, name)
		if _, err := os.Stat(filepath.Join(t.dir, found)); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("library %s is in none of the packages", name)
}
