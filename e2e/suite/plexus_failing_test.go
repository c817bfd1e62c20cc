// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nowhere is a link that the node does not have.
const nowhere = "nic9"

// vlanNet is a network of VLAN 7 of that link. Its plugin looks for the link before it does anything, for ADD and for DEL.
const vlanNet = `{
  "cniVersion": "1.0.0", "name": "vlan-net", "type": "vlan", "master": "` + nowhere + `", "vlanId": 7,
  "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}
}`

// checkFailing shows what is left of pods that cannot start, of which the kubelet makes one sandbox after the other: no address is held
// meanwhile, the pods can be deleted, and once the cause is gone other pods' calls give back the rest. The runtime has forgotten the
// sandboxes by then, each after one DEL.
func checkFailing(t *testing.T) {
	t.Helper()
	keepClean(t)
	const (
		pods     = 13 // Each twice: the kubelet waits ten seconds and more between two sandboxes of a pod.
		attempts = 25
	)
	node, namespace := env.cluster.Nodes()[0], newNetworks(t)
	createNetwork(t, namespace, "vlan-net", vlanNet)
	for i := range pods {
		createPod(t, newPod(namespace, fmt.Sprint("failing", i), selecting("mgmt-net,vlan-net")))
	}
	eventually(t, fmt.Sprintf("%d sandboxes have failed", attempts), func() bool { return failedSandboxes(t, namespace) >= attempts })
	t.Logf("after %d failed sandboxes of %d pods: %d records", failedSandboxes(t, namespace), pods, len(recordsOf(t, node, namespace)))

	if err := env.client.CoreV1().Pods(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), busyLimit)
	defer cancel()
	if err := untilNone(ctx, listAll("pods", namespace), &corev1.Pod{}); err != nil {
		t.Fatalf("the pods cannot be deleted: %v", err)
	}
	for _, network := range []string{"mgmt-net", "vlan-net"} {
		if got := leasesOf(t, node, network); len(got) > 0 {
			t.Errorf("leases of %s after the pods are gone: %v", network, got)
		}
	}
	left := recordsOf(t, node, namespace)
	t.Logf("after the pods are gone: %d records", len(left))

	// While the cause is there, what never came about is given up after five minutes.
	old := left[:len(left)/2]
	age(t, node, "[a-zA-Z]+", old)
	checkRepaired(t, "records that are old, of what never came about", func() []string {
		return slices.DeleteFunc(recordsOf(t, node, namespace), func(r string) bool { return !slices.Contains(old, r) })
	})
	if len(recordsOf(t, node, namespace)) == 0 {
		t.Error("no record is left to be undone once the cause is gone")
	}
	onNode(t, node, "ip", "link", "add", nowhere, "type", "veth", "peer", "name", nowhere+"-peer")
	t.Cleanup(func() {
		if _, err := env.cluster.Exec(context.Background(), node, "ip", "link", "delete", nowhere); err != nil {
			t.Error(err)
		}
	})
	age(t, node, "tried", recordsOf(t, node, namespace))
	checkRepaired(t, "records, whose cause is gone", func() []string { return recordsOf(t, node, namespace) })
}

// age makes it years ago what records have of when something was: by a key, an extended regular expression.
func age(t *testing.T, node, key string, records []string) {
	t.Helper()
	const script = `s/("KEY":"20)[0-9]{2}(-[0-9]{2}-[0-9]{2}T)/\120\2/g; s/,"crc32":"[0-9a-f]+"\}$/}/` // and the checksum of what it was
	onNode(t, node, append([]string{"sed", "-i", "-E", strings.Replace(script, "KEY", key, 1)}, records...)...)
}

// checkRepaired shows that calls for other pods undo what is left: one call, or some where one has no time for all.
func checkRepaired(t *testing.T, what string, left func() []string) {
	t.Helper()
	const calls = 5
	for range calls {
		if len(left()) == 0 {
			return
		}
		onNode(t, env.cluster.Nodes()[0], "touch", "-d", "2020-01-01", plexusState+"/boot-id") // as if it were some minutes later
		deletePod(t, startPod(t, newPod(newNamespace(t), "other", nil)))
	}
	if got := left(); len(got) > 0 {
		t.Errorf("after the calls of %d other pods there are still %s:\n%s", calls, what, strings.Join(got, "\n"))
	}
}

// failedSandboxes is how many sandboxes of a namespace's pods could not be made, by the kubelet's events.
func failedSandboxes(t *testing.T, namespace string) int {
	t.Helper()
	events, err := env.client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=FailedCreatePodSandBox"})
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, e := range events.Items {
		count += int(max(e.Count, 1))
	}
	return count
}

// recordsOf are the records on a node that name a namespace: those of its pods, and of networks in it.
func recordsOf(t *testing.T, node, namespace string) []string {
	t.Helper()
	out := onNode(t, node, "sh", "-c", `grep -l -F "$1" "$2"/records/*.json || true`, "sh", namespace, plexusState)
	return slices.Collect(strings.FieldsSeq(out))
}
