// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writeFile puts data into path, for root alone, unless it is there already, and says whether it did. A reader sees the old file or
// the new one.
func writeFile(path string, data []byte) (bool, error) {
	return replace(path, bytes.NewReader(data), 0o600)
}

// replace puts what r has into path, unless it is there already. A program that runs goes on with the file that it was started
// from. The temporary file's name is one that no runtime takes for a configuration.
func replace(path string, r io.ReadSeeker, mode fs.FileMode) (bool, error) {
	same, err := isSame(path, r, mode)
	if same || err != nil {
		return false, err
	}
	if _, err = r.Seek(0, io.SeekStart); err != nil {
		return false, fmt.Errorf("install %s: %w", path, err)
	}
	if err = removeTemporary(path); err != nil {
		return false, fmt.Errorf("install %s: %w", path, err)
	}
	before, after := temporary(path)
	tmp, err := os.CreateTemp(filepath.Dir(path), before+"*"+after)
	if err != nil {
		return false, denied(filepath.Dir(path), fmt.Errorf("install %s: %w", path, err))
	}
	_, copyErr := io.Copy(tmp, r)
	err = errors.Join(copyErr, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("install %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return true, syncDir(filepath.Dir(path))
}

// temporary is what the names of temporary files for path begin and end with.
func temporary(path string) (string, string) { return "." + filepath.Base(path) + ".", ".tmp" }

// removeTemporary removes what one who was killed on the way left: at each crash it could be another program of some megabytes.
func removeTemporary(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	before, after := temporary(path)
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, before) && strings.HasSuffix(name, after) {
			if err := os.Remove(filepath.Join(filepath.Dir(path), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// syncDir makes a rename survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// isSame reports whether path has this mode and all that r has.
func isSame(path string, r io.Reader, mode fs.FileMode) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, denied(path, fmt.Errorf("install %s: %w", path, err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode() != mode {
		return false, err
	}
	return sameContent(f, r)
}

func sameContent(a, b io.Reader) (bool, error) {
	const size = 64 << 10
	left, right := make([]byte, size), make([]byte, size)
	for {
		n, leftErr := io.ReadFull(a, left)
		m, rightErr := io.ReadFull(b, right)
		if !bytes.Equal(left[:n], right[:m]) {
			return false, nil
		}
		for _, err := range []error{leftErr, rightErr} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, fmt.Errorf("compare: %w", err)
			}
		}
		if leftErr != nil || rightErr != nil {
			return leftErr != nil && rightErr != nil, nil
		}
	}
}

// Programs are what is copied to where the container runtime runs it from.
type Programs struct {
	// From and To are folders.
	From, To string
	Names    []string
}

// Install copies the programs, each atomically and only if it is another. It also replaces one that runs.
func (p Programs) Install() error {
	if err := os.MkdirAll(p.To, 0o755); err != nil {
		return fmt.Errorf("install programs: %w", err)
	}
	for _, name := range p.Names {
		if err := binary(filepath.Join(p.From, name), filepath.Join(p.To, name)); err != nil {
			return err
		}
	}
	return nil
}

// missing are those of the programs that are not there.
func (p Programs) missing() Programs {
	p.Names = slices.DeleteFunc(slices.Clone(p.Names), func(name string) bool {
		_, err := os.Lstat(filepath.Join(p.To, name))
		return !errors.Is(err, fs.ErrNotExist)
	})
	return p
}

func binary(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	defer f.Close()
	_, err = replace(to, f, 0o755)
	return err
}
