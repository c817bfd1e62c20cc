// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/e2e/vm/guest"
)

const (
	// bootLimit is for the machine to start the program. Alone on two processors it takes five seconds.
	bootLimit = 2 * time.Minute
	// bootAttempts is how often it may fail to: about one of two hundred machines, each on a host under load, hung as it started.
	bootAttempts = 3

	// consoleLines of the kernel's messages are in the error about a guest that died.
	consoleLines = 25
	// errorLines of what a program said are in the error about it.
	errorLines = 15
	// maxTail is how much of a stream is kept for such an error, in bytes.
	maxTail = 64 << 10
)

var (
	// ErrTimeout says that the program was still running when its time was up.
	ErrTimeout = errors.New("time is up")
	// ErrCrashed says that the guest ended before the program did, with the kernel's last lines.
	ErrCrashed = errors.New("the virtual machine ended before the program did")
)

// Config says what to run in a machine, and in what machine.
type Config struct {
	Program string // A file of the host that needs no shared libraries, or a program of the guest by its name: "sh", "ip".
	Args    []string
	Env     []string          // Each "NAME=value".
	Files   map[string]string // By path in the work folder, a file of the host.
	Dir     string            // The work folder: kept, with what the program leaves in it. If empty, a temporary one.

	PFs     int      // Number of network cards with VFs, 0 to 8.
	IOMMU   bool     // An emulated Intel VT-d, which vfio-pci takes.
	Modules []string // Kernel modules to load before the program runs; those that they need go without saying.
	Limit   time.Duration

	Output  io.Writer // Takes the program's output as it comes.
	Console io.Writer // Takes the kernel's messages, if not nil.
	Verbose bool      // All of the kernel's messages, not only its complaints.
}

// argv is the program as the guest calls it.
func (c Config) argv() []string {
	name := c.Program
	if c.fromHost() {
		name = "./" + filepath.Base(c.Program)
	}
	return append([]string{name}, c.Args...)
}

// fromHost tells a file of the host from a program of the guest.
func (c Config) fromHost() bool { return strings.Contains(c.Program, "/") }

func (c Config) validate() error {
	switch {
	case c.Program == "":
		return errors.New("no program named: give the path of a static one, or the name of one that the guest has")
	case c.PFs < 0 || c.PFs > maxPFs:
		return fmt.Errorf("number of PFs %d: must be 0 to %d", c.PFs, maxPFs)
	case c.Limit <= 0:
		return fmt.Errorf("time limit %s: must be more than zero", c.Limit)
	}
	for name := range c.Files {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("file %q of the work folder: must be a path in that folder", name)
		}
	}
	return nil
}

// Run boots a machine, runs the program in it as root and returns its exit code. Errors are ErrTimeout, ErrCrashed, and what kept
// the program from running.
func (m *Machine) Run(ctx context.Context, c Config) (int, error) {
	if err := c.validate(); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "plexus-vm-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f := files{
		kernel:    filepath.Join(m.kernel, "vmlinux"),
		initramfs: filepath.Join(dir, "initramfs"),
		work:      c.Dir,
	}
	if f.work == "" {
		f.work = filepath.Join(dir, "work")
	}
	if err := m.prepare(ctx, c, f, filepath.Join(dir, "init")); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("%w: the limit is %s", ErrTimeout, c.Limit))
	defer cancel()
	verdict, err := m.start(ctx, c, f)
	if err != nil {
		return 0, err
	}
	if verdict.Error != "" {
		return 0, fmt.Errorf("run %s in the virtual machine: %s", c.Program, verdict.Error)
	}
	return verdict.Code, nil
}

// prepare fills the work folder and writes the initramfs.
func (m *Machine) prepare(ctx context.Context, c Config, f files, init string) error {
	if c.fromHost() {
		if err := checkStatic(c.Program); err != nil {
			return err
		}
		if err := copyFile(filepath.Join(f.work, filepath.Base(c.Program)), c.Program); err != nil {
			return fmt.Errorf("copy the program: %w", err)
		}
	}
	for name, file := range c.Files {
		if err := copyFile(filepath.Join(f.work, name), file); err != nil {
			return fmt.Errorf("fill the work folder: %w", err)
		}
	}
	if err := errors.Join(os.MkdirAll(f.work, 0o755), m.buildInit(ctx, init)); err != nil {
		return err
	}
	spec, err := m.initramfs(ctx, init, c)
	if err != nil {
		return err
	}
	return writeFile(f.initramfs, spec)
}

// checkStatic refuses a program that takes shared libraries, which the guest lacks. A script is none.
func checkStatic(file string) error {
	program, err := elf.Open(file)
	var format *elf.FormatError
	switch {
	case errors.As(err, &format) || errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	defer func() { _ = program.Close() }()
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("program %s takes shared libraries, which the virtual machine lacks: build it with CGO_ENABLED=0", file)
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", from)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// start boots the machine, again if it ends before the program has started.
func (m *Machine) start(ctx context.Context, c Config, f files) (guest.Verdict, error) {
	for attempt := 1; ; attempt++ {
		verdict, started, err := m.boot(ctx, c, f)
		if started || attempt == bootAttempts || !errors.Is(err, ErrCrashed) {
			return verdict, err
		}
		fmt.Fprintf(m.log, "starting the virtual machine again: %v\n", err)
	}
}

// boot runs QEMU until the guest gives its verdict, and ends it. It also tells whether the program has started.
func (m *Machine) boot(ctx context.Context, c Config, f files) (guest.Verdict, bool, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	output, outputEnd, err := os.Pipe()
	if err != nil {
		return guest.Verdict{}, false, err
	}
	defer func() { _ = output.Close() }()
	console, consoleEnd, err := os.Pipe()
	if err != nil {
		return guest.Verdict{}, false, errors.Join(err, outputEnd.Close())
	}
	defer func() { _ = console.Close() }()
	// By these names QEMU opens the pipes that it gets as its third and fourth file.
	f.output, f.console = "/proc/self/fd/3", "/proc/self/fd/4"

	var complaints, kernel tail
	cmd := exec.CommandContext(ctx, m.qemu.argv[0], slices.Concat(m.qemu.argv[1:], commandLine(c, f))...)
	cmd.Env = append(os.Environ(), m.qemu.env...)
	cmd.ExtraFiles = []*os.File{outputEnd, consoleEnd}
	cmd.Stdout, cmd.Stderr = &complaints, &complaints
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	if err = errors.Join(err, outputEnd.Close(), consoleEnd.Close()); err != nil {
		if cause := context.Cause(ctx); cause != nil { // It was too late to start.
			return guest.Verdict{}, false, cause
		}
		return guest.Verdict{}, false, fmt.Errorf("start the virtual machine: %w", err)
	}
	booting := time.AfterFunc(m.bootLimit, func() {
		stop(fmt.Errorf("%w: it was not up after %s", ErrCrashed, m.bootLimit))
	})
	defer booting.Stop()

	var consoleRead sync.WaitGroup
	consoleRead.Go(func() {
		sinks := []io.Writer{&kernel}
		if c.Console != nil {
			sinks = append(sinks, c.Console)
		}
		_, _ = io.Copy(io.MultiWriter(sinks...), console) // It is only for errors, and ends with QEMU.
	})
	started := false
	verdict, err := guest.Copy(c.Output, output, func() {
		started = true
		booting.Stop()
	})
	cause := context.Cause(ctx) // Before it is stopped here.
	if err == nil || !errors.Is(err, guest.ErrNoVerdict) {
		stop(nil)
	}
	errWait := cmd.Wait()
	consoleRead.Wait()
	switch {
	case err == nil:
		return verdict, started, nil
	case !errors.Is(err, guest.ErrNoVerdict):
		return guest.Verdict{}, started, fmt.Errorf("read from the virtual machine: %w", err)
	case cause != nil:
		return guest.Verdict{}, started, fmt.Errorf("%w\n%s", cause, lastWords(kernel.kept))
	case errWait != nil: // QEMU itself failed. Otherwise it ended because the guest did.
		return guest.Verdict{}, started, fmt.Errorf("%w: QEMU: %w: %s", ErrCrashed, errWait, lastLines(complaints.kept, errorLines))
	default:
		return guest.Verdict{}, started, fmt.Errorf("%w:\n%s", ErrCrashed, lastWords(kernel.kept))
	}
}

// tail keeps the last part of what is written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-maxTail):]
	return len(p), nil
}

// lastWords is the part of a kernel's messages that tells why it ended: its panic if there is one, else the last lines.
func lastWords(console []byte) []byte {
	at := bytes.LastIndex(console, []byte("Kernel panic"))
	if at < 0 {
		return lastLines(console, consoleLines)
	}
	lines := bytes.SplitN(console[bytes.LastIndexByte(console[:at], '\n')+1:], []byte("\n"), consoleLines+1)
	return bytes.TrimSpace(bytes.Join(lines[:min(len(lines), consoleLines)], []byte("\n")))
}

// lastLines are the last n lines of a text, without space around them.
func lastLines(text []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
