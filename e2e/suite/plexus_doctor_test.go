// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// plexusLog is where the manifests' component inspect looks for the plugin's log.
const plexusLog = "/var/log/plexus/plexus.log"

// finding is what doctor prints of one.
type finding struct{ Code, Severity, Object, Text, Mend string }

// inspector uses `kubectl plexus` as its users do.
type inspector struct {
	dir       string
	namespace string
	node      string
}

// newInspector has Plexus keep a log, and lets its pod read that and the records.
func newInspector(t *testing.T) *inspector {
	t.Helper()
	i := &inspector{dir: t.TempDir(), node: env.cluster.Nodes()[0]}
	runHere(t, []string{"CGO_ENABLED=0"}, "", "go", "build", "-C", repository(t), "-o", i.dir+"/", "./cmd/kubectl-plexus")
	kubectlPath := kubectlPath(t)
	if filepath.IsAbs(kubectlPath) {
		if err := os.Symlink(kubectlPath, filepath.Join(i.dir, "kubectl")); err != nil {
			t.Fatal(err)
		}
	}
	applyPlexus(t, "inspect")
	configurePlexus(t, fmt.Sprintf(`{"logFile": %q, "logLevel": "debug"}`, plexusLog))
	t.Cleanup(func() {
		for _, args := range [][]string{
			{"--namespace", env.namespace, "delete", "configmap", "plexus"},
			{"--namespace", env.namespace, "rollout", "restart", "daemonset/plexusd"},
			{"--namespace", env.namespace, "rollout", "status", "daemonset/plexusd", "--timeout=" + stepLimit.String()},
		} {
			kubectlAfter(t, "", args...)
		}
	})
	i.namespace = newNamespace(t)
	return i
}

// plexus runs `kubectl plexus`, and returns what it prints and whether it ends well.
func (i *inspector) plexus(t *testing.T, args ...string) ([]byte, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(i.dir, "kubectl"), append([]string{"plexus", "--plexus-namespace", env.namespace}, args...)...)
	cmd.Env = append(cmd.Environ(), "KUBECONFIG="+env.cluster.Kubeconfig(), "PATH="+i.dir+":"+os.Getenv("PATH"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Logf("kubectl plexus %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out, err == nil
}

// findings are what doctor says of the node, with privilege.
func (i *inspector) findings(t *testing.T) []finding {
	t.Helper()
	out, _ := i.plexus(t, "doctor", "--privileged", "--node", i.node, "--probe", "-o", "json")
	var found []finding
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatalf("doctor -o json: %v:\n%s", err, out)
	}
	return found
}

// wantFinding fails unless doctor has a finding of the code, about the object, that says all the words, and how to mend it.
func wantFinding(t *testing.T, found []finding, code, object string, words ...string) {
	t.Helper()
	if slices.ContainsFunc(found, func(f finding) bool {
		return f.Code == code && f.Object == object && f.Mend != "" &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(f.Text+" "+f.Mend, w) })
	}) {
		return
	}
	t.Errorf("no finding %s about %s with %q in\n%+v", code, object, words, found)
}

// troubles are those findings that are no mere information.
func troubles(found []finding) []finding {
	return slices.DeleteFunc(slices.Clone(found), func(f finding) bool { return f.Severity == "info" || f.Code == "plugin-slow" })
}

// checkDoctor breaks networks in the ways in which they break in life, and shows that doctor names each cause, and is content when it is
// mended.
func checkDoctor(t *testing.T) {
	t.Helper()
	keepClean(t)
	i := newInspector(t)
	ns := i.namespace
	network := func(name, config string) {
		createNetwork(t, ns, name, fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, %s}`, ns+"-"+name, config))
	}
	pool := func(subnet string) string { return fmt.Sprintf(`"ipam": {"type": "host-local", "subnet": %q}`, subnet) }
	network("storage", `"type": "macvlan", "master": "`+lan+`", `+pool("10.150.0.0/24"))
	network("tiny", `"type": "bridge", "bridge": "tiny0", `+pool("10.151.0.0/30"))
	network("exotic", `"type": "exotic"`)
	network("lost", `"type": "macvlan", "master": "ens99", `+pool("10.152.0.0/24"))
	network("uplink", `"type": "macvlan", "master": "`+lan+`", `+pool("10.153.0.0/24"))

	healthy := startPod(t, newPod(ns, "healthy", selecting("storage")))
	t.Run("a healthy pod", i.checkHealthy(healthy))

	first := startPod(t, newPod(ns, "first", selecting("tiny")))
	waiting := map[string]*corev1.Pod{}
	for name, selects := range map[string]string{"full": "tiny", "absent": "no-such-net", "exotic": "exotic", "lost-link": "lost"} {
		waiting[name] = createPod(t, newPod(ns, name, selecting(selects)))
	}
	gateway := startPod(t, newPod(ns, "gateway", selecting(`[{"name": "uplink", "default-route": ["10.153.0.1"]}]`)))
	lease := "/var/lib/cni/networks/" + ns + "-storage/10.150.0.77"
	onNode(t, i.node, "sh", "-ec", `printf '0123456789ab\r\nnet1' >"$1"; touch -d @1700000000 "$1"`, "sh", lease)
	for _, pod := range waiting {
		waitEvent(t, pod, "FailedCreatePodSandBox")
	}

	found := i.findings(t)
	wantFinding(t, found, "pool-exhausted", "network "+ns+"/tiny", "1 of 1 addresses", "NetworkAttachmentDefinition "+ns+"/tiny")
	wantFinding(t, found, "add-failed", "pod "+ns+"/full", "no IP addresses available")
	wantFinding(t, found, "add-failed", "pod "+ns+"/absent", "there is no NetworkAttachmentDefinition "+ns+"/no-such-net")
	wantFinding(t, found, "add-failed", "pod "+ns+"/exotic", `no plugin "exotic"`, "install it there")
	wantFinding(t, found, "add-failed", "pod "+ns+"/lost-link", `"master" is "ens99", which this host does not have`)
	wantFinding(t, found, "gateway-unreachable", "pod "+ns+"/gateway", "10.153.0.1", "net1")
	wantFinding(t, found, "pool-leak", "network "+ns+"/storage", "10.150.0.77", lease)
	if out, _ := i.plexus(t, "trace", "--node", i.node, ns+"/lost-link"); !bytes.Contains(out, []byte("attach net1")) || !bytes.Contains(out, []byte("ens99")) {
		t.Errorf("trace of a pod that could not be attached does not tell the step and the cause:\n%s", out)
	}

	// The same without a daemon, which nobody but a privileged pod can tell.
	scale := func(never string) {
		kubectl(t, "", "--namespace", env.namespace, "patch", "daemonset", "plexusd", "--patch", `{"spec": {"template": {"spec": {"nodeSelector": {"plexus.example/never": `+never+`}}}}}`)
	}
	scale(`"true"`)
	eventually(t, "no daemon", func() bool { return len(daemonPods(t)) == 0 })
	wantFinding(t, i.findings(t), "daemon-unreachable", "daemon socket /run/plexus/plexus.sock", "no pod is attached on this node")
	scale("null")
	awaitPlexus(t)

	onNode(t, i.node, "rm", lease)
	for _, pod := range append([]*corev1.Pod{first, gateway}, waiting["full"], waiting["absent"], waiting["exotic"], waiting["lost-link"]) {
		deletePod(t, pod)
	}
	onNode(t, i.node, "ip", "link", "delete", "tiny0")
	// The log remembers failures for an hour; those of pods that are gone are none of doctor's. The kubelet forgets a pod a moment after the
	// API server does.
	eventually(t, "nothing is wrong after all is mended", func() bool {
		left := troubles(i.findings(t))
		if len(left) > 0 {
			t.Logf("still: %+v", left)
		}
		return len(left) == 0
	})
}

// checkHealthy uses each command on a pod that has what it asked for.
func (i *inspector) checkHealthy(pod *corev1.Pod) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		ref := pod.Namespace + "/" + pod.Name
		if left := troubles(i.findings(t)); len(left) > 0 {
			t.Errorf("doctor: %+v", left)
		}
		for _, tc := range []struct {
			args, want []string
		}{
			{[]string{"status", ref}, []string{"net1", pod.Namespace + "/storage", "10.150.0."}},
			{[]string{"status", ref, "--privileged"}, []string{"up", "1500"}},
			{[]string{"trace", ref}, []string{"ADD", "attach net1", "done"}},
			{[]string{"stats", ref, "--privileged", "--count", "1"}, []string{"net1", "RX"}},
		} {
			out, ok := i.plexus(t, tc.args...)
			for _, want := range tc.want {
				if !ok || !strings.Contains(string(out), want) {
					t.Errorf("kubectl plexus %s does not tell %q:\n%s", strings.Join(tc.args, " "), want, out)
				}
			}
		}
		// What the pod sends to an address of its own network, where nobody answers: ARP.
		ctx, cancel := context.WithCancel(t.Context())
		ping := exec.CommandContext(ctx, filepath.Join(i.dir, "kubectl"), "exec", "--namespace", pod.Namespace, pod.Name, "--", "ping", "10.150.0.250")
		ping.Env = append(ping.Environ(), "KUBECONFIG="+env.cluster.Kubeconfig())
		if err := ping.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cancel()
			_ = ping.Wait() // killed
		}()
		out, ok := i.plexus(t, "capture", ref, "net1", "-w", "-", "-c", "2", "-d", "30s", "--privileged")
		const header, pcapMagic = 24, 0xa1b2c3d4
		if !ok || len(out) <= header || !slices.Contains([]uint32{pcapMagic, 0xa1b23c4d}, binary.NativeEndian.Uint32(out)) {
			t.Errorf("capture: %d bytes, begin with %x; want a pcap file with packets", len(out), out[:min(len(out), 4)])
		}
	}
}
