// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	formerState = "/var/lib/cni/multus"
	// formerConf is in front of what Plexus generates.
	formerConf = "/etc/cni/net.d/00-multus.conf"
)

// attachFormer makes a pod as the meta-plugin that was on the node before left it: with a second network, and a state file that
// nobody but it and Plexus can read. It has to be called before Plexus is installed.
func attachFormer(t *testing.T) *corev1.Pod {
	t.Helper()
	pod := startPod(t, newPod(newNamespace(t), "former", nil))
	node, sandbox := pod.Spec.NodeName, sandboxOf(t, pod)
	const second = `{"cniVersion": "0.3.1", "name": "former-net", "type": "bridge", "bridge": "former0", "isGateway": true,
  "ipam": {"type": "host-local", "subnet": "10.70.0.0/24"}}`
	onNode(t, node, "env", "CNI_COMMAND=ADD", "CNI_CONTAINERID="+sandbox, "CNI_NETNS="+netnsOf(t, pod), "CNI_IFNAME=net1", "CNI_PATH=/opt/cni/bin",
		"sh", "-c", `echo "$1" | /opt/cni/bin/bridge`, "sh", second)
	first := onNode(t, node, "cat", primaryConf(t))
	state, err := json.Marshal([]map[string]any{
		{
			"Conf": map[string]any{}, "ConfList": json.RawMessage(first), "Name": primaryName(t), "masterPlugin": true,
			"Bytes": base64.StdEncoding.EncodeToString([]byte(first)),
		},
		{
			"Conf": json.RawMessage(second), "ConfList": map[string]any{}, "Name": "default/former-net", "ifnameRequest": "net1",
			"Bytes": base64.StdEncoding.EncodeToString([]byte(second)),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	writeOnNode(t, node, path.Join(formerState, sandbox), string(state))
	if got := leasesOf(t, node, "former-net"); len(got) != 1 {
		t.Fatalf("leases of former-net: %v; want 1", got)
	}
	return pod
}

// checkFormer shows that Plexus takes such a pod off all its networks.
func checkFormer(pod *corev1.Pod) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		node, sandbox := pod.Spec.NodeName, sandboxOf(t, pod)
		deletePod(t, pod)
		if got := leasesOf(t, node, "former-net"); len(got) != 0 {
			t.Errorf("leases of former-net after the pod is gone: %v", got)
		}
		if got := texts(leasesOf(t, node, primaryName(t))); slices.Contains(got, pod.Status.PodIP) {
			t.Errorf("the lease of %s is there after the pod is gone", pod.Status.PodIP)
		}
		if got := onNode(t, node, "ls", formerState); strings.Contains(got, sandbox) {
			t.Errorf("the state file is there after the pod is gone: %s", got)
		}
	}
}

// checkDropIn shows that the configuration, the networks and the pods of the other meta-plugin's users work, with nothing but the
// plugin's name changed. Plexus has to be there without a daemon: the configuration has a kubeconfig.
func checkDropIn(t *testing.T) {
	t.Helper()
	keepClean(t)
	node := env.cluster.Nodes()[0]
	const kubeconfig = "/etc/cni/net.d/multus.d/multus.kubeconfig"
	writeOnNode(t, node, kubeconfig, formerKubeconfig(t))
	writeOnNode(t, node, "/etc/cni/multus/net.d/30-file.conf",
		`{"cniVersion": "0.3.1", "name": "file-net", "type": "macvlan", "master": "`+lan+`", "ipam": {"type": "host-local", "subnet": "10.72.0.0/24"}}`)
	conf := fmt.Sprintf(`{
  "cniVersion": "0.3.1", "name": "multus-cni-network", "type": "plexus",
  "capabilities": {"portMappings": true},
  "kubeconfig": %q,
  "confDir": "/etc/cni/multus/net.d", "cniDir": %q, "binDir": "/opt/cni/bin",
  "logFile": "/var/lib/cni/multus.log", "logLevel": "verbose", "logToStderr": false, "logOptions": {"maxAge": 5, "maxSize": 100, "maxBackups": 5, "compress": true},
  "readinessindicatorfile": %q,
  "namespaceIsolation": false, "globalNamespaces": "default", "multusNamespace": "kube-system", "systemNamespaces": ["kube-system"],
  "delegates": [%s]
}`, kubeconfig, formerState, primaryConf(t), onNode(t, node, "cat", primaryConf(t)))
	writeOnNode(t, node, formerConf, conf)
	t.Cleanup(func() {
		for _, file := range []string{formerConf, kubeconfig, "/var/lib/cni/multus.log"} {
			if _, err := env.cluster.Exec(context.Background(), node, "rm", "-f", file); err != nil {
				t.Error(err)
			}
		}
	})

	namespace := newNetworks(t)
	createNetwork(t, namespace, "nameless", `{"type": "macvlan", "master": "`+lan+`", "mode": "bridge", "ipam": {"type": "host-local", "subnet": "10.71.0.0/24"}}`)
	createNetwork(t, namespace, "file-net", "")
	pod := startPod(t, newPod(namespace, "user", selecting(`[
  {"name": "nameless", "interfaceRequest": "first0"},
  {"name": "file-net", "namespace": "`+namespace+`"},
  {"name": "mgmt-net", "interface": "third0", "mac": "02:00:00:00:60:99"}
]`)))
	third := mgmt(namespace, "third0")
	third.mac = "02:00:00:00:60:99"
	checkNetworks(t, pod, clusterNet(t),
		attached{network: namespace + "/nameless", name: "first0", count: 1},
		attached{network: namespace + "/file-net", name: "net2", count: 1},
		third,
	)
	if got := onNode(t, node, "ls", path.Join(formerState, "records")); !strings.Contains(got, sandboxOf(t, pod)) {
		t.Errorf("no record of the pod in the configuration's cniDir: %s", got)
	}
}

// formerKubeconfig is a kubeconfig as the other meta-plugin writes it, with the token in it.
func formerKubeconfig(t *testing.T) string {
	t.Helper()
	ca := env.config.CAData
	if len(ca) == 0 {
		var err error
		if ca, err = os.ReadFile(env.config.CAFile); err != nil {
			t.Fatal(err)
		}
	}
	// As the other meta-plugin's pod sees it: the administrator's address may not be one that nodes know.
	service, err := env.client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods := daemonPods(t)
	token := kubectl(t, "", "--namespace", env.namespace, "create", "token", "plexusd", "--bound-object-kind=Pod", "--bound-object-name="+pods[0])
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: local
  cluster:
    server: https://%s:443
    certificate-authority-data: %s
users:
- name: multus
  user:
    token: %q
contexts:
- name: multus-context
  context:
    cluster: local
    user: multus
current-context: multus-context
`, service.Spec.ClusterIP, base64.StdEncoding.EncodeToString(ca), strings.TrimSpace(token))
}

// writeOnNode writes a file on a node, whole or not at all.
func writeOnNode(t *testing.T, node, file, content string) {
	t.Helper()
	onNode(t, node, "sh", "-ec", `mkdir -p "$(dirname "$1")"; printf %s "$2" > "$1.new"; mv "$1.new" "$1"`, "sh", file, content)
}

// sandboxOf is the ID of a pod's sandbox.
func sandboxOf(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	out := strings.Fields(onNode(t, pod.Spec.NodeName, "ctr", "--namespace", "k8s.io", "containers", "list", "--quiet",
		fmt.Sprintf(`labels."io.kubernetes.pod.uid"==%s,labels."io.cri-containerd.kind"==sandbox`, pod.UID)))
	if len(out) != 1 {
		t.Fatalf("pod %s: want one sandbox, got %q", pod.Name, out)
	}
	return out[0]
}
