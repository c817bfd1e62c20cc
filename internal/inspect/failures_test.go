// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFailuresTellsWhoseLastADDFailed(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "plexus.log")
	line := func(minute int, verb, outcome, pod, err string) string {
		return fmt.Sprintf("time=2026-11-23T10:%02d:00Z level=INFO msg=\"%s %s\" verb=%s pod=%s containerID=c took=1s error=%q\n", minute, verb, outcome, verb, pod, err)
	}
	text := strings.Repeat("a line of somebody else\n", 200_000) + // more than is read
		line(1, "ADD", "failed", "default/old", "too long ago") +
		line(10, "ADD", "failed", "default/again", "first") +
		line(11, "ADD", "failed", "default/mended", "was broken") +
		line(12, "ADD", "failed", "default/again", "second") +
		line(13, "ADD", "done", "default/mended", "") +
		line(14, "DEL", "failed", "default/del", "not an ADD") +
		line(15, "ADD", "failed", "default/late", "no such network")
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(minute int) time.Time { return time.Date(2026, 11, 23, 10, minute, 0, 0, time.UTC) }
	got, err := Failures(log, at(5))
	if err != nil {
		t.Fatal(err)
	}
	want := []Failure{
		{Pod: "default/again", Time: at(12), Count: 2, Text: "second"},
		{Pod: "default/late", Time: at(15), Count: 1, Text: "no such network"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err := Failures(filepath.Join(t.TempDir(), "none"), at(5)); err != nil || len(got) > 0 {
		t.Errorf("without a log: %v, %v", got, err)
	}
}
