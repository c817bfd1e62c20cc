// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// System calls of a process are failed, or the process killed at them, by a seccomp filter that has them told to this test
// (seccomp_unotify(2), Linux 5.5). It counts them over all threads, and takes no other program, as strace would.

// event is a system call that is about to be made.
type event struct {
	// by the program itself, and not by a child that is about to become another one.
	own  bool
	name string
	// about is the file, as far as it is known.
	about string
}

// names of the system calls that are told: those that read or change the disk, lock, or start a process.
func names() map[uint32]string {
	return map[uint32]string{
		unix.SYS_OPENAT: "openat", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_READ: "read", unix.SYS_WRITE: "write", unix.SYS_FSYNC: "fsync", unix.SYS_UNLINKAT: "unlinkat",
		unix.SYS_RENAMEAT2: "renameat2", unix.SYS_RENAMEAT: "renameat", unix.SYS_FLOCK: "flock", unix.SYS_CLONE: "clone", unix.SYS_EXECVE: "execve",
	}
}

// filter tells of each of the calls, but of openat only for writing, and of clone only for processes (os/exec uses CLONE_VFORK).
func filter() []unix.SockFilter {
	const nr, arg0, arg2 = 0, 16, 32 // offsets in struct seccomp_data; the lower halves, on machines that have them first
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ret := func(what uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what} }
	f := []unix.SockFilter{load(nr)}
	for number, name := range names() {
		var flags, offset uint32
		switch name {
		case "openat":
			flags, offset = unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT, arg2
		case "clone":
			flags, offset = unix.CLONE_VFORK, arg0
		default:
			f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 1}, ret(unix.SECCOMP_RET_USER_NOTIF))
			continue
		}
		f = append(f,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 4},
			load(offset),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: flags, Jf: 1},
			ret(unix.SECCOMP_RET_USER_NOTIF),
			ret(unix.SECCOMP_RET_ALLOW),
		)
	}
	return append(f, ret(unix.SECCOMP_RET_ALLOW))
}

// What struct seccomp_notif and struct seccomp_notif_resp are.
type (
	notification struct {
		ID    uint64
		PID   uint32
		Flags uint32
		Nr    int32
		Arch  uint32
		IP    uint64
		Args  [6]uint64
	}
	reply struct {
		ID    uint64
		Val   int64
		Error int32
		Flags uint32
	}
)

const (
	notifReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	notifSend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	notifGoOn    = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// kill, in the place of an error, ends the program before the call.
const kill = syscall.Errno(0xffff)

// inject makes a call of Plexus in which decide says of each event, as it comes, what becomes of it: 0 lets it go on.
func (n *node) inject(verb string, decide func(event) syscall.Errno) outcome {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	cmd := n.command(ctx, verb)
	return n.ended(cmd, n.supervised(ctx, cmd, decide))
}

// supervised runs a command, as inject does, and returns how it ended.
func (n *node) supervised(ctx context.Context, cmd *exec.Cmd, decide func(event) syscall.Errno) error {
	n.t.Helper()
	filterer := filepath.Join(testenv.Build(n.t, "./integration/faults/filter"), "filter")
	cmd.Args = append([]string{filterer}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	cmd.Path = filterer
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	cmd.ExtraFiles = []*os.File{theirs}
	code := filter()
	if _, err = unix.Write(pair[0], unsafe.Slice((*byte)(unsafe.Pointer(&code[0])), len(code)*int(unsafe.Sizeof(code[0])))); err == nil {
		err = cmd.Start()
	}
	_ = theirs.Close()
	if err != nil {
		n.t.Fatal(err)
	}
	listener, err := receive(pair[0])
	_ = unix.Close(pair[0])
	if err != nil {
		_ = cmd.Wait()
		n.t.Fatalf("%v; it said: %s", err, cmd.Stderr)
	}
	// Until the last process that has the filter has ended, which may be a plugin that outlives a killed call.
	done := make(chan error, 1)
	go func() { done <- supervise(listener, cmd.Process.Pid, decide) }()
	ended := cmd.Wait()
	select {
	case err := <-done:
		if err != nil {
			n.t.Fatal(err)
		}
	case <-ctx.Done():
		n.t.Fatal("a plugin of the call lives for ever")
	}
	return ended
}

// receive takes the listener from a socket.
func receive(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	got, oobn, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || got == 0 {
		return 0, fmt.Errorf("no seccomp listener (Linux 5.5) came: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// supervise answers for the calls of a process and its children until all have ended.
func supervise(listener, pid int, decide func(event) syscall.Errno) error {
	defer func() { _ = unix.Close(listener) }()
	became := false
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			if fds[0].Revents != 0 {
				return nil
			}
			continue
		}
		var got notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifReceive, uintptr(unsafe.Pointer(&got))); errno != 0 {
			if errno == unix.ENOENT || errno == unix.EINTR {
				continue // it was killed meanwhile
			}
			return fmt.Errorf("receive a notification: %w", errno)
		}
		r := reply{ID: got.ID, Flags: notifGoOn}
		e, ok := describe(&got, pid)
		switch {
		case e.own && e.name == "execve":
			became = true // from here on it is Plexus
		case ok && became:
			switch errno := decide(e); errno {
			case 0:
			case kill:
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					return err
				}
				if e.own {
					continue
				}
			default:
				r = reply{ID: got.ID, Error: -int32(errno)}
			}
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifSend, uintptr(unsafe.Pointer(&r))); errno != 0 && errno != unix.ENOENT {
			return fmt.Errorf("answer a notification: %w", errno)
		}
	}
}

// describe makes an event of a notification; false for what is not to be failed: the Go runtime's own, and what plugins do.
func describe(got *notification, pid int) (event, bool) {
	e := event{name: names()[uint32(got.Nr)]}
	_, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", pid, got.PID))
	e.own = err == nil
	proc := "/proc/" + strconv.Itoa(int(got.PID))
	switch e.name {
	case "execve":
		e.about = filepath.Base(readString(proc, got.Args[0]))
		parent, _ := os.ReadFile(proc + "/stat") // one that has ended has none
		fields := strings.Fields(string(parent))
		return e, len(fields) > 3 && fields[3] == strconv.Itoa(pid)
	case "openat", "mkdirat", "unlinkat", "renameat", "renameat2":
		e.about = readString(proc, got.Args[1])
	case "read", "write", "fsync", "flock":
		e.about, _ = os.Readlink(fmt.Sprintf("%s/fd/%d", proc, int32(got.Args[0])))
		if strings.HasPrefix(e.about, "anon_inode:") || e.name == "read" && (!strings.HasPrefix(e.about, "/") || strings.HasPrefix(e.about, "/proc/") || strings.HasPrefix(e.about, "/sys/")) {
			return e, false
		}
	}
	return e, e.own
}

// readString reads a string from the memory of a process.
func readString(proc string, at uint64) string {
	mem, err := os.Open(proc + "/mem")
	if err != nil {
		return ""
	}
	defer mem.Close()
	text := make([]byte, 256)
	n, _ := mem.ReadAt(text, int64(at)) // as much as there is
	text, _, _ = bytes.Cut(text[:n], []byte{0})
	return string(text)
}

// seen makes a call with nothing failed, and returns its events.
func (n *node) seen(verb string) []event {
	n.t.Helper()
	var all []event
	if o := n.inject(verb, func(e event) syscall.Errno {
		all = append(all, e)
		return 0
	}); !o.ok() {
		n.t.Fatalf("%s: %v", verb, o)
	}
	return all
}

// nth fails one event.
func nth(at int, errno syscall.Errno) func(event) syscall.Errno {
	return func(event) syscall.Errno {
		if at--; at == -1 {
			return errno
		}
		return 0
	}
}

// faultsOf are what can become of an event.
func faultsOf(e event) []syscall.Errno {
	switch e.name {
	case "clone":
		return []syscall.Errno{kill, syscall.EAGAIN}
	case "execve":
		return []syscall.Errno{kill, syscall.ENOMEM, syscall.ETXTBSY}
	case "openat", "mkdirat", "write":
		return []syscall.Errno{kill, syscall.ENOSPC}
	case "flock":
		return []syscall.Errno{kill, syscall.ENOLCK}
	}
	return []syscall.Errno{kill, syscall.EIO}
}

func describeFault(e syscall.Errno) string {
	if e == kill {
		return "killed"
	}
	return unix.ErrnoName(e)
}

func TestEverySystemCallOfAnADDFailsOnceOrKillsIt(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	sandbox := testenv.NetNS(t)
	base := newNode(t, sandbox)
	events := base.seen("ADD")
	base.must("DEL")
	base.assertNothing()
	eachFault(t, sandbox, events, 40, func(n *node, decide func(event) syscall.Errno) {
		o := n.inject("ADD", decide)
		if o.err != nil && !strings.Contains(o.err.Msg, "could not be undone") && !strings.Contains(o.err.Msg, "/dev/stdout") && len(n.held()) > 0 {
			n.t.Errorf("ADD: %v, but there still are %q", o, n.held())
		}
		if o.ok() {
			n.assertHeld(2)
			n.must("CHECK")
		}
		n.must("DEL")
		n.assertNothing()
	})
}

func TestEverySystemCallOfADELFailsOnceOrKillsIt(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	sandbox := testenv.NetNS(t)
	base := newNode(t, sandbox)
	base.must("ADD")
	events := base.seen("DEL")
	base.assertNothing()
	eachFault(t, sandbox, events, 20, func(n *node, decide func(event) syscall.Errno) {
		n.must("ADD")
		if o := n.inject("DEL", decide); o.ok() && len(n.held()) > 0 {
			n.t.Errorf("DEL went well, but there still are %q", n.held())
		}
		n.must("DEL")
		n.assertNothing()
	})
}

// eachFault tries each fault of each event, of which there have to be some. A few goroutines of it share the events, with a node each.
func eachFault(t *testing.T, sandbox string, events []event, least int, try func(n *node, decide func(event) syscall.Errno)) {
	t.Helper()
	if len(events) < least {
		t.Fatalf("a call for two networks makes only the system calls %v", events)
	}
	const parts = 4
	for part := range parts {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, sandbox)
			for i := part; i < len(events); i += parts {
				for _, fault := range faultsOf(events[i]) {
					try(n, nth(i, fault))
					if t.Failed() {
						t.Fatalf("system call %d, %s %s: %s", i, events[i].name, events[i].about, describeFault(fault))
					}
				}
			}
		})
	}
}
