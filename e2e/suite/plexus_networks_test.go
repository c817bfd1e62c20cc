// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	networksAnnotation       = "k8s.v1.cni.cncf.io/networks"
	defaultNetworkAnnotation = "v1.multus-cni.io/default-network"
	definitionsPath          = "/apis/k8s.cni.cncf.io/v1"
	// lan is the link of each node that macvlan networks are put on.
	lan = "lan0"
)

// Networks of the tests. Each has addresses of its own, and those of a name its leases in the folder of that name.
const (
	businessNet = `{
  "cniVersion": "1.1.0", "name": "business-net", "type": "macvlan", "master": "` + lan + `", "mode": "bridge", "mtu": 1400,
  "capabilities": {"ips": true, "mac": true},
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "192.168.50.0/24"}], [{"subnet": "fd00:50::/64"}]]}
}`
	mgmtNet = `{
  "cniVersion": "1.0.0", "name": "mgmt-net", "plugins": [{
    "type": "bridge", "bridge": "mgmt0", "isGateway": true, "capabilities": {"ips": true, "mac": true},
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.60.0.0/24"}], [{"subnet": "fd00:60::/64"}]]}
  }, {"type": "tuning"}]
}`
)

// createNetwork creates a NetworkAttachmentDefinition.
func createNetwork(t *testing.T, namespace, name, config string) {
	t.Helper()
	createAnnotated(t, namespace, name, config, nil)
}

// createAnnotated creates one with annotations.
func createAnnotated(t *testing.T, namespace, name, config string, annotations map[string]string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"name": name, "namespace": namespace, "annotations": annotations},
		"spec":     map[string]string{"config": config},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = env.client.CoreV1().RESTClient().Post().AbsPath(definitionsPath, "namespaces", namespace, "network-attachment-definitions").
		SetHeader("Content-Type", "application/json").Body(body).Do(t.Context()).Error()
	if err != nil {
		t.Fatalf("create network %s/%s: %v", namespace, name, err)
	}
}

func deleteNetwork(t *testing.T, namespace, name string) {
	t.Helper()
	err := env.client.CoreV1().RESTClient().Delete().AbsPath(definitionsPath, "namespaces", namespace, "network-attachment-definitions", name).
		Do(t.Context()).Error()
	if err != nil {
		t.Fatalf("delete network %s/%s: %v", namespace, name, err)
	}
}

// newNetworks is a namespace with the two networks.
func newNetworks(t *testing.T) string {
	t.Helper()
	namespace := newNamespace(t)
	createNetwork(t, namespace, "business-net", businessNet)
	createNetwork(t, namespace, "mgmt-net", mgmtNet)
	return namespace
}

// selecting are the annotations of a pod that selects networks.
func selecting(networks string) map[string]string {
	return map[string]string{networksAnnotation: networks}
}

// attached is what one network should have given to a pod.
type attached struct {
	network string
	name    string // Of the interface.
	gateway []string
	ips     []string // Requested; nil for any.
	mac     string   // Requested; "" for any.
	count   int      // Of the addresses.
	mtu     int      // Of the interface; 0 for any.
}

// checkNetworks checks that a pod has exactly these interfaces, that the kernel has of each what was requested, and that the
// network-status says what the kernel has, no more and no less.
func checkNetworks(t *testing.T, pod *corev1.Pod, want ...attached) {
	t.Helper()
	links, status := linksOf(t, pod), getNetworkStatus(t, pod)
	if len(status) != len(want) || len(links) != len(want) {
		t.Fatalf("pod %s: want %d interfaces, got %d, with the status %+v\n%+v", pod.Name, len(want), len(links), status, links)
	}
	for i, w := range want {
		at := slices.IndexFunc(links, func(l link) bool { return l.Name == w.name })
		if at < 0 {
			t.Fatalf("pod %s: no interface %s in %+v", pod.Name, w.name, links)
		}
		s, l := status[i], links[at]
		if s.Name != w.network || s.Interface != w.name || s.Default != (i == 0) {
			t.Errorf("pod %s: status %d is of network %q, interface %q, default %v; want %q, %q, %v", pod.Name, i, s.Name, s.Interface, s.Default, w.network, w.name, i == 0)
		}
		if s.MAC != l.MAC || (w.mac != "" && l.MAC != w.mac) {
			t.Errorf("pod %s, %s: MAC %s, in the status %s; want %q", pod.Name, w.name, l.MAC, s.MAC, w.mac)
		}
		// Few plugins tell the MTU, which is new in results of CNI 1.1.
		if (s.MTU != 0 && s.MTU != l.MTU) || (w.mtu != 0 && l.MTU != w.mtu) {
			t.Errorf("pod %s, %s: MTU %d, in the status %d; want %d", pod.Name, w.name, l.MTU, s.MTU, w.mtu)
		}
		if !slices.Contains(l.Flags, "UP") {
			t.Errorf("pod %s, %s: is not up: %v", pod.Name, w.name, l.Flags)
		}
		var kernel []string
		for _, p := range l.global() {
			kernel = append(kernel, p.Addr().String())
		}
		if got := sorted(texts(s.IPs)); !slices.Equal(got, sorted(kernel)) || len(got) != w.count {
			t.Errorf("pod %s, %s: addresses %v, in the status %v; want %d", pod.Name, w.name, kernel, got, w.count)
		}
		if w.ips != nil && !slices.Equal(sorted(kernel), sorted(w.ips)) {
			t.Errorf("pod %s, %s: addresses %v; want %v", pod.Name, w.name, kernel, w.ips)
		}
		if got := texts(s.Gateway); !slices.Equal(got, w.gateway) {
			t.Errorf("pod %s, %s: gateways in the status %v; want %v", pod.Name, w.name, got, w.gateway)
		}
	}
	if len(status[0].IPs) == 0 || status[0].IPs[0].String() != pod.Status.PodIP {
		t.Errorf("pod %s: status.podIP %s is not the default network's %v", pod.Name, pod.Status.PodIP, status[0].IPs)
	}
}

// clusterNet is what the cluster's own network gives.
func clusterNet(t *testing.T) attached {
	t.Helper()
	return attached{network: primaryName(t), name: "eth0", count: 1}
}

// business and mgmt are what the two networks give.
func business(namespace, name string) attached {
	return attached{network: namespace + "/business-net", name: name, count: 2, mtu: 1400}
}

func mgmt(namespace, name string) attached {
	return attached{network: namespace + "/mgmt-net", name: name, count: 2}
}

func texts(addresses []netip.Addr) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// checkSeed is the scenario that Plexus was begun for: two networks by the JSON form, one with a requested interface, addresses and MAC.
func checkSeed(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	pod := startPod(t, newPod(namespace, "seed", selecting(`[
  {"name": "business-net", "interface": "eth1", "ips": ["192.168.50.10/24", "fd00:50::10/64"], "mac": "02:00:00:00:50:10"},
  {"name": "mgmt-net"}
]`)))
	eth1 := business(namespace, "eth1")
	eth1.ips, eth1.mac = []string{"192.168.50.10", "fd00:50::10"}, "02:00:00:00:50:10"
	checkNetworks(t, pod, clusterNet(t), eth1, mgmt(namespace, "net2"))
	for _, i := range []string{"eth0", "eth1", "net2"} {
		if !strings.Contains(execInPod(t, pod, "ip", "-o", "link"), ": "+i+"@") {
			t.Errorf("the pod does not see %s", i)
		}
	}
	peer := startPod(t, newPod(namespace, "peer", selecting("business-net@eth1, mgmt-net")))
	execInPod(t, peer, "ping", "-c", "1", "-W", "10", "192.168.50.10")
	execInPod(t, peer, "ping", "-6", "-c", "1", "-W", "10", "fd00:50::10")
	waitEvent(t, pod, "AddedInterface")
	deletePod(t, pod)
	for network, want := range map[string]int{"business-net": 2, "mgmt-net": 2} { // Those of the peer.
		if got := leasesOf(t, pod.Spec.NodeName, network); len(got) != want {
			t.Errorf("leases of %s after the pod is gone: %v; want %d", network, got, want)
		}
	}
}

// checkMissing shows that a pod waits for its network, that its owner is told, and that it needs nobody's help when the network comes.
func checkMissing(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	pod := createPod(t, newPod(namespace, "early", selecting("business-net,late-net")))
	event := waitEvent(t, pod, "NoNetworkFound")
	if event.Type != corev1.EventTypeWarning || !strings.Contains(event.Message, namespace+"/late-net") {
		t.Errorf("event NoNetworkFound: %s: %q does not name the network", event.Type, event.Message)
	}
	createNetwork(t, namespace, "late-net", strings.NewReplacer("mgmt", "late", ".60.", ".61.", ":60:", ":61:").Replace(mgmtNet))
	pod = waitPod(t, pod, "ready once its network is there", podReady)
	checkNetworks(t, pod,
		clusterNet(t),
		business(namespace, "net1"),
		attached{network: namespace + "/late-net", name: "net2", count: 2},
	)
}

// checkForgotten shows that a pod gives back what it has when neither its networks nor it itself are in the cluster any more.
func checkForgotten(t *testing.T) {
	t.Helper()
	keepClean(t)
	before := stateFiles(t, env.cluster.Nodes()[0])
	namespace := newNetworks(t)
	pod := startPod(t, newPod(namespace, "kept", selecting("business-net,mgmt-net")))
	gone := startPod(t, newPod(namespace, "forced", selecting("business-net,mgmt-net")))
	node := pod.Spec.NodeName
	deleteNetwork(t, namespace, "business-net")
	deleteNetwork(t, namespace, "mgmt-net")
	deletePod(t, pod)
	if got := leasesOf(t, node, "business-net"); len(got) != 2 {
		t.Errorf("leases of a network that is deleted, after one of its two pods is gone: %v; want 2", got)
	}
	kubectl(t, "", "--namespace", namespace, "delete", "pod", gone.Name, "--force", "--grace-period=0")
	// The API server no longer knows the pod while its node still takes it away.
	eventually(t, "what the pod held that was deleted by force is given back", func() bool { return slices.Equal(before, stateFiles(t, node)) })
}

// checkUnselected shows that a pod that selects nothing has the default network alone, and a status of it.
func checkUnselected(t *testing.T) {
	t.Helper()
	keepClean(t)
	pod := startPod(t, newPod(newNamespace(t), "plain", nil))
	checkDefaultNetwork(t, pod)
	checkNetworks(t, pod, clusterNet(t))
}

// checkShortForm shows the short form, also of networks of another namespace.
func checkShortForm(t *testing.T) {
	t.Helper()
	keepClean(t)
	other, namespace := newNetworks(t), newNetworks(t)
	pod := startPod(t, newPod(namespace, "short", selecting("mgmt-net, "+other+"/business-net@data0,mgmt-net")))
	checkNetworks(t, pod,
		clusterNet(t),
		mgmt(namespace, "net1"),
		business(other, "data0"),
		mgmt(namespace, "net3"),
	)
}

// checkDefaultOverride shows that a pod can have another default network in the place of one that is a file of the node.
func checkDefaultOverride(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	pod := startPod(t, newPod(namespace, "override", map[string]string{
		defaultNetworkAnnotation: namespace + "/mgmt-net",
		networksAnnotation:       "business-net",
	}))
	checkNetworks(t, pod,
		mgmt(namespace, "eth0"),
		business(namespace, "net1"),
	)
}

// checkDefaultRoute shows that a pod's default route can lead over another network than the default one.
func checkDefaultRoute(t *testing.T) {
	t.Helper()
	keepClean(t)
	namespace := newNetworks(t)
	pod := startPod(t, newPod(namespace, "route", selecting(`[{"name": "mgmt-net", "default-route": ["10.60.0.1", "fd00:60::1"]}]`)))
	net1 := mgmt(namespace, "net1")
	net1.gateway = []string{"10.60.0.1", "fd00:60::1"}
	checkNetworks(t, pod, clusterNet(t), net1)
	for family, want := range map[string]string{"-4": "default via 10.60.0.1 dev net1", "-6": "default via fd00:60::1 dev net1"} {
		got := onNode(t, pod.Spec.NodeName, "nsenter", "--net="+netnsOf(t, pod), "ip", family, "route", "show", "default")
		if strings.Count(got, "default") != 1 || !strings.Contains(got, want) {
			t.Errorf("default routes: %q; want %q alone", got, want)
		}
	}
}

// checkStatic shows that a pod of the kubelet's own folder gets its networks. What the API server has of it is a mirror, which has
// another UID than the sandbox and may come after it.
func checkStatic(t *testing.T) {
	t.Helper()
	keepClean(t)
	node := env.cluster.Nodes()[0]
	namespace := newNetworks(t)
	pod := newPod(namespace, "static", selecting("mgmt-net"))
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	manifest, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	const file = "/etc/kubernetes/manifests/static.json"
	before := stateFiles(t, node)
	remove := func() {
		if _, err := env.cluster.Exec(context.Background(), node, "rm", "-f", file); err != nil {
			t.Errorf("remove the static pod: %v", err)
		}
	}
	t.Cleanup(remove)                                                     // also when the test ends early
	writeOnNode(t, node, "/etc/kubernetes/static.json", string(manifest)) // beside: the kubelet takes every file of its folder
	onNode(t, node, "mv", "/etc/kubernetes/static.json", file)
	pod.Name += "-" + node
	mirror := waitPod(t, pod, "ready", podReady)
	mirror.UID = types.UID(mirror.Annotations["kubernetes.io/config.hash"]) // the sandbox's
	checkNetworks(t, mirror, clusterNet(t), mgmt(namespace, "net1"))
	remove()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	if err := untilNone(ctx, listOne("pods", namespace, mirror.Name), &corev1.Pod{}); err != nil {
		t.Errorf("the mirror of the static pod stays: %v", err)
	}
	eventually(t, "what the static pod held is given back", func() bool { return slices.Equal(before, stateFiles(t, node)) })
}

// checkIsolation shows that a pod does not get a network of another namespace when the nodes' configuration forbids it.
func checkIsolation(t *testing.T) {
	t.Helper()
	keepClean(t)
	configurePlexus(t, `{"namespaceIsolation": true}`)
	awaitConf(t, "isolates namespaces", func(conf string) bool { return strings.Contains(conf, "namespaceIsolation") })
	other, namespace := newNetworks(t), newNetworks(t)
	refused := createPod(t, newPod(namespace, "refused", selecting(other+"/mgmt-net")))
	event := waitEvent(t, refused, "NetworkForbidden")
	if event.Type != corev1.EventTypeWarning || !strings.Contains(event.Message, other+"/mgmt-net") {
		t.Errorf("event NetworkForbidden: %s: %q does not name the network", event.Type, event.Message)
	}
	pod := startPod(t, newPod(namespace, "own", selecting("mgmt-net")))
	checkNetworks(t, pod, clusterNet(t), mgmt(namespace, "net1"))
	if now := waitPod(t, refused, "refused", func(*corev1.Pod) bool { return true }); now.Status.Phase != corev1.PodPending {
		t.Errorf("the pod that was refused is %s", now.Status.Phase)
	}
	configurePlexus(t, "")
	awaitConf(t, "does not isolate namespaces", func(conf string) bool { return conf != "" && !strings.Contains(conf, "namespaceIsolation") })
	waitPod(t, refused, "ready once it is allowed", podReady)
}

// checkRequests counts what the daemon asks the API server for.
func checkRequests(t *testing.T) {
	t.Helper()
	namespace := newNetworks(t)
	for _, c := range []struct {
		name       string
		selection  map[string]string
		interfaces int
	}{
		{"plain", nil, 1},
		{"selecting", selecting("business-net,mgmt-net"), 3},
	} {
		adding := newAudit(t)
		pod := startPod(t, newPod(namespace, c.name, c.selection))
		eventually(t, "an event for each interface", func() bool { return adding.count(t)["create events"] >= c.interfaces })
		deleting := newAudit(t)
		deletePod(t, pod)
		add, del := adding.count(t), deleting.count(t)
		t.Logf("requests of an ADD with %d interfaces: %v; of its DEL: %v", c.interfaces, add, del)
		if len(add) != 2 || add["patch pods/status"] != 1 || add["create events"] != c.interfaces {
			t.Errorf("requests of an ADD with %d interfaces: %v; want 1 patch of the pod's status, and an event for each interface", c.interfaces, add)
		}
		if len(del) != 0 {
			t.Errorf("requests of a DEL: %v; want none", del)
		}
	}
}

// count counts what Plexus asked for, by verb and resource. The end of a watch, which can come at any time, is not counted.
func (a *audit) count(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, r := range a.requests(t, plexusUser()) {
		if r.Verb != "watch" {
			counts[strings.TrimSuffix(fmt.Sprintf("%s %s/%s", r.Verb, r.Object.Resource, r.Object.Subresource), "/")]++
		}
	}
	return counts
}
