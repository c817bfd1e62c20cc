// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// The messages of the conversation. Package rpc wants them exported.
type (
	// StopRequest asks for what Node.Stop does.
	StopRequest struct {
		Name   string
		Signal syscall.Signal
	}
	// ExecRequest asks for what Node.Exec does.
	ExecRequest struct {
		Argv    []string
		Timeout time.Duration // None if 0.
	}
	// ExecReply answers it.
	ExecReply struct {
		Stdout, Stderr []byte
		Failure        string // Empty if the program exited with 0.
	}
)

// server starts, stops and reaps processes. It does not use os/exec for that: the first process of a namespace has to reap
// whatever is left to it, and the two would take each other's.
type server struct {
	mu       sync.Mutex
	children map[int]*child    // those that have not ended
	named    map[string]*child // the last one of each Process.Name
}

type child struct {
	pid    int
	ended  chan struct{}
	status syscall.WaitStatus // Valid once ended is closed.
}

func newServer() *server {
	return &server{children: map[int]*child{}, named: map[string]*child{}}
}

// reap waits for children, and for orphans, whenever the kernel tells of one that ended. The signal must be asked for before the
// first child is started.
func (s *server) reap(ended <-chan os.Signal) {
	for range ended {
		for s.reapOne() {
		}
	}
}

func (s *server) reapOne() bool {
	// Held, so that no child ends before fork has noted it.
	s.mu.Lock()
	defer s.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if pid <= 0 || err != nil {
		return errors.Is(err, syscall.EINTR)
	}
	if c := s.children[pid]; c != nil {
		delete(s.children, pid)
		c.status = status
		close(c.ended)
	}
	return true
}

func (s *server) fork(argv []string, stdout, stderr *os.File) (*child, error) {
	if len(argv) == 0 {
		return nil, errors.New("no program named")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()

	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"},
		Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	c := &child{pid: pid, ended: make(chan struct{})}
	s.children[pid] = c
	return c, nil
}

// Start serves Node.Start.
func (s *server) Start(p Process, _ *struct{}) error {
	if s.running(p.Name) != nil {
		return errors.New("runs already")
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	c, err := s.fork(p.Argv, log, log)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.named[p.Name] = c
	return nil
}

// Stop serves Node.Stop.
func (s *server) Stop(r StopRequest, _ *struct{}) error {
	c := s.running(r.Name)
	if c == nil {
		return errors.New("does not run")
	}
	if err := syscall.Kill(c.pid, r.Signal); err != nil {
		return err
	}
	<-c.ended
	return nil
}

// Running serves Node.Running.
func (s *server) Running(name string, running *bool) error {
	*running = s.running(name) != nil
	return nil
}

func (s *server) running(name string) *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.named[name]
	if c == nil || s.children[c.pid] != c {
		return nil
	}
	return c
}

// Exec serves Node.Exec.
func (s *server) Exec(r ExecRequest, reply *ExecReply) error {
	stdout, stderr := &capture{}, &capture{}
	if err := errors.Join(stdout.open(), stderr.open()); err != nil {
		return err
	}
	c, err := s.fork(r.Argv, stdout.w, stderr.w)
	out, errOut := stdout.collect(), stderr.collect()
	if err != nil {
		return err
	}
	var timeout <-chan time.Time
	if r.Timeout > 0 {
		timeout = time.After(r.Timeout)
	}
	select {
	case <-c.ended:
	case <-timeout:
		_ = syscall.Kill(-c.pid, syscall.SIGKILL) // Its whole session, or the pipes stay open.
		<-c.ended
	}
	reply.Stdout, reply.Stderr = <-out, <-errOut
	switch {
	case c.status.Signaled():
		reply.Failure = fmt.Sprintf("signal: %v", c.status.Signal())
	case c.status.ExitStatus() != 0:
		reply.Failure = fmt.Sprintf("exit status %d", c.status.ExitStatus())
	}
	return nil
}

// capture is a pipe that a program writes its output to.
type capture struct{ r, w *os.File }

func (c *capture) open() error {
	r, w, err := os.Pipe()
	c.r, c.w = r, w
	return err
}

// collect closes this process' end for writing and reads until the program has closed its own.
func (c *capture) collect() <-chan []byte {
	_ = c.w.Close()
	read := make(chan []byte, 1)
	go func() {
		content, err := io.ReadAll(c.r)
		_ = c.r.Close()
		if err != nil {
			content = fmt.Appendf(content, "\nread output: %v", err)
		}
		read <- content
	}()
	return read
}
