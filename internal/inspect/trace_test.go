// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// logged writes lines at a time: an attribute "at" in seconds after a moment becomes the line's time.
func logged(t *testing.T, handler slog.Handler, level slog.Level, seconds float64, msg string, attrs ...any) {
	t.Helper()
	r := slog.NewRecord(now.Add(time.Duration(seconds*float64(time.Second))), level, msg, 0)
	r.Add(attrs...)
	if err := handler.Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if strings.HasSuffix(path, ".gz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		data = b.Bytes()
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTraceReadsLogAndBackups(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "plexus.log")
	web := []any{"pod", "shop/web", "containerID", "c1"}
	with := func(more ...any) []any { return append(append([]any{}, more...), web...) }

	var oldest, older, newest bytes.Buffer
	h := handlers["text"](&oldest)
	logged(t, h, slog.LevelError, 2, "ADD failed", with("verb", "ADD", "took", 1500*time.Millisecond, "error", "no\nlink")...)
	logged(t, h, slog.LevelInfo, 2, "ADD done", "verb", "ADD", "pod", "shop/web2", "containerID", "c9")
	h = handlers["json"](&older)
	logged(t, h, slog.LevelInfo, 10, "ADD done", with("verb", "ADD", "took", 4*time.Second, slog.Group("steps", "lookup", 2*time.Millisecond, "note", "x"))...)
	logged(t, h, slog.LevelWarn, 7, "a warning", with("why", "because")...)
	h = handlers["text"](&newest)
	logged(t, h, slog.LevelDebug, 20, "CHECK steps", with("verb", "CHECK", "took", time.Second, slog.Group("steps", "attach eth0", time.Millisecond))...)
	logged(t, h, slog.LevelInfo, 20, "CHECK done", with("verb", "CHECK", "took", time.Second)...)
	logged(t, h, slog.LevelInfo, 30, "undo what an earlier ADD of this sandbox left", "containerID", "c1", "ifName", "eth0")
	logged(t, h, slog.LevelInfo, 31, "undo what an earlier ADD of this sandbox left", "containerID", "c2", "ifName", "eth0")
	logged(t, h, slog.LevelDebug, 40, "DEL steps", with("verb", "DEL", "took", time.Second, slog.Group("steps", "forget", 0))...)
	newest.WriteString("time=2026-03-04T05:06:50Z level=INFO msg=\"DEL do shop/web")
	newest.WriteString("\nshop/web " + strings.Repeat("x", maxLine+10) + "\n")
	logged(t, h, slog.LevelInfo, 60, "DEL done", with("verb", "DEL")...)

	write(t, filepath.Join(dir, "plexus-20260101T000000Z.log.gz"), oldest.Bytes())
	write(t, filepath.Join(dir, "plexus-20260102T000000Z.log.gz"), older.Bytes())
	write(t, filepath.Join(dir, "plexus-20260102T000000Z.log"), older.Bytes()) // left by a crash while it was compressed
	write(t, filepath.Join(dir, "plexus-notes.log"), oldest.Bytes())           // no backup
	write(t, log, newest.Bytes())
	// It is rotated while it is read.
	if err := os.Link(log, filepath.Join(dir, "plexus-20260103T000000Z.log")); err != nil {
		t.Fatal(err)
	}

	at := func(s float64) time.Time { return now.Add(time.Duration(s * float64(time.Second))) }
	want := []Event{
		{Time: at(0.5), Pod: "shop/web", ContainerID: "c1", Verb: "ADD", Took: 1500 * time.Millisecond, Failed: true, Text: "no\nlink"},
		{
			Time: at(6), Pod: "shop/web", ContainerID: "c1", Verb: "ADD", Took: 4 * time.Second,
			Steps: []Step{{Name: "lookup", Took: 2 * time.Millisecond}, {Name: "note", Text: "x"}},
		},
		{Time: at(7), Pod: "shop/web", ContainerID: "c1", Failed: true, Text: "a warning why=because"},
		{Time: at(19), Pod: "shop/web", ContainerID: "c1", Verb: "CHECK", Took: time.Second, Steps: []Step{{Name: "attach eth0", Took: time.Millisecond}}},
		{Time: at(30), ContainerID: "c1", Text: "undo what an earlier ADD of this sandbox left ifName=eth0"},
		{
			Time: at(39), Pod: "shop/web", ContainerID: "c1", Verb: "DEL", Took: time.Second,
			Text: "the log does not say how it ended", Steps: []Step{{Name: "forget"}},
		},
		{Time: at(60), Pod: "shop/web", ContainerID: "c1", Verb: "DEL"},
	}
	same := cmp.Options{cmpopts.IgnoreUnexported(Event{}), cmpopts.EquateApproxTime(0)}
	for _, subject := range []Subject{{Pod: "shop/web", ContainerIDs: []string{"c1"}}, {Pod: "web", ContainerIDs: []string{"c1"}}} {
		got, err := Trace(log, subject, 100)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, same); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", subject, diff)
		}
	}
	for most := range len(want) {
		got, err := Trace(log, Subject{Pod: "shop/web", ContainerIDs: []string{"c1"}}, most+1)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[len(want)-most-1:], got, same); diff != "" {
			t.Errorf("the last %d (-want +got):\n%s", most+1, diff)
		}
	}
}

func TestTraceWithoutALog(t *testing.T) {
	t.Parallel()
	for _, path := range []string{filepath.Join(t.TempDir(), "absent.log"), filepath.Join(t.TempDir(), "absent", "x.log")} {
		if got, err := Trace(path, Subject{Pod: "a/b"}, 10); err != nil || got != nil {
			t.Errorf("Trace of %s = %v, %v; want nothing", path, got, err)
		}
	}
}

func TestTraceOfADamagedBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "plexus-20260101T000000Z.log.gz")
	if err := os.WriteFile(file, []byte("no gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Trace(filepath.Join(dir, "plexus.log"), Subject{Pod: "a/b"}, 10); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Trace = %v; want an error that names %s", err, file)
	}
}

func TestScanLinesPassesOverLongLines(t *testing.T) {
	t.Parallel()
	text := "one\n" + strings.Repeat("x", 3*maxLine) + "\ntwo\r\n\nlast"
	var got []string
	if err := scanLines(strings.NewReader(text), func(l []byte) { got = append(got, fmt.Sprintf("%.10s", l)) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "two", "", "last"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
