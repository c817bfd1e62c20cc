// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package runtimes_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// patience is far more than any call takes on a busy machine.
const patience = 2 * time.Minute

// runtimeCommand as first argument makes the test binary a container runtime: "runtime NAME VERB", with a request on stdin.
const runtimeCommand = "runtime"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == runtimeCommand {
		if err := serve(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testenv.InUserNS(m))
}

// object is a JSON object.
type object = map[string]any

// request is one operation of a runtime on a sandbox.
type request struct {
	ConfDir, BinDir string
	// CacheDir is where the runtime's libcni keeps its results.
	CacheDir string
	// BootFile has the kernel's boot id.
	BootFile string
	// MaxConfNum is containerd's max_conf_num.
	MaxConfNum int

	ID, NetNS                     string
	PodNamespace, PodName, PodUID string
	// Networks are network names, for runtimes that take several. Empty for the default network.
	Networks []string
	// Timeout is the kubelet's patience with a run, zero for more than a test takes.
	Timeout time.Duration
	// IP and MAC are what a user of nerdctl or Podman asks for.
	IP, MAC string
	// Alive are the sandboxes that a runtime keeps in its GC.
	Alive []string
}

// response is what the runtime does with the outcome.
type response struct {
	// Error fails the operation, "" for success.
	Error string
	// Teardown is the error of the DEL that follows a failed ADD or CHECK. Runtimes log it.
	Teardown string
	// Forgotten is set when the runtime will not ask for a DEL of the sandbox again.
	Forgotten bool
	// Results are those of ADD, by interface name.
	Results map[string]*types100.Result
}

// drivers are the operations of each runtime.
var drivers = map[string]map[string]func(context.Context, *request, *response) error{
	"containerd": {"run": containerdRun, "stop": containerdStop, "status": containerdStatus, "check": containerdCheck},
	"crio":       {"run": crioRun, "stop": crioStop, "status": crioStatus, "gc": crioGC},
	"nerdctl":    {"run": nerdctlRun, "stop": nerdctlStop},
	"podman":     {"run": podmanRun, "stop": podmanStop},
}

// serve answers one request.
func serve(name, verb string) error {
	operation, ok := drivers[name][verb]
	if !ok {
		return fmt.Errorf("runtime %s has no %s", name, verb)
	}
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		return fmt.Errorf("decode request: %w", err)
	}
	if err := req.mount(); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	resp := response{Results: map[string]*types100.Result{}}
	if err := operation(context.Background(), &req, &resp); err != nil {
		resp.Error = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(resp)
}

// mount gives the process, which has a mount namespace, the node's libcni cache and boot.
func (r *request) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", filepath.Dir(libcni.CacheDir), "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	if err := os.Mkdir(libcni.CacheDir, 0o755); err != nil {
		return err
	}
	for _, bind := range [][2]string{{r.CacheDir, libcni.CacheDir}, {r.BootFile, "/proc/sys/kernel/random/boot_id"}} {
		if err := unix.Mount(bind[0], bind[1], "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", bind[1], err)
		}
	}
	return nil
}

// podArgs are the CNI_ARGS of the CRI runtimes, in their order.
func (r *request) podArgs() [][2]string {
	return [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", r.PodNamespace},
		{"K8S_POD_NAME", r.PodName},
		{"K8S_POD_INFRA_CONTAINER_ID", r.ID},
		{"K8S_POD_UID", r.PodUID},
	}
}

// runtime is a container runtime of a node.
type runtime struct {
	*node
	name string
	// cache is its libcni's folder.
	cache string
	// program is its own.
	program string
	// maxConfNum is of containerd alone.
	maxConfNum int
}

// runtime installs a container runtime.
func (n *node) runtime(name string) *runtime {
	n.t.Helper()
	r := &runtime{node: n, name: name, cache: n.path("cache-" + name), program: n.path("programs/" + name), maxConfNum: 1}
	n.mkdir("cache-"+name, "programs")
	// Each runtime is a program of its own, by which Plexus tells them apart. A copy could be "text file busy": a process that another test
	// starts meanwhile has it open for writing for a moment.
	err := os.Link(os.Args[0], r.program)
	if errors.Is(err, syscall.EXDEV) {
		var own []byte
		if own, err = os.ReadFile(os.Args[0]); err == nil {
			err = os.WriteFile(r.program, own, 0o755)
		}
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// operation is something that a runtime does.
type operation struct {
	*runtime
	verb string
	*process
}

// start makes the runtime begin something with a sandbox; the options change the request.
func (r *runtime) start(verb string, s *sandbox, options ...func(*request)) *operation {
	r.t.Helper()
	req := &request{
		ConfDir: r.path("net.d"), BinDir: r.path("bin"), CacheDir: r.cache, BootFile: r.path("boot-id"), MaxConfNum: r.maxConfNum,
	}
	if s != nil {
		req.ID, req.NetNS = s.id, s.netns
		req.PodNamespace, req.PodName, req.PodUID = "default", s.pod, "uid-of-"+s.pod
	}
	for _, o := range options {
		o(req)
	}
	return &operation{r, verb, r.exec(req, r.program, nil, runtimeCommand, r.name, verb)}
}

// response waits for the end.
func (o *operation) response() response {
	o.t.Helper()
	out := o.wait()
	var resp response
	if err := json.Unmarshal(out, &resp); err != nil {
		o.t.Fatalf("%s %s: %v: %q", o.name, o.verb, err, out)
	}
	if strings.Contains(resp.Error+resp.Teardown, "goroutine ") {
		o.t.Fatalf("%s %s: the plugin panics: %+v", o.name, o.verb, resp)
	}
	return resp
}

// do makes the runtime do something.
func (r *runtime) do(verb string, s *sandbox, options ...func(*request)) response {
	r.t.Helper()
	return r.start(verb, s, options...).response()
}

// process is a program that runs on a node.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	cancel         context.CancelFunc
}

// exec starts a program in the node's network namespace and a new mount namespace.
func (n *node) exec(stdin any, program string, env []string, args ...string) *process {
	n.t.Helper()
	input, err := json.Marshal(stdin)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	p := &process{t: n.t, cmd: exec.CommandContext(ctx, program, args...), cancel: cancel}
	p.cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...) // a race-instrumented process would sleep when it ends
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = bytes.NewReader(input), &p.stdout, &p.stderr
	p.cmd.WaitDelay = time.Second // plugins that outlive a killed call have its output open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	testenv.Do(n.t, n.netns, p.cmd.Start)
	return p
}

// wait returns what a program that succeeds prints.
func (p *process) wait() []byte {
	p.t.Helper()
	defer p.cancel()
	if err := p.cmd.Wait(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		p.t.Fatalf("%s %q: %v\n%s%s", filepath.Base(p.cmd.Path), p.cmd.Args[1:], err, &p.stdout, &p.stderr)
	}
	return p.stdout.Bytes()
}

// kill ends a program as the kernel's out-of-memory killer does. What it has started goes on.
func (p *process) kill() {
	p.t.Helper()
	defer p.cancel()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait() // it was killed
}

// must does something that has to succeed.
func (r *runtime) must(verb string, s *sandbox, options ...func(*request)) response {
	r.t.Helper()
	resp := r.do(verb, s, options...)
	if resp.Error != "" {
		r.t.Fatalf("%s %s: %s (teardown: %s)", r.name, verb, resp.Error, resp.Teardown)
	}
	return resp
}

// mustFail does something that has to fail, with an error that has all words.
func (r *runtime) mustFail(verb string, s *sandbox, words ...string) response {
	r.t.Helper()
	resp := r.do(verb, s)
	if resp.Error == "" {
		r.t.Fatalf("%s %s succeeds", r.name, verb)
	}
	for _, word := range words {
		if !strings.Contains(resp.Error, word) {
			r.t.Errorf("%s %s: the error does not say %q: %s", r.name, verb, word, resp.Error)
		}
	}
	return resp
}
