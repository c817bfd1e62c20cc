// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/remotecommand"
	watchtools "k8s.io/client-go/tools/watch"
)

// newNamespace makes a namespace for a test. At the test's end it deletes what is in it, waits until its pods are gone, and leaves
// the rest, which takes seconds, to the cluster.
func newNamespace(t *testing.T) string {
	t.Helper()
	ns, err := env.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
		defer cancel()
		if err := env.client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete namespace %s: %v", ns.Name, err)
			return
		}
		// The namespace takes no new pods by now. Left to its controller, those there would live for five more seconds.
		if err := env.client.CoreV1().Pods(ns.Name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Errorf("delete pods of namespace %s: %v", ns.Name, err)
			return
		}
		if err := untilNone(ctx, listAll("pods", ns.Name), &corev1.Pod{}); err != nil {
			t.Errorf("namespace %s has pods still: %v", ns.Name, err)
		}
	})
	return ns.Name
}

// newPod is a pod that lives until it is told to end, and then ends at once.
func newPod(namespace, name string, annotations map[string]string) *corev1.Pod {
	token := false // And so no wait for the namespace's service account and its root certificate.
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &token,
			Containers: []corev1.Container{{
				Name:    "main",
				Image:   testImage,
				Command: []string{"sh", "-c", "trap exit TERM; sleep infinity & wait"},
			}},
		},
	}
}

// startPod creates a pod and waits until it is ready.
func startPod(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created := createPod(t, pod)
	return waitPod(t, created, "ready", podReady)
}

// createPod creates a pod. The service account of a new namespace comes a moment after it, and a pod is refused before.
func createPod(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	until(ctx, t, "serviceaccounts", pod.Namespace, "default", "there", func(*corev1.ServiceAccount) bool { return true })
	created, err := env.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create pod %s: %v", pod.Name, err)
	}
	return created
}

// waitPod waits until a pod is as it should be.
func waitPod(t *testing.T, pod *corev1.Pod, how string, is func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	return until(ctx, t, "pods", pod.Namespace, pod.Name, how, is)
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// deletePod deletes a pod and waits until it is gone, by when its networks are too.
func deletePod(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	if err := env.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("delete pod %s: %v", pod.Name, err)
	}
	if err := untilNone(ctx, listOne("pods", pod.Namespace, pod.Name), &corev1.Pod{}); err != nil {
		t.Fatalf("pod %s is still there: %v\n%s", pod.Name, err, describe(ctx, pod.Namespace, pod.Name))
	}
}

// until watches one object of the core API until it is as it should be.
func until[T runtime.Object](ctx context.Context, t *testing.T, resource, namespace, name, how string, is func(T) bool) T {
	t.Helper()
	var zero T
	kind, err := scheme.Scheme.New(corev1.SchemeGroupVersion.WithKind(strings.TrimPrefix(fmt.Sprintf("%T", zero), "*v1.")))
	if err != nil {
		t.Fatal(err)
	}
	var last T
	_, err = watchtools.UntilWithSync(ctx, listOne(resource, namespace, name), kind, nil, func(e watch.Event) (bool, error) {
		object, ok := e.Object.(T)
		if !ok {
			return false, fmt.Errorf("watch %s %s: got a %T", resource, name, e.Object)
		}
		last = object
		return e.Type != watch.Deleted && is(object), nil
	})
	if err != nil {
		t.Fatalf("%s %s/%s is not %s: %v\n%s", resource, namespace, name, how, err, describe(ctx, namespace, name))
	}
	return last
}

// untilNone watches until no object is left of what list lists.
func untilNone(ctx context.Context, list *cache.ListWatch, kind runtime.Object) error {
	left := map[types.UID]bool{}
	none := func(store cache.Store) (bool, error) {
		for _, o := range store.List() {
			object, err := meta.Accessor(o)
			if err != nil {
				return false, err
			}
			left[object.GetUID()] = true
		}
		return len(left) == 0, nil
	}
	_, err := watchtools.UntilWithSync(ctx, list, kind, none, func(e watch.Event) (bool, error) {
		object, err := meta.Accessor(e.Object)
		if err != nil {
			return false, err
		}
		if e.Type == watch.Deleted {
			delete(left, object.GetUID())
		} else {
			left[object.GetUID()] = true
		}
		return len(left) == 0, nil
	})
	return err
}

func listOne(resource, namespace, name string) *cache.ListWatch {
	return cache.NewListWatchFromClient(env.client.CoreV1().RESTClient(), resource, namespace, fields.OneTermEqualSelector("metadata.name", name))
}

func listAll(resource, namespace string) *cache.ListWatch {
	return cache.NewListWatchFromClient(env.client.CoreV1().RESTClient(), resource, namespace, fields.Everything())
}

// waitEvent waits for an event about a pod.
func waitEvent(t *testing.T, pod *corev1.Pod, reason string) *corev1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	list := cache.NewListWatchFromClient(env.client.CoreV1().RESTClient(), "events", pod.Namespace,
		fields.Set{"involvedObject.uid": string(pod.UID), "reason": reason}.AsSelector())
	found, err := watchtools.UntilWithSync(ctx, list, &corev1.Event{}, nil, func(e watch.Event) (bool, error) {
		return e.Type != watch.Deleted, nil
	})
	if err != nil {
		t.Fatalf("no event %s about pod %s: %v\n%s", reason, pod.Name, err, describe(ctx, pod.Namespace, pod.Name))
	}
	event, ok := found.Object.(*corev1.Event)
	if !ok {
		t.Fatalf("watch events: got a %T", found.Object)
	}
	return event
}

// describe says what is known of a pod, for the message of a failure.
// The time of ctx may be up.
func describe(ctx context.Context, namespace, name string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepLimit)
	defer cancel()
	var b strings.Builder
	pod, err := env.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return ""
	case err != nil:
		return err.Error()
	}
	fmt.Fprintf(&b, "phase %s, node %q\n", pod.Status.Phase, pod.Spec.NodeName)
	for _, c := range pod.Status.Conditions {
		fmt.Fprintf(&b, "condition %s=%s %s %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	events, err := env.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil {
		return b.String() + err.Error()
	}
	for _, e := range events.Items {
		fmt.Fprintf(&b, "event %s x%d: %s\n", e.Reason, max(e.Count, 1), e.Message)
	}
	return b.String()
}

// execInPod runs a program in a pod's container and returns its standard output.
func execInPod(t *testing.T, pod *corev1.Pod, command ...string) string {
	t.Helper()
	return execInContainer(t, pod, pod.Spec.Containers[0].Name, command...)
}

// execInContainer runs a program in one of its containers.
func execInContainer(t *testing.T, pod *corev1.Pod, container string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	url := env.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: container, Command: command, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewWebSocketExecutor(env.config, "GET", url.String())
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		t.Fatalf("exec %v in pod %s: %v: %s", command, pod.Name, err, stderr.String())
	}
	return stdout.String()
}

// networkStatus is an element of the annotation k8s.v1.cni.cncf.io/network-status, written down here once more so that the tests
// do not share the product's understanding of it.
type networkStatus struct {
	Name      string       `json:"name"`
	Interface string       `json:"interface"`
	IPs       []netip.Addr `json:"ips"`
	MAC       string       `json:"mac"`
	MTU       int          `json:"mtu"`
	Default   bool         `json:"default"`
	Gateway   []netip.Addr `json:"gateway"`
}

const networkStatusAnnotation = "k8s.v1.cni.cncf.io/network-status"

// getNetworkStatus reads the annotation of the pod as the API server has it now; nil if there is none.
func getNetworkStatus(t *testing.T, pod *corev1.Pod) []networkStatus {
	t.Helper()
	now, err := env.client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get pod %s: %v", pod.Name, err)
	}
	raw, ok := now.Annotations[networkStatusAnnotation]
	if !ok {
		return nil
	}
	var status []networkStatus
	if err := json.Unmarshal([]byte(raw), &status); err != nil {
		t.Fatalf("annotation %s of pod %s: %v:\n%s", networkStatusAnnotation, pod.Name, err, raw)
	}
	return status
}
