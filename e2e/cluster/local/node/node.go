// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node makes a set of namespaces into a machine of its own for a cluster's node.
//
// The first process of the new mount, network and process namespaces lays out the file system and then starts what it is told
// to, in a conversation (net/rpc) over a socket that it inherits. When it dies, the kernel kills every process of the node and
// frees its mounts and network namespaces. It dies when the conversation ends, unless it was told to stay.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// connection is the inherited file descriptor of the conversation.
const connection = 3

// Layout is what the node's file system has of its own. Everything else is the machine's.
type Layout struct {
	Root   string            // Folder of the machine that holds the node's folders, under their paths on the node.
	Dirs   []string          // Paths on the node that are the node's own, and stay over a reboot.
	Files  map[string]string // Files under /proc that the node sees with this content, and may write to without effect.
	Stay   bool              // Live on when the process that booted the node ends.
	Search string            // PATH of the node's processes.
}

// Process is a long-running program of the node.
type Process struct {
	Name string
	Argv []string
	Log  string // File on the machine that its output is appended to.
}

// Node is a booted node.
type Node struct {
	cmd    *exec.Cmd
	client *rpc.Client
}

// Boot starts program, which must call Main, as the first process of a new node. Its output is appended to log.
func Boot(ctx context.Context, program string, layout Layout, log *os.File) (*Node, error) {
	arg, err := json.Marshal(layout)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, fmt.Errorf("boot node: %w", err)
	}
	defer func() { _ = theirs.Close() }()

	cmd := exec.Command(program, string(arg)) //nolint:noctx // It lives until Halt.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Setsid:     true, // An interrupt at the terminal is for the tests, which then end the node.
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("boot node: %w", err), ours.Close())
	}
	n := &Node{cmd: cmd, client: rpc.NewClient(ours)}
	// The first answer comes when the file system is laid out.
	if _, err := n.Exec(ctx, "true"); err != nil {
		n.Halt()
		return nil, fmt.Errorf("boot node: %w: see %s", err, log.Name())
	}
	return n, nil
}

// PID is the node's first process as the machine sees it.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Start starts a process and returns when it runs.
func (n *Node) Start(p Process) error {
	if err := n.client.Call("server.Start", p, &struct{}{}); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	return nil
}

// Stop sends a process a signal and returns when the process has ended.
func (n *Node) Stop(ctx context.Context, name string, signal syscall.Signal) error {
	call := n.client.Go("server.Stop", StopRequest{Name: name, Signal: signal}, &struct{}{}, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("stop %s: %w", name, call.Error)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: still running after signal %d: %w", name, signal, ctx.Err())
	}
}

// Running says whether a process that was started has not ended.
func (n *Node) Running(name string) bool {
	var running bool
	return n.client.Call("server.Running", name, &running) == nil && running
}

// Exec runs a program on the node to its end and returns what it wrote to its standard output.
// The error of one that fails has what it wrote to its standard error.
func (n *Node) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	request := ExecRequest{Argv: argv}
	if deadline, ok := ctx.Deadline(); ok {
		request.Timeout = time.Until(deadline)
	}
	var reply ExecReply
	call := n.client.Go("server.Exec", request, &reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", strings.Join(argv, " "), ctx.Err())
	}
	switch {
	case call.Error != nil:
		return nil, fmt.Errorf("%s: %w", strings.Join(argv, " "), call.Error)
	case reply.Failure != "":
		return reply.Stdout, fmt.Errorf("%s: %s: %s", strings.Join(argv, " "), reply.Failure, strings.TrimSpace(string(reply.Stderr)))
	}
	return reply.Stdout, nil
}

// Leave ends the conversation with a node that was told to stay.
func (n *Node) Leave() { _ = n.client.Close() }

// Halt kills everything on the node, as a power cut does, and returns when all has ended.
func (n *Node) Halt() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait() // The kernel ends the first process of a process namespace after all others.
	_ = n.client.Close()
}

// socketpair makes the two ends of the conversation.
func socketpair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "node"), os.NewFile(uintptr(fds[1]), "node")
	defer func() { _ = ours.Close() }()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}
