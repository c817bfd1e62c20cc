// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command filter puts itself under a seccomp filter that tells of system calls (seccomp_unotify(2), Linux 5.5), and becomes the program
// that it is given. Descriptor 3 is a socket of packets: the filter comes over it, and the listener goes.
package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is what the caller handed over.
const socket = 3

func main() {
	fmt.Fprintln(os.Stderr, "filter:", become(os.Args[1:])) // it returns only when that fails
	os.Exit(1)
}

func become(program []string) error {
	runtime.LockOSThread() // the filter is of one thread
	packet := make([]byte, 4096*unsafe.Sizeof(unix.SockFilter{}))
	n, err := unix.Read(socket, packet)
	if err != nil {
		return fmt.Errorf("receive the filter: %w", err)
	}
	count := n / int(unsafe.Sizeof(unix.SockFilter{}))
	if len(program) == 0 || count == 0 {
		return fmt.Errorf("%d instructions for program %q", count, program)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(count), Filter: (*unix.SockFilter)(unsafe.Pointer(&packet[0]))}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("install the filter: %w", errno)
	}
	if err := unix.Sendmsg(socket, []byte{1}, unix.UnixRights(int(listener)), nil, 0); err != nil {
		return fmt.Errorf("hand over the listener: %w", err)
	}
	unix.CloseOnExec(socket)
	return unix.Exec(program[0], program, os.Environ())
}
