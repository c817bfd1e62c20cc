// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package bounded

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

func TestReadFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, []byte("12345"), 0o600), os.Symlink("file", link), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path string
		most int64
		says string // "" for success
		is   error
	}{
		"a file of fewer bytes":         {file, 6, "", nil},
		"a file of just as many":        {file, 5, "", nil},
		"a link to one":                 {link, 5, "", nil},
		"one of more bytes":             {file, 4, file + " has more than 4 bytes", ErrTooLarge},
		"a folder":                      {dir, 9, dir + " is not a regular file", nil},
		"a FIFO, which nobody waits at": {fifo, 9, fifo + " is not a regular file", nil},
		"none":                          {file + "x", 9, file + "x", fs.ErrNotExist},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := ReadFile(tc.path, tc.most)
			if tc.says == "" {
				if err != nil || string(data) != "12345" {
					t.Errorf("ReadFile = %q, %v", data, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) || tc.is != nil && !errors.Is(err, tc.is) || data != nil {
				t.Errorf("ReadFile = %q, %v, want an error that says %q", data, err, tc.says)
			}
		})
	}
}

func TestReadAllTellsWhatFailed(t *testing.T) {
	t.Parallel()
	if _, err := ReadAll(strings.NewReader("12345"), 4); !errors.Is(err, ErrTooLarge) || err.Error() != "more than 4 bytes" {
		t.Errorf("ReadAll of more: %v", err)
	}
	if _, err := ReadAll(iotest.ErrReader(io.ErrUnexpectedEOF), 4); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAll: %v", err)
	}
}
