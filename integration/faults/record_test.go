// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/testenv"
)

const (
	recordFile = "state/records/c1-eth0.json"
	cacheFile  = "state/results/fab0-c1-eth0"
)

func recordFaults() []fault {
	lost := answer{codeUndecodable, "libcni's cache entry"}
	faults := []fault{
		{
			what: "A record has no checksum", where: "`crc32` is taken out of it, as in records of the first versions, or by a person",
			begin:  attached,
			breaks: func(n *node) func() { n.write(recordFile, unsealed(n.read(recordFile))); return nil },
			mends:  "nothing has to be: it is taken as it is",
		},
		{
			what: "A record is of a newer version", where: "`version` is 99",
			begin: attached,
			breaks: func(n *node) func() {
				good := n.read(recordFile)
				n.write(recordFile, strings.Replace(unsealed(good), `"version":1`, `"version":99`, 1))
				return func() { n.write(recordFile, good) }
			},
			add: answer{codeUndecodable, "unknown record version 99"}, addLeaves: "addresses, cache, links, record",
			del: answer{codeUndecodable, "unknown record version 99"}, delLeaves: "addresses, cache, links, record",
			check: answer{codeUndecodable, "unknown record version 99"}, gc: answer{codeUndecodable, "unknown record version 99"},
			mends: "a Plexus as new as the one that wrote it; an older one never throws it away",
		},
		{
			what: "A record is lost", where: "it is removed",
			begin:  attached,
			breaks: func(n *node) func() { n.remove(recordFile); return nil },
			mends:  "nothing has to be: libcni's cache makes up for it",
		},
		{
			what: "A record and libcni's cache can not be read", where: "each is cut in half",
			begin: attached,
			breaks: func(n *node) func() {
				n.halve(recordFile)
				n.halve("state/results/fab0-c1-eth0")
				n.halve("state/results/fab1-c1-net1")
				return func() {
					n.call("DEL") // tells once what it can not undo
					n.must("DEL")
					n.removeCorrupt()
					n.endSandbox()
				}
			},
			add: lost, addLeaves: "addresses, cache entry.corrupt, links, record.corrupt",
			del: lost, delLeaves: "addresses, cache entry.corrupt, links, record.corrupt",
			check: answer{codeInternal, "its ADD did not complete"}, gc: answer{codeUndecodable, "nothing is called stale until"},
			mends: "the next DEL goes on without; the end of the sandbox takes the links, GC the addresses",
		},
	}
	// Whatever is in the place of a record and is none.
	for _, f := range []fault{
		{
			what: "A bit of a record has flipped", where: "a bit in the middle; other tests flip every one",
			breaks: func(n *node) func() {
				data := []byte(n.read(recordFile))
				data[len(data)/2] ^= 1
				n.write(recordFile, string(data))
				return nil
			},
		},
		{what: "A record is half written", where: "cut in half; other tests cut it at every length", breaks: func(n *node) func() { n.halve(recordFile); return nil }},
		{what: "A record is empty", where: "no bytes", breaks: func(n *node) func() { n.write(recordFile, ""); return nil }},
		{what: "A record is huge", where: "10 MiB", breaks: func(n *node) func() {
			n.write(recordFile, `{"version":1,"config":"`+strings.Repeat("x", 10<<20)+`"}`)
			return nil
		}},
		{what: "A record is another one's", where: "`containerID` is another", breaks: func(n *node) func() {
			n.write(recordFile, strings.ReplaceAll(unsealed(n.read(recordFile)), `"c1"`, `"c2"`))
			return nil
		}},
		{what: "A symbolic link is in a record's place", where: "a link to a good record elsewhere, which stays as it is", breaks: func(n *node) func() {
			n.rename(recordFile, "elsewhere")
			good := n.read("elsewhere")
			if err := os.Symlink(n.path("elsewhere"), n.path(recordFile)); err != nil {
				n.t.Fatal(err)
			}
			return func() {
				if n.read("elsewhere") != good {
					n.t.Error("what the link leads to has changed")
				}
			}
		}},
		{what: "A folder is in a record's place", where: "a folder", breaks: func(n *node) func() {
			n.remove(recordFile)
			n.mkdir(recordFile)
			return nil
		}},
		{what: "A FIFO is in a record's place", where: "a FIFO that nobody writes to", breaks: func(n *node) func() {
			n.remove(recordFile)
			if err := syscall.Mkfifo(n.path(recordFile), 0o600); err != nil {
				n.t.Fatal(err)
			}
			return nil
		}},
	} {
		f.begin = attached
		f.delLeaves, f.keeps = "record.corrupt", "record.corrupt"
		f.mends = "nothing has to be: ADD and DEL undo what libcni's cache tells; GC takes the sandbox for alive and leaves it to its DEL"
		faults = append(faults, f)
	}
	return faults
}

// unsealed is a record without its checksum.
func unsealed(record string) string {
	return regexp.MustCompile(`,"crc32":"[0-9a-f]{8}"`).ReplaceAllString(record, "")
}

func (n *node) halve(name string) {
	n.t.Helper()
	text := n.read(name)
	n.write(name, text[:len(text)/2])
}

// removeCorrupt does what a person does with files that were set aside.
func (n *node) removeCorrupt() {
	n.t.Helper()
	for _, f := range n.all() {
		if strings.HasSuffix(f, ".corrupt") {
			n.remove(f)
		}
	}
}

// snapshot are files with their content.
type snapshot map[string]string

// attached are the files of an attachment: record, cache, link, address.
func (n *node) attached() snapshot {
	n.t.Helper()
	n.must("ADD")
	s := snapshot{}
	for _, f := range n.all() {
		s[f] = n.read(f)
	}
	return s
}

// restore is as good as another ADD, and much cheaper.
func (n *node) restore(s snapshot) {
	n.t.Helper()
	for _, f := range n.all() {
		n.remove(f)
	}
	for name, text := range s {
		n.mkdir(filepath.Dir(name))
		n.write(name, text)
	}
}

func TestNoDamageToARecordOrCacheEntryLosesWhatIsAttached(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	sandbox := testenv.NetNS(t)
	damages := map[string]func(text string, i int) string{
		"a flipped bit": func(text string, i int) string { return text[:i] + string(text[i]^1<<(i%8)) + text[i+1:] },
		"cut off":       func(text string, i int) string { return text[:i] },
	}
	for _, file := range []string{recordFile, cacheFile} {
		for name, damage := range damages {
			// A record has some 800 bytes. Package record tests each bit of it, and these are another few each time.
			const stride = 41
			for i, verb := range []string{"DEL", "ADD", "GC", "CHECK"} {
				t.Run(fmt.Sprint(filepath.Base(file), ", ", name, ", ", verb), func(t *testing.T) {
					t.Parallel()
					n := newNode(t, sandbox)
					n.networks(1)
					s := n.attached()
					for at := os.Getpid()%stride + i; at < len(s[file]); at += stride {
						n.restore(s)
						n.write(file, damage(s[file], at))
						o := n.call(verb)
						if !o.ok() && verb != "CHECK" {
							t.Errorf("byte %d: %s: %v", at, verb, o)
						}
						switch verb {
						case "DEL":
							if len(n.held()) > 0 {
								t.Errorf("byte %d: DEL went well, but there still are %q", at, n.held())
							}
						default:
							n.must("DEL")
						}
						if len(n.held()) > 0 {
							t.Errorf("byte %d: after DEL there still are %q", at, n.held())
						}
					}
				})
			}
		}
	}
}

func TestGCTakesNothingFromALivingSandboxWhoseRecordIsLost(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	sandbox := testenv.NetNS(t)
	for name, lose := range map[string]func(*node){
		"lost": func(n *node) { n.remove(recordFile) },
		"set aside by CHECK": func(n *node) {
			n.halve(recordFile)
			n.must("CHECK")
		},
		"not readable": func(n *node) { n.halve(recordFile) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, sandbox)
			other := n.as("c2")
			n.must("ADD")
			want := n.held()
			lose(n)
			// Another pod has the same networks, so that their plugins are asked to collect.
			other.sandbox = n.secondSandbox()
			other.must("ADD")
			other.alive = []string{"c1", "c2"}
			other.must("GC")
			other.must("DEL")
			if diff := cmp.Diff(want, n.held()); diff != "" {
				t.Errorf("GC took something from a living sandbox:\n%s", diff)
			}
			n.must("DEL")
			if held := n.held(); len(held) > 0 {
				t.Errorf("after DEL there still are %q", held)
			}
		})
	}
}
