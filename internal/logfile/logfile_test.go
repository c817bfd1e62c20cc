// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/bounded"
)

// clock is a time that tests move by hand.
type clock struct{ time.Time }

func newClock() *clock { return &clock{time.Date(2026, 3, 29, 1, 2, 3, 0, time.UTC)} }

func (c *clock) now() time.Time { return c.Time }

func (c *clock) advance(d time.Duration) { c.Time = c.Add(d) }

// openSmall opens a log file that holds maxBytes.
func openSmall(t *testing.T, path string, maxBytes int64, opts Options, now func() time.Time) *file {
	t.Helper()
	f, err := open(path, opts, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // Some tests closed it.
	f.maxBytes = maxBytes
	return f
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

// tree returns the content of each file of a folder, unzipped, without the empty lock.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".lock") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name(), gzipSuffix) {
			r, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				t.Fatalf("%s: %v", e.Name(), err)
			}
			if b, err = io.ReadAll(r); err != nil {
				t.Fatalf("%s: %v", e.Name(), err)
			}
		}
		files[e.Name()] = string(b)
	}
	return files
}

func TestRotation(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name   string
		file   string
		opts   Options
		step   time.Duration // between two writes, each of which but the first rotates
		writes []string
		want   map[string]string
	}{
		{
			name: "nothing is rotated as long as it fits", file: "a.log", writes: []string{"1234", "5678"},
			want: map[string]string{"a.log": "12345678"},
		},
		{
			name: "a full file becomes a backup with the time in its name", file: "a.log", step: time.Hour,
			writes: []string{"first.", "second."},
			want:   map[string]string{"a.log": "second.", "a-20260329T020203Z.log": "first."},
		},
		{
			name: "rotations of one second are numbered", file: "a.log",
			writes: []string{"first.", "second.", "third.", "fourth."},
			want: map[string]string{
				"a.log": "fourth.", "a-20260329T010203Z.log": "first.", "a-20260329T010203Z-1.log": "second.", "a-20260329T010203Z-2.log": "third.",
			},
		},
		{
			name: "a name without an extension", file: "plexus", step: time.Hour, writes: []string{"first.", "second."},
			want: map[string]string{"plexus": "second.", "plexus-20260329T020203Z": "first."},
		},
		{
			name: "a name that is all extension", file: ".log", opts: Options{MaxBackups: 1}, step: time.Hour,
			writes: []string{"first.", "second.", "third."},
			want:   map[string]string{".log": "third.", "-20260329T030203Z.log": "second."},
		},
		{
			name: "a write beyond the limit is written whole, to a file of its own", file: "a.log", step: time.Hour,
			writes: []string{"longer than the limit.", "next."},
			want:   map[string]string{"a.log": "next.", "a-20260329T020203Z.log": "longer than the limit."},
		},
		{
			name: "the newest backups are kept", file: "a.log", opts: Options{MaxBackups: 2}, step: time.Hour,
			writes: []string{"first.", "second.", "third.", "fourth."},
			want:   map[string]string{"a.log": "fourth.", "a-20260329T030203Z.log": "second.", "a-20260329T040203Z.log": "third."},
		},
		{
			name: "five backups are kept by default", file: "a.log",
			writes: []string{"first.", "second.", "third.", "fourth.", "fifth.", "sixth.", "seventh."},
			want: map[string]string{
				"a.log": "seventh.", "a-20260329T010203Z-1.log": "second.", "a-20260329T010203Z-2.log": "third.",
				"a-20260329T010203Z-3.log": "fourth.", "a-20260329T010203Z-4.log": "fifth.", "a-20260329T010203Z-5.log": "sixth.",
			},
		},
		{
			name: "old backups go", file: "a.log", opts: Options{MaxAgeDays: 2}, step: 3 * day / 2,
			writes: []string{"first.", "second.", "third.", "fourth."},
			want:   map[string]string{"a.log": "fourth.", "a-20260401T010203Z.log": "second.", "a-20260402T130203Z.log": "third."},
		},
		{
			name: "all backups but the newest are compressed", file: "a.log", opts: Options{Compress: true}, step: time.Hour,
			writes: []string{"first.", "second.", "third.", "fourth."},
			want: map[string]string{
				"a.log": "fourth.", "a-20260329T020203Z.log.gz": "first.", "a-20260329T030203Z.log.gz": "second.", "a-20260329T040203Z.log": "third.",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, now := t.TempDir(), newClock()
			f := openSmall(t, filepath.Join(dir, tc.file), 8, tc.opts, now.now)
			for i, s := range tc.writes {
				if i > 0 {
					now.advance(tc.step)
				}
				write(t, f, s)
			}
			if diff := cmp.Diff(tc.want, tree(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBackupsOfBeforeTheClockWasSetBackGoFirst(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	f := openSmall(t, filepath.Join(dir, "a.log"), 8, Options{MaxBackups: 2}, now.now)
	write(t, f, "first.")
	now.advance(1000 * time.Hour)
	write(t, f, "second.")
	now.advance(-1000 * time.Hour)
	for _, s := range []string{"third.", "fourth."} {
		now.advance(time.Hour)
		write(t, f, s)
	}
	want := map[string]string{"a.log": "fourth.", "a-20260329T020203Z.log": "second.", "a-20260329T030203Z.log": "third."}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestOnlyOwnBackupsAreRemoved(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	want := map[string]string{"a.log": "second.", "a-20260329T010203Z.log": "first."}
	for _, foreign := range []string{
		"a-notes.log", "a-20200101T000000Z.txt", "a-20200101T000000Z-x.log", "b-20200101T000000Z.log", "a-20200101T000000Z.log.bak", "a-.log",
	} {
		want[foreign] = "keep"
		if err := os.WriteFile(filepath.Join(dir, foreign), []byte("keep"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a-20200101T000000Z.log"), []byte("go"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := openSmall(t, filepath.Join(dir, "a.log"), 8, Options{MaxBackups: 1}, now.now)
	write(t, f, "first.")
	write(t, f, "second.")
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestOpenAppendsAndCreatesTheFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "var", "log")
	path := filepath.Join(dir, "a.log")
	for range 2 {
		f, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		write(t, f, "line\n")
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]string{"a.log": "line\nline\n"}, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for name, limit := range map[string]fs.FileMode{dir: dirMode, path: fileMode} {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if extra := fi.Mode().Perm() &^ limit; extra != 0 {
			t.Errorf("%s: mode %v has more than %v", name, fi.Mode(), limit)
		}
	}
}

func TestDefaultSize(t *testing.T) {
	t.Parallel()
	f := openSmall(t, filepath.Join(t.TempDir(), "a.log"), 0, Options{}, time.Now)
	if got := f.opts; got != (Options{MaxSizeMB: 100, MaxBackups: 5}) {
		t.Errorf("defaults: %+v", got)
	}
	g, err := open(f.path, Options{MaxSizeMB: 3}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if g.maxBytes != 3<<20 {
		t.Errorf("3 MiB are %d bytes", g.maxBytes)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path string
		want       error
	}{
		{"on a folder", dir, syscall.EISDIR},
		{"below a file", filepath.Join(plain, "a.log"), syscall.ENOTDIR},
		{"on a FIFO without a reader, and does not wait for one", fifo, syscall.ENXIO},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, err := Open(tc.path, Options{})
			if !errors.Is(err, tc.want) {
				t.Errorf("Open: %v, want %v", err, tc.want)
			}
			if err == nil {
				_ = f.Close() // Only to not leak it.
			}
		})
	}
}

// TestLinksAreNotFollowed: whoever may write into the folder of the log must not choose what root writes to.
func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, log := filepath.Join(dir, "target"), filepath.Join(dir, "plexus.log")
	if err := errors.Join(os.WriteFile(target, []byte("kept"), 0o600), os.Symlink("target", log)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(log, Options{}); !errors.Is(err, bounded.ErrNotOwn) {
		t.Errorf("Open of a link: %v", err)
	}
	if err := errors.Join(os.Remove(log), os.Symlink("target", log+".lock")); err != nil {
		t.Fatal(err)
	}
	f := openSmall(t, log, 8, Options{}, time.Now)
	write(t, f, "longer than the limit")
	if _, err := f.Write([]byte("it would rotate")); !errors.Is(err, bounded.ErrNotOwn) {
		t.Errorf("Write with a lock file that is a link: %v", err)
	}
	if got, err := os.ReadFile(target); err != nil || string(got) != "kept" {
		t.Errorf("the target holds %q, %v", got, err)
	}
}

func TestDeviceIsNotRotated(t *testing.T) {
	t.Parallel()
	f := openSmall(t, os.DevNull, 8, Options{}, time.Now)
	for range 3 {
		write(t, f, "longer than the limit")
	}
}

func TestWriteGoesOnInTheNewFile(t *testing.T) {
	t.Parallel()
	for name, takeAway := range map[string]func(path string) error{
		"after a rotation by another process": func(path string) error { return os.Rename(path, path+".1") },
		"after a removal":                     os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "a.log")
			f := openSmall(t, path, 100, Options{}, time.Now)
			write(t, f, "before\n")
			if err := takeAway(path); err != nil {
				t.Fatal(err)
			}
			write(t, f, "after\n")
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != "after\n" {
				t.Errorf("new file: %q", got)
			}
		})
	}
}

func TestWriteDoesNotWaitForAnotherRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := openSmall(t, filepath.Join(dir, "a.log"), 8, Options{}, newClock().now)
	write(t, f, "first.")
	lock, err := os.Create(f.path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	write(t, f, "second.")
	if diff := cmp.Diff(map[string]string{"a.log": "first.second."}, tree(t, dir)); diff != "" {
		t.Errorf("while another process rotates (-want +got):\n%s", diff)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, f, "third.")
	if diff := cmp.Diff(map[string]string{"a-20260329T010203Z.log": "first.second.", "a.log": "third."}, tree(t, dir)); diff != "" {
		t.Errorf("after it (-want +got):\n%s", diff)
	}
}

func TestAFailedRotationLosesNoLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := openSmall(t, filepath.Join(dir, "a.log"), 8, Options{}, time.Now)
	write(t, f, "first.")
	if err := os.Mkdir(f.path+".lock", 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := io.WriteString(f, "second.")
	if n != len("second.") || !errors.Is(err, syscall.EISDIR) {
		t.Errorf("Write: %d, %v", n, err)
	}
	if diff := cmp.Diff(map[string]string{"a.log": "first.second."}, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestWriteAfterClose(t *testing.T) {
	t.Parallel()
	f := openSmall(t, filepath.Join(t.TempDir(), "a.log"), 8, Options{}, time.Now)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
}

func TestTwoThatFindAFileFullRotateItOnce(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	path := filepath.Join(dir, "a.log")
	quick, slow := openSmall(t, path, 8, Options{}, now.now), openSmall(t, path, 8, Options{}, now.now)
	write(t, quick, "first.")
	full, err := slow.f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	write(t, quick, "second.") // Rotates, after slow saw the full file and before it comes to rotate that.
	if err := slow.rotate(full); err != nil {
		t.Fatal(err)
	}
	write(t, slow, "3")
	if diff := cmp.Diff(map[string]string{"a-20260329T010203Z.log": "first.", "a.log": "second.3"}, tree(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// Locks and O_APPEND belong to the open file, so several of them in one process are as good as several processes.
func TestManyWritersLoseAndMixNoLine(t *testing.T) {
	t.Parallel()
	const writers, lines, maxBytes = 8, 300, 2000
	dir := t.TempDir()
	var group sync.WaitGroup
	for w := range writers {
		f := openSmall(t, filepath.Join(dir, "a.log"), maxBytes, Options{MaxBackups: writers * lines}, time.Now)
		group.Go(func() {
			for i := range lines {
				if _, err := fmt.Fprintf(f, "writer %d line %d\n", w, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()

	files := tree(t, dir)
	seen := map[string]int{}
	for name, content := range files {
		for line := range strings.Lines(content) {
			seen[line]++
		}
		// Rotated twice for one overflow, a file would be near empty. The margin is for lines of others between check and rename.
		if name != "a.log" && len(content) < maxBytes/2 {
			t.Errorf("%s has only %d bytes: rotated before it was full", name, len(content))
		}
	}
	for w := range writers {
		for i := range lines {
			if line := fmt.Sprintf("writer %d line %d\n", w, i); seen[line] != 1 {
				t.Errorf("%q is there %d times", line, seen[line])
			}
		}
	}
	if len(seen) != writers*lines {
		t.Errorf("%d different lines, want %d", len(seen), writers*lines)
	}
	if len(files) < 5 {
		t.Errorf("only %d files: this rotated too little to test anything", len(files))
	}
}

// Conformance case T11. Not parallel: it counts what the whole process has.
func TestT11TenThousandRequestsLeakNothing(t *testing.T) {
	// The collector closes files that were forgotten, which would hide a leak.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	path := filepath.Join(t.TempDir(), "a.log")
	opts := Options{MaxBackups: 3, Compress: true}
	longLived := openSmall(t, path, 4000, opts, time.Now)
	request := func(i int) {
		f, err := open(path, opts, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		f.maxBytes = longLived.maxBytes
		for _, w := range []io.Writer{f, longLived} {
			if _, err := fmt.Fprintf(w, "request %d\n", i); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	request(0)
	descriptors, goroutines := countDescriptors(t), runtime.NumGoroutine()
	for i := range 10_000 {
		request(i + 1)
	}
	if got := countDescriptors(t); got > descriptors {
		t.Errorf("%d descriptors became %d", descriptors, got)
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines became %d", goroutines, got)
	}
	if got := len(tree(t, filepath.Dir(path))); got != 4 {
		t.Errorf("%d files, want the log and 3 backups", got)
	}
}

func countDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
