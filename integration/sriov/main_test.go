// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sriov has the tests that need real VFs. They run in a virtual machine with two emulated SR-IOV NICs (`make e2e-sriov`), as root, on
// the machine's own network: not on one that is used for anything else. Without -vfs none runs.
package sriov

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
	"github.com/plexus-cni/plexus/sriov"
)

// crashAt, in the environment, makes this program the plugin sriov, which kills itself at the step of that number.
const crashAt = "PLEXUS_TEST_CRASH_AT"

var (
	withVFs = flag.Bool("vfs", false, "use the machine's SR-IOV NICs")
	bin     = flag.String("bin", ".", "`folder` with plexus and the reference plugins")
)

func TestMain(m *testing.M) {
	if at := os.Getenv(crashAt); at != "" {
		os.Exit(crash(at))
	}
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// programs are those that the tests run, beside this one as "self".
const self = "self"

func programs() []string { return []string{"plexus", "host-local", "ptp"} }

// run runs the tests with copies of the programs in memory: where they lie in a virtual machine they take long to read.
func run(m *testing.M) (int, error) {
	if !*withVFs {
		// `go test` then says "[no tests to run]" after the package's name, where it would say nothing of tests that skip.
		fmt.Fprintln(os.Stderr, "integration/sriov runs nothing without SR-IOV NICs: run `make e2e-sriov`, or with -args -vfs on a machine that has them and nothing else to do")
		if err := flag.Set("test.run", "^$"); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "bin")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // as the whole machine goes
	executable, err := os.Executable()
	if err != nil {
		return 1, err
	}
	from := map[string]string{self: executable, sriov.Type: filepath.Join(*bin, "plexus")}
	for _, name := range programs() {
		from[name] = filepath.Join(*bin, name)
	}
	for name, path := range from {
		data, err := os.ReadFile(path)
		if err != nil {
			return 1, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o700); err != nil {
			return 1, err
		}
	}
	*bin = dir
	return m.Run(), nil
}

// crash is the plugin sriov, which ends at a step as kill -9 ends it: no code of its own runs any more.
func crash(at string) int {
	var n, last int
	if _, err := fmt.Sscan(at, &last); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	conf, err := os.ReadFile("/dev/stdin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	p := &sriov.Plugin{
		Kernel: netdev.NewLinux(), Sysfs: sysfs.New("/sys"), Dir: sriov.DefaultDir, LegacyDir: sriov.DefaultLegacyDir,
		Run: (&delegate.Exec{Timeout: stepLimit}).Run, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Step: func(name string) error {
			if n++; n == last {
				fmt.Fprintln(os.Stderr, "step", name)
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		},
	}
	environ := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, crashAt+"=") })
	if _, err := p.Builtin(ctx, conf, environ); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}
