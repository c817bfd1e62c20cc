// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/plugin"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// The test binary is its own plugin under test: with this variable set it answers one CNI call, and at the step that the variable
// names ("fail NAME", "kill NAME", "place NAME" to see that others may run plugins meanwhile, or "list FILE" to write all names down) it
// does what the variable says.
const faultEnv = "PLEXUS_TEST_FAULT"

func TestMain(m *testing.M) {
	if fault, ok := os.LookupEnv(faultEnv); ok {
		servePlugin(fault)
		return
	}
	if os.Getenv("PLEXUS_TEST_WITHOUT_INOTIFY") != "" {
		os.Exit(m.Run()) // as a user without any privilege
	}
	os.Exit(testenv.InUserNS(m))
}

// kernel is the real one, but for the boot that a test says it is.
type kernel struct{ *netdev.Linux }

const bootEnv = "PLEXUS_TEST_BOOT"

func (k kernel) BootID() (string, error) {
	if id := os.Getenv(bootEnv); id != "" {
		return id, nil
	}
	return k.Linux.BootID()
}

var errInjected = errors.New("injected fault")

func servePlugin(fault string) {
	what, at, _ := strings.Cut(fault, " ")
	var conf *config.Config
	p := &plugin.Plugin{
		Environ: os.Environ(),
		Source: func(c *config.Config) (source.Source, error) {
			conf = c
			if c.ManifestDir == "" {
				return nil, nil
			}
			return manifest.New(c.ManifestDir), nil
		},
		Kernel: kernel{netdev.NewLinux()},
		// Long enough for a live call of these tests to end, on a busy machine.
		LockTimeout: 3 * time.Second,
		Log:         func(config.Log) *slog.Logger { return slog.New(slog.DiscardHandler) },
		Step: func(name string) error {
			switch {
			case what == "list":
				f, err := os.OpenFile(at, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(f, name)
				return errors.Join(err, f.Close())
			case what == "fail" && name == at:
				return errInjected
			case what == "kill" && name == at:
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			case what == "place" && name == at:
				return takePlace(conf)
			}
			return nil
		},
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	call := func(f func(context.Context, *skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(a *skel.CmdArgs) error {
			if err := f(ctx, a); err != nil {
				return plugin.Error(err)
			}
			return nil
		}
	}
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: call(func(ctx context.Context, a *skel.CmdArgs) error {
			result, err := p.Add(ctx, a)
			if err != nil {
				return err
			}
			return result.Print()
		}),
		Del: call(p.Del), Check: call(p.Check), GC: call(p.GC), Status: call(p.Status),
	}, version.All, "")
}

// takePlace takes a place for plugins, as another call would, and gives it back.
func takePlace(c *config.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	place, err := record.OpenSlots(filepath.Join(c.CNIDir, "slots"), c.MaxParallelDelegates).Take(ctx)
	if err != nil {
		return err
	}
	return place.Unlock()
}

// node is a host with reference plugins, one pod of four networks, and a sandbox for it.
type node struct {
	t             *testing.T
	host, sandbox string // network namespaces
	dir           string
	conf          []byte
	containerID   string
	bootID        string // "" for the kernel's
}

func newNode(t *testing.T) *node {
	t.Helper()
	testenv.RequireRoot(t)
	n := &node{t: t, host: testenv.NetNS(t), sandbox: testenv.NetNS(t), dir: t.TempDir(), containerID: "c1"}
	testenv.Veth(t, testenv.End{NetNS: n.host, Name: "parent0"}, testenv.End{NetNS: n.host, Name: "parent1"})
	ipam := func(subnets ...string) string {
		ranges := make([]string, 0, len(subnets))
		for _, s := range subnets {
			ranges = append(ranges, fmt.Sprintf(`[{"subnet":%q}]`, s))
		}
		return fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"ranges":[%s],"routes":[{"dst":"0.0.0.0/0"}]}`, n.path("ipam"), strings.Join(ranges, ","))
	}
	nad := func(name, config string) string {
		return fmt.Sprintf("---\nkind: NetworkAttachmentDefinition\nmetadata: {name: %s}\nspec:\n  config: '%s'\n", name, config)
	}
	manifests := `kind: Pod
metadata:
  name: web
  annotations:
    k8s.v1.cni.cncf.io/networks: '[{"name":"lan"},{"name":"wan","interface":"wan0","default-route":["10.78.2.1"]},{"name":"p2p"}]'
` +
		nad("lan", `{"plugins":[{"type":"bridge","bridge":"lan0","isGateway":true,`+ipam("10.78.1.0/24", "fd00:78:1::/64")+`},{"type":"tuning","mtu":1400}]}`) +
		nad("wan", `{"type":"macvlan","master":"parent0",`+ipam("10.78.2.0/24")+`}`) +
		nad("p2p", `{"type":"ptp",`+ipam("10.78.3.0/24")+`}`)
	n.write("manifests/all.yaml", manifests)
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "plexus", "type": "plexus",
		"binDir": testenv.Plugins(t), "cniDir": n.path("state"), "legacyCNIDir": n.path("legacy"), "manifestDir": n.path("manifests"),
		"delegates":                 []any{json.RawMessage(`{"cniVersion":"1.0.0","name":"cluster","type":"bridge","bridge":"cni0","isGateway":true,` + ipam("10.78.0.0/24") + `}`)},
		"cni.dev/valid-attachments": []any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.conf = conf
	// A bridge is not taken away with its last port: have it from the start.
	n.mustCall("ADD", "")
	n.mustCall("DEL", "")
	return n
}

// in is the same node for a subtest.
func (n *node) in(t *testing.T) *node {
	t.Helper()
	sub := *n
	sub.t = t
	return &sub
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(n.path(name)), 0o700); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(n.path(name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// command is one call of the plugin.
func (n *node) command(verb, fault string) *exec.Cmd {
	n.t.Helper()
	cmd := exec.CommandContext(n.t.Context(), "/proc/self/exe")
	// Without the last one, a race-instrumented process sleeps for a second when it ends.
	cmd.Env = append(os.Environ(), faultEnv+"="+fault, bootEnv+"="+n.bootID, "CNI_COMMAND="+verb, "CNI_CONTAINERID="+n.containerID, "CNI_IFNAME=eth0",
		"CNI_NETNS="+n.sandbox, "CNI_PATH=/nowhere", "CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=web", "GORACE=atexit_sleep_ms=0")
	cmd.Stdin = bytes.NewReader(n.conf)
	return cmd
}

// onHost does something in the host's network namespace, as a runtime does.
func (n *node) onHost(do func() error) {
	n.t.Helper()
	if err := ns.WithNetNSPath(n.host, func(ns.NetNS) error { return do() }); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) call(verb, fault string) ([]byte, error) {
	n.t.Helper()
	cmd := n.command(verb, fault)
	var out []byte
	var err error
	n.onHost(func() error {
		out, err = cmd.Output()
		return nil
	})
	return out, err
}

func (n *node) mustCall(verb, fault string) []byte {
	n.t.Helper()
	out, err := n.call(verb, fault)
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", verb, err, out)
	}
	return out
}

// snapshot lists everything that an ADD leaves on a host: links, their addresses, default routes, and files.
func (n *node) snapshot() []string {
	n.t.Helper()
	kernel := netdev.NewLinux()
	var all []string
	for _, netns := range []string{n.host, n.sandbox} {
		links, err := kernel.Links(netns)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, l := range links {
			all = append(all, fmt.Sprintf("%s: link %s mtu %d", filepath.Base(netns), l.Name, l.MTU))
			for _, a := range l.Addrs {
				if !a.Addr().IsLinkLocalUnicast() { // the kernel's own, and it takes its time
					all = append(all, fmt.Sprintf("%s: %s on %s", filepath.Base(netns), a, l.Name))
				}
			}
		}
		routes, err := kernel.DefaultRoutes(netns)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, r := range routes {
			all = append(all, fmt.Sprintf("%s: default route %v", filepath.Base(netns), r))
		}
	}
	for _, f := range n.files() {
		all = append(all, "file "+f)
	}
	slices.Sort(all)
	return all
}

// files are all files of the node's folder, but for what marks no attachment: host-local's bookkeeping, our directory's lock and
// boot marker, the status that a DEL, which has no source, leaves.
func (n *node) files() []string {
	n.t.Helper()
	var files []string
	err := filepath.WalkDir(n.dir, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		if err != nil || d.IsDir() || name == "lock" || name == "slots" || strings.HasPrefix(name, "last_reserved_ip") || name == ".lock" || name == "boot-id" || name == "source-seen" || name == "default_web.json" {
			return err
		}
		files = append(files, strings.TrimPrefix(path, n.dir))
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return files
}

func (n *node) assertUntouched(before []string) {
	n.t.Helper()
	if diff := cmp.Diff(before, n.snapshot()); diff != "" {
		n.t.Errorf("something is left (-before +after):\n%s", diff)
	}
}

// steps are the names of all steps of an ADD and of a DEL.
func (n *node) steps(verb string) []string {
	n.t.Helper()
	file := n.path("steps-" + verb)
	n.mustCall(verb, "list "+file)
	text, err := os.ReadFile(file)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		n.t.Fatal(err)
	}
	return strings.Fields(strings.ReplaceAll(strings.ReplaceAll(string(text), " ", "\x00"), "\n", " "))
}

func TestFaultAtEveryStepOfADD(t *testing.T) {
	t.Parallel()
	base := newNode(t)
	before := base.snapshot()
	steps := base.steps("ADD")
	if len(steps) < 12 {
		t.Fatalf("an ADD of four networks has only the steps %q", steps)
	}
	if after := base.snapshot(); len(after) < len(before)+10 {
		t.Fatalf("the ADD did not do much, this test would prove nothing:\n%s", strings.Join(after, "\n"))
	}
	delSteps := base.steps("DEL")
	base.assertUntouched(before)
	for _, step := range steps {
		step = strings.ReplaceAll(step, "\x00", " ")
		t.Run("fail at "+step, func(t *testing.T) {
			n := base.in(t)
			out, err := n.call("ADD", "fail "+step)
			if err == nil || !bytes.Contains(out, []byte(errInjected.Error())) {
				t.Fatalf("ADD: %v, want the injected fault\n%s", err, out)
			}
			n.assertUntouched(before) // it rolled back by itself
			n.mustCall("DEL", "")
			n.assertUntouched(before)
		})
		t.Run("kill at "+step, func(t *testing.T) {
			n := base.in(t)
			n.mustBeKilled("ADD", step)
			n.mustCall("DEL", "")
			n.assertUntouched(before)
		})
		t.Run("kill at "+step+", then ADD again", func(t *testing.T) {
			n := base.in(t)
			n.mustBeKilled("ADD", step)
			n.mustCall("ADD", "")
			n.mustCall("CHECK", "")
			n.mustCall("DEL", "")
			n.assertUntouched(before)
		})
		t.Run("kill at "+step+", then GC", func(t *testing.T) {
			n := base.in(t)
			n.mustBeKilled("ADD", step)
			n.mustCall("GC", "")
			n.assertUntouched(before)
		})
	}
	for _, step := range delSteps {
		step = strings.ReplaceAll(step, "\x00", " ")
		for _, fault := range []string{"fail", "kill"} {
			t.Run("DEL: "+fault+" at "+step, func(t *testing.T) {
				n := base.in(t)
				n.mustCall("ADD", "")
				if out, err := n.call("DEL", fault+" "+step); err == nil {
					t.Fatalf("DEL succeeded in spite of the fault: %s", out)
				}
				n.mustCall("DEL", "")
				n.assertUntouched(before)
			})
		}
	}
}

func (n *node) mustBeKilled(verb, step string) {
	n.t.Helper()
	out, err := n.call(verb, "kill "+step)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || !exit.Sys().(syscall.WaitStatus).Signaled() {
		n.t.Fatalf("%s: %v, want it killed at %q\n%s", verb, err, step, out)
	}
}
