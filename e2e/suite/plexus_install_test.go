// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plexus-cni/plexus/e2e/components"
	"github.com/plexus-cni/plexus/e2e/image"
)

const (
	// plexusImage is what the manifests name, but for the tag.
	plexusImage = "docker.io/library/plexus"
	// generatedConf is what Plexus puts in front of the cluster's own network configuration.
	generatedConf = "/etc/cni/net.d/00-plexus.conflist"
	// plexusState is where it keeps its records.
	plexusState = "/var/lib/cni/plexus"
	// mib is a mebibyte in the KiB that /proc counts in.
	mib = 1024
)

// prepareNodes gives each node a link to put networks on, where its provider gives none, and keeps the tests' pods on the first node:
// what they check of addresses is true of one node.
func prepareNodes(t *testing.T) {
	t.Helper()
	for i, node := range env.cluster.Nodes() {
		onNode(t, node, "sh", "-ec", `ip link show "$1" || ip link add "$1" type veth peer name "$1-peer"; ip link set "$1" up; ip link set "$1-peer" up`, "sh", lan)
		if i > 0 {
			kubectl(t, "", "cordon", node)
		}
	}
}

// primaryConf is the path, on every node, of the cluster's own network configuration.
func primaryConf(t *testing.T) string {
	t.Helper()
	out := onNode(t, env.cluster.Nodes()[0], "sh", "-c", "ls /etc/cni/net.d/10-*.conflist")
	if f := strings.Fields(out); len(f) == 1 {
		return f[0]
	}
	t.Fatalf("want one network configuration of the cluster, got %q", out)
	return ""
}

// primaryName is the name of the cluster's own network.
func primaryName(t *testing.T) string {
	t.Helper()
	var conf struct{ Name string }
	if err := json.Unmarshal([]byte(onNode(t, env.cluster.Nodes()[0], "cat", primaryConf(t))), &conf); err != nil {
		t.Fatal(err)
	}
	return conf.Name
}

// plexusUser is who the daemon is for the API server.
func plexusUser() string { return "system:serviceaccount:" + env.namespace + ":plexusd" }

// release is a state of Plexus that can be installed.
type release struct {
	dir string // A checkout.
	tag string // Of the image of its programs.
}

// current is Plexus as it is now.
func current(t *testing.T) release {
	t.Helper()
	return release{dir: repository(t), tag: "dev"}
}

// build builds the image of the programs, and puts it on every node. It returns the SHA-256 sum of the plugin.
func (r release) build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	runHere(t, []string{"CGO_ENABLED=0"}, "", "go", "build", "-C", r.dir, "-tags=grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", bin+"/", "./cmd/plexus", "./cmd/plexusd", "./cmd/plexusctl")
	archive := filepath.Join(bin, "plexus.tar")
	if err := image.Write(archive, image.Spec{
		Reference: plexusImage + ":" + r.tag,
		Platforms: []v1.Platform{image.Machine()},
		Files: map[string]string{
			"/usr/bin/plexus": filepath.Join(bin, "plexus"), "/usr/bin/plexusd": filepath.Join(bin, "plexusd"), "/usr/bin/plexusctl": filepath.Join(bin, "plexusctl"),
		},
		Entrypoint: []string{"/usr/bin/plexusd"},
		User:       "0:0",
	}); err != nil {
		t.Fatal(err)
	}
	if err := env.cluster.LoadImage(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	plugin, err := os.ReadFile(filepath.Join(bin, "plexus"))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(plugin))
}

// manifests renders the manifests with components, or the chart with the values that mean the same.
func (r release) manifests(t *testing.T, components ...string) string {
	t.Helper()
	if env.install == installByHelm {
		args := []string{"run", "-C", filepath.Join(r.dir, "deploy", "render"), "./cmd/render", "-deploy", "..", "-chart", "-namespace", env.namespace, "-set", "image.tag=" + r.tag}
		for _, c := range components {
			value, ok := map[string]string{
				"dac-override": "dacOverride=true", "dra": "dra.enabled=true", "dra-status": "dra.statusDrivers={" + draDriver + "}", "inspect": "inspect=true", "metrics": "metrics.enabled=true",
				"one-shot": "oneShot=true", "uninstall": "uninstall=true",
			}[c]
			if !ok {
				t.Fatalf("component %s has no value of the chart", c)
			}
			args = append(args, "-set", value)
		}
		return runHere(t, nil, "", "go", args...)
	}
	overlay := t.TempDir()
	deploy, err := filepath.Rel(overlay, filepath.Join(r.dir, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	kustomization := map[string]any{
		"resources": []string{deploy + "/base"},
		"images":    []map[string]string{{"name": "plexus", "newTag": r.tag}},
		"namespace": env.namespace,
	}
	var paths []string
	for _, c := range components {
		paths = append(paths, deploy+"/components/"+c)
	}
	kustomization["components"] = paths
	data, err := json.Marshal(kustomization)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return kubectl(t, "", "kustomize", overlay)
}

// apply applies the manifests with components, and waits until every node has this Plexus.
func (r release) apply(t *testing.T, components ...string) {
	t.Helper()
	if env.install == installByHelm { // which makes the release's namespace
		kubectl(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": %q}}`, env.namespace), "apply", "-f", "-")
	}
	kubectl(t, r.manifests(t, components...), "apply", "-f", "-")
	kubectl(t, "", "wait", "--for=condition=Established", "--timeout=60s", "crd/network-attachment-definitions.k8s.cni.cncf.io")
	awaitPlexus(t)
}

// delete deletes what the manifests with components have.
func (r release) delete(t *testing.T, components ...string) {
	t.Helper()
	documents := strings.Split(r.manifests(t, components...), "---\n")
	if env.install == installByHelm { // which leaves the CustomResourceDefinitions of a chart
		documents = slices.DeleteFunc(documents, func(d string) bool { return strings.Contains(d, "\nkind: CustomResourceDefinition\n") })
		kubectl(t, "", "delete", "namespace", env.namespace)
	}
	kubectl(t, strings.Join(documents, "---\n"), "delete", "-f", "-", "--ignore-not-found")
}

// applyPlexus applies the manifests of Plexus as it is now.
func applyPlexus(t *testing.T, components ...string) {
	t.Helper()
	current(t).apply(t, components...)
}

// awaitPlexus waits until every node's Plexus is the one of the manifests, and ready.
func awaitPlexus(t *testing.T) {
	t.Helper()
	kubectl(t, "", "--namespace", env.namespace, "rollout", "status", "daemonset/plexusd", "--timeout="+stepLimit.String())
}

// configurePlexus sets further keys of the plugin's configuration, or none, and waits until every node has them.
func configurePlexus(t *testing.T, keys string) {
	t.Helper()
	if keys == "" {
		kubectl(t, "", "--namespace", env.namespace, "delete", "configmap", "plexus")
	} else {
		kubectl(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plexus", "namespace": %q}, "data": {"plugin.json": %q}}`,
			env.namespace, keys), "apply", "-f", "-")
	}
	kubectl(t, "", "--namespace", env.namespace, "rollout", "restart", "daemonset/plexusd")
	awaitPlexus(t)
}

// awaitConf waits until the generated configuration of every node is as it should be.
func awaitConf(t *testing.T, how string, is func(conf string) bool) {
	t.Helper()
	for _, node := range env.cluster.Nodes() {
		eventually(t, generatedConf+" of node "+node+" "+how, func() bool {
			return is(onNode(t, node, "sh", "-c", "cat "+generatedConf+" || true"))
		})
	}
}

// eventually asks, until the answer is yes, what can only be asked: files on a node tell nobody that they change.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %s in vain: %s", stepLimit, what)
		}
	}
}

// kubectl runs the cluster's kubectl as the administrator, as who installs Plexus does.
func kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	return runHere(t, []string{"KUBECONFIG=" + env.cluster.Kubeconfig()}, stdin, kubectlPath(t), args...)
}

// kubectlAfter is kubectl for the end of a test, whose context is done by then.
func kubectlAfter(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), kubectlPath(t), append(args, "--request-timeout="+stepLimit.String())...)
	cmd.Env = append(cmd.Environ(), "KUBECONFIG="+env.cluster.Kubeconfig())
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// kubectlPath is the kubectl that was built with the cluster, or else the machine's.
func kubectlPath(t *testing.T) string {
	t.Helper()
	binaries, err := components.Builder{Module: filepath.Join(repository(t), "e2e"), Cache: env.cache}.Find()
	if err != nil {
		return "kubectl"
	}
	path, err := binaries.Path("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// runHere runs a program of the machine.
func runHere(t *testing.T, environ []string, stdin, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(cmd.Environ(), environ...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", filepath.Base(program), strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// repository is Plexus' checkout.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// daemonPods are the names of Plexus' pods.
func daemonPods(t *testing.T) []string {
	t.Helper()
	pods, err := env.client.CoreV1().Pods(env.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range pods.Items {
		names = append(names, p.Name)
	}
	return names
}

// memory is what the daemon of a node takes, and the most that it ever took, in MiB.
func memory(t *testing.T, node string) (float64, float64) {
	t.Helper()
	status := onNode(t, node, "sh", "-c", `cat "/proc/$(pgrep -o -x plexusd)/status"`)
	value := func(key string) float64 {
		for line := range strings.Lines(status) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == key+":" {
				n, err := strconv.ParseFloat(f[1], 64)
				if err != nil {
					t.Fatal(err)
				}
				return n / mib
			}
		}
		t.Fatalf("no %s in the status of plexusd:\n%s", key, status)
		return 0
	}
	return value("VmRSS"), value("VmHWM")
}

// keepClean compares, at the test's end, what all pods' networks hold on the nodes with what they held at its beginning. It has to be
// called before the test's namespaces are made.
func keepClean(t *testing.T) {
	t.Helper()
	before := map[string][]string{}
	for _, node := range env.cluster.Nodes() {
		before[node] = stateFiles(t, node)
	}
	t.Cleanup(func() {
		for node, old := range before {
			left := slices.DeleteFunc(stateFilesWith(context.Background(), t, node), func(f string) bool { return slices.Contains(old, f) })
			if len(left) > 0 {
				t.Errorf("left on node %s:\n%s", node, strings.Join(left, "\n"))
			}
		}
	})
}

// stateFiles are the files, on a node, of address leases, of records, and of what libcni keeps of attachments.
func stateFiles(t *testing.T, node string) []string {
	t.Helper()
	return stateFilesWith(t.Context(), t, node)
}

func stateFilesWith(ctx context.Context, t *testing.T, node string) []string {
	t.Helper()
	out, err := env.cluster.Exec(ctx, node, "find", "/var/lib/cni", "-type", "f",
		"!", "-name", "*lock", "!", "-name", "last_reserved_ip.*", "!", "-name", "boot-id", "!", "-name", "slots", "!", "-name", "source-seen")
	if err != nil {
		t.Fatal(err)
	}
	return sorted(strings.Fields(string(out)))
}
