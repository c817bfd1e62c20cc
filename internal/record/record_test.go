// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// doc has one field of each kind that records have.
type doc struct {
	Version int             `json:"version"`
	Name    string          `json:"name,omitempty"`
	Args    map[string]any  `json:"args,omitempty"`
	Pairs   [][2]string     `json:"pairs,omitempty"`
	Raw     json.RawMessage `json:"raw,omitempty"`
}

func TestSaveThenLoadGivesTheSameDocument(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := record.Open[doc](dir)
	want := &doc{Version: 1, Name: "<&>", Args: map[string]any{"x": []any{"y", 1.5}}, Pairs: [][2]string{{"K", "v=w"}}, Raw: json.RawMessage(`{"type":"bridge"}`)}
	for range 2 { // The second one replaces.
		must(t, s.Save("id-eth0", want))
		got, err := s.Load("id-eth0")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Load (-want +got):\n%s", diff)
		}
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "id-eth0.json"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s: %o, want %o", path, got, want)
		}
	}
	if names := list(t, dir); !cmp.Equal(names, []string{"id-eth0.json"}) {
		t.Errorf("directory holds %q", names)
	}
}

func TestStoreTouchesNothingBeforeTheFirstSave(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "records")
	s := record.Open[doc](dir)
	if _, err := s.Load("k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load: %v, want not exist", err)
	}
	if keys, err := s.Keys(); err != nil || len(keys) != 0 {
		t.Errorf("Keys: %q, %v", keys, err)
	}
	must(t, s.Delete("k"))
	if err := s.Quarantine("k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Quarantine: %v, want not exist", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory was made: %v", err)
	}
}

func TestLoadOfWhatIsNoDocumentIsCorrupt(t *testing.T) {
	t.Parallel()
	file := func(content string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			must(t, os.WriteFile(path, []byte(content), 0o600))
		}
	}
	tests := map[string]func(t *testing.T, path string){
		"empty":           file(""),
		"truncated":       file(`{"version":1,"name":"x`),
		"null":            file("null"),
		"wrong type":      file(`{"version":"one"}`),
		"two documents":   file(`{}{}`),
		"not JSON":        file("\x00\x01\x02"),
		"too deep":        file(`{"args":{"x":` + strings.Repeat("[", 20000)),
		"larger than max": file(`{"name":"` + strings.Repeat("x", record.MaxBytes) + `"}`),
		"directory":       func(t *testing.T, path string) { t.Helper(); must(t, os.Mkdir(path, 0o700)) },
		"FIFO":            func(t *testing.T, path string) { t.Helper(); must(t, syscall.Mkfifo(path, 0o600)) },
		"symbolic link":   func(t *testing.T, path string) { t.Helper(); must(t, os.Symlink("/dev/zero", path)) },
	}
	for name, plant := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "k.json")
			plant(t, path)
			s := record.Open[doc](dir)
			_, err := s.Load("k")
			if !errors.Is(err, record.ErrCorrupt) || !strings.Contains(err.Error(), path) {
				t.Fatalf("Load: %v, want ErrCorrupt that names %s", err, path)
			}
			// It is in the way of nothing, and kept.
			must(t, s.Quarantine("k"))
			if _, err := s.Load("k"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Load after Quarantine: %v, want not exist", err)
			}
			if names := list(t, dir); !cmp.Equal(names, []string{"k.json.corrupt"}) {
				t.Errorf("directory holds %q", names)
			}
			if keys, err := s.Keys(); err != nil || len(keys) != 0 {
				t.Errorf("Keys: %q, %v", keys, err)
			}
		})
	}
}

func TestNoDamageIsTakenForAnotherDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	want := &doc{Version: 7, Name: "net1", Args: map[string]any{"ip": "10.1.2.3"}, Raw: json.RawMessage(`{"type":"bridge","mtu":1500}`)}
	must(t, s.Save("k", want))
	path := filepath.Join(dir, "k.json")
	whole, err := os.ReadFile(path)
	must(t, err)
	try := func(how string, damaged []byte) {
		t.Helper()
		must(t, os.WriteFile(path, damaged, 0o600))
		got, err := s.Load("k")
		if err != nil && !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", how, err)
		}
		if err == nil && !cmp.Equal(want, got) {
			t.Errorf("%s: loaded as %+v", how, got)
		}
	}
	for i := range whole {
		for bit := range 8 {
			damaged := slices.Clone(whole)
			damaged[i] ^= 1 << bit
			try(fmt.Sprintf("bit %d of byte %d", bit, i), damaged)
		}
		try(fmt.Sprintf("cut off at byte %d", i), whole[:i])
		zeroed := slices.Clone(whole)
		clear(zeroed[i:])
		try(fmt.Sprintf("zeros from byte %d", i), zeroed)
	}
}

func TestQuarantineReplacesAnOlderOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	for _, content := range []string{"first", "second"} {
		must(t, os.WriteFile(filepath.Join(dir, "k.json"), []byte(content), 0o600))
		must(t, s.Quarantine("k"))
	}
	got, err := os.ReadFile(filepath.Join(dir, "k.json.corrupt"))
	if err != nil || string(got) != "second" {
		t.Errorf("kept %q, %v", got, err)
	}
}

func TestHalfWrittenDocumentOfAKilledWriterIsIgnored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	temporary := filepath.Join(dir, ".k.tmp")
	half := []byte(`{"version":2,"name":"` + strings.Repeat("x", 1000))

	must(t, os.WriteFile(temporary, half, 0o600))
	if _, err := s.Load("k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load: %v, want not exist", err)
	}
	if keys, err := s.Keys(); err != nil || len(keys) != 0 {
		t.Errorf("Keys: %q, %v", keys, err)
	}
	must(t, s.Save("k", &doc{Version: 1}))
	if got, err := s.Load("k"); err != nil || got.Version != 1 || got.Name != "" {
		t.Errorf("Load after Save: %+v, %v", got, err)
	}
	must(t, os.WriteFile(temporary, half, 0o600))
	must(t, s.Delete("k"))
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("Delete left %q", names)
	}
}

func TestFailedSaveKeepsTheOldDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	must(t, s.Save("k", &doc{Version: 1}))
	if err := s.Save("k", &doc{Version: 2, Args: map[string]any{"x": func() {}}}); err == nil {
		t.Error("Save of what JSON can not express succeeded")
	}
	if err := s.Save("k", &doc{Version: 2, Name: strings.Repeat("x", record.MaxBytes)}); err == nil || !strings.Contains(err.Error(), "larger than the limit") {
		t.Errorf("Save of a document larger than the limit: %v", err)
	}
	must(t, os.Mkdir(filepath.Join(dir, ".k.tmp"), 0o700)) // The next write fails at its first step.
	if err := s.Save("k", &doc{Version: 2}); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, ".k.tmp")) {
		t.Errorf("Save over a directory: %v", err)
	}
	if got, err := s.Load("k"); err != nil || got.Version != 1 {
		t.Errorf("Load: %+v, %v", got, err)
	}
}

func TestDeleteIsIdempotent(t *testing.T) {
	t.Parallel()
	s := record.Open[doc](t.TempDir())
	must(t, s.Save("k", &doc{}))
	must(t, s.Delete("k"))
	must(t, s.Delete("k"))
}

func TestKeysAreSortedAndAnyInterfaceNameIsOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	want := []string{"id-eth0", "../../etc/passwd", "..-eth0", ".lock", "id-%41", "id-a%b", "id-eth0.json", "id-nét@5", "id-\x00"}
	for _, key := range want {
		must(t, s.Save(key, &doc{Name: key}))
	}
	for _, foreign := range []string{"plain", ".hidden.json", "%zz.json", "%2.json", "%61.json", "a b.json", ".json", "id-eth0.json.corrupt", "id-eth0.lock"} {
		must(t, os.WriteFile(filepath.Join(dir, foreign), nil, 0o600))
	}
	got, err := s.Keys()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Keys (-want +got):\n%s", diff)
	}
	for _, key := range got {
		if d, err := s.Load(key); err != nil || d.Name != key {
			t.Errorf("Load(%q): %+v, %v", key, d, err)
		}
	}
}

func TestUnusableKeyIsRefusedByEveryMethod(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	for name, key := range map[string]string{"empty": "", "too long": strings.Repeat("x", 243), "too long when encoded": strings.Repeat(" ", 81)} {
		_, errLoad := s.Load(key)
		_, errLock := s.Lock(t.Context(), key)
		for method, err := range map[string]error{
			"Save": s.Save(key, &doc{}), "Load": errLoad, "Delete": s.Delete(key), "Quarantine": s.Quarantine(key), "Lock": errLock,
		} {
			if err == nil || !strings.Contains(err.Error(), "key") {
				t.Errorf("%s key: %s: %v", name, method, err)
			}
		}
	}
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("directory holds %q", names)
	}
	must(t, s.Save(strings.Repeat("x", 242), &doc{}))
	must(t, s.Quarantine(strings.Repeat("x", 242)))
}

func TestFullFileSystemIsNamedWithTheMendAndLosesNothing(t *testing.T) {
	t.Parallel()
	dir := mount(t, "size=64k")
	s := record.Open[doc](dir)
	must(t, s.Save("k", &doc{Version: 1}))
	err := s.Save("k", &doc{Version: 2, Name: strings.Repeat("x", 1<<20)})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space or inodes on the file system of "+dir) {
		t.Errorf("Save: %v", err)
	}
	if names := list(t, dir); !cmp.Equal(names, []string{"k.json"}) {
		t.Errorf("directory holds %q: the half-written file takes space that the next call needs", names)
	}
	if got, err := s.Load("k"); err != nil || got.Version != 1 {
		t.Errorf("Load: %+v, %v", got, err)
	}
	must(t, s.Save("k", &doc{Version: 3}))
}

func TestReadOnlyFileSystemIsNamedWithTheMend(t *testing.T) {
	t.Parallel()
	dir := mount(t, "")
	s := record.Open[doc](dir)
	must(t, s.Save("k", &doc{Version: 1}))
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	_, errLock := s.Lock(t.Context(), "k")
	for method, err := range map[string]error{
		"Save": s.Save("k", &doc{Version: 2}), "Delete": s.Delete("k"), "Quarantine": s.Quarantine("k"), "Lock": errLock,
	} {
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "mount the file system of "+dir+" read-write") {
			t.Errorf("%s: %v", method, err)
		}
	}
	if got, err := s.Load("k"); err != nil || got.Version != 1 {
		t.Errorf("Load: %+v, %v", got, err)
	}
}

// FuzzLoad: whatever is in the file, Load gives ErrCorrupt or a document that survives Save and Load unchanged.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", "[]", `{"version":1}`, `{"version":1e400}`, `{"name":"\ud800"}`, `{"name":"` + "\xff" + `"}`, `{"raw": [1, {"a" : null}]}`,
		`{"raw":null}`, `{"args":{"x":1e308,"y":null}}`, `{"pairs":[["a"],["b","c","d"],null]}`, `{"VERSION":2}`, `{} {}`, "{\"version\":1}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "k.json"), content, 0o600))
		s := record.Open[doc](dir)
		first, err := s.Load("k")
		if errors.Is(err, record.ErrCorrupt) {
			return
		}
		must(t, err)
		must(t, s.Save("k", first))
		second, err := s.Load("k")
		must(t, err)
		// Compared as JSON: an empty map and a missing one are the same document, and so is other white space in Raw.
		want, err := json.Marshal(first)
		must(t, err)
		got, err := json.Marshal(second)
		must(t, err)
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("Save and Load changed it (-want +got):\n%s", diff)
		}
	})
}

// FuzzKeys: a key that can be saved is listed as it was, and is the only one.
func FuzzKeys(f *testing.F) {
	for _, seed := range []string{"id-eth0", ".", "..", "../x", "%", "%41", "a/b", "é", "\xff", ".json", "a.lock", strings.Repeat("x", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		dir := t.TempDir()
		s := record.Open[doc](filepath.Join(dir, "records"))
		if err := s.Save(key, &doc{}); err != nil {
			if key != "" && len(key) <= 80 {
				t.Errorf("Save(%q): %v", key, err)
			}
			return
		}
		keys, err := s.Keys()
		must(t, err)
		if diff := cmp.Diff([]string{key}, keys); diff != "" {
			t.Errorf("Keys (-want +got):\n%s", diff)
		}
		if names := list(t, dir); !cmp.Equal(names, []string{"records"}) {
			t.Errorf("written outside the store: %q", names)
		}
	})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// mount gives a file system of its own, for tests that fill it or make it read-only.
func mount(t *testing.T, options string) string {
	t.Helper()
	testenv.RequireRoot(t)
	dir := t.TempDir()
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAnEditedRecordNeedsNoChecksum(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	if err := s.Save("k", &doc{Name: "was"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "k.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), "was", "now", 1)
	seal := regexp.MustCompile(`,"crc32":"[0-9a-f]{8}"`)
	for name, tc := range map[string]struct{ text, says string }{
		"with the checksum of before": {edited, `takes out "crc32"`},
		"without":                     {seal.ReplaceAllString(edited, ""), ""},
		"in several lines":            {strings.ReplaceAll(edited, ",", ",\n "), ""},
	} {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load("k")
		if tc.says == "" && (err != nil || got.Name != "now") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if tc.says != "" && (!errors.Is(err, record.ErrCorrupt) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v; want it refused with %s", name, err, tc.says)
		}
	}
}
