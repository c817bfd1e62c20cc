// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// call is a call of the plugin.
type call struct {
	w      *world
	what   string // "ADD of p0"
	cmd    *exec.Cmd
	stdout bytes.Buffer
	// stderr is a file: a pipe would be waited for as long as plugins that outlive a killed Plexus have it.
	stderr *os.File
	done   chan struct{}
	// kill is who is killed, killed that it was the call: by SIGKILL, or before it would hear of SIGTERM; at a step, if it told one.
	kill   victim
	killed bool
	step   string
	// err is the CNI error that it ended with, valid when done is closed.
	err *types.Error
	// broken is what a call must never do.
	broken error
}

// startCall calls the plugin, as a runtime does.
func (w *world) startCall(ctx context.Context, s *schedule, verb string, b *sandbox, plan callPlan, valid []attachment) (*call, error) {
	conf := w.conf(s, b.plan.networks)
	if verb == "GC" {
		list := []object{}
		for _, a := range valid {
			list = append(list, object{"containerID": a.id, "ifname": a.ifName})
		}
		conf["cni.dev/valid-attachments"] = list
	}
	stdin, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	dir := w.Plexus
	if plan.kill == atStep || s.lockTimeout > 0 {
		dir = w.Stepping
	}
	c := &call{w: w, what: verb + " of " + b.plan.name, kill: plan.kill, cmd: exec.CommandContext(ctx, filepath.Join(dir, "plexus")), done: make(chan struct{})}
	c.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + verb, "CNI_PATH=" + w.Stepping + ":" + w.Plugins,
	}
	if verb != "GC" {
		c.cmd.Env = append(c.cmd.Env, "CNI_CONTAINERID="+b.id, "CNI_IFNAME="+b.ifName(), "CNI_NETNS="+b.netns(),
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME="+b.plan.name)
	}
	if plan.kill == atStep {
		c.cmd.Env = append(c.cmd.Env, "PLEXUS_KILL_STEP="+strconv.Itoa(plan.step))
	}
	if s.lockTimeout > 0 {
		c.cmd.Env = append(c.cmd.Env, "PLEXUS_LOCK_TIMEOUT="+s.lockTimeout.String())
	}
	if c.stderr, err = os.CreateTemp(root, "stderr-*"); err != nil {
		return nil, err
	}
	if err = os.Remove(c.stderr.Name()); err != nil {
		return nil, err
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = bytes.NewReader(stdin), &c.stdout, c.stderr
	if err := w.start(c.cmd); err != nil {
		return nil, err
	}
	w.note("%s begins, pid %d %s", c.what, c.cmd.Process.Pid, plan.kill)
	w.count(verb)
	go func() {
		defer close(c.done)
		defer c.stderr.Close()
		began := time.Now()
		c.end(w.wait(c.cmd))
		w.note("%s ends after %.1f ms: %v", c.what, float64(time.Since(began).Microseconds())/1000, c.outcome())
	}()
	if plan.kill != nobody && plan.kill != atStep {
		go c.killAfter(plan.kill, time.Duration(plan.at*float64(w.took[s.real])))
	}
	return c, nil
}

func (c *call) outcome() string {
	switch {
	case c.broken != nil:
		return c.broken.Error()
	case c.killed:
		return "killed " + c.step
	case c.err != nil:
		return c.err.Error()
	}
	return "well"
}

// end notes how a call ended.
func (c *call) end(err error) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signaled() {
		if sig := exit.Sys().(syscall.WaitStatus).Signal(); sig != syscall.SIGKILL && (sig != syscall.SIGTERM || c.kill != told) {
			c.broken = fmt.Errorf("ended by %v: %s", exit.Sys().(syscall.WaitStatus).Signal(), c.said())
		}
		c.killed = true
		if _, step, ok := strings.Cut(c.said(), "killed at step "); ok {
			c.step = "at " + strings.TrimSpace(step)
			c.w.count("plexus killed at step: " + strings.Fields(step)[0])
		} else {
			c.w.count("plexus killed at a moment")
		}
		return
	}
	if err == nil {
		return
	}
	// A call that fails says so as CNI wants it (CNI 1.1.0 §5).
	c.err = new(types.Error)
	if jsonErr := json.Unmarshal(c.stdout.Bytes(), c.err); jsonErr != nil || c.err.Msg == "" || c.err.Code == 0 || strings.Contains(c.err.Msg, "\n") {
		c.broken = fmt.Errorf("%w without a CNI error on stdout: %q; stderr: %s", err, &c.stdout, c.said())
	}
}

// said is what is on stderr by now.
func (c *call) said() string {
	text, err := io.ReadAll(io.NewSectionReader(c.stderr, 0, 1<<20))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// killAfter kills somebody when the moment has come, if there is such a process by then.
func (c *call) killAfter(who victim, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-c.done:
		return
	case <-timer.C:
	}
	tick := time.NewTicker(300 * time.Microsecond)
	defer tick.Stop()
	signal := syscall.SIGKILL
	if who == told {
		signal = syscall.SIGTERM
	}
	for {
		if victims := c.victims(who); len(victims) > 0 {
			for _, pid := range victims {
				if err := syscall.Kill(pid, signal); err == nil {
					c.w.note("%s: killed %s, pid %d", c.what, who, pid)
				}
			}
			if who != plexus {
				c.w.count(string(who) + " killed")
			}
			return
		}
		select {
		case <-c.done:
			return
		case <-tick.C:
		}
	}
}

// victims are processes of a call.
func (c *call) victims(who victim) []int {
	self := c.cmd.Process.Pid
	if who == plexus || who == told {
		return []int{self}
	}
	plugins, _ := children(self) // one that has ended has none
	if who == delegate {
		return plugins
	}
	var theirs []int
	for _, pid := range plugins {
		found, _ := children(pid)
		theirs = append(theirs, found...)
	}
	if who == ipam {
		// Only these, and what fabric started as /proc/self/exe: portmap takes the death of nft for the success of a DEL.
		return slices.DeleteFunc(theirs, func(pid int) bool {
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			return err != nil || !slices.Contains([]string{"host-local", "exe"}, strings.TrimSpace(string(name)))
		})
	}
	return append(append([]int{self}, plugins...), theirs...)
}

// children are the processes that a process has started, or taken over.
func children(pid int) ([]int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	var all []int
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f, err)
			}
			all = append(all, child)
		}
	}
	return all, nil
}

// daemon is the process that answers lookups.
type daemon struct{ cmd *exec.Cmd }

func (w *world) startDaemon(ctx context.Context) (*daemon, error) {
	d := &daemon{cmd: exec.CommandContext(ctx, filepath.Join(w.Stepping, "daemon"), root+"/socket", root+"/manifests")}
	d.cmd.Stderr = os.Stderr
	return d, w.start(d.cmd)
}

func (w *world) killDaemon(d *daemon) {
	_ = d.cmd.Process.Kill() // it never ends by itself
	_ = w.wait(d.cmd)
}
