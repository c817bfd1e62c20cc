// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// workerEnv makes this binary a worker; it holds the programs, as JSON.
const workerEnv = "PLEXUS_CRASH_WORKER"

var (
	schedules = flag.Int("schedules", 300, "how many schedules to run")
	seed      = flag.Uint64("seed", 0, "what the schedules are made from; 0 takes one from the clock")
	replay    = flag.Uint64("replay", 0, "run this one schedule, `seed`, as often as -schedules says")
	workers   = flag.Int("workers", 2*runtime.NumCPU(), "how many schedules run at a time, each on a host of its own")
)

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(workerEnv); ok {
		if err := work(text, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testenv.InUserNS(m))
}

// outcome is what a worker tells of a schedule.
type outcome struct {
	Seed    uint64
	Failure string
	Log     []string
	Counts  map[string]int
	Took    time.Duration
}

// work runs the schedules whose seeds come in, one a line, and tells of each.
func work(setup string, in io.Reader, out io.Writer) error {
	var p programs
	if err := json.Unmarshal([]byte(setup), &p); err != nil {
		return err
	}
	if err := os.Unsetenv(workerEnv); err != nil {
		return err
	}
	ctx := context.Background()
	w, err := newWorld(ctx, p)
	if err != nil {
		return err
	}
	told := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var o outcome
		if _, err := fmt.Sscan(lines.Text(), &o.Seed); err != nil {
			return err
		}
		began := time.Now()
		w.counts = map[string]int{}
		if err := w.run(ctx, newSchedule(o.Seed)); err != nil {
			w.mu.Lock()
			o.Failure, o.Log = err.Error(), append(w.log, remains()...)
			w.mu.Unlock()
		}
		o.Counts, o.Took = w.counts, time.Since(began)
		if err := told.Encode(o); err != nil {
			return err
		}
		if o.Failure != "" {
			return w.killOrphans(ctx) // what is left would fail the next one too: another worker takes over
		}
	}
	return nil
}

// remains are the records and caches that are there.
func remains() []string {
	var all []string
	for _, dir := range []string{"/state/records", "/state/results", "/leases/*", "/fabric*/leases/*"} {
		files, _ := filepath.Glob(root + dir + "/*") // the pattern is a good one
		for _, f := range files {
			if text, err := os.ReadFile(f); err == nil && !strings.Contains(f, "/lock") && !strings.Contains(f, "/last_reserved_ip") {
				all = append(all, fmt.Sprintf("%s: %.400s", f, text))
			}
		}
	}
	return all
}

func TestSchedules(t *testing.T) {
	testenv.RequireRoot(t)
	setup, err := json.Marshal(programs{
		Plexus:   testenv.Build(t, "./cmd/plexus"),
		Stepping: testenv.Build(t, "./integration/crash/plexus", "./integration/crash/fabric", "./integration/crash/daemon"),
		Plugins:  testenv.Plugins(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seeds := make(chan uint64)
	outcomes := make(chan outcome)
	var running sync.WaitGroup
	for range min(*workers, *schedules) {
		running.Go(func() {
			for employ(ctx, string(setup), seeds, outcomes) {
			}
		})
	}
	go func() {
		defer close(seeds)
		r := rand.New(rand.NewPCG(*seed, 1))
		for range *schedules {
			next := r.Uint64() >> 16 // short enough to type
			if *replay != 0 {
				next = *replay
			}
			select {
			case seeds <- next:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() {
		running.Wait()
		close(outcomes)
	}()
	report(t, outcomes, cancel)
}

// mostFailures are enough to look at.
const mostFailures = 10

// report tells what failed, how to see it again, and what was done.
func report(t *testing.T, outcomes <-chan outcome, stop func()) {
	t.Helper()
	began := time.Now()
	total, failed := 0, 0
	counts := map[string]int{}
	var took time.Duration
	var slowest outcome
	for o := range outcomes {
		total++
		took += o.Took
		if o.Took > slowest.Took {
			slowest = o
		}
		for what, n := range o.Counts {
			counts[what] += n
		}
		if o.Failure != "" && failed < mostFailures {
			if failed++; failed == mostFailures {
				stop()
			}
			t.Errorf("schedule 0x%x: %s\n%s\nagain: go test ./integration/crash -count=1 -run TestSchedules -args -replay 0x%x -schedules 50",
				o.Seed, o.Failure, strings.Join(o.Log, "\n"), o.Seed)
		}
		if total%500 == 0 {
			t.Logf("%d schedules, %d failed, %v", total, failed, time.Since(began).Round(time.Second))
		}
	}
	var summary strings.Builder
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&summary, "%8d  %s\n", counts[what], what)
	}
	t.Logf("seed %d: %d schedules in %v, %d failed; %v each, 0x%x %v\n%s", *seed, total, time.Since(began).Round(time.Second), failed, (took / time.Duration(max(total, 1))).Round(time.Millisecond), slowest.Seed, slowest.Took.Round(time.Millisecond), &summary)
}

// employ runs a worker until there are no more seeds, or until it has met a failure: then another one has to take over.
func employ(ctx context.Context, setup string, seeds <-chan uint64, outcomes chan<- outcome) bool {
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	defer runtime.UnlockOSThread()
	first, ok := <-seeds
	if !ok {
		return false
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), workerEnv+"="+setup)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		outcomes <- outcome{Seed: first, Failure: "start a worker: " + err.Error()}
		return true
	}
	defer func() {
		_ = in.Close()
		_ = cmd.Wait() // it has told what it had to
	}()
	told := json.NewDecoder(out)
	for s := first; ok; s, ok = <-seeds {
		o := outcome{Seed: s}
		_, err := fmt.Fprintln(in, s)
		if err == nil {
			err = told.Decode(&o)
		}
		if err != nil {
			o.Failure = "the worker ended: " + err.Error()
		}
		outcomes <- o
		if o.Failure != "" {
			return true
		}
	}
	return false
}
