// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getpid() != 1 {
		os.Exit(m.Run())
	}
	if err := Main(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// boot boots this test's own program as a node.
func boot(t *testing.T) *Node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("to make namespaces takes root")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	n, err := Boot(t.Context(), program, Layout{
		Root:   t.TempDir(),
		Dirs:   []string{"/mnt"},
		Files:  map[string]string{"/proc/sys/kernel/panic": "1234\n"},
		Search: os.Getenv("PATH"),
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Halt)
	return n
}

func TestANodeHasAFileSystemNetworkAndProcessesOfItsOwn(t *testing.T) {
	t.Parallel()
	n := boot(t)
	for _, test := range []struct{ command, want string }{
		{"cat /proc/sys/kernel/panic", "1234"},
		{"echo 9 >/proc/sys/kernel/panic; echo $?", "0"},
		{"ls -A /mnt", ""},
		{"ls -A /run", "lock netns"},
		{"ls /sys/class/net", "lo"},
		{"cat /proc/sys/net/ipv4/ip_forward", "1"},
		{"readlink /proc/1/exe | xargs basename", "node.test"},
	} {
		out, err := n.Exec(t.Context(), "sh", "-c", test.command)
		if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != test.want {
			t.Errorf("%s: got %q, %v, want %q", test.command, got, err, test.want)
		}
	}
	if content, err := os.ReadFile("/proc/sys/kernel/panic"); err != nil || strings.TrimSpace(string(content)) == "9" {
		t.Errorf("the node changed the machine's /proc/sys/kernel/panic: %q, %v", content, err)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	n := boot(t)
	t.Run("many at once all end", func(t *testing.T) {
		results := make(chan error)
		const programs = 100
		for range programs {
			go func() {
				_, err := n.Exec(t.Context(), "true")
				results <- err
			}()
		}
		for range programs {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("one that fails says why", func(t *testing.T) {
		_, err := n.Exec(t.Context(), "sh", "-c", "echo reason >&2; exit 3")
		if err == nil || !strings.Contains(err.Error(), "exit status 3: reason") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one that is not there says so", func(t *testing.T) {
		if _, err := n.Exec(t.Context(), "no-such-program"); err == nil || !strings.Contains(err.Error(), "not found") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one that takes too long is killed", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := n.Exec(ctx, "sleep", "7777"); err == nil {
			t.Error("got no error")
		}
		if out, err := n.Exec(t.Context(), "sh", "-c", "while pgrep -x -f 'sleep 7777'; do :; done"); err != nil {
			t.Errorf("%s: %v", out, err)
		}
	})
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	n := boot(t)
	log := filepath.Join(t.TempDir(), "log")
	for range 20 {
		if err := n.Start(Process{Name: "p", Argv: []string{"sh", "-c", "echo started; exec sleep 8888"}, Log: log}); err != nil {
			t.Fatal(err)
		}
		if !n.Running("p") {
			t.Fatal("not running after its start")
		}
		if err := n.Start(Process{Name: "p", Argv: []string{"true"}, Log: log}); err == nil {
			t.Error("started twice")
		}
		if err := n.Stop(t.Context(), "p", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if n.Running("p") {
			t.Fatal("running after its end")
		}
	}
	if err := n.Stop(t.Context(), "p", syscall.SIGKILL); err == nil {
		t.Error("stopped what does not run")
	}
}

func TestHaltEndsEveryProcess(t *testing.T) {
	t.Parallel()
	n := boot(t)
	if _, err := n.Exec(t.Context(), "sh", "-c", "setsid sleep 9999 >/dev/null 2>&1 </dev/null &"); err != nil {
		t.Fatal(err)
	}
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	n.Halt()
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == namespace {
			t.Errorf("%s outlived its node", link)
		}
	}
}
