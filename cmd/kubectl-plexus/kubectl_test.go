// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/ctl"
)

// fakeEnv makes the test binary a kubectl that keeps its books in this folder.
const fakeEnv = "PLEXUS_TEST_KUBECTL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(fakeEnv); dir != "" {
		os.Exit(fakeKubectl(dir, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func fakeKubectl(dir string, args []string) int {
	note := func(name, text string) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
		}
		if err != nil {
			panic(err)
		}
	}
	note("calls", strings.Join(args, " ")+"\n")
	switch {
	case slices.Contains(args, "absent"):
		fmt.Fprintln(os.Stderr, "Error from server (NotFound)")
		return 3
	case args[0] == "get" && slices.Contains(args, "pods"):
		const ours = `"ownerReferences":[{"uid":"u1","controller":true}]`
		fmt.Print(`{"items":[{"metadata":{"name":"d1",` + ours + `},"spec":{"nodeName":"n1"},"status":{"phase":"Running"}},
			{"metadata":{"name":"d0",` + ours + `},"spec":{"nodeName":"n1"},"status":{"phase":"Failed"}},
			{"metadata":{"name":"only-labelled"},"spec":{"nodeName":"n3","containers":[{"name":"x","image":"evil"}]},"status":{"phase":"Running"}},
			{"metadata":{"name":"another-owner","ownerReferences":[{"uid":"u2","controller":true}]},"spec":{"nodeName":"n3"},"status":{"phase":"Running"}}]}`)
	case args[0] == "get" && slices.Contains(args, "daemonsets"):
		fmt.Print(`{"items":[{"metadata":{"name":"plexusd","uid":"u1"},"spec":{"template":{"spec":{"containers":[{"name":"plexusd","image":"plexus:1","volumeMounts":[{"mountPath":"/run/plexus"}]}]}}}}]}`)
	case args[0] == "config":
		fmt.Print("shop")
	case args[0] == "get" && slices.Contains(args, "nodes"):
		fmt.Print(`{"items":[{"metadata":{"name":"n1"}},{"metadata":{"name":"n2"}}]}`)
	case args[0] == "get":
		fmt.Print(`{"metadata":{"name":"web","namespace":"shop"},"spec":{"nodeName":"n1"}}`)
	case args[0] == "create":
		manifest, _ := io.ReadAll(os.Stdin)
		note("manifest", string(manifest))
		fmt.Println("pod/plexusctl-x7")
	case args[0] == "exec":
		fmt.Println("begun")
		_, _ = io.Copy(io.Discard, os.Stdin)
		fmt.Println("ended")
	}
	return 0
}

// whenWritten calls f with the first write.
type whenWritten struct {
	bytes.Buffer
	f func()
}

func (w *whenWritten) Write(p []byte) (int, error) {
	w.f()
	return w.Buffer.Write(p)
}

func newFake(t *testing.T) (*kubectl, string, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(fakeEnv, dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	return &kubectl{program: self, stderr: &stderr}, dir, &stderr
}

func TestInterruptEndsTheProgramOnTheNode(t *testing.T) {
	k, dir, stderr := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := &whenWritten{f: cancel}
	cmd := newCommand(ctl.Environment{}, k)
	cmd.SetArgs([]string{"stats", "web", "-n", "shop", "--privileged", "--context=c", "--kubeconfig=/k"})
	cmd.SetOut(out)
	if err := cmd.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "begun\nended\n" {
		t.Errorf("output %q; want all of it", got)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	want := `get --context=c --kubeconfig=/k pod -o json -n shop -- web
get --context=c --kubeconfig=/k daemonsets -n plexus-system -l app.kubernetes.io/name=plexus -o json
create --context=c --kubeconfig=/k -n plexus-system -o name -f -
wait --context=c --kubeconfig=/k -n plexus-system pod/plexusctl-x7 --for=condition=Ready --timeout=1m0s
exec --context=c --kubeconfig=/k -i -n plexus-system plexusctl-x7 -c plexusctl -- /usr/bin/plexusctl stats --until-eof --root=/host -- shop/web
delete --context=c --kubeconfig=/k -n plexus-system pod plexusctl-x7 --wait=false
`
	if diff := cmp.Diff(want, string(calls)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(stderr.String(), "privileged pod plexus-system/plexusctl-x7 on node n1") {
		t.Errorf("stderr %q; want it to tell of the pod", stderr)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Metadata struct {
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
		Spec struct {
			NodeName              string `json:"nodeName"`
			ActiveDeadlineSeconds int    `json:"activeDeadlineSeconds"`
			HostNetwork           bool   `json:"hostNetwork"`
			AutomountToken        *bool  `json:"automountServiceAccountToken"`
			Containers            []struct {
				Image string `json:"image"`
			} `json:"containers"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(manifest, &p); err != nil {
		t.Fatal(err)
	}
	if s := p.Spec; s.NodeName != "n1" || s.ActiveDeadlineSeconds != 3600 || !s.HostNetwork || s.AutomountToken == nil || *s.AutomountToken || s.Containers[0].Image != "plexus:1" {
		t.Errorf("the pod is %s", manifest)
	}
	if p.Metadata.Labels["app.kubernetes.io/name"] == "plexus" {
		t.Error("the pod has the label of the daemon's: services and this program would take it for one")
	}
}

func TestKubectlsErrorIsItsOwn(t *testing.T) {
	k, _, stderr := newFake(t)
	cmd := newCommand(ctl.Environment{}, k)
	cmd.SetArgs([]string{"status", "absent"})
	err := cmd.ExecuteContext(t.Context())
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 || stderr.String() != "Error from server (NotFound)\n" {
		t.Errorf("error %v, stderr %q; want kubectl's", err, stderr)
	}
}

// TestOnlyTheDaemonSetsPodsAreTaken: who may create pods in the namespace of plexusd chooses neither node nor image of what runs with privilege.
func TestOnlyTheDaemonSetsPodsAreTaken(t *testing.T) {
	k, _, _ := newFake(t)
	set, err := k.daemonSet(t.Context(), "plexus-system")
	if err != nil {
		t.Fatal(err)
	}
	want := &daemonSet{namespace: "plexus-system", name: "plexusd", uid: "u1", container: "plexusd", image: "plexus:1", mounts: []string{"/run/plexus"}}
	if diff := cmp.Diff(want, set, cmp.AllowUnexported(daemonSet{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	daemons, err := k.daemons(t.Context(), set, "")
	if diff := cmp.Diff([]daemon{{"d1", "n1"}}, daemons, cmp.AllowUnexported(daemon{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if nodes, err := k.nodeNames(t.Context()); err != nil || !slices.Equal(nodes, []string{"n1", "n2"}) {
		t.Errorf("nodes %q, %v", nodes, err)
	}
	if namespace, err := k.currentNamespace(t.Context()); err != nil || namespace != "shop" {
		t.Errorf("namespace %q, %v", namespace, err)
	}
}

func TestWithoutKubectl(t *testing.T) {
	t.Parallel()
	cmd := newCommand(ctl.Environment{}, &kubectl{program: "kubectl-that-is-nowhere", stderr: io.Discard})
	cmd.SetArgs([]string{"status", "web"})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "install kubectl") {
		t.Errorf("error %v; want the fix", err)
	}
}
