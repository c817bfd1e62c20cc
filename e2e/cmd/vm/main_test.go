// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilesAreNamedAfterTheirSourceUnlessTheyHaveAName(t *testing.T) {
	t.Parallel()
	got := files{}
	for _, value := range []string{"bin/plexus", "bin/cni/host-local:cni/host-local"} {
		if err := got.Set(value); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(files{"plexus": "bin/plexus", "cni/host-local": "bin/cni/host-local"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"", ":name", "source:"} {
		if err := got.Set(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
