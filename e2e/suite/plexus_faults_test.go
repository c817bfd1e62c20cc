// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/plexus-cni/plexus/e2e/cluster"
)

// busyLimit is for many pods at once, and for what kubelet and clients try again after a fault, each time later.
const busyLimit = 3 * time.Minute

// podWatch sees all that happens to the pods of a namespace, also after a time without API server.
type podWatch struct {
	changed chan struct{}

	mu    sync.Mutex
	pods  map[string]*corev1.Pod
	wrong map[string]string // By pod, what was seen of it and may not be.
}

// watchPods starts a watch. At the test's end it reports each pod that ever ran without the networks, whose names are given.
func watchPods(t *testing.T, namespace string, networks ...string) *podWatch {
	t.Helper()
	w := &podWatch{changed: make(chan struct{}, 1), pods: map[string]*corev1.Pod{}, wrong: map[string]string{}}
	see := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok {
			w.see(pod, networks)
		}
	}
	informer := toolscache.NewSharedInformer(listAll("pods", namespace), &corev1.Pod{}, 0)
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, now any) { see(now) },
		DeleteFunc: func(object any) {
			if last, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			if pod, ok := object.(*corev1.Pod); ok {
				w.forget(pod)
			}
		},
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		for name, what := range w.wrong {
			t.Errorf("pod %s ran without its networks: %s", name, what)
		}
	})
	return w
}

func (w *podWatch) see(pod *corev1.Pod, networks []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pods[pod.Name] = pod
	if pod.Status.Phase == corev1.PodRunning {
		for _, network := range networks {
			if status := pod.Annotations[networkStatusAnnotation]; !strings.Contains(status, `"`+network+`"`) {
				w.wrong[pod.Name] = fmt.Sprintf("no %s in its status %q", network, status)
			}
		}
	}
	w.wake()
}

func (w *podWatch) forget(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, pod.Name)
	w.wake()
}

// wake tells await that something is new, if it does not know already.
func (w *podWatch) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// now are the pods that are there.
func (w *podWatch) now() []*corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var pods []*corev1.Pod
	for _, pod := range w.pods {
		pods = append(pods, pod)
	}
	return pods
}

// await waits until the pods are as they should be, and returns them.
func (w *podWatch) await(t *testing.T, how string, is func([]*corev1.Pod) bool) []*corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), busyLimit)
	defer cancel()
	for {
		pods := w.now()
		if is(pods) {
			return pods
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			for _, pod := range pods {
				if !podReady(pod) || pod.DeletionTimestamp != nil {
					t.Log(describe(ctx, pod.Namespace, pod.Name))
				}
			}
			t.Fatalf("waited %s in vain: %s", busyLimit, how)
		}
	}
}

// awaitReady waits until there are so many pods, all ready and none about to go.
func (w *podWatch) awaitReady(t *testing.T, count int) []*corev1.Pod {
	t.Helper()
	return w.await(t, fmt.Sprintf("%d pods are ready, and no others there", count), func(pods []*corev1.Pod) bool {
		return len(pods) == count && !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return !podReady(p) || p.DeletionTimestamp != nil })
	})
}

// checkDeployment shows that twenty pods at once get what they ask for, and what that takes of the daemon.
func checkDeployment(t *testing.T) {
	t.Helper()
	keepClean(t)
	const replicas = 20
	namespace := newNetworks(t)
	node := env.cluster.Nodes()[0]
	before, _ := memory(t, node)
	watch := watchPods(t, namespace, primaryName(t), namespace+"/business-net", namespace+"/mgmt-net")
	template := newPod(namespace, "", selecting("business-net,mgmt-net"))
	labels, count, grace := map[string]string{"app": "twenty"}, int32(replicas), int64(1)
	template.Labels = labels
	template.Spec.TerminationGracePeriodSeconds = &grace
	start := time.Now()
	if _, err := env.client.AppsV1().Deployments(namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "twenty"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &count,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: template.ObjectMeta, Spec: template.Spec},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := watch.awaitReady(t, replicas)
	took := time.Since(start)
	after, most := memory(t, node)
	t.Logf("%d pods on three networks were ready after %.1f s; memory of the daemon: %.1f MiB before, %.1f MiB after, %.1f MiB at most",
		replicas, took.Seconds(), before, after, most)
	const limit = 40 // MiB. What was measured is about 30.
	if most > limit {
		t.Errorf("the daemon took %.1f MiB; want at most %d", most, limit)
	}
	seen := map[netip.Addr]string{}
	for _, pod := range pods {
		checkNetworks(t, pod, clusterNet(t), business(namespace, "net1"), mgmt(namespace, "net2"))
		for _, s := range getNetworkStatus(t, pod) {
			for _, address := range s.IPs {
				if other, ok := seen[address]; ok {
					t.Errorf("pods %s and %s both have %s", pod.Name, other, address)
				}
				seen[address] = pod.Name
			}
		}
	}
	// Else it makes new ones while the test's pods are deleted.
	if err := env.client.AppsV1().Deployments(namespace).Delete(t.Context(), "twenty", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	watch.awaitReady(t, 0)
}

// checkChurn starts and deletes pods while disturb, which is told how often it was called before, disturbs what they need. Every pod
// gets its networks before it runs, and every pod goes.
func checkChurn(t *testing.T, disturb func(*testing.T, int)) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	watch := watchPods(t, namespace, primaryName(t), namespace+"/business-net", namespace+"/mgmt-net")
	const wave = 8
	create := func(name string) {
		for i := range wave {
			createPod(t, newPod(namespace, fmt.Sprintf("%s%d", name, i), selecting("business-net,mgmt-net")))
		}
		// From here on some of them run, and others are on the way.
		watch.await(t, "one of the pods "+name+" runs", func(pods []*corev1.Pod) bool {
			return slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
				return strings.HasPrefix(p.Name, name) && p.Status.Phase == corev1.PodRunning
			})
		})
	}
	remove := func() {
		for _, pod := range watch.now() {
			if err := env.client.CoreV1().Pods(namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}

	create("first")
	disturb(t, 0)
	watch.awaitReady(t, wave)
	remove()
	create("second")
	disturb(t, 1)
	for _, pod := range watch.awaitReady(t, wave) {
		checkNetworks(t, pod, clusterNet(t), business(namespace, "net1"), mgmt(namespace, "net2"))
	}
	remove()
	disturb(t, 2)
	watch.awaitReady(t, 0)
}

// checkDaemonChurn deletes, rolls and kills the daemon while pods start and go.
func checkDaemonChurn(t *testing.T) {
	t.Helper()
	keepReady(t)
	checkChurn(t, func(t *testing.T, times int) {
		t.Helper()
		switch times {
		case 0:
			kubectl(t, "", append([]string{"--namespace", env.namespace, "delete", "pod", "--wait=false", "--ignore-not-found"}, daemonPods(t)...)...)
		case 1:
			kubectl(t, "", "--namespace", env.namespace, "rollout", "restart", "daemonset/plexusd")
		default:
			awaitPlexus(t) // There has to be something to kill.
			for _, node := range env.cluster.Nodes() {
				onNode(t, node, "pkill", "-KILL", "-x", "plexusd")
			}
		}
	})
	awaitPlexus(t)
}

// checkAPIChurn takes the API server away, without a word, while pods start and go.
func checkAPIChurn(t *testing.T) {
	t.Helper()
	keepReady(t)
	checkChurn(t, func(t *testing.T, _ int) {
		t.Helper()
		restart(t, cluster.APIServer)
	})
	awaitPlexus(t)
}

// checkRestarts shows that pods keep their networks, and new ones get theirs, when what runs the pods is restarted.
func checkRestarts(t *testing.T) {
	t.Helper()
	for _, component := range []cluster.Component{cluster.Kubelet, cluster.Containerd} {
		t.Run(string(component), func(t *testing.T) {
			keepClean(t)
			namespace := newNetworks(t)
			before := startPod(t, newPod(namespace, "before", selecting("business-net,mgmt-net")))
			restart(t, component)
			after := startPod(t, newPod(namespace, "after", selecting("business-net,mgmt-net")))
			for _, pod := range []*corev1.Pod{before, after} {
				checkNetworks(t, pod, clusterNet(t), business(namespace, "net1"), mgmt(namespace, "net2"))
			}
			deletePod(t, before)
		})
	}
}

// checkReboot shows that pods get their networks again after a power cut, and that nothing of before is held.
func checkReboot(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	before := startPod(t, newPod(namespace, "before", selecting("business-net,mgmt-net")))
	node := before.Spec.NodeName
	ctx, cancel := context.WithTimeout(t.Context(), busyLimit)
	defer cancel()
	if err := env.cluster.Reboot(ctx, node); err != nil {
		t.Fatal(err)
	}
	after := waitPod(t, before, "started again", func(p *corev1.Pod) bool {
		return podReady(p) && p.Status.ContainerStatuses[0].RestartCount > before.Status.ContainerStatuses[0].RestartCount
	})
	checkNetworks(t, after, clusterNet(t), business(namespace, "net1"), mgmt(namespace, "net2"))
	for network, want := range map[string]int{"business-net": 2, "mgmt-net": 2} {
		eventually(t, "only the leases of "+network+" that are in use", func() bool { return len(leasesOf(t, node, network)) == want })
	}
	awaitPlexus(t)
}

// checkOutage shows that a daemon that starts while there is no API server takes nothing from the pods that run, and that the next pod
// starts when the API server is back.
func checkOutage(t *testing.T) {
	t.Helper()
	keepClean(t)
	keepReady(t)
	namespace := newNetworks(t)
	runs := startPod(t, newPod(namespace, "runs", selecting("business-net,mgmt-net")))
	ctx, cancel := context.WithTimeout(t.Context(), busyLimit)
	defer cancel()
	err := env.cluster.Stop(ctx, cluster.APIServer, syscall.SIGKILL)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	start := sync.OnceValue(func() error { return env.cluster.Start(context.WithoutCancel(ctx), cluster.APIServer) })
	t.Cleanup(func() { // also when the test ends early
		if err := start(); err != nil {
			t.Error(err)
		}
	})
	const daemon = "pgrep -o -x plexusd || true"
	before := onNode(t, runs.Spec.NodeName, "sh", "-c", daemon)
	onNode(t, runs.Spec.NodeName, "pkill", "-KILL", "-x", "plexusd")
	eventually(t, "the kubelet has started the daemon again", func() bool {
		now := onNode(t, runs.Spec.NodeName, "sh", "-c", daemon)
		return now != "" && now != before
	})
	awaitStatusAsked(t)
	checkCrash(t, runs)
	if err := start(); err != nil {
		t.Fatal(err)
	}
	awaitPlexus(t)
	next := startPod(t, newPod(namespace, "next", selecting("business-net,mgmt-net")))
	for _, pod := range []*corev1.Pod{runs, next} {
		checkNetworks(t, pod, clusterNet(t), business(namespace, "net1"), mgmt(namespace, "net2"))
	}
}

// checkStopped shows that no pod starts without Plexus where Plexus was installed: it waits. Pods that run go on, and so does their node.
func checkStopped(t *testing.T) {
	t.Helper()
	keepClean(t)
	keepReady(t)
	namespace := newNetworks(t)
	stopped := startPod(t, newPod(namespace, "stopped", selecting("business-net,mgmt-net")))
	never := `{"spec": {"template": {"spec": {"nodeSelector": {"plexus.example/never": "true"}}}}}`
	kubectl(t, "", "--namespace", env.namespace, "patch", "daemonset", "plexusd", "--patch", never)
	eventually(t, "no daemon", func() bool { return len(daemonPods(t)) == 0 })
	waits := createPod(t, newPod(namespace, "waits", selecting("business-net,mgmt-net")))
	awaitStatusAsked(t)
	checkCrash(t, stopped)
	event := waitEvent(t, waits, "FailedCreatePodSandBox")
	if !strings.Contains(event.Message, "plexus") {
		t.Errorf("event FailedCreatePodSandBox: %q does not name Plexus", event.Message)
	}
	deletePod(t, stopped) // Needs no daemon.
	if got := leasesOf(t, stopped.Spec.NodeName, "business-net"); len(got) != 0 {
		t.Errorf("leases after a pod was deleted without a daemon: %v", got)
	}

	always := `{"spec": {"template": {"spec": {"nodeSelector": {"plexus.example/never": null}}}}}`
	kubectl(t, "", "--namespace", env.namespace, "patch", "daemonset", "plexusd", "--patch", always)
	awaitPlexus(t)
	waits = waitPod(t, waits, "ready once the daemon is back", podReady)
	checkNetworks(t, waits, clusterNet(t), business(namespace, "net1"), mgmt(namespace, "net2"))
}
