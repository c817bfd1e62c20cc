// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package dirwatch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/dirwatch"
)

// limit bounds each wait of a test that works; it is long only on a machine that is very busy.
const limit = 30 * time.Second

func TestChangesWake(t *testing.T) {
	t.Parallel()
	tests := map[string]func(dir string) error{
		"a file that is made":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o600) },
		"a file that is written": func(dir string) error { return os.WriteFile(filepath.Join(dir, "old"), []byte("x"), 0o600) },
		"a file that is renamed": func(dir string) error { return os.Rename(filepath.Join(dir, "old"), filepath.Join(dir, "other")) },
		"a file that is removed": func(dir string) error { return os.Remove(filepath.Join(dir, "old")) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			w := watch(t, dir)
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			wait(t, w)
		})
	}
}

func TestAFolderThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "a", "b")
	file := filepath.Join(dir, "file")
	w := watch(t, dir)
	for _, step := range []func() error{
		func() error { return os.Mkdir(filepath.Join(base, "a"), 0o700) },
		func() error { return os.Mkdir(dir, 0o700) },
		func() error { return os.WriteFile(file, nil, 0o600) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		wait(t, w)
	}
}

// TestAFolderThatIsMadeAtTheSameTime guards against one that comes between the look at it and the watch on its parent.
func TestAFolderThatIsMadeAtTheSameTime(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	for i := range 300 {
		dir := filepath.Join(base, strconv.Itoa(i))
		made := make(chan error, 1)
		go func() { made <- os.Mkdir(dir, 0o700) }()
		w := watch(t, dir)
		if err := <-made; err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		wait(t, w)
		w.Close()
	}
}

func TestSeveralFolders(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	chain := filepath.Join(base, "chain") // not there yet: its parent is watched for it too
	w, err := dirwatch.New(base, chain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	for _, step := range []func() error{
		func() error { return os.Mkdir(chain, 0o700) },
		func() error { return os.WriteFile(filepath.Join(chain, "file"), nil, 0o600) },
		func() error { return os.WriteFile(filepath.Join(base, "file"), nil, 0o600) },
		func() error { return os.RemoveAll(chain) },
		func() error { return os.Mkdir(chain, 0o700) },
		func() error { return os.WriteFile(filepath.Join(chain, "again"), nil, 0o600) },
	} {
		drain(t, w)
		if err := step(); err != nil {
			t.Fatal(err)
		}
		wait(t, w)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := watch(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Wait = %v, want context.Canceled", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wait(t, w) // it can be waited for again
}

func watch(t *testing.T, dir string) *dirwatch.Watch {
	t.Helper()
	w, err := dirwatch.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// drain takes what is left of changes that were told by several events.
func drain(t *testing.T, w *dirwatch.Watch) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := w.Wait(ctx)
		cancel()
		if err != nil {
			return
		}
	}
}

func wait(t *testing.T, w *dirwatch.Watch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := w.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}
