// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/ctl"
)

// cluster is a cluster in memory that logs what is done to it.
type cluster struct {
	nodes   []string // with a daemon each
	without []string // nodes without one
	mounts  []string
	// hung are nodes that do not answer.
	hung []string
	fail error

	mu    sync.Mutex
	calls []string
}

// newCluster has two nodes with a daemon that sees the records.
func newCluster() *cluster {
	return &cluster{nodes: []string{"n1", "n2"}, mounts: []string{"/run/plexus", "/var/lib/cni/plexus"}}
}

func (c *cluster) log(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, fmt.Sprintf(format, args...))
}

func (c *cluster) with(kubeContext, _ string) kube {
	if kubeContext != "" {
		c.log("context %s", kubeContext)
	}
	return c
}

func (c *cluster) pod(_ context.Context, namespace, name string) (pod, error) {
	p := pod{namespace: "current", name: name, node: "n1"}
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		p.namespace, p.name = ns, rest
	} else if namespace != "" {
		p.namespace = namespace
	}
	if name == "pending" {
		p.node = ""
	}
	return p, nil
}

func (c *cluster) currentNamespace(context.Context) (string, error) { return "current", nil }

func (c *cluster) daemonSet(_ context.Context, namespace string) (*daemonSet, error) {
	if c.nodes == nil && c.without == nil {
		return nil, nil //nolint:nilnil // as kubectl does
	}
	return &daemonSet{namespace: namespace, name: "plexusd", container: "plexusd", image: "image", mounts: c.mounts}, nil
}

func (c *cluster) daemons(_ context.Context, _ *daemonSet, node string) ([]daemon, error) {
	var found []daemon
	for _, n := range c.nodes {
		if node == "" || node == n {
			found = append(found, daemon{name: "plexusd-" + n, node: n})
		}
	}
	return found, nil
}

func (c *cluster) allNodes() []string { return slices.Concat(c.nodes, c.without) }

func (c *cluster) nodeNames(context.Context) ([]string, error) { return c.allNodes(), nil }

func (c *cluster) privileged(_ context.Context, set *daemonSet, node string, deadline time.Duration) (container, func(), error) {
	c.log("make privileged pod in %s on %s for %v", set.namespace, node, deadline)
	return container{namespace: set.namespace, pod: "own", name: "plexusctl"}, func() { c.log("delete it") }, c.fail
}

func (c *cluster) exec(ctx context.Context, at container, out, _ io.Writer, program ...string) error {
	if slices.ContainsFunc(c.hung, func(n string) bool { return at.pod == "plexusd-"+n }) {
		<-ctx.Done()
		return ctx.Err()
	}
	c.log("%s/%s/%s: %s", at.namespace, at.pod, at.name, strings.Join(program, " "))
	_, err := io.WriteString(out, "output of "+at.pod+"\n")
	return err
}

func TestCommandsRunOnTheNode(t *testing.T) {
	t.Parallel()
	const ctlName = "/usr/bin/plexusctl"
	daemonExec := func(node, args string) string {
		return "plexus-system/plexusd-" + node + "/plexusd: " + ctlName + " " + args
	}
	tests := map[string]struct {
		args  string
		given func(*cluster)
		calls []string
		says  string
	}{
		"the status of a pod": {
			args:  "status web -o wide",
			calls: []string{daemonExec("n1", "status --until-eof --recorded --output=wide -- current/web")},
		},
		"a namespace goes into the name": {
			args:  "status -n shop web",
			calls: []string{daemonExec("n1", "status --until-eof --recorded -- shop/web")},
		},
		"all nodes": {
			args:  "status -n shop",
			calls: []string{daemonExec("n1", "status --until-eof --recorded --namespace=shop --"), daemonExec("n2", "status --until-eof --recorded --namespace=shop --")},
		},
		"the current namespace, as with kubectl": {
			args:  "status --node n1",
			calls: []string{daemonExec("n1", "status --until-eof --recorded --namespace=current --")},
		},
		"all namespaces, as with kubectl": {
			args:  "status -A --node n1",
			calls: []string{daemonExec("n1", "status --until-eof --recorded --")},
		},
		"the component inspect is not there": {
			args: "status", given: func(c *cluster) { c.mounts = []string{"/etc/cni/net.d"} },
			says: "DaemonSet plexus-system/plexusd does not mount /var/lib/cni/plexus of the node, where Plexus keeps its records: apply the component deploy/components/inspect, or add --privileged",
		},
		"trace without the component": {
			args: "trace web", given: func(c *cluster) { c.mounts = nil }, says: "apply the component deploy/components/inspect",
		},
		"records in a folder of one's own": {
			args: "trace web --state-dir /data/plexus", given: func(c *cluster) { c.mounts = []string{"/data"} },
			calls: []string{daemonExec("n1", "trace --until-eof --state-dir=/data/plexus -- current/web")},
		},
		"with privilege no component is needed": {
			args: "status web --privileged", given: func(c *cluster) { c.mounts = nil },
			calls: []string{
				"make privileged pod in plexus-system on n1 for 1h0m0s",
				"plexus-system/own/plexusctl: " + ctlName + " status --until-eof --root=/host -- current/web", "delete it",
			},
		},
		"Plexus is not installed": {
			args: "status", given: func(c *cluster) { c.nodes = nil }, says: "there is no DaemonSet of plexusd in namespace plexus-system: install Plexus, or name its namespace with --plexus-namespace",
		},
		"no daemon runs": {
			args: "status", given: func(c *cluster) { c.without, c.nodes = c.nodes, nil }, says: "no pod of DaemonSet plexus-system/plexusd runs on any node: see",
		},
		"no daemon runs, with privilege": {
			args: "doctor --privileged", given: func(c *cluster) { c.without, c.nodes = c.nodes[:1], nil },
			calls: []string{
				"make privileged pod in plexus-system on n1 for 1h0m0s",
				"plexus-system/own/plexusctl: " + ctlName + " doctor --until-eof --root=/host --", "delete it",
			},
		},
		"a node, where the pod need not be any more": {
			args:  "trace --node n2 shop/old --last 7 --context other",
			calls: []string{"context other", daemonExec("n2", "trace --until-eof --last=7 -- shop/old")},
		},
		"flags that are given twice": {
			args: "trace web --state-dir /a --state-dir /b", given: func(c *cluster) { c.mounts = []string{"/b"} },
			calls: []string{daemonExec("n1", "trace --until-eof --state-dir=/a --state-dir=/b -- current/web")},
		},
		"the live status, with privilege": {
			args: "status web --privileged",
			calls: []string{
				"make privileged pod in plexus-system on n1 for 1h0m0s",
				"plexus-system/own/plexusctl: " + ctlName + " status --until-eof --root=/host -- current/web", "delete it",
			},
		},
		"a capture that takes long": {
			args: "capture web net1 -w - -d 2h --privileged --plexus-namespace net",
			calls: []string{
				"make privileged pod in net on n1 for 2h5m0s",
				"net/own/plexusctl: " + ctlName + " capture --until-eof --root=/host --duration=2h0m0s --write=- -- current/web net1", "delete it",
			},
		},
		"a capture without privilege": {args: "capture web net1 -w -", says: "add --privileged"},
		"stats without privilege":     {args: "stats web", says: "or run `plexusctl stats` on the node"},
		"a pod without a node":        {args: "status pending", says: "pod current/pending has no node yet"},
		"a node without a daemon":     {args: "status --node n9", says: "no pod of DaemonSet plexus-system/plexusd runs on n9: see `kubectl -n plexus-system describe pods`, or add --privileged, which needs no plexusd"},
		"a node whose daemon does not start, with privilege": {
			args: "doctor --node n9 --privileged",
			calls: []string{
				"make privileged pod in plexus-system on n9 for 1h0m0s",
				"plexus-system/own/plexusctl: " + ctlName + " doctor --until-eof --root=/host --", "delete it",
			},
		},
		"JSON of all nodes":      {args: "status -o json", says: "name one with --node"},
		"flags are checked here": {args: "status web -o xml", says: `--output "xml"`},
		"a capture as text": {
			args: "capture web net1 icmp or arp --privileged",
			calls: []string{
				"make privileged pod in plexus-system on n1 for 1h0m0s",
				"plexus-system/own/plexusctl: " + ctlName + " capture --until-eof --root=/host -- current/web net1 icmp or arp", "delete it",
			},
		},
		"what is for this machine is not":    {args: "attach -f .", says: "unknown command"},
		"nobody calls what only we do":       {args: "hold", says: "unknown command"},
		"an argument that looks like a flag": {args: "status -- --root", calls: []string{daemonExec("n1", "status --until-eof --recorded -- current/--root")}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster()
			if tc.given != nil {
				tc.given(c)
			}
			cmd := newCommand(ctl.Environment{}, c)
			var out, stderr bytes.Buffer
			cmd.SetArgs(strings.Fields(tc.args))
			cmd.SetOut(&out)
			cmd.SetErr(&stderr)
			err := cmd.ExecuteContext(t.Context())
			if (err == nil) != (tc.says == "") || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("error %v; want %q", err, tc.says)
			}
			if strings.HasPrefix(name, "all nodes") {
				slices.Sort(c.calls) // they are asked side by side
			}
			if diff := cmp.Diff(tc.calls, c.calls); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := strings.Count(out.String(), "output of"); err == nil && n != strings.Count(strings.Join(c.calls, "\n"), ctlName) {
				t.Errorf("output %q of %d runs", out.String(), n)
			}
		})
	}
}

// TestNodesAreAskedSideBySide: one that hangs holds up no other, and the answers come in the order of the nodes.
func TestNodesAreAskedSideBySide(t *testing.T) {
	t.Parallel()
	c := newCluster()
	c.nodes, c.hung = []string{"n1", "n2", "n3"}, []string{"n2"}
	cmd := newCommand(ctl.Environment{}, c)
	var out bytes.Buffer
	cmd.SetArgs([]string{"status", "--node-timeout", "100ms"})
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	_, err := cmd.ExecuteContextC(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "node n2: it did not answer within 100ms") {
		t.Errorf("error %v", err)
	}
	const want = "node n1\noutput of plexusd-n1\n\nnode n2\n\nnode n3\noutput of plexusd-n3\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCaptureWritesAFileOfThisMachine(t *testing.T) {
	t.Parallel()
	c := newCluster()
	file := filepath.Join(t.TempDir(), "web.pcap")
	cmd := newCommand(ctl.Environment{}, c)
	cmd.SetArgs([]string{"capture", "web", "net1", "--privileged", "-w", file})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "output of own\n" {
		t.Errorf("%s holds %q, %v", file, got, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if got := c.calls[1]; !strings.Contains(got, "--write=-") || strings.Contains(got, file) {
		t.Errorf("%s; want the standard output", got)
	}
}

func TestPodThatCanNotBeMade(t *testing.T) {
	t.Parallel()
	c := newCluster()
	c.fail = errors.New("forbidden")
	cmd := newCommand(ctl.Environment{}, c)
	cmd.SetArgs([]string{"stats", "web", "--privileged"})
	if err := cmd.ExecuteContext(t.Context()); !errors.Is(err, c.fail) || len(c.calls) != 1 {
		t.Errorf("error %v after %q", err, c.calls)
	}
}

func TestDocumentedCommandsRun(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "plexusctl.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^\$ kubectl plexus ([^|>\n]*)`).FindAllStringSubmatch(string(text), -1)
	if len(lines) < 4 {
		t.Fatalf("%d lines found", len(lines))
	}
	for _, line := range lines {
		c := newCluster()
		c.nodes = append(c.nodes, "worker-1")
		cmd := newCommand(ctl.Environment{}, c)
		cmd.SetArgs(strings.Fields(line[1]))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err != nil || len(c.calls) == 0 {
			t.Errorf("kubectl plexus %s: %v, after %q", line[1], err, c.calls)
		}
	}
}
