// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// definitions are as many NetworkAttachmentDefinitions, n0 and so on, of as many bytes. They are written as they are asked for, so that
// this process has no memory of them.
type definitions struct {
	count, size int
	// streaming API servers list by a watch (WatchList, KEP-3157): by default from Kubernetes 1.34 on.
	streaming bool
}

func (d definitions) one(i int) string {
	config := fmt.Sprintf(`{\"cniVersion\":\"1.0.0\",\"type\":\"bridge\",\"pad\":\"%s\"}`, strings.Repeat("x", max(d.size-53, 0)))
	return fmt.Sprintf(`{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition","metadata":{"namespace":"bench","name":"n%d","uid":"d-%d","resourceVersion":"1"},"spec":{"config":"%s"}}`, i, i, config)
}

// serve is a hook of a front.
func (d definitions) serve(w http.ResponseWriter, r *http.Request) bool {
	_, name, ok := strings.Cut(r.URL.Path, "/network-attachment-definitions")
	initial := r.URL.Query().Get("sendInitialEvents") == "true"
	if initial && !d.streaming { // as API servers do that have it switched off
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,"message":"sendInitialEvents: Forbidden"}`)
		return true
	}
	if !ok {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	watch := r.URL.Query().Get("watch") != ""
	switch {
	case name != "":
		i, err := strconv.Atoi(strings.TrimPrefix(name, "/n"))
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		_, _ = io.WriteString(w, d.one(i))
	case !watch:
		_, _ = io.WriteString(w, `{"apiVersion":"k8s.cni.cncf.io/v1","items":[`)
		for i := range d.count {
			if i > 0 {
				_, _ = io.WriteString(w, ",")
			}
			_, _ = io.WriteString(w, d.one(i))
		}
		_, _ = io.WriteString(w, `],"kind":"NetworkAttachmentDefinitionList","metadata":{"resourceVersion":"1"}}`)
	default:
		if initial {
			for i := range d.count {
				_, _ = fmt.Fprintf(w, "{\"type\":\"ADDED\",\"object\":%s}\n", d.one(i))
			}
			_, _ = io.WriteString(w, `{"type":"BOOKMARK","object":{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n")
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	return true
}

// process is a plexusd of its own, with the memory limit of the manifests.
type process struct {
	*running
	pid int
}

func startProcess(t *testing.T, program string, f *front) *process {
	t.Helper()
	dir := t.TempDir()
	args := append(inCgroup(t), program, "serve", "--node-name=n1", "--kubeconfig="+f.kubeconfig(t), "--socket-dir="+dir, "--listen=",
		"--pod-resources-socket="+filepath.Join(dir, "kubelet.sock"))
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=200MiB")
	cmd.Stderr = t.Output()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{running: &running{dir: dir}, pid: cmd.Process.Pid}
	p.Client = p.client(t)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("plexusd: %v", err)
		}
	})
	return p
}

// inCgroup is a command that runs another one in a cgroup with the memory limit of the manifests; empty where none can be made, and the
// peak is all that there is to look at.
func inCgroup(t *testing.T) []string {
	t.Helper()
	for _, v := range []struct{ root, limit string }{
		{"/sys/fs/cgroup", "memory.max"},                   // v2
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, // v1
	} {
		if _, err := os.Stat(filepath.Join(v.root, "cgroup.procs")); err != nil {
			continue
		}
		dir, err := os.MkdirTemp(v.root, "plexusd-test-") //nolint:usetesting // a cgroup, which has its place
		if err != nil {
			continue
		}
		t.Cleanup(func() { // a cgroup is removed as a folder is, once it is empty
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		if limit, err := os.OpenFile(filepath.Join(dir, v.limit), os.O_WRONLY, 0); err == nil { // without the controller there is none
			defer limit.Close()
			if _, err := io.WriteString(limit, strconv.Itoa(256<<20)); err != nil {
				t.Fatal(err)
			}
			return []string{"sh", "-c", "echo $$ > " + filepath.Join(dir, "cgroup.procs") + ` && exec "$0" "$@"`}
		}
	}
	t.Log("no cgroup can be made here: the kernel does not enforce the limit")
	return nil
}

// peak is the most memory, in MiB, that the process had at any time.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatalf("no VmHWM: %s", text)
	return 0
}

// manifestMiB is what the manifests limit the daemon to, less what the kernel charges the container for beside.
const manifestMiB = 256 - 16

// TestNoAuthorTakesTheDaemonsMemory: with as many large definitions as made daemons of all nodes die at their start, and pods that select
// them as often as an annotation of some hundred bytes can, the daemon stays within the limit of the manifests.
func TestNoAuthorTakesTheDaemonsMemory(t *testing.T) {
	testenv.RequireRoot(t) // plexusd serves root only
	program := filepath.Join(t.TempDir(), "plexusd")
	// As it is, without the race detector's memory, which this test may have.
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, d := range map[string]definitions{
		"definitions of 1 MB, listed at once": {count: 150, size: 1000 << 10},
		"definitions of 1 MB, streamed":       {count: 50, size: 1000 << 10, streaming: true},
		"many that are kept, listed at once":  {count: 5000, size: 15 << 10},
		"many that are kept, streamed":        {count: 2000, size: 15 << 10, streaming: true},
		"definitions of 64 KiB":               {count: 300, size: 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, d.serve)
			const pods = 32
			for i := range pods {
				networks := []string{strings.Repeat("n0,", annotations.MaxElements-1) + "n0"}
				if i%2 == 1 { // as many as fit
					networks = nil
					for n := range (2 << 20) / d.size {
						networks = append(networks, fmt.Sprintf("n%d", (i+n)%d.count))
					}
				}
				f.AddPods(podOf(fmt.Sprintf("web%d", i), strings.Join(networks, ",")))
			}
			p := startProcess(t, program, f)
			eventually(t, func() bool { return p.Ready(t.Context()) == nil }, func() string { return "plexusd to be ready" })
			started := p.peak(t)
			var all sync.WaitGroup
			for i := range pods {
				all.Go(func() {
					s, err := p.client(t).Lookup(t.Context(), source.Query{Pod: refOf(fmt.Sprintf("web%d", i))})
					if errors.Is(err, source.ErrTryAgain) {
						return // a machine that is very busy
					}
					if i%2 == 1 && (err != nil || len(s.Networks) == 0) {
						t.Errorf("Lookup of web%d = %v", i, err)
					}
				})
			}
			all.Wait()
			eventually(t, func() bool { return p.Ready(t.Context()) == nil }, func() string { return "plexusd to be ready after it" })
			most := p.peak(t)
			t.Logf("%d definitions of %d bytes, streaming %v: at most %d MiB after the start, %d MiB after %d lookups at once", d.count, d.size, d.streaming, started, most, pods)
			if most > manifestMiB {
				t.Errorf("plexusd took %d MiB (%d at its start), and has %d", most, started, manifestMiB)
			}
		})
	}
}
