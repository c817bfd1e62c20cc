// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/e2e/image"
	"github.com/plexus-cni/plexus/e2e/vm/guest"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	f := files{kernel: "/k/vmlinux", initramfs: "/tmp/initramfs", work: "/work, of mine", output: "/proc/self/fd/3", console: "/proc/self/fd/4"}
	for name, config := range map[string]Config{
		"plain": {Verbose: true},
		"iommu": {PFs: 2, IOMMU: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, "commandline-"+name, strings.ReplaceAll(strings.Join(commandLine(config, f), " "), " -", "\n-")+"\n")
		})
	}
}

// readInitramfs lists the entries of an archive, one on a line: mode, device, links, name, body.
func readInitramfs(t *testing.T, archive []byte) []string {
	t.Helper()
	const headerSize = 110
	var entries []string
	for at := 0; ; {
		if at%4 != 0 || len(archive) < at+headerSize || string(archive[at:at+6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		field := func(n int) int {
			value, err := strconv.ParseUint(string(archive[at+6+8*n:at+14+8*n]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(value)
		}
		name, size := at+headerSize, field(6)
		body := (name + field(11) + 3) &^ 3
		end := (body + size + 3) &^ 3
		if end > len(archive) || archive[name+field(11)-1] != 0 {
			t.Fatalf("entry at %d is cut short", at)
		}
		entry := fmt.Sprintf("%06o %d:%d %d %s %s", field(1), field(9), field(10), field(4), archive[name:name+field(11)-1], archive[body:body+size])
		entries = append(entries, strings.TrimSpace(entry))
		if strings.Contains(entry, cpioTrailer) {
			if end != len(archive) {
				t.Errorf("%d bytes after the trailer", len(archive)-end)
			}
			return entries
		}
		at = end
	}
}

func TestInitramfsHasFoldersBeforeTheirFilesAndKeepsWhatCanBeExecuted(t *testing.T) {
	t.Parallel()
	program, data := filepath.Join(t.TempDir(), "program"), filepath.Join(t.TempDir(), "data")
	if err := errors.Join(os.WriteFile(program, []byte("code"), 0o700), os.WriteFile(data, []byte("12345"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := writeInitramfs(&archive, image.Spec{
		Files:   map[string]string{"/bin/program": program, "/lib/sub/data": data},
		Content: map[string]string{"/etc/hosts": "", "/a": "b"},
		Links:   map[string]string{"/bin/link": "program"},
		Dirs:    []string{"/run", "/"},
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"100644 0:0 1 a b",
		"040755 0:0 2 bin",
		"120777 0:0 1 bin/link program",
		"100755 0:0 1 bin/program code",
		"040755 0:0 2 dev",
		"020600 5:1 1 dev/console",
		"040755 0:0 2 etc",
		"100644 0:0 1 etc/hosts",
		"040755 0:0 2 lib",
		"040755 0:0 2 lib/sub",
		"100644 0:0 1 lib/sub/data 12345",
		"040755 0:0 2 run",
		"000000 0:0 1 TRAILER!!!",
	}
	if diff := cmp.Diff(want, readInitramfs(t, archive.Bytes())); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestInitramfsIsRefusedThatNoKernelCouldUnpack(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]image.Spec{
		"a file in a file":        {Content: map[string]string{"/a": "", "/a/b": ""}},
		"a file that is not here": {Files: map[string]string{"/a": filepath.Join(t.TempDir(), "none")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := writeInitramfs(io.Discard, spec); err == nil {
				t.Error("it was written")
			}
		})
	}
}

const (
	dep = `kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet.ko:
kernel/fs/netfs/netfs.ko: kernel/net/9p/9pnet.ko
kernel/drivers/vfio/vfio-pci.ko: kernel/fs/9p/9p.ko
kernel/loop.ko: kernel/loop-back.ko
kernel/loop-back.ko: kernel/loop.ko
`
	builtin = "kernel/net/packet/af_packet.ko\n"
)

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	t.Parallel()
	tree, err := parseModules(strings.NewReader(dep), strings.NewReader(builtin))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		names, want []string
		err         string
	}{
		"none":                    {nil, nil, ""},
		"one alone":               {[]string{"9pnet"}, []string{"kernel/net/9p/9pnet.ko"}, ""},
		"each once":               {[]string{"9p", "9pnet"}, []string{"kernel/net/9p/9pnet.ko", "kernel/fs/netfs/netfs.ko", "kernel/fs/9p/9p.ko"}, ""},
		"a hyphen for what is _":  {[]string{"af-packet"}, nil, ""},
		"an underscore for -":     {[]string{"loop_back"}, []string{"kernel/loop.ko", "kernel/loop-back.ko"}, ""},
		"unknown":                 {[]string{"9p", "none"}, nil, `kernel module "none"`},
		"not the path for a name": {[]string{""}, nil, `kernel module ""`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tree.order(test.names...)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %q", err, test.err)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestModulesThatDepmodDidNotWriteAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := parseModules(strings.NewReader("no colon\n"), strings.NewReader("")); err == nil {
		t.Error("a line without a colon was taken")
	}
}

func FuzzParseModules(f *testing.F) {
	f.Add(dep, builtin)
	f.Add(":", "")
	f.Fuzz(func(t *testing.T, dep, builtin string) {
		tree, err := parseModules(strings.NewReader(dep), strings.NewReader(builtin))
		if err != nil {
			return
		}
		for name := range tree.paths {
			ordered, err := tree.order(name, name)
			if err != nil {
				t.Fatalf("order of %q, which is there: %v", name, err)
			}
			sorted := slices.Sorted(slices.Values(ordered))
			if len(slices.Compact(sorted)) != len(ordered) {
				t.Errorf("order of %q has one twice: %q", name, ordered)
			}
			if tree.paths[name] != ordered[len(ordered)-1] {
				t.Errorf("order of %q does not end with it: %q", name, ordered)
			}
		}
	})
}

// bzImage is one whose payload is of a length and starts as an xz file does.
func bzImage(length int) []byte {
	image := make([]byte, 1024+16+length)
	image[0x1f1] = 1
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(image[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(image[0x248:], 16)
	binary.LittleEndian.PutUint32(image[0x24c:], uint32(length))
	copy(image[1024+16:], "\xfd7zXZ\x00rest")
	return image
}

func TestKernelIsFoundInItsImage(t *testing.T) {
	t.Parallel()
	got, err := bzImagePayload(bzImage(14))
	if err != nil || string(got) != "\xfd7zXZ\x00rest" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := bzImagePayload(bytes.ReplaceAll(bzImage(14), []byte(xzMagic), []byte(zstdMagic+"zs"))); err != nil || string(got) != zstdMagic+"zsrest" {
		t.Errorf("of zstd: got %q, %v", got, err)
	}
	for name, test := range map[string]struct {
		image []byte
		want  string
	}{
		"nothing":             {nil, "no bzImage"},
		"something else":      {make([]byte, 4096), "no bzImage"},
		"one cut short":       {bzImage(14)[:1024+20], "cut short"},
		"one without payload": {bzImage(0), "cut short"},
		"another compression": {bytes.ReplaceAll(bzImage(14), []byte("7zXZ"), []byte("gzip")), "compressed by neither xz nor zstd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := bzImagePayload(test.image); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func FuzzBzImagePayload(f *testing.F) {
	f.Add(bzImage(14))
	f.Add(bzImage(14)[:0x250])
	f.Fuzz(func(t *testing.T, image []byte) {
		payload, err := bzImagePayload(image)
		if err == nil && !bytes.Contains(image, payload) {
			t.Error("the payload is not in the image")
		}
	})
}

func TestMirrorsAreThoseOfTheHost(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		targets string
		want    mirrors
	}{
		"a release, its updates and those for security": {
			"http://m.example/debian/ trixie main\nhttp://m.example/debian/ trixie-updates main\nhttp://s.example/sec/ trixie-security main\n",
			mirrors{archive: "http://m.example/debian/", security: "http://s.example/sec/"},
		},
		"without those for security": {
			"http://m.example/debian/ bookworm main\nhttp://m.example/debian/ bookworm-updates main\n",
			mirrors{archive: "http://m.example/debian/"},
		},
		"not of others for the same release": {
			"https://other.example/ bookworm main\nhttp://m.example/d/ bookworm main\nhttp://m.example/d/ bookworm-updates main\n",
			mirrors{archive: "http://m.example/d/"},
		},
		"not of another component": {
			"http://m.example/d/ bookworm contrib\nhttp://m.example/d/ bookworm-updates contrib\n", mirrors{},
		},
		"none": {"", mirrors{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := findMirrors(test.targets)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(mirrors{})); diff != "" {
				t.Errorf("mirrors (-want +got):\n%s", diff)
			}
			if none := test.want == (mirrors{}); none != errors.Is(err, ErrUnavailable) {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func TestSourcesOfPackagesAreSigned(t *testing.T) {
	t.Parallel()
	var list strings.Builder
	for _, suite := range (mirrors{archive: "http://m.example/debian/", security: "http://s.example/"}).suites("bookworm") {
		list.WriteString(suite.source())
	}
	golden(t, "sources", list.String())
}

func TestVersionOfQEMU(t *testing.T) {
	t.Parallel()
	for says, want := range map[string]int{
		"QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright": 10,
		"QEMU emulator version 7.2.19 (Debian)":                          7,
		"QEMU emulator version 99999999999999999999.1":                   0,
		"another program": 0,
	} {
		if got := majorVersion(says); got != want {
			t.Errorf("%q: got %d, want %d", says, got, want)
		}
	}
}

func TestLastWordsOfAKernelBeginWithItsPanic(t *testing.T) {
	t.Parallel()
	numbered := func(n int) string {
		var lines strings.Builder
		for i := range n {
			fmt.Fprintf(&lines, "line %d\n", i)
		}
		return lines.String()
	}
	const reason = "[    1.0] Kernel panic - not syncing: no reason"
	for name, test := range map[string]struct{ console, want string }{
		"nothing":            {"", ""},
		"no panic":           {numbered(100), "line 75\n"},
		"a panic":            {numbered(100) + reason + "\nstack\n", reason + "\nstack"},
		"a panic at first":   {reason, reason},
		"a panic with a lot": {reason + "\n" + numbered(100), reason + "\nline 0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := string(lastWords([]byte(test.console)))
			if !strings.HasPrefix(got, test.want) || strings.Count(got, "\n") >= consoleLines {
				t.Errorf("got %q, want at most %d lines from %q on", got, consoleLines, test.want)
			}
		})
	}
}

// fakeMachine is one whose QEMU is a script of sh, in a folder of its own with the file "frames": what a guest sends whose program
// says "output" and exits with 3. The script's third file takes that.
func fakeMachine(t *testing.T, script string) *Machine {
	t.Helper()
	dir := t.TempDir()
	var frames bytes.Buffer
	w := guest.NewWriter(&frames)
	_, err := io.WriteString(w, "output")
	if err = errors.Join(w.Start(), err, w.End(guest.Verdict{Code: 3}), os.WriteFile(filepath.Join(dir, "frames"), frames.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return &Machine{log: t.Output(), bootLimit: time.Minute, qemu: qemu{argv: []string{"sh", "-c", "cd " + dir + "; " + script}}}
}

func TestAMachineThatFailsToStartIsStartedAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script string
		limit  time.Duration
		want   string // In the error.
	}{
		"starts":                          {"cat frames >&3", time.Minute, ""},
		"crashes once":                    {"mkdir first || cat frames >&3", time.Minute, ""},
		"is ended by a signal once":       {"mkdir first && kill -9 $$; cat frames >&3", time.Minute, ""},
		"hangs once":                      {"mkdir first && exec sleep 1000; cat frames >&3", 2 * time.Second, ""},
		"always hangs":                    {"exec sleep 1000", time.Millisecond, "ended before the program did: it was not up after 1ms"},
		"always crashes":                  {"exit 0", time.Minute, "ended before the program did"},
		"crashes once the program runs":   {"mkdir first && exec head -c 16 frames >&3; cat frames >&3", time.Minute, "ended before the program did"},
		"sends what no guest would, once": {"mkdir first && printf 'x\\0\\0\\0\\0' >&3; cat frames >&3", time.Minute, "unknown kind 'x'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := fakeMachine(t, test.script)
			m.bootLimit = test.limit
			var out strings.Builder
			verdict, err := m.start(t.Context(), Config{Output: &out}, files{})
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %+v, %v, want %q", verdict, err, test.want)
				}
				return
			}
			if err != nil || verdict.Code != 3 || out.String() != "output" {
				t.Errorf("got %+v, %v, output %q", verdict, err, &out)
			}
		})
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var kept tail
	for range 3 {
		if n, err := kept.Write(bytes.Repeat([]byte("x"), maxTail-1)); err != nil || n != maxTail-1 {
			t.Fatal(n, err)
		}
	}
	if _, err := kept.Write([]byte("end")); err != nil {
		t.Fatal(err)
	}
	if len(kept.kept) != maxTail || !bytes.HasSuffix(kept.kept, []byte("xend")) {
		t.Errorf("kept %d bytes", len(kept.kept))
	}
}

func TestAMachineIsFoundOnceAllItsPartsAreThere(t *testing.T) {
	t.Parallel()
	b := Builder{Cache: t.TempDir(), Log: io.Discard}
	for _, p := range []part{b.toolsPart(), b.kernelPart(), b.qemuPart()} {
		if p.name != "qemu" { // Which the host may have.
			if _, err := b.Find(t.Context()); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), p.name) {
				t.Errorf("without %s: got %v, want %v", p.name, err, ErrMissing)
			}
		}
		if err := os.MkdirAll(b.dir(p), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.dir(p), takenFile), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Find(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWithoutAptTheMachineIsUnavailable(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	b := Builder{Cache: t.TempDir(), Log: io.Discard}
	if _, err := b.Build(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want %v", err, ErrUnavailable)
	}
}
