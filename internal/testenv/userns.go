// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// usernsEnv marks the re-executed test binary, so that it never re-executes itself again. It is read only there: a test that
// starts children of its own passes it on with the rest of the environment, and they have the privilege already.
const usernsEnv = "PLEXUS_TEST_USERNS"

// InUserNS runs the tests of m with the privilege to make network namespaces and links, and returns the exit code for os.Exit.
// A process that has the privilege runs them itself; any other one runs its own binary again as root of new user, mount and
// network namespaces (user namespaces for everyone: Linux 3.8; `unshare -Urnm`). Where the system forbids that, the tests run
// without, and those that call [RequireRoot] skip, or fail in CI.
func InUserNS(m *testing.M) int {
	if os.Getenv(usernsEnv) != "" {
		if err := prepareUserNS(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare user namespace:", err)
			return 1
		}
		return m.Run()
	}
	if missingPrivilege() == nil {
		return m.Run()
	}
	code, err := reexec()
	if errors.Is(err, errNoUserNS) {
		return m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// RequireRoot ends the test as [Missing] does when the process may not make network namespaces, and names what is missing.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if err := missingPrivilege(); err != nil {
		Missing(tb, "%v; run the tests as root, or allow user namespaces to this user (sysctls user.max_user_namespaces, "+
			"kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns)", err)
	}
}

// errNoUserNS marks a refusal by the system to make a user namespace. Any other failure fails the tests: a skip must not hide it.
var errNoUserNS = errors.New("user namespaces are not allowed")

// missingPrivilege reports the first capability that kernel tests need and the process lacks. The effective set is what counts:
// root of a container often has neither, and root of a user namespace has both.
func missingPrivilege() error {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err
	}
	effective, err := parseCapEff(string(status))
	if err != nil {
		return err
	}
	needed := []struct {
		bit  int
		name string
	}{{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}}
	for _, c := range needed {
		if effective&(1<<c.bit) == 0 {
			return fmt.Errorf("no %s", c.name)
		}
	}
	return nil
}

// parseCapEff finds the effective capabilities in the text of /proc/<pid>/status.
func parseCapEff(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.New("no CapEff line in process status")
}

// reexec runs this test binary again in new namespaces and returns its exit code. Its error matches errNoUserNS when the system
// forbids the namespaces.
func reexec() (int, error) {
	// Pdeathsig is sent when the thread that started the child ends, which must not be before this process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find test binary: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...) //nolint:noctx // The child's life is this process's own: Pdeathsig bounds it.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), usernsEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err = cmd.Start()
	for _, refusal := range []error{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.ENOSYS, syscall.EINVAL} {
		if errors.Is(err, refusal) {
			return 0, fmt.Errorf("%w: %w", errNoUserNS, err)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("start test binary in a user namespace: %w", err)
	}
	// `go test` interrupts and quits the process that it knows: this one. The stack traces are in the other.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				// It may have ended by itself meanwhile; Wait tells.
				_ = cmd.Process.Signal(s)
			case <-done:
				return
			}
		}
	}()
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		// A death by signal has code -1.
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run test binary in a user namespace: %w", err)
	}
	return 0, nil
}

// prepareUserNS makes the new namespaces look like a host's: loopback up, a /sys that shows this network namespace, and a /run
// that can be written (plugins keep lock files there).
func prepareUserNS() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		// EPERM: inside a container whose own /sys is partly masked. Only tests that read /sys/class/net would notice.
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
