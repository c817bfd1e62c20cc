// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package bounded

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOpenOwn(t *testing.T) {
	t.Parallel()
	const stranger = 65534
	root := os.Geteuid() == 0
	for name, tc := range map[string]struct {
		needsRoot bool
		// given makes the file f, or what else is in its place, in a folder, and returns the path to open.
		given func(dir string) (string, error)
		says  string // "" for success
	}{
		"a new file": {given: func(dir string) (string, error) { return filepath.Join(dir, "f"), nil }},
		"one's own": {given: func(dir string) (string, error) {
			f := filepath.Join(dir, "f")
			return f, os.WriteFile(f, []byte("old"), 0o640)
		}},
		"a device": {given: func(string) (string, error) { return os.DevNull, nil }},
		"a folder": {given: func(dir string) (string, error) { return dir, nil }, says: "is a directory"},
		"a link":   {given: func(dir string) (string, error) { f := filepath.Join(dir, "f"); return f, os.Symlink("target", f) }, says: "is a link"},
		"a second name": {given: func(dir string) (string, error) {
			f := filepath.Join(dir, "f")
			return f, errors.Join(os.WriteFile(f, nil, 0o600), os.Link(f, f+"2"))
		}, says: "has 2 names"},
		"a FIFO without a reader": {
			given: func(dir string) (string, error) { f := filepath.Join(dir, "f"); return f, syscall.Mkfifo(f, 0o600) },
			says:  "no such device or address",
		},
		"a FIFO with a reader": {
			given: func(dir string) (string, error) {
				f := filepath.Join(dir, "f")
				if err := syscall.Mkfifo(f, 0o600); err != nil {
					return "", err
				}
				reader, err := os.OpenFile(f, os.O_RDONLY|syscall.O_NONBLOCK, 0)
				if err == nil {
					t.Cleanup(func() { _ = reader.Close() })
				}
				return f, err
			},
			says: "is no regular file",
		},
		"a file of a stranger": {
			needsRoot: true,
			given: func(dir string) (string, error) {
				f := filepath.Join(dir, "f")
				return f, errors.Join(os.WriteFile(f, nil, 0o666), os.Chown(f, stranger, stranger))
			},
			says: "belongs to user 65534",
		},
		"through a link of one's own": {
			given: func(dir string) (string, error) {
				return filepath.Join(dir, "l", "f"), errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o750), os.Symlink("d", filepath.Join(dir, "l")))
			},
		},
		"through a link that leads to itself": {
			given: func(dir string) (string, error) {
				return filepath.Join(dir, "l", "f"), os.Symlink("l", filepath.Join(dir, "l"))
			},
			says: "too many levels of symbolic links",
		},
		"through a link in a stranger's folder": {
			needsRoot: true,
			given: func(dir string) (string, error) {
				return filepath.Join(dir, "d", "l", "f"), errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o755), os.Symlink(dir, filepath.Join(dir, "d", "l")),
					os.Chown(filepath.Join(dir, "d"), stranger, stranger))
			},
			says: "is a link that another user may have made",
		},
		"through a link to such a link": {
			needsRoot: true,
			given: func(dir string) (string, error) {
				return filepath.Join(dir, "l", "f"), errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o755), os.Symlink(dir, filepath.Join(dir, "d", "l")),
					os.Chown(filepath.Join(dir, "d"), stranger, stranger), os.Symlink("d/l", filepath.Join(dir, "l")))
			},
			says: "d/l is a link that another user may have made",
		},
		"through a link in a folder that others write to": {
			given: func(dir string) (string, error) {
				return filepath.Join(dir, "d", "l", "f"), errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o750), os.Symlink(dir, filepath.Join(dir, "d", "l")),
					os.Chmod(filepath.Join(dir, "d"), 0o777))
			},
			says: "is a link that another user may have made",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.needsRoot && !root {
				t.Skip("only root can give files away")
			}
			path, err := tc.given(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenOwn(path, os.O_WRONLY, 0o600)
			if err == nil {
				_ = f.Close()
			}
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("OpenOwn = %v; want %q", err, tc.says)
			}
		})
	}
}
