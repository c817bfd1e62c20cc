// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const logFile = "log/plexus.log"

func withLog(n *node) {
	n.conf["logFile"], n.conf["logLevel"] = n.path(logFile), "debug"
}

// logFaults change nothing: a pod gets its networks, and loses them, whatever becomes of the log.
func logFaults() []fault {
	return []fault{
		{
			what: "No space is left for the log", where: "a full tmpfs (`size=`)",
			prepare: func(n *node) { withLog(n); tmpfs("log", "size=64k")(n) },
			breaks:  func(n *node) func() { return n.fill("log") },
			mends:   "space; lines are lost until then",
		},
		{
			what: "The log's folder is missing", where: "it is removed",
			prepare: withLog,
			breaks: func(n *node) func() {
				n.remove("log")
				return func() {
					if !strings.Contains(n.read(logFile), "level=INFO") {
						n.t.Error("nothing is logged")
					}
				}
			},
			mends: "nothing has to be: it is made again",
		},
		{
			what: "The log's folder is read-only", where: "a mount that is made read-only",
			prepare: func(n *node) { withLog(n); tmpfs("log", "")(n) },
			breaks: func(n *node) func() {
				n.remount("log", unix.MS_RDONLY)
				return func() { n.remount("log", 0) }
			},
			mends: "a mount that can be written; Plexus logs to stderr until then",
		},
		{
			what: "The log file is a folder", where: "a folder of its name",
			prepare: func(n *node) { withLog(n); n.mkdir(logFile) },
			breaks:  func(*node) func() { return nil },
			mends:   "another name; Plexus logs to stderr until then",
		},
		{
			what: "The log file can not be rotated", where: "a full file, and a folder in the place of its lock file",
			prepare: func(n *node) {
				withLog(n)
				n.conf["logOptions"] = object{"maxSize": 1}
				n.mkdir(logFile + ".lock")
				n.write(logFile, strings.Repeat("x\n", 1<<19))
			},
			breaks: func(*node) func() { return nil },
			mends:  "the lock file's place; the log grows until then",
		},
	}
}

func clockFaults() []fault {
	faults := []fault{
		{
			what: "The clock is set back after the log was rotated", where: "rotated files of next year",
			prepare: func(n *node) {
				withLog(n)
				n.conf["logOptions"] = object{"maxSize": 1, "maxBackups": 3}
			},
			breaks: func(n *node) func() {
				n.remove("log")
				n.mkdir("log")
				next := "log/plexus-" + time.Now().AddDate(1, 0, 0).Format("2006")
				for _, day := range []string{"01", "02", "03"} {
					n.write(next+"06"+day+"T000000Z.log", "")
				}
				full := strings.Repeat("x\n", 1<<19)
				n.write(logFile, full)
				return func() {
					n.write(logFile, full)
					n.must("STATUS")
					old, err := filepath.Glob(n.path("log/plexus-*"))
					old = slices.DeleteFunc(old, func(f string) bool { return strings.HasPrefix(f, n.path(next)) })
					if err != nil || len(old) != 2 {
						n.t.Errorf("files that were rotated by now: %q, want 2: %v", old, err)
					}
				}
			},
			mends: "nothing has to be: the files of the future go first",
		},
		{
			what: "The clock was ahead when a network was refused", where: "a configuration that its plugin refuses on ADD and DEL; `began` of the record is next year",
			begin: attachedNever,
			breaks: func(n *node) func() {
				good := n.conf["delegates"]
				n.conf["delegates"] = []any{object{"cniVersion": "1.1.0", "name": "fab0", "type": "fabric", "dir": 5}}
				n.refused()
				n.beganAt(time.Now().AddDate(1, 0, 0))
				return func() {
					n.conf["delegates"] = good
					if slices.Contains(n.all(), recordFile) {
						n.beganAt(time.Now().Add(-6 * time.Minute))
					}
				}
			},
			add: answer{codeInternal, "decode configuration"}, addLeaves: "record",
			check: answer{codeInternal, "its ADD did not complete"},
			gc:    answer{codeInternal, "decode configuration"},
			mends: "nothing has to be: what its plugin never attached is given up, as it is five minutes after the ADD",
		},
	}
	for _, wrong := range []struct {
		what  string
		years int
	}{{"The clock was ahead at ADD", 1}, {"The clock was behind at ADD", -10}} {
		faults = append(faults, fault{
			what: wrong.what, where: fmt.Sprintf("`began` of the record is %+d years from now", wrong.years),
			begin:  attached,
			breaks: func(n *node) func() { n.beganAt(time.Now().AddDate(wrong.years, 0, 0)); return nil },
			mends:  "nothing has to be",
		})
	}
	return append(faults, fault{
		what: "The clock was ahead when something of an earlier boot could not be undone", where: "the mark of that, `boot-id`, is of next year",
		begin: attached,
		breaks: func(n *node) func() {
			n.write("state/boot-id", "retry "+strings.TrimSpace(n.read("state/boot-id")))
			at := time.Now().AddDate(1, 0, 0)
			if err := os.Chtimes(n.path("state/boot-id"), at, at); err != nil {
				n.t.Fatal(err)
			}
			return nil
		},
		mends: "nothing has to be: the next ADD tries again",
	})
}

// refused makes an ADD that has to fail.
func (n *node) refused() {
	n.t.Helper()
	if o := n.call("ADD"); o.ok() {
		n.t.Fatal("an ADD that has to fail went well")
	}
}

// beganAt changes the time of an ADD in the record.
func (n *node) beganAt(at time.Time) {
	n.t.Helper()
	record := unsealed(n.read(recordFile))
	head, tail, ok := strings.Cut(record, `"began":"`)
	_, tail, ok2 := strings.Cut(tail, `"`)
	if !ok || !ok2 {
		n.t.Fatalf("no time in %s", record)
	}
	n.write(recordFile, head+`"began":"`+at.UTC().Format(time.RFC3339)+`"`+tail)
}
