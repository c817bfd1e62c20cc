// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"fmt"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkMetrics shows that Prometheus finds the daemons by their Service, and what they tell.
func checkMetrics(t *testing.T) {
	t.Helper()
	keepClean(t)
	applyPlexus(t, "metrics")
	var address string
	eventually(t, "the Service names the daemons", func() bool {
		slices, err := env.client.DiscoveryV1().EndpointSlices(env.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=plexusd"})
		if err != nil || len(slices.Items) != 1 {
			return false
		}
		s := slices.Items[0]
		if len(s.Endpoints) != len(env.cluster.Nodes()) || len(s.Ports) != 1 {
			return false
		}
		address = fmt.Sprintf("%s:%d", s.Endpoints[0].Addresses[0], *s.Ports[0].Port)
		return true
	})
	namespace := newNetworks(t)
	pod := startPod(t, newPod(namespace, "scrapes", selecting("mgmt-net")))
	metrics := execInPod(t, pod, "wget", "-q", "-O", "-", "http://"+address+"/metrics")
	if !strings.Contains(metrics, "\nplexus_") {
		t.Errorf("no metric of Plexus:\n%s", metrics)
	}
}

// checkUninstalled takes Plexus away as docs/install.md says, and shows that nodes and pods are as if it had never been there, and that the
// networks stay.
func checkUninstalled(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	components := []string{"dra", "dra-status", "inspect", "metrics", "uninstall"} // All that were ever applied, and the last one.
	applyPlexus(t, components...)
	for _, node := range env.cluster.Nodes() {
		left := onNode(t, node, "sh", "-c", "find /etc/cni/net.d /opt/cni/bin | grep plexus || true")
		if left != "" {
			t.Errorf("left on node %s:\n%s", node, left)
		}
	}
	current(t).delete(t, components...)
	pod := startPod(t, newPod(namespace, "plain", selecting("mgmt-net")))
	checkDefaultNetwork(t, pod)
	if got := getNetworkStatus(t, pod); got != nil {
		t.Errorf("annotation %s without Plexus: %+v", networkStatusAnnotation, got)
	}
	for _, kind := range []string{"clusterroles", "clusterrolebindings", "validatingadmissionpolicies", "validatingadmissionpolicybindings", "flowschemas"} {
		if left := kubectl(t, "", "get", kind, "-o", "name"); strings.Contains(left, "plexus") {
			t.Errorf("left of %s:\n%s", kind, left)
		}
	}
	if left := kubectl(t, "", "get", "namespace", env.namespace, "--ignore-not-found", "-o", "name"); left != "" {
		t.Errorf("left: %s", left)
	}
	if networks := kubectl(t, "", "--namespace", namespace, "get", "network-attachment-definitions", "-o", "name"); strings.Count(networks, "\n") != 2 {
		t.Errorf("networks of the namespace:\n%s", networks)
	}
}
