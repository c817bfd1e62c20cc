// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
)

// Process is a program that runs beside the measurements: a contender's daemon.
type Process struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	err    error
	output string // file with what it said
}

// startProcess starts a program whose output goes to a file. It ends with ctx, or with Stop.
func startProcess(ctx context.Context, output string, environ []string, program string, args ...string) (*Process, error) {
	log, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, environ
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	// Should the benchmark be killed, the process is too. That signal is sent when the thread ends that started it, so this one stays.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &Process{cmd: cmd, ended: make(chan struct{}), output: output}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

// Stop ends the process and waits for its end.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// failure is why the process has ended, with the end of its output; nil while it runs.
func (p *Process) failure() error {
	select {
	case <-p.ended:
	default:
		return nil
	}
	said, err := os.ReadFile(p.output)
	if err != nil {
		return err
	}
	const most = 1 << 10
	return fmt.Errorf("%s ended: %w: %s", filepath.Base(p.cmd.Path), p.err, said[max(0, len(said)-most):])
}

// Memory is what a process has in memory, in KiB.
type Memory struct {
	// RSS is all, Anon the part that is not pages of files, as the program's own are.
	RSS  int64 `json:"rssKiB"`
	Anon int64 `json:"anonKiB"`
	// Peak is the greatest RSS since the process began.
	Peak int64 `json:"peakKiB"`
}

// Memory reads what the process has in memory.
func (p *Process) Memory() (Memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return Memory{}, errors.Join(p.failure(), err)
	}
	return parseStatus(string(status)), nil
}

// parseStatus reads the memory's lines of /proc/<pid>/status.
func parseStatus(status string) Memory {
	var m Memory
	for line := range strings.Lines(status) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		value, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "VmRSS:":
			m.RSS = value
		case "RssAnon:":
			m.Anon = value
		case "VmHWM:":
			m.Peak = value
		}
	}
	return m
}

// Descriptors counts the open files of the process.
func (p *Process) Descriptors() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		return 0, errors.Join(p.failure(), err)
	}
	return len(entries), nil
}

// metricsAddress is where plexusd serves its metrics: the node's loopback is the benchmark's own.
const metricsAddress = "127.0.0.1:9652"

// Metric reads one of plexusd's metrics that has no labels.
func Metric(ctx context.Context, name string) (float64, error) {
	text, err := httpGet(ctx, "/metrics")
	if err != nil {
		return 0, fmt.Errorf("metrics of plexusd: %w", err)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("metrics of plexusd have no %s", name)
}

func httpGet(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddress+path, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// eventually tries until something succeeds, or ctx ends.
func eventually(ctx context.Context, try func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// samplingExec starts plugins as libcni does, and watches their memory grow.
type samplingExec struct {
	invoke.RawExec

	peak func(kib int64)
}

var _ invoke.Exec = (*samplingExec)(nil)

// ExecPlugin implements [invoke.Exec]. What the kernel sums up for the parent of a process (wait4(2)) is of no use here: it includes
// what the parent itself had in memory, whose space the child shares until its exec, and the child's own children.
func (e *samplingExec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	status := fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	var most int64
	for {
		select {
		case err := <-ended:
			e.peak(most)
			if err != nil {
				return nil, fmt.Errorf("%w: %s", err, stdout.Bytes())
			}
			return stdout.Bytes(), nil
		case <-tick.C:
			if text, err := os.ReadFile(status); err == nil { // else it has just ended
				most = max(most, parseStatus(string(text)).Peak)
			}
		}
	}
}

// FindInPath implements [invoke.Exec].
func (e *samplingExec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// Decode implements [invoke.Exec].
func (e *samplingExec) Decode([]byte) (version.PluginInfo, error) {
	return nil, errors.ErrUnsupported
}

// Inode is the number of a file, which it keeps when it is renamed.
func Inode(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}
