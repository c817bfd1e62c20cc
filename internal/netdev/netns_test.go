// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestCreateNetNSMakesAFreshOneWithLoUp(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	kernel := netdev.NewLinux()
	path := filepath.Join(t.TempDir(), "netns", "web")
	if err := kernel.CreateNetNS(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kernel.DeleteNetNS(path) })
	if same, err := kernel.SameNetNS(path); err != nil || same {
		t.Errorf("SameNetNS = %v, %v; want another namespace than the test's", same, err)
	}
	links, err := kernel.Links(path)
	if err != nil || len(links) == 0 || links[0].Name != "lo" || !links[0].Up {
		t.Errorf("Links = %+v, %v; want lo, up", links, err)
	}
	if err := kernel.CreateNetNS(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second CreateNetNS = %v; want an error that matches fs.ErrExist", err)
	}
	if is, err := kernel.IsNetNS(path); err != nil || !is {
		t.Errorf("IsNetNS after the refused one = %v, %v; want true", is, err)
	}
	if err := kernel.DeleteNetNS(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after DeleteNetNS: %v; want nothing at the path", err)
	}
}

func TestDeleteNetNSOfWhatIsNone(t *testing.T) {
	t.Parallel()
	kernel := netdev.NewLinux()
	dir := t.TempDir()
	empty, document := filepath.Join(dir, "empty"), filepath.Join(dir, "document")
	for path, content := range map[string]string{empty: "", document: "keep me"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := kernel.DeleteNetNS(filepath.Join(dir, "absent")); err != nil {
		t.Errorf("nothing at the path: %v; want success", err)
	}
	if err := kernel.DeleteNetNS(empty); err != nil {
		t.Errorf("the file that a crash leaves: %v; want success", err)
	}
	for _, path := range []string{document, dir} {
		if err := kernel.DeleteNetNS(path); err == nil {
			t.Errorf("%s was deleted; want a refusal", path)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone: %v", path, err)
		}
	}
}
