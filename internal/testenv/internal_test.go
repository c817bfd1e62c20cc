// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDirectoriesOfDeadProcessesAreSweptAndNoOthers(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	ours, err := processDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	dead, other := filepath.Join(cache, "build-dead"), filepath.Join(cache, "other")
	for _, dir := range []string{filepath.Join(dead, "sub"), other} {
		if err = os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	second, err := processDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dead, err)
	}
	for _, dir := range []string{ours, second, other} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("swept by mistake: %v", err)
		}
	}
}

func TestCapabilitiesAreReadFromTheProcessStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]uint64{
		"Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n": 0x1ffffffffff,
		"CapEff:\t0000000000000000\n": 0,
	} {
		if got, err := parseCapEff(status); got != want || err != nil {
			t.Errorf("%q: %#x, %v, want %#x", status, got, err, want)
		}
	}
	for _, status := range []string{"", "Name:\tx\n", "CapEff:\tzz\n"} {
		if got, err := parseCapEff(status); err == nil {
			t.Errorf("%q: %#x, want an error", status, got)
		}
	}
}
