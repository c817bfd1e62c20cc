// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// maxRSSKiB is what a call may have in memory, whatever a plugin prints.
const maxRSSKiB = 64 << 10

func processFaults() []fault {
	const everything = "addresses, cache, links, record"
	one := func(n *node) { n.networks(1) }
	again := "a plugin that works; then DEL, which the runtime tries again by itself"
	both := func(code uint, says string, f fault) fault {
		f.add, f.del, f.check, f.gc = answer{code, says}, answer{code, says}, answer{code, says}, answer{code, says}
		return f
	}
	return []fault{
		both(codeConfig, `no plugin "fabric" in`, fault{
			what: "A plugin is missing", where: "it is removed",
			breaks: func(n *node) func() { n.remove(program); return n.install }, delLeaves: everything,
			status: answer{codeNotAvailable, `no plugin "fabric" in`},
			mends:  "the plugin; then DEL, which the runtime tries again by itself. ADD finds it out before it attaches anything",
		}),
		both(codeConfig, "is not executable: chmod 0755", fault{
			what: "A plugin is not executable", where: "its mode is 0644",
			breaks: func(n *node) func() { n.script("real"); n.chmod(program, 0o644); return n.install }, delLeaves: everything,
			status: answer{codeNotAvailable, "is not executable: chmod 0755"},
			mends:  "the mode; then DEL. ADD finds it out before it attaches anything",
		}),
		both(codeConfig, `no plugin "fabric" in`, fault{
			what: "A folder is in a plugin's place", where: "a folder of its name",
			breaks: func(n *node) func() { n.remove(program); n.mkdir(program); return n.install }, delLeaves: everything,
			status: answer{codeNotAvailable, `no plugin "fabric" in`},
			mends:  "the plugin; then DEL. ADD finds it out before it attaches anything",
		}),
		both(codeIO, "exec format error", fault{
			what: "A plugin is of another machine", where: "an executable file without a format",
			breaks: func(n *node) func() {
				n.script("")
				n.write(program, "\x7fELF of nothing")
				return n.install
			},
			addLeaves: "record", delLeaves: everything, status: answer{codeNotAvailable, "exec format error"},
			mends: again,
		}),
		{
			what: "A plugin is being replaced", where: "seccomp, the first execve: ETXTBSY",
			breaks: failingStart("execve", syscall.ETXTBSY, 1),
			mends:  "nothing has to be: Plexus tries again for two seconds",
		},
		both(codeIO, "text file busy", fault{
			what: "A plugin is open for writing for ever", where: "seccomp, every execve: ETXTBSY",
			prepare: one, breaks: failingStart("execve", syscall.ETXTBSY, always), addLeaves: "record", delLeaves: everything,
			status: answer{codeNotAvailable, "text file busy"},
			mends:  "whoever writes it to end; then DEL",
		}),
		both(codeIO, "resource temporarily unavailable", fault{
			what: "No process can be made", where: "seccomp, every clone: EAGAIN, as from a limit on processes",
			breaks: failingStart("clone", syscall.EAGAIN, always), addLeaves: "record", delLeaves: everything,
			status: answer{codeNotAvailable, "resource temporarily unavailable"},
			mends:  "fewer processes, or a higher limit; then DEL",
		}),
		both(codeIO, "cannot allocate memory", fault{
			what: "No memory is left for a process", where: "seccomp, every clone: ENOMEM",
			breaks: failingStart("clone", syscall.ENOMEM, always), addLeaves: "record", delLeaves: everything,
			status: answer{codeNotAvailable, "cannot allocate memory"},
			mends:  "memory; then DEL",
		}),
		both(codeTryAgain, "did not finish within 1s and was killed", fault{
			what: "A plugin hangs", where: "it waits for a child that sleeps; `delegateTimeoutSeconds` is 1",
			prepare: func(n *node) { n.networks(1); n.conf["delegateTimeoutSeconds"] = 1 },
			breaks: func(n *node) func() {
				n.script("real >/dev/null; sleep 1000 & echo $! >>" + n.path("children") + "; wait")
				return func() {
					n.assertEnded("children")
					n.install()
				}
			},
			addLeaves: "record", delLeaves: "cache, record", status: answer{codeNotAvailable, "did not finish within 1s and was killed"},
			mends: again + ". The plugin and its child are gone in any case",
		}),
		both(codeUndecodable, "it printed more than 4194304 bytes on stdout", fault{
			what: "A plugin prints 100 MB on stdout", where: "it does so on each call, after its work",
			prepare: one,
			breaks: func(n *node) func() {
				n.script("trap '' PIPE; real >/dev/null; head -c 100000000 /dev/zero; grep VmHWM /proc/$PPID/status >>" + n.path("memory"))
				return func() { n.assertMemory("memory"); n.install() }
			},
			addLeaves: "record", delLeaves: "cache, record", status: answer{codeNotAvailable, "it printed more than 4194304 bytes on stdout"},
			mends: again + ". Plexus stays below 64 MiB",
		}),
		{
			what: "A plugin prints 100 MB on stderr", where: "it does so on each call, before its work",
			prepare: one,
			breaks: func(n *node) func() {
				n.script("head -c 100000000 /dev/zero >&2; grep VmHWM /proc/$PPID/status >>" + n.path("memory") + "; real")
				return func() { n.assertMemory("memory"); n.install() }
			},
			mends: "nothing has to be: an error would carry the last 2 KiB. Plexus stays below 64 MiB",
		},
		{
			what: "A plugin closes stdout and goes on", where: "it prints nothing, and ends a moment later",
			breaks: func(n *node) func() { n.script("real >/dev/null; exec >&-; sleep 0.1"); return n.install },
			add:    answer{codeUndecodable, "it printed no result"},
			mends:  "a plugin that prints a result; verbs that have none go well",
		},
		{
			what: "A plugin ends well and prints rubbish", where: "“ok” on stdout",
			breaks: func(n *node) func() { n.script("real >/dev/null; echo ok"); return n.install },
			add:    answer{codeUndecodable, `is no CNI result`},
			mends:  "a plugin that prints a result; verbs that have none go well",
		},
		{
			what: "A plugin prints a result of an unknown version", where: "`cniVersion` 9.9.9",
			breaks: func(n *node) func() {
				n.script(`real >/dev/null; echo '{"cniVersion":"9.9.9"}'`)
				return n.install
			},
			add:   answer{codeUndecodable, "unusable output of a plugin"},
			mends: "a plugin that Plexus knows the version of",
		},
		{
			what: "A plugin tells of an interface that is not there", where: "the link goes before the plugin ends",
			breaks: func(n *node) func() {
				n.script("real; [ $CNI_COMMAND = ADD ] && rm -f " + n.path("fabric/links") + "/*/$CNI_IFNAME; exit 0")
				n.must("ADD")
				n.install()
				return nil
			},
			begin: attachedNever,
			check: answer{codeInternal, "no such file or directory"},
			mends: "nothing but the plugin can tell, by its CHECK",
		},
		both(codeInternal, "killed by a signal", fault{
			what: "A plugin is killed by SIGSEGV", where: "it is, on each call, after its work",
			breaks:    func(n *node) func() { n.script("real >/dev/null; kill -SEGV $$"); return n.install },
			addLeaves: "record", delLeaves: "cache, record", status: answer{codeNotAvailable, "killed by a signal"},
			mends: again,
		}),
		{
			what: "A plugin fails on DEL and works on ADD", where: "it ends with 1",
			begin: attached,
			breaks: func(n *node) func() {
				n.script("[ $CNI_COMMAND = DEL ] && { echo no >&2; exit 1; }; real")
				return n.install
			},
			add: answer{codeInternal, "undo what an earlier ADD of this sandbox left"}, addLeaves: everything,
			del: answer{codeInternal, "said: no"}, delLeaves: everything,
			gc:    answer{codeInternal, "said: no"},
			mends: again,
		},
	}
}

const always = -1

// failingStart fails the first calls of a name by which processes are started.
func failingStart(call string, errno syscall.Errno, times int) func(*node) func() {
	return func(n *node) func() {
		left := times
		n.decide = func(e event) syscall.Errno {
			if e.name != call || left == 0 {
				return 0
			}
			left--
			return errno
		}
		return func() { n.decide = nil }
	}
}

// assertEnded checks that the processes whose ids are in a file have ended, and that there were any.
func (n *node) assertEnded(name string) {
	n.t.Helper()
	pids := strings.Fields(n.read(name))
	n.remove(name)
	if len(pids) == 0 {
		n.t.Error("no process was started")
	}
	for _, pid := range pids {
		// One that nobody has waited for yet is gone as well.
		if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && strings.Contains(string(stat), "(sleep)") && !strings.Contains(string(stat), ") Z") {
			n.t.Errorf("process %s is alive: %s", pid, stat)
		}
	}
}

// assertMemory checks what a plugin has noted of the memory of its caller.
func (n *node) assertMemory(name string) {
	n.t.Helper()
	lines := strings.Split(strings.TrimSpace(n.read(name)), "\n")
	n.remove(name)
	for _, line := range lines {
		fields := strings.Fields(line) // VmHWM: 12345 kB
		if kib, err := strconv.Atoi(fields[1]); err != nil || kib > maxRSSKiB {
			n.t.Errorf("%q, want at most %d kB: %v", line, maxRSSKiB, err)
		}
	}
}
