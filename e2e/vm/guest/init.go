// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// deviceLimit is for a device to appear once its driver is loaded, and for a link to come up. Emulated, that takes a second.
	deviceLimit = 30 * time.Second
	// pollInterval is between two looks at what sysfs does not announce.
	pollInterval = 20 * time.Millisecond
	// drainLimit is for output of processes that the program left behind.
	drainLimit = time.Second
	// stopLimit is for the outside to end the machine after the verdict, before it powers itself off.
	stopLimit = 10 * time.Second

	// searchPath is the program's. busybox is in the last folder, so that real tools go before its own of the same name.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Main is the first process of the guest. It returns if it could not run its task: the kernel panics then, which the outside sees.
func Main() error {
	if err := mountAll(); err != nil {
		return err
	}
	task, err := readTask()
	if err != nil {
		return err
	}
	if err := load(task.System); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "vminit: modules of the system are loaded")
	ctx := context.Background()
	port, err := openPort(ctx)
	if err != nil {
		return err
	}
	out := NewWriter(port)
	verdict, err := perform(ctx, task, out)
	if err != nil {
		verdict.Error = err.Error()
	}
	if err := out.End(verdict); err != nil {
		return err
	}
	// The outside ends the machine as soon as it has read the verdict.
	<-time.After(stopLimit)
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func mountAll() error {
	for _, m := range []struct{ kind, target, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", ""},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/var", "mode=755"},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"bpf", "/sys/fs/bpf", ""},
		{"debugfs", "/sys/kernel/debug", ""},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		// devtmpfs may be mounted by the kernel already.
		if err := unix.Mount(m.kind, m.target, m.kind, 0, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, dir := range []string{"/run/lock", "/run/netns", "/var/lib", "/var/log", "/var/tmp"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// To open this device loads its driver, by which it would come otherwise. See Documentation/admin-guide/devices.txt of the kernel.
	if err := errors.Join(os.MkdirAll("/dev/net", 0o755), unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200)))); err != nil {
		return err
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2", "/var/run": "/run",
	} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return unix.Sethostname([]byte("guest"))
}

func readTask() (Task, error) {
	content, err := os.ReadFile(TaskFile)
	if err != nil {
		return Task{}, err
	}
	var task Task
	if err := json.Unmarshal(content, &task); err != nil {
		return Task{}, fmt.Errorf("parse %s: %w", TaskFile, err)
	}
	return task, nil
}

// load loads kernel modules in the order given.
func load(modules []string) error {
	for _, module := range modules {
		if err := loadOne(module); err != nil {
			return fmt.Errorf("load module %s: %w", strings.TrimSuffix(filepath.Base(module), ".ko"), err)
		}
	}
	return nil
}

func loadOne(module string) error {
	file, err := os.Open(module)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// openPort finds the port by its name, which the device tells after its driver is there.
func openPort(ctx context.Context) (*os.File, error) {
	var found string
	err := await(ctx, "the port "+Port, func() (bool, error) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return false, err
		}
		for _, file := range names {
			name, err := os.ReadFile(file)
			if err == nil && strings.TrimSpace(string(name)) == Port {
				found = filepath.Join("/dev", filepath.Base(filepath.Dir(file)))
				_, err = os.Stat(found)
				return err == nil, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	return os.OpenFile(found, os.O_WRONLY, 0)
}

// perform does the task. An error says that the program did not run.
func perform(ctx context.Context, task Task, out *Writer) (Verdict, error) {
	const options = "trans=virtio,version=9p2000.L,msize=262144"
	if err := errors.Join(os.MkdirAll(WorkDir, 0o755), unix.Mount(WorkTag, WorkDir, "9p", 0, options)); err != nil {
		return Verdict{}, fmt.Errorf("mount the work folder: %w", err)
	}
	if err := load(task.Modules); err != nil {
		return Verdict{}, err
	}
	fmt.Fprintln(os.Stderr, "vminit: modules of the program are loaded")
	if err := bringUp(ctx); err != nil {
		return Verdict{}, err
	}
	if err := out.Start(); err != nil {
		return Verdict{}, err
	}
	code, err := run(task, out)
	return Verdict{Code: code}, err
}

// card is a network interface with hardware behind it.
type card struct {
	name    string
	driver  string
	address string // PCI.
}

// bringUp gives the interfaces their names, and sets them and the loopback up. It returns when PFs and wire have a link: a driver
// refuses some settings before.
func bringUp(ctx context.Context) error {
	if err := ip(ctx, "link", "set", "lo", "up"); err != nil {
		return err
	}
	cards, err := findCards()
	if err != nil {
		return err
	}
	names := nameCards(cards)
	for _, c := range cards {
		if err := ip(ctx, "link", "set", c.name, "name", names[c.name], "up"); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := await(ctx, "the link of "+name, func() (bool, error) {
			state, err := os.ReadFile(filepath.Join("/sys/class/net", name, "operstate"))
			return strings.TrimSpace(string(state)) == "up", err
		}); err != nil {
			return err
		}
	}
	return nil
}

func findCards() ([]card, error) {
	devices, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil {
		return nil, err
	}
	var cards []card
	for _, device := range devices {
		driver, err := filepath.EvalSymlinks(filepath.Join(device, "driver"))
		if err != nil {
			return nil, err
		}
		address, err := filepath.EvalSymlinks(device)
		if err != nil {
			return nil, err
		}
		cards = append(cards, card{filepath.Base(filepath.Dir(device)), filepath.Base(driver), filepath.Base(address)})
	}
	return cards, nil
}

// nameCards gives each card its name, by the one that it has.
func nameCards(cards []card) map[string]string {
	sorted := slices.SortedFunc(slices.Values(cards), func(a, b card) int { return cmp.Compare(a.address, b.address) })
	names := map[string]string{}
	pfs := 0
	for _, c := range sorted {
		if c.driver == "igb" {
			names[c.name] = PF + strconv.Itoa(pfs)
			pfs++
		} else {
			names[c.name] = Wire
		}
	}
	return names
}

// ip runs the program ip.
func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "/sbin/ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// run runs the program and returns its exit code. It waits for all processes, as the first one has to: what the program leaves
// behind becomes its child.
func run(task Task, out io.Writer) (int, error) {
	if len(task.Argv) == 0 {
		return 0, errors.New("the task names no program")
	}
	program, err := lookup(task.Argv[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	process, err := os.StartProcess(program, task.Argv, &os.ProcAttr{
		Dir:   WorkDir,
		Env:   append([]string{"PATH=" + searchPath, "HOME=/root", "USER=root", "TERM=dumb", "TMPDIR=/tmp"}, task.Env...),
		Files: []*os.File{null, write, write},
	})
	if err = errors.Join(err, null.Close(), write.Close()); err != nil {
		return 0, err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, read)
		copied <- err
	}()
	code, err := wait(process.Pid)
	if err != nil {
		return 0, err
	}
	if err := read.SetReadDeadline(time.Now().Add(drainLimit)); err != nil {
		return 0, err
	}
	if err := <-copied; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("copy the program's output: %w", err)
	}
	return code, nil
}

// lookup finds a program in the work folder, then where the guest's own are.
func lookup(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range append([]string{WorkDir}, filepath.SplitList(searchPath)...) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %s: %w", name, exec.ErrNotFound)
}

// wait reaps processes until the one that was asked for has ended, and returns its exit code.
func wait(pid int) (int, error) {
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for the program: %w", err)
		case ended != pid:
			continue
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

// await waits until done says so.
func await(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, deviceLimit)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for %s: %w", what, ctx.Err()), err)
		}
	}
}
