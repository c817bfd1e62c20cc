// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/e2e/components"
	"github.com/plexus-cni/plexus/e2e/vm"
)

// bootLimit is for a machine whose program takes no time. Alone on two processors, it takes six seconds.
const bootLimit = 5 * time.Minute

// machine returns the machine, whose parts are fetched where they are missing.
func machine(t *testing.T) *vm.Machine {
	t.Helper()
	cache, err := components.CacheDir(os.Getenv("PLEXUS_E2E_CACHE"))
	if err != nil {
		t.Fatal(err)
	}
	module, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	m, err := vm.Builder{Module: module, Cache: cache, Log: t.Output()}.Build(t.Context())
	if errors.Is(err, vm.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAProgramRunsInItsFolderAndItsOutputAndExitCodeComeBack(t *testing.T) {
	t.Parallel()
	const script = `#!/bin/sh
seq 20000
cat sub/input
echo "$0 $1 $NAME" >result
/sbin/ip -brief link show up
# Drivers that nobody loaded.
/sbin/ip link add veth0 type veth peer name veth1 && /sbin/ip link add link pf0 name vlan0 type vlan id 7 && : </dev/net/tun && modprobe nf_tables || exit 1
# Whose parent is gone must not stay as a zombie.
orphan=$(sh -c 'true >/dev/null & echo $!')
while [ -d "/proc/$orphan" ]; do sleep 0.1; done
# What is left running holds the output open.
sleep 1000 &
exit 42
`
	dir := t.TempDir()
	program, input, work := filepath.Join(dir, "program"), filepath.Join(dir, "input"), filepath.Join(dir, "work")
	if err := errors.Join(os.WriteFile(program, []byte(script), 0o700), os.WriteFile(input, []byte("of the input\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code, err := machine(t).Run(t.Context(), vm.Config{
		Program: program, Args: []string{"an argument"}, Env: []string{"NAME=of the environment"},
		Files: map[string]string{"sub/input": input}, Dir: work,
		PFs: 1, Modules: []string{"igb"}, Limit: bootLimit, Output: &out,
	})
	if err != nil || code != 42 {
		t.Fatalf("got exit code %d, %v, want 42\n%s", code, err, out.Bytes())
	}
	var want strings.Builder
	for i := range 20000 {
		fmt.Fprintln(&want, i+1)
	}
	fmt.Fprintln(&want, "of the input")
	links, ok := strings.CutPrefix(out.String(), want.String())
	if !ok {
		t.Errorf("output is not whole: got %d bytes, want at least %d", out.Len(), want.Len())
	}
	for _, name := range []string{"wire0", "pf0"} {
		if !strings.Contains(links, name+" ") || !strings.Contains(links, "LOWER_UP") {
			t.Errorf("%s is not up with a link:\n%s", name, links)
		}
	}
	result, err := os.ReadFile(filepath.Join(work, "result"))
	if diff := cmp.Diff("./program an argument of the environment\n", string(result)); err != nil || diff != "" {
		t.Errorf("result in the work folder: %v (-want +got):\n%s", err, diff)
	}
}

func TestEachPFHasVFsWithTheirDriverAndVFIOTakesOne(t *testing.T) {
	t.Parallel()
	m := machine(t)
	program := filepath.Join(t.TempDir(), "vfs")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/vfs")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out bytes.Buffer
	code, err := m.Run(t.Context(), vm.Config{
		Program: program, PFs: 2, IOMMU: true, Limit: bootLimit, Output: &out,
		Modules: []string{"igb", "igbvf", "netdevsim", "vfio_iommu_type1", "vfio-pci"},
	})
	if err != nil || code != 0 {
		t.Fatalf("got exit code %d, %v\n%s", code, err, out.Bytes())
	}
	const want = `pf0 0 0000:01:10.0 igbvf true
pf0 1 0000:01:10.2 igbvf true
pf1 0 0000:02:10.0 igbvf true
pf1 1 0000:02:10.2 igbvf true
0000:01:10.0 vfio-pci true
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
}

func TestAKernelThatPanicsIsReportedWithItsLastWords(t *testing.T) {
	t.Parallel()
	_, err := machine(t).Run(t.Context(), vm.Config{
		Program: "sh", Args: []string{"-c", "echo c > /proc/sysrq-trigger"}, Limit: bootLimit, Output: io.Discard,
	})
	if !errors.Is(err, vm.ErrCrashed) || !strings.Contains(err.Error(), "Kernel panic - not syncing: sysrq triggered crash") {
		t.Errorf("got %v, want %v with the kernel's panic", err, vm.ErrCrashed)
	}
}

// notify closes a channel at the first output.
type notify struct{ seen chan struct{} }

func (n notify) Write(p []byte) (int, error) {
	close(n.seen)
	return len(p), nil
}

func TestOutputComesAsItIsWrittenAndTheMachineEndsWhenNobodyWaitsAnyMore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan struct{})
	go func() {
		<-seen
		cancel()
	}()
	_, err := machine(t).Run(ctx, vm.Config{
		Program: "sh", Args: []string{"-c", "echo; sleep 1000"}, Limit: bootLimit, Output: notify{seen},
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestAMachineThatTakesTooLongIsEnded(t *testing.T) {
	t.Parallel()
	_, err := machine(t).Run(t.Context(), vm.Config{Program: "sh", Limit: time.Millisecond, Output: io.Discard})
	if !errors.Is(err, vm.ErrTimeout) || !strings.Contains(err.Error(), "1ms") {
		t.Errorf("got %v, want %v", err, vm.ErrTimeout)
	}
}

func TestAProgramThatTheGuestLacksIsNamed(t *testing.T) {
	t.Parallel()
	_, err := machine(t).Run(t.Context(), vm.Config{Program: "no-such-program", Limit: bootLimit, Output: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "program no-such-program: executable file not found") {
		t.Errorf("got %v", err)
	}
}

func TestWhatCanNotRunIsRefusedBeforeTheMachineStarts(t *testing.T) {
	t.Parallel()
	m := machine(t)
	dynamic, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	valid := vm.Config{Program: "true", Limit: bootLimit, Output: io.Discard}
	for name, test := range map[string]struct {
		change func(*vm.Config)
		want   string
	}{
		"no program":                      {func(c *vm.Config) { c.Program = "" }, "no program named"},
		"a program that is not there":     {func(c *vm.Config) { c.Program = "./no-such" }, "no-such: no such file"},
		"a program with shared libraries": {func(c *vm.Config) { c.Program = dynamic }, "build it with CGO_ENABLED=0"},
		"too many PFs":                    {func(c *vm.Config) { c.PFs = 9 }, "number of PFs 9: must be 0 to 8"},
		"less than no PFs":                {func(c *vm.Config) { c.PFs = -1 }, "number of PFs -1: must be 0 to 8"},
		"no time":                         {func(c *vm.Config) { c.Limit = 0 }, "time limit 0s"},
		"an unknown module":               {func(c *vm.Config) { c.Modules = []string{"igb-vf"} }, `kernel module "igb-vf"`},
		"a file outside of the folder":    {func(c *vm.Config) { c.Files = map[string]string{"../f": dynamic} }, `file "../f"`},
		"a folder for a file":             {func(c *vm.Config) { c.Files = map[string]string{"f": "/"} }, "/ is not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := valid
			test.change(&c)
			if _, err := m.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
