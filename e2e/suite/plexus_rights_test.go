// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// checkPrivileges shows what the daemon cannot do, for all that it is on every node.
func checkPrivileges(t *testing.T) {
	t.Helper()
	node := env.cluster.Nodes()[0]
	status := onNode(t, node, "sh", "-c", `cat "/proc/$(pgrep -o -x plexusd)/status"`)
	for _, line := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, line+"\n") {
			t.Errorf("no line %q in the status of plexusd:\n%s", line, status)
		}
	}
}

// checkOwners shows that the daemon says what is wrong with a node whose folder of plugins belongs to another user, as unpacked archives
// leave it, and that the component for such nodes helps.
func checkOwners(t *testing.T) {
	t.Helper()
	keepClean(t)
	const bin = "/opt/cni/bin"
	for _, node := range env.cluster.Nodes() {
		onNode(t, node, "sh", "-ec", `chown 1001:1001 "$1"; rm "$1/plexus"`, "sh", bin)
		t.Cleanup(func() {
			if _, err := env.cluster.Exec(context.Background(), node, "chown", "0:0", bin); err != nil {
				t.Error(err)
			}
		})
	}
	kubectl(t, "", "--namespace", env.namespace, "rollout", "restart", "daemonset/plexusd")
	eventually(t, "the daemon says who owns "+bin+", and what helps", func() bool {
		return slices.ContainsFunc(daemonPods(t), func(pod string) bool {
			log, err := env.client.CoreV1().Pods(env.namespace).GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(t.Context())
			return err == nil && strings.Contains(string(log), "1001") && strings.Contains(string(log), "components/dac-override")
		})
	})
	applyPlexus(t, "dac-override")
	namespace := newNetworks(t)
	pod := startPod(t, newPod(namespace, "after", selecting("mgmt-net")))
	checkNetworks(t, pod, clusterNet(t), mgmt(namespace, "net1"))
}

// checkRights shows what the API server lets a node's daemon do, and what not.
func checkRights(t *testing.T) {
	t.Helper()
	pod := startPod(t, newPod(newNamespace(t), "patched", nil))
	as := func(node string) kubernetes.Interface {
		config := rest.CopyConfig(env.config)
		config.Impersonate = rest.ImpersonationConfig{UserName: plexusUser(), Groups: []string{"system:serviceaccounts", "system:authenticated"}}
		if node != "" {
			config.Impersonate.Extra = map[string][]string{"authentication.kubernetes.io/node-name": {node}}
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	const allowed = `{"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"}}}`
	for name, test := range map[string]struct {
		node, patch string
		resource    []string
		may         bool
	}{
		"the status of a pod of its node":     {pod.Spec.NodeName, allowed, []string{"status"}, true},
		"a pod of another node":               {"another", allowed, []string{"status"}, false},
		"a pod, by a token without a node":    {"", allowed, []string{"status"}, false},
		"a pod itself":                        {pod.Spec.NodeName, allowed, nil, false},
		"another annotation":                  {pod.Spec.NodeName, `{"metadata": {"annotations": {"a": "b"}}}`, []string{"status"}, false},
		"a label":                             {pod.Spec.NodeName, `{"metadata": {"labels": {"a": "b"}}}`, []string{"status"}, false},
		"the phase of a pod":                  {pod.Spec.NodeName, `{"status": {"phase": "Failed"}}`, []string{"status"}, false},
		"a pod's finalizers":                  {pod.Spec.NodeName, `{"metadata": {"finalizers": ["a.example/b"]}}`, []string{"status"}, false},
		"the addresses of a pod of its node":  {pod.Spec.NodeName, `{"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}}`, []string{"status"}, false},
		"a condition of a pod of its node":    {pod.Spec.NodeName, `{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}`, []string{"status"}, false},
		"the ephemeral containers of its pod": {pod.Spec.NodeName, `{"spec": {"ephemeralContainers": []}}`, []string{"ephemeralcontainers"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := as(test.node).CoreV1().Pods(pod.Namespace).Patch(t.Context(), pod.Name, types.MergePatchType, []byte(test.patch), metav1.PatchOptions{}, test.resource...)
			if test.may && err != nil {
				t.Errorf("may not be patched: %v", err)
			}
			byPolicy := err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'plexusd'")
			if !test.may && !apierrors.IsForbidden(err) && !byPolicy {
				t.Errorf("may be patched, or fails for another reason: %v", err)
			}
		})
	}
	checkEventRights(t, pod, as)
	daemon := as(pod.Spec.NodeName).CoreV1()
	if err := daemon.Pods(pod.Namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("may delete a pod: %v", err)
	}
	if _, err := daemon.Secrets(pod.Namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("may list secrets: %v", err)
	}
	if _, err := daemon.Nodes().List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("may list nodes: %v", err)
	}
}

// checkEventRights shows that a daemon tells events about pods only, and changes only what it told itself.
func checkEventRights(t *testing.T, pod *corev1.Pod, as func(node string) kubernetes.Interface) {
	t.Helper()
	event := func(name, kind, component string) *corev1.Event {
		return &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: name, Namespace: pod.Namespace},
			InvolvedObject: corev1.ObjectReference{Kind: kind, APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name},
			Source:         corev1.EventSource{Component: component, Host: pod.Spec.NodeName},
			Reason:         "Tested", Message: "by a test", Type: corev1.EventTypeNormal,
		}
	}
	denied := func(err error) bool {
		return err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'plexusd-events'")
	}
	events := as(pod.Spec.NodeName).CoreV1().Events(pod.Namespace)
	if _, err := events.Create(t.Context(), event("its-own", "Pod", "plexusd"), metav1.CreateOptions{}); err != nil {
		t.Errorf("may not tell an event about a pod: %v", err)
	}
	if _, err := events.Create(t.Context(), event("of-another", "Pod", "kubelet"), metav1.CreateOptions{}); !denied(err) {
		t.Errorf("may tell an event in the name of another, or fails for another reason: %v", err)
	}
	if _, err := events.Create(t.Context(), event("of-no-pod", "Service", "plexusd"), metav1.CreateOptions{}); !denied(err) {
		t.Errorf("may tell an event about a Service, or fails for another reason: %v", err)
	}
	for what, change := range map[string]func(*corev1.Event){
		"from another node":         func(e *corev1.Event) { e.Source.Host = "another" },
		"reported by another":       func(e *corev1.Event) { e.ReportingController = "kubelet" },
		"reported for another node": func(e *corev1.Event) { e.ReportingInstance = "another" },
		"with a finalizer":          func(e *corev1.Event) { e.Finalizers = []string{"example.org/stays"} },
	} {
		e := event("forged", "Pod", "plexusd")
		change(e)
		if _, err := events.Create(t.Context(), e, metav1.CreateOptions{}); !denied(err) {
			t.Errorf("may tell an event %s, or fails for another reason: %v", what, err)
		}
	}
	again := []byte(`{"count": 2}`)
	if _, err := as("another").CoreV1().Events(pod.Namespace).Patch(t.Context(), "its-own", types.StrategicMergePatchType, again, metav1.PatchOptions{}); !denied(err) {
		t.Errorf("may change an event of another node, or fails for another reason: %v", err)
	}
	if _, err := events.Patch(t.Context(), "its-own", types.StrategicMergePatchType, again, metav1.PatchOptions{}); err != nil {
		t.Errorf("may not count its own event: %v", err)
	}
}
