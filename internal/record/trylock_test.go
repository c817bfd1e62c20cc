// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"path/filepath"
	"testing"

	"github.com/plexus-cni/plexus/internal/record"
)

func TestTryLockAllDoesNotWait(t *testing.T) {
	t.Parallel()
	d := record.OpenDir(filepath.Join(t.TempDir(), "not", "there", "yet"))
	first, err := d.TryLockAll()
	if err != nil || first == nil {
		t.Fatalf("TryLockAll = %v, %v", first, err)
	}
	if second, err := d.TryLockAll(); err != nil || second != nil {
		t.Errorf("TryLockAll of what somebody has = %v, %v", second, err)
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	if again, err := d.TryLockAll(); err != nil || again == nil {
		t.Errorf("TryLockAll after Unlock = %v, %v", again, err)
	}
}
