// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// checkSystemNamespace shows that pods of kube-system have a status as others have: reconcilers of IPAM plugins take an address that is in no
// status for one that nobody uses.
func checkSystemNamespace(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	t.Cleanup(func() { // also when the test ends early
		kubectlAfter(t, "", "--namespace", metav1.NamespaceSystem, "delete", "pod", namespace, "--ignore-not-found")
	})
	pod := startPod(t, newPod(metav1.NamespaceSystem, namespace, selecting(namespace+"/business-net")))
	checkNetworks(t, pod, clusterNet(t), business(namespace, "net1"))
	deletePod(t, pod)
}

// checkUnheard shows that a pod whose author has misspelt a key starts, as the standard says, and that the author is told which key was
// meant.
func checkUnheard(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	annotations := selecting(`[{"name": "mgmt-net", "interfaceName": "data0"}]`)
	annotations["k8s.v1.cni.cncf.io/network"] = "business-net"
	pod := startPod(t, newPod(namespace, "misspelt", annotations))
	checkNetworks(t, pod, clusterNet(t), mgmt(namespace, "net1"))
	for _, words := range [][2]string{{"interfaceName", `"interface"`}, {"k8s.v1.cni.cncf.io/network", networksAnnotation}} {
		eventually(t, fmt.Sprintf("an event that says that %s has no effect, and %s was meant", words[0], words[1]), func() bool {
			events, err := env.client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "type=Warning,involvedObject.uid=" + string(pod.UID)})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events.Items {
				if strings.Contains(e.Message, words[0]) && strings.Contains(e.Message, words[1]) {
					return true
				}
			}
			return false
		})
	}
}

// checkUndeclared shows that a pod has the MAC and the addresses that it asks for where the plugins take them although they declare no
// capability, and does not start where they do not.
func checkUndeclared(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNamespace(t)
	createNetwork(t, namespace, "takes", `{
  "cniVersion": "0.3.1", "name": "takes-net", "type": "bridge", "bridge": "takes0", "ipam": {"type": "host-local", "subnet": "10.62.0.0/24"}
}`)
	createNetwork(t, namespace, "ignores", `{
  "cniVersion": "0.3.1", "name": "ignores-net", "type": "ptp", "ipam": {"type": "host-local", "subnet": "10.63.0.0/24"}
}`)
	const mac, ip = "02:00:00:00:62:07", "10.62.0.7"
	pod := startPod(t, newPod(namespace, "asks", selecting(fmt.Sprintf(`[{"name": "takes", "mac": %q, "ips": ["%s/24"]}]`, mac, ip))))
	checkNetworks(t, pod, clusterNet(t), attached{network: namespace + "/takes", name: "net1", count: 1, mac: mac, ips: []string{ip}})

	refused := createPod(t, newPod(namespace, "refused", selecting(fmt.Sprintf(`[{"name": "ignores", "mac": %q}]`, mac))))
	event := waitEvent(t, refused, "FailedCreatePodSandBox")
	for _, text := range []string{namespace + "/ignores", `"mac"`, mac, "ptp"} {
		if !strings.Contains(event.Message, text) {
			t.Errorf("event FailedCreatePodSandBox: %q does not say %s", event.Message, text)
		}
	}
	deletePod(t, refused)
	if got := leasesOf(t, refused.Spec.NodeName, "ignores-net"); len(got) > 0 {
		t.Errorf("leases of a network that did not take the MAC: %v", got)
	}
}

// checkMarker shows that a resource of the node which no device plugin offers, as bridge-marker makes them, steers the scheduler alone.
func checkMarker(t *testing.T) {
	t.Helper()
	keepClean(t)
	const marker = "bridge.example.com/mgmt0"
	node, namespace := env.cluster.Nodes()[0], newNamespace(t)
	capacity := fmt.Sprintf(`{"status": {"capacity": {%q: "1000"}}}`, marker)
	if _, err := env.client.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(capacity), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	createAnnotated(t, namespace, "mgmt-net", mgmtNet, map[string]string{"k8s.v1.cni.cncf.io/resourceName": marker})
	pod := newPod(namespace, "marked", selecting("mgmt-net"))
	one := corev1.ResourceList{marker: resource.MustParse("1")}
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: one, Limits: one}
	pod = startPod(t, pod)
	checkNetworks(t, pod, clusterNet(t), mgmt(namespace, "net1"))
}
