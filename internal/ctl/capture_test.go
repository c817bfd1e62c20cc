// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/plexus-cni/plexus/internal/bounded"
)

func TestCaptureKeepsNoModeAndFollowsNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "web.pcap"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("of an earlier capture"), 0o600), os.Chmod(file, 0o666), os.Symlink("web.pcap", link)); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateFile(link); !errors.Is(err, bounded.ErrNotOwn) {
		t.Errorf("CreateFile of a link: %v", err)
	}
	f, err := CreateFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 || info.Size() != 0 {
		t.Errorf("mode %v, %d bytes, %v; want 0600 and none", info.Mode(), info.Size(), err)
	}
}
