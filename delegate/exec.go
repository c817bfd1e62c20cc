// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	// MaxOutputBytes bounds what a plugin may print on stdout; a result has a few KiB.
	MaxOutputBytes = 4 << 20
	// keepStderrBytes is how much of a plugin's stderr an error message carries.
	keepStderrBytes = 2 << 10
	// defaultGrace is how long a plugin that was told to stop (SIGTERM) may take to clean up before it is killed.
	defaultGrace = 5 * time.Second
	// A plugin binary that is being replaced can not be run for a moment ("text file busy").
	busyTries = 20
	busyDelay = 100 * time.Millisecond
)

// Builtin is a plugin that runs within Plexus. stdin, environ, the returned stdout and errors are those of a CNI plugin.
type Builtin func(ctx context.Context, stdin []byte, environ []string) ([]byte, error)

// Call is one call of one plugin.
type Call struct {
	// Type is the plugin's type: the file name of its program.
	Type string
	// Program asks for the program, also of a type that Plexus has built in.
	Program bool
	Stdin   []byte
	// Environ is its whole environment, with CNI's parameters.
	Environ []string
	// Check refuses what cannot be used of what the plugin printed; nil for nothing. A plugin that it refuses has failed.
	Check func(stdout []byte) error
}

// Exec is a [Runner] of the host's plugins. Each call is a process of its own, bounded in time and output, and killed with its
// children.
type Exec struct {
	// Timeout bounds one call of one plugin.
	Timeout time.Duration
	// Builtins are served in-process, by plugin type.
	Builtins map[string]Builtin
	// Grace is how long a plugin that was told to stop may take before it is killed; zero stands for five seconds.
	Grace time.Duration
	// Inherit is handed to each plugin, and so to its children, as file descriptor 3. Plexus hands on the lock of the
	// sandbox: should Plexus be killed, the lock is held until the last of them has ended, and a DEL does not race with them.
	Inherit *os.File
}

var _ Runner = (*Exec)(nil)

// Find implements [Runner].
func (e *Exec) Find(pluginType string, program bool, dirs []string) error {
	if _, ok := e.Builtins[pluginType]; ok && !program {
		return nil
	}
	_, err := FindProgram(pluginType, dirs)
	return err
}

// runsIPAM are plugins that run the program that their "ipam" names. To others the type may be a word of their own: azure-vnet has no
// program azure-cns.
func runsIPAM() []string {
	return []string{"bridge", "dummy", "host-device", "ipvlan", "macvlan", "ptp", "sriov", "tap", "vlan"}
}

// RunsIPAM implements [Runner]. A script under the name of such a plugin may do anything.
func (e *Exec) RunsIPAM(pluginType string, program bool, dirs []string) bool {
	if !slices.Contains(runsIPAM(), pluginType) {
		return false
	}
	if _, ok := e.Builtins[pluginType]; ok && !program {
		return true
	}
	path, err := FindProgram(pluginType, dirs)
	if err != nil {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // opened for reading
	const elf = "\x7fELF"
	magic := make([]byte, len(elf))
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == elf
}

// FindProgram returns the path of a plugin's program in the first of the folders that has it.
func FindProgram(pluginType string, dirs []string) (string, error) {
	if pluginType == "" || pluginType == "." || pluginType == ".." || strings.ContainsAny(pluginType, "/\x00") {
		return "", fmt.Errorf("%w: %q is no file name of a plugin: use the bare name of one in %s", ErrInvalid, pluginType, strings.Join(dirs, " or "))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, pluginType)
		info, err := os.Stat(path)
		switch {
		case dir == "" || err != nil || !info.Mode().IsRegular():
			continue
		case info.Mode().Perm()&0o111 == 0:
			return "", fmt.Errorf("%w: plugin %s is not executable: chmod 0755", ErrInvalid, path)
		}
		return path, nil
	}
	return "", fmt.Errorf("%w: no plugin %q in %s: install it there, or correct the configuration's \"type\"", ErrInvalid, pluginType, strings.Join(dirs, " or "))
}

// Call implements [Runner]. The program is looked for in the folders of the environment's CNI_PATH.
func (e *Exec) Call(ctx context.Context, c Call) ([]byte, error) {
	return e.bounded(ctx, c.Type, func(ctx context.Context) ([]byte, error) {
		if builtin, ok := e.Builtins[c.Type]; ok && !c.Program {
			stdout, err := builtin(ctx, c.Stdin, c.Environ)
			return stdout, cmp.Or(err, c.check(stdout))
		}
		path, err := FindProgram(c.Type, cniPath(c.Environ))
		if err != nil {
			return nil, err
		}
		return e.call(ctx, path, c)
	})
}

// Program runs the program at a path, as [Exec.Call] does.
func (e *Exec) Program(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	return e.bounded(ctx, filepath.Base(path), func(ctx context.Context) ([]byte, error) {
		return e.call(ctx, path, Call{Stdin: stdin, Environ: environ})
	})
}

// bounded ends a call at its limit, and says which plugin failed.
func (e *Exec) bounded(ctx context.Context, name string, call func(context.Context) ([]byte, error)) ([]byte, error) {
	callCtx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	stdout, err := call(callCtx)
	switch {
	case err == nil:
		return stdout, nil
	case ctx.Err() != nil:
		err = withStragglers(fmt.Errorf("killed, because the call of Plexus was cancelled: %w", context.Cause(ctx)), err)
	case callCtx.Err() != nil:
		err = withStragglers(fmt.Errorf("did not finish within %v and was killed (\"delegateTimeoutSeconds\"): %w", e.Timeout, context.DeadlineExceeded), err)
	}
	return nil, fmt.Errorf("plugin %s: %w", name, err)
}

func (c *Call) check(stdout []byte) error {
	if c.Check == nil {
		return nil
	}
	return c.Check(stdout)
}

func (e *Exec) call(ctx context.Context, path string, c Call) ([]byte, error) {
	for try := 1; ; try++ {
		stdout, err := e.run(ctx, path, c)
		if !errors.Is(err, syscall.ETXTBSY) || try == busyTries {
			return stdout, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(busyDelay):
		}
	}
}

// cniPath is the last CNI_PATH of an environment: the one that a process would see.
func cniPath(environ []string) []string {
	for _, kv := range slices.Backward(environ) {
		if path, ok := strings.CutPrefix(kv, envPath+"="); ok {
			return filepath.SplitList(path)
		}
	}
	return nil
}

// Run runs a plugin for another one, with its configuration and environment: IPAM for a built-in (CNI 1.1.0 §4).
func (e *Exec) Run(ctx context.Context, plugin string, stdin []byte, environ []string) ([]byte, error) {
	return e.Call(ctx, Call{Type: plugin, Program: true, Stdin: stdin, Environ: environ})
}

// run starts the plugin once and waits for it. Of a plugin that failed nobody is left at work: what its IPAM did after that, nobody
// would undo. A daemon that a plugin starts and means to stay leaves the plugin's process group (setsid) and closes what it was given.
func (e *Exec) run(ctx context.Context, path string, c Call) ([]byte, error) {
	// The plugin and what it starts hold one end of a pipe, and with the last of them it is closed. Who closes descriptors that he does not
	// know is not waited for, only killed.
	alive, held, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer alive.Close() // nothing is read from it
	stdout, stderr := &capped{most: MaxOutputBytes}, &tail{}
	cmd := exec.CommandContext(ctx, path) // running plugins is what a meta-plugin is for; FindProgram chose it
	cmd.Env = c.Environ
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.Stdout = stdout
	cmd.Stderr = stderr
	cmd.WaitDelay = e.grace()
	// A group of its own, so that the plugin's children (its IPAM) are stopped with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		told := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		if errors.Is(told, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return told
	}
	if e.Inherit != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, e.Inherit)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, held)
	err = cmd.Start()
	_ = held.Close() // the plugin has its own
	if err != nil {
		return nil, err
	}
	err = cmd.Wait()
	switch {
	case stdout.overflow:
		err = fmt.Errorf("%w: it printed more than %d bytes on stdout", ErrBadOutput, MaxOutputBytes)
	case err != nil:
		err = pluginError(err, stdout.Bytes(), stderr.String())
	default:
		err = c.check(stdout.Bytes())
	}
	if err == nil {
		return stdout.Bytes(), nil
	}
	return nil, withStragglers(err, e.endGroup(ctx, cmd.Process.Pid, alive))
}

// endGroup waits until whoever is left of a failed plugin's process group has ended, and kills who takes too long: an IPAM that is killed
// amidst its work may leave more than one that ends by itself. Through alive nothing comes; it ends when all have.
func (e *Exec) endGroup(ctx context.Context, pid int, alive *os.File) error {
	// Who was told to stop has had his time.
	if ctx.Err() == nil && e.ended(alive) {
		return nil
	}
	if err := syscall.Kill(-pid, syscall.SIGKILL); errors.Is(err, syscall.ESRCH) {
		return nil // nobody is left, but for who left the group to stay
	}
	if e.ended(alive) || errors.Is(syscall.Kill(-pid, 0), syscall.ESRCH) {
		return nil
	}
	return errStragglers
}

// ended waits for the end of a plugin and of all that it started, for a while.
func (e *Exec) ended(alive *os.File) bool {
	if err := alive.SetReadDeadline(time.Now().Add(e.grace())); err != nil {
		return false
	}
	_, err := io.Copy(io.Discard, alive)
	return err == nil
}

// errStragglers is told with the failure of a plugin whose children could not be ended.
var errStragglers = errors.New("what it had started is still at work although it was killed")

// withStragglers adds to a failure that another error tells of stragglers.
func withStragglers(err, other error) error {
	if errors.Is(other, errStragglers) {
		return fmt.Errorf("%w; %w", err, errStragglers)
	}
	return err
}

func (e *Exec) grace() time.Duration { return cmp.Or(e.Grace, defaultGrace) }

// ErrKilled marks a plugin that a signal ended: what it had done by then is not known.
var ErrKilled = errors.New("killed")

// pluginError makes an error of a failed run. What the plugin printed by the rules of CNI is kept as it is, a [types.Error].
func pluginError(err error, stdout []byte, stderr string) error {
	if errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%w: it ended, but what it started keeps its stdout or stderr open", ErrBadOutput)
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err // its pipes failed
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Errorf("%w by a signal: %w %s", ErrKilled, err, strings.TrimSpace(stderr))
	}
	said := strings.TrimSpace(stderr)
	if len(bytes.TrimSpace(stdout)) == 0 {
		if said == "" {
			return fmt.Errorf("ended with %w and said nothing", err)
		}
		return fmt.Errorf("ended with %w and said: %s", err, said)
	}
	var e types.Error
	if json.Unmarshal(stdout, &e) != nil || (e.Code == 0 && e.Msg == "") {
		const most = 256
		return fmt.Errorf("ended with %w and printed what is no CNI error: %.*q %s", err, most, stdout, said)
	}
	if e.Code == 0 {
		e.Code = types.ErrInternal // 0 is no error code
	}
	e.Msg, e.Details = clip(e.Msg), clip(e.Details)
	return &e
}

// clip bounds what a plugin says of itself: it ends in an event of the pod.
func clip(s string) string {
	const most = 1 << 10
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// capped keeps what is written to it up to a limit; more fails the write, which ends the plugin with a broken pipe.
type capped struct {
	bytes.Buffer
	most     int
	overflow bool
}

func (c *capped) Write(p []byte) (int, error) {
	if c.Len()+len(p) > c.most {
		c.overflow = true
		return 0, io.ErrShortWrite
	}
	return c.Buffer.Write(p)
}

// ReadFrom hides the embedded Buffer's, which knows no limit.
func (c *capped) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

// tail keeps the last of what is written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - keepStderrBytes; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.kept) }
