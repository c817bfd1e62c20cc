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
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/ctl"
)

// cluster is a cluster in memory that logs what is done to it.
type cluster struct {
	nodes []string // with a daemon each
	calls []string
	fail  error
}

func (c *cluster) log(format string, args ...any) {
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

func (c *cluster) daemons(_ context.Context, namespace, node string) ([]daemon, error) {
	var found []daemon
	for _, n := range c.nodes {
		if node == "" || node == n {
			found = append(found, daemon{name: "plexusd-" + n, node: n, container: "plexusd", image: namespace + "/image"})
		}
	}
	return found, nil
}

func (c *cluster) places(_ context.Context, namespace, node string) ([]daemon, error) {
	if c.nodes == nil {
		return nil, nil
	}
	return []daemon{{node: node, image: namespace + "/image"}}, nil
}

func (c *cluster) privileged(_ context.Context, namespace string, beside daemon, deadline time.Duration) (container, func(), error) {
	c.log("make privileged pod in %s on %s for %v", namespace, beside.node, deadline)
	return container{namespace: namespace, pod: "own", name: "plexusctl"}, func() { c.log("delete it") }, c.fail
}

func (c *cluster) exec(_ context.Context, at container, out io.Writer, program ...string) error {
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
		"a node, where the pod need not be any more": {
			args:  "trace --node n2 shop/old --last 7 --context other",
			calls: []string{"context other", daemonExec("n2", "trace --until-eof --last=7 -- shop/old")},
		},
		"flags that are given twice": {
			args:  "trace web --state-dir /a --state-dir /b",
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
		"a node without a daemon":     {args: "status --node n9", says: "no plexusd runs in namespace plexus-system on node n9: install Plexus, or name its namespace with --plexus-namespace; if it is installed and does not start, add --privileged"},
		"a node whose daemon does not start, with privilege": {
			args: "doctor --node n9 --privileged",
			calls: []string{
				"make privileged pod in plexus-system on n9 for 1h0m0s",
				"plexus-system/own/plexusctl: " + ctlName + " doctor --until-eof --root=/host --", "delete it",
			},
		},
		"JSON of all nodes":                  {args: "status -o json", says: "name one with --node"},
		"flags are checked here":             {args: "status web -o xml", says: `--output "xml"`},
		"capture needs a file":               {args: "capture web net1 --privileged", says: "-w FILE"},
		"what is for this machine is not":    {args: "attach -f .", says: "unknown command"},
		"nobody calls what only we do":       {args: "hold", says: "unknown command"},
		"an argument that looks like a flag": {args: "status -- --root", calls: []string{daemonExec("n1", "status --until-eof --recorded -- current/--root")}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{nodes: []string{"n1", "n2"}}
			cmd := newCommand(ctl.Environment{}, c)
			var out, stderr bytes.Buffer
			cmd.SetArgs(strings.Fields(tc.args))
			cmd.SetOut(&out)
			cmd.SetErr(&stderr)
			err := cmd.ExecuteContext(t.Context())
			if (err == nil) != (tc.says == "") || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("error %v; want %q", err, tc.says)
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

func TestCaptureWritesAFileOfThisMachine(t *testing.T) {
	t.Parallel()
	c := &cluster{nodes: []string{"n1"}}
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
	c := &cluster{nodes: []string{"n1"}, fail: errors.New("forbidden")}
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
		c := &cluster{nodes: []string{"n1", "worker-1"}}
		cmd := newCommand(ctl.Environment{}, c)
		cmd.SetArgs(strings.Fields(line[1]))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err != nil || len(c.calls) == 0 {
			t.Errorf("kubectl plexus %s: %v, after %q", line[1], err, c.calls)
		}
	}
}
