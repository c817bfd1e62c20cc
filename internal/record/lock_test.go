// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// roleEnv makes the test binary play one process of a lock test: "<role>:<directory of the store>".
const roleEnv = "RECORD_TEST_ROLE"

const (
	// soon is how long a lock that is held is waited for: long enough that the wait has begun, whatever the machine does.
	soon = 50 * time.Millisecond
	// late is when a test gives up on what must happen.
	late = 20 * time.Second
)

func TestMain(m *testing.M) {
	role, dir, _ := strings.Cut(os.Getenv(roleEnv), ":")
	if role == "" {
		os.Exit(testenv.InUserNS(m))
	}
	play := func() error { return play(role, record.Open[doc](dir)) }
	if role == "slot" {
		play = func() error { return holdSlot(dir) }
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// play says "ready" when it has what the role is about, and ends with its standard input.
func play(role string, s *record.Store[doc]) error {
	if role == "sleeper" { // A delegate plugin: knows of no lock, has inherited one.
		fmt.Println("ready")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
	l, err := s.Lock(context.Background(), "k")
	if err != nil {
		return err
	}
	if role == "holder" {
		fmt.Println("ready")
		_, err := io.Copy(io.Discard, os.Stdin)
		return errors.Join(err, l.Unlock())
	}
	// A parent: its child says "ready" and ends with the input, in place of itself.
	child := process(context.Background(), "sleeper", "", l)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	return child.Run()
}

func process(ctx context.Context, role, dir string, inherit *record.Lock) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role+":"+dir)
	if inherit != nil {
		cmd.ExtraFiles = []*os.File{inherit.File()}
	}
	return cmd
}

// start runs a process until it is ready. It ends when the returned pipe is closed.
func start(t *testing.T, role, dir string, inherit *record.Lock) (*exec.Cmd, *os.File) {
	t.Helper()
	cmd := process(t.Context(), role, dir, inherit)
	// A pipe of our own: the one of StdinPipe would be closed by Wait, and the child of a killed parent shall live on.
	stdin, end, err := os.Pipe()
	must(t, err)
	out, say, err := os.Pipe()
	must(t, err)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, say, os.Stderr
	must(t, cmd.Start())
	must(t, errors.Join(stdin.Close(), say.Close()))
	t.Cleanup(func() { _ = errors.Join(end.Close(), out.Close()) })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%s said %q, %v", role, line, err)
	}
	return cmd, end
}

// mustBeHeld tries to take the lock of k and must fail.
func mustBeHeld(t *testing.T, s *record.Store[doc], file string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	l, err := s.Lock(ctx, "k")
	if err == nil {
		_ = l.Unlock()
		t.Fatal("got a lock that another process holds")
	}
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "still holds") {
		t.Errorf("Lock: %v, want the deadline and the name of %s", err, file)
	}
}

// mustGet takes the lock of k, waiting for whoever releases it just now, and gives it back.
func mustGet(t *testing.T, s *record.Store[doc]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	l, err := s.Lock(ctx, "k")
	must(t, err)
	must(t, l.Unlock())
}

// mustBecomeEmpty waits until the directory holds nothing.
func mustBecomeEmpty(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	for tick := time.Tick(time.Millisecond); len(list(t, dir)) > 0; {
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("directory still holds %q", list(t, dir))
		}
	}
}

func TestLockExcludesAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	holder, end := start(t, "holder", dir, nil)
	mustBeHeld(t, s, filepath.Join(dir, "k.lock"))
	other, err := s.Lock(t.Context(), "other")
	must(t, err)
	must(t, other.Unlock())
	must(t, end.Close())
	mustGet(t, s)
	must(t, holder.Wait())
	mustBecomeEmpty(t, dir)
}

func TestLockOfAKilledProcessIsFree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	holder, _ := start(t, "holder", dir, nil)
	must(t, holder.Process.Kill())
	_ = holder.Wait()
	mustGet(t, record.Open[doc](dir))
	mustBecomeEmpty(t, dir)
}

func TestInheritedLockOutlivesItsKilledParent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	parent, end := start(t, "parent", dir, nil)
	must(t, parent.Process.Kill())
	_ = parent.Wait()
	mustBeHeld(t, s, filepath.Join(dir, "k.lock"))
	must(t, end.Close()) // The child ends, and with it the lock.
	mustGet(t, s)
	mustBecomeEmpty(t, dir)
}

func TestUnlockReleasesForChildrenThatInheritedIt(t *testing.T) {
	t.Parallel()
	s := record.Open[doc](t.TempDir())
	l, err := s.LockAll(t.Context(), true)
	must(t, err)
	child, end := start(t, "sleeper", "", l)
	must(t, l.Unlock())
	must(t, l.Unlock())
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	again, err := s.LockAll(ctx, true)
	must(t, err)
	must(t, again.Unlock())
	must(t, end.Close())
	must(t, child.Wait())
}

func TestAbandonedWaitGivesTheLockBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := record.Open[doc](dir)
	l, err := s.Lock(t.Context(), "k")
	must(t, err)
	for range 10 {
		mustBeHeld(t, s, filepath.Join(dir, "k.lock"))
	}
	must(t, l.Unlock())
	mustGet(t, s)
	mustBecomeEmpty(t, dir)
}

func TestLockWithADoneContextTakesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := record.Open[doc](t.TempDir()).Lock(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock: %v, want canceled", err)
	}
}

func TestOnlyOneHoldsALockWhoseFileComesAndGoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	var holders, total atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			s := record.Open[doc](dir)
			for range 20 {
				l, err := s.Lock(ctx, "k")
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				// Long enough, and with system calls, that others get their turn to be wrong.
				if _, err := os.ReadDir(dir); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
				total.Add(1)
				holders.Add(-1)
				if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := total.Load(); got != 1000 {
		t.Errorf("the lock was held %d times, want 1000", got)
	}
	mustBecomeEmpty(t, dir)
}

func TestLockAllIsSharedOrAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "records") // GC of a fresh node: not there yet.
	s := record.Open[doc](dir)
	held := func(exclusive bool) bool {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		l, err := s.LockAll(ctx, exclusive)
		if err == nil {
			must(t, l.Unlock())
			return false
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		return true
	}
	first, err := s.LockAll(t.Context(), false)
	must(t, err)
	second, err := s.LockAll(t.Context(), false)
	must(t, err)
	if !held(true) {
		t.Error("exclusive beside two shared")
	}
	must(t, first.Unlock())
	if !held(true) {
		t.Error("exclusive beside one shared")
	}
	must(t, second.Unlock())

	alone, err := s.LockAll(t.Context(), true)
	must(t, err)
	if !held(false) || !held(true) {
		t.Error("another beside an exclusive one")
	}
	must(t, alone.Unlock())
	if held(true) {
		t.Error("still held after everybody's Unlock")
	}
	if keys, err := s.Keys(); err != nil || len(keys) != 0 {
		t.Errorf("Keys: %q, %v", keys, err)
	}
}
