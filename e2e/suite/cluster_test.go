// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plexus-cni/plexus/e2e/cluster"
)

// TestCluster shows that the cluster works without Plexus, so that a failure of another test is Plexus' own.
func TestCluster(t *testing.T) {
	nodes, err := env.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range env.cluster.Nodes() {
		if !slices.ContainsFunc(nodes.Items, func(n corev1.Node) bool { return n.Name == name }) {
			t.Errorf("node %s is not in the cluster", name)
		}
	}

	t.Run("a pod has the default network and gives it back", func(t *testing.T) {
		pod := startPod(t, newPod(newNamespace(t), "plain", nil))
		address := checkDefaultNetwork(t, pod)
		if got := execInPod(t, pod, "ip", "-o", "address", "show", "dev", "eth0"); !strings.Contains(got, " "+address.String()+"/") {
			t.Errorf("the pod does not see its address %s:\n%s", address, got)
		}
		if got := getNetworkStatus(t, pod); got != nil {
			t.Errorf("annotation %s without Plexus: %+v", networkStatusAnnotation, got)
		}
		waitEvent(t, pod, "Started")

		held := func() bool { return slices.Contains(leasesOf(t, pod.Spec.NodeName, "cluster"), address) }
		if !held() {
			t.Errorf("no lease of %s while the pod runs", address)
		}
		deletePod(t, pod)
		if held() {
			t.Errorf("a lease of %s after the pod is gone", address)
		}
	})

	t.Run("the audit log counts requests", func(t *testing.T) {
		log := newAudit(t)
		pod := startPod(t, newPod(newNamespace(t), "counted", nil))
		created := slices.DeleteFunc(log.requests(t, "admin"), func(r request) bool {
			return r.Verb != "create" || r.Object.Resource != "pods" || r.Object.Namespace != pod.Namespace
		})
		if len(created) != 1 || created[0].Response.Code != http.StatusCreated {
			t.Errorf("want one request that created a pod, got %+v", created)
		}
	})

	t.Run("a daemon's pod runs with no rights but its host paths and its service account", func(t *testing.T) {
		pod := startPod(t, newDaemonPod(newNamespace(t)))
		if got := execInPod(t, pod, "ls", "/host/etc/cni/net.d"); strings.TrimSpace(got) == "" {
			t.Error("the pod sees no network configuration of its node")
		}
		for _, line := range []string{"CapEff:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"} {
			if got := execInPod(t, pod, "cat", "/proc/self/status"); !strings.Contains(got, line) {
				t.Errorf("no line %q in the status of its processes:\n%s", line, got)
			}
		}
		if got := execInPod(t, pod, "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"); strings.Count(got, ".") != 2 {
			t.Errorf("service-account token: got %q", got)
		}
		// The Service kubernetes answers on the node's network and on the pods'.
		for _, client := range []*corev1.Pod{pod, startPod(t, newPod(pod.Namespace, "client", nil))} {
			execInPod(t, client, "sh", "-c", `nc -w 5 "$KUBERNETES_SERVICE_HOST" "$KUBERNETES_SERVICE_PORT" </dev/null`)
		}
	})

	for _, component := range []cluster.Component{
		cluster.Kubelet, cluster.Containerd, cluster.Etcd, cluster.APIServer, cluster.ControllerManager, cluster.Scheduler,
	} {
		t.Run("a pod outlives "+string(component)+", and the next starts after it", func(t *testing.T) {
			namespace := newNamespace(t)
			before := startPod(t, newPod(namespace, "before", nil))
			restart(t, component)
			checkDefaultNetwork(t, startPod(t, newPod(namespace, "after", nil)))
			checkDefaultNetwork(t, before)
			deletePod(t, before)
		})
	}

	t.Run("a pod starts again after a reboot", func(t *testing.T) {
		before := startPod(t, newPod(newNamespace(t), "before", nil))
		ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
		defer cancel()
		if err := env.cluster.Reboot(ctx, before.Spec.NodeName); err != nil {
			t.Fatal(err)
		}
		after := waitPod(t, before, "started again", func(p *corev1.Pod) bool {
			return podReady(p) && p.Status.ContainerStatuses[0].RestartCount > before.Status.ContainerStatuses[0].RestartCount
		})
		checkDefaultNetwork(t, after)
	})
}

// newDaemonPod is a pod on its node's network that may do nothing but read the node's network configuration.
func newDaemonPod(namespace string) *corev1.Pod {
	yes, no := true, false
	pod := newPod(namespace, "daemon", nil)
	pod.Spec.HostNetwork = true
	pod.Spec.AutomountServiceAccountToken = &yes
	pod.Spec.Volumes = []corev1.Volume{{
		Name:         "conf",
		VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc/cni/net.d"}},
	}}
	container := &pod.Spec.Containers[0]
	container.VolumeMounts = []corev1.VolumeMount{{Name: "conf", MountPath: "/host/etc/cni/net.d", ReadOnly: true}}
	container.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	return pod
}

// checkDefaultNetwork checks that a pod has eth0 with the address of its status, and nothing else, and returns the address.
func checkDefaultNetwork(t *testing.T, pod *corev1.Pod) netip.Addr {
	t.Helper()
	address, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil {
		t.Fatalf("status.podIP of pod %s: %v", pod.Name, err)
	}
	links := linksOf(t, pod)
	if len(links) != 1 || links[0].Name != "eth0" {
		t.Fatalf("pod %s: want eth0 alone, got %+v", pod.Name, links)
	}
	if got := links[0].global(); len(got) != 1 || got[0].Addr() != address {
		t.Errorf("pod %s: addresses of eth0: got %v, want %s alone", pod.Name, got, address)
	}
	return address
}

// restart kills a component and starts it again.
func restart(t *testing.T, component cluster.Component) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	err := env.cluster.Stop(ctx, component, syscall.SIGKILL)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err := errors.Join(err, env.cluster.Start(ctx, component)); err != nil {
		t.Fatal(err)
	}
}
