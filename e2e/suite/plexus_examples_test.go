// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// exampleImage is what the containers of examples run.
var exampleImage = regexp.MustCompile(`(?m)^( *)image: registry\.k8s\.io/pause:.*$`)

// example is a folder of examples/, as somebody would try it.
type example struct {
	name string
	// keys of the plugin's configuration, which its README asks for.
	keys string
	// link of the node that its README says to replace.
	link string
	// driver is the kind of links that it takes, where not every kernel has that.
	driver string
	// bridges are what its networks leave on the node, as those of the reference plugin do.
	bridges []string
	// pods that have to become ready, as namespace/name, and check shows what the README claims of them.
	pods  []string
	check func(t *testing.T, pods map[string]*corev1.Pod)
}

// checkExamples applies each example that this kernel has the drivers for, and shows that what its README claims is so.
func checkExamples(t *testing.T) {
	t.Helper()
	for _, e := range []example{
		{
			name: "business-and-mgmt", link: "business0", bridges: []string{"plexus-mgmt"},
			pods: []string{"default/client", "default/server"}, check: checkBusinessAndMgmt,
		},
		{name: "storage-vlan", link: "storage0", driver: "vlan id 300", pods: []string{"default/database"}, check: checkStorage},
		{name: "default-route", link: "uplink0", pods: []string{"default/gateway-user"}, check: checkExampleRoute},
		{name: "dual-stack", bridges: []string{"plexus-sites"}, pods: []string{"default/web"}, check: checkDualStack},
		{
			name: "bandwidth-limited", bridges: []string{"plexus-capped", "plexus-meter"},
			pods: []string{"default/greedy", "default/backup"}, check: checkBandwidth,
		},
		{name: "static-ips", link: "office0", pods: []string{"default/printer", "default/register-0"}, check: checkStaticIPs},
		{
			name: "default-networks", keys: `{"multusNamespace": "default", "defaultNetworks": ["telemetry"]}`,
			bridges: []string{"plexus-telem", "plexus-upstr"}, pods: []string{"default/app", "default/gateway"}, check: checkDefaultNetworks,
		},
		{
			name: "isolation", keys: `{"namespaceIsolation": true, "globalNamespaces": "shared"}`,
			bridges: []string{"plexus-orders", "plexus-billing", "plexus-backbone"},
			pods:    []string{"orders/worker", "billing/worker"}, check: checkIsolated,
		},
	} {
		t.Run(e.name, func(t *testing.T) { e.run(t) })
	}
}

func (e example) run(t *testing.T) {
	t.Helper()
	keepClean(t)
	node := env.cluster.Nodes()[0]
	if e.link != "" {
		onNode(t, node, "sh", "-ec", `ip link add "$1" mtu 9100 type veth peer name "$1-peer"; ip link set "$1" up; ip link set "$1-peer" up`, "sh", e.link)
		t.Cleanup(func() { _, _ = env.cluster.Exec(context.Background(), node, "ip", "link", "delete", e.link) })
	}
	if e.driver != "" {
		if out, err := env.cluster.Exec(t.Context(), node, "sh", "-c", "ip link add link "+e.link+" name probe0 type "+e.driver+" && ip link delete probe0"); err != nil {
			t.Skipf("the kernel has no links of type %s: %v %s", e.driver, err, out)
		}
	}
	for _, b := range e.bridges {
		t.Cleanup(func() { _, _ = env.cluster.Exec(context.Background(), node, "ip", "link", "delete", b) })
	}
	if e.keys != "" {
		configurePlexus(t, e.keys)
		// When the pods are gone, or the next ones would get this example's networks.
		defer func() { configurePlexus(t, "") }()
	}
	manifests := e.manifests(t)
	kubectl(t, "", "apply", "-f", manifests)
	defer func() {
		kubectl(t, "", "delete", "--wait", "--ignore-not-found", "-f", manifests)
		for _, ref := range e.pods { // those of a StatefulSet go after it
			namespace, name, _ := strings.Cut(ref, "/")
			kubectl(t, "", "wait", "--for=delete", "--namespace", namespace, "pod/"+name, "--timeout="+stepLimit.String())
		}
	}()

	pods := map[string]*corev1.Pod{}
	for _, ref := range e.pods {
		namespace, name, _ := strings.Cut(ref, "/")
		pod := waitPod(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, "ready", podReady)
		pods[ref] = pod
	}
	e.check(t, pods)
}

// manifests are those of the example, with an image that is on the node, and that has programs to look around with.
func (e example) manifests(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(repository(t), "examples", e.name, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d manifests, %v", len(files), err)
	}
	dir := t.TempDir()
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := exampleImage.ReplaceAllString(string(data), `${1}image: `+testImage+`
${1}command: [sh, -c, "trap exit TERM; sleep infinity & wait"]`)
		// Namespaces come first: kubectl goes by the names of files.
		name := filepath.Base(file)
		if name == "namespaces.yaml" {
			name = "0.yaml"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// addressesOf are the addresses of a pod's interface, as the kernel has them; and the same must be in its status.
func addressesOf(t *testing.T, pod *corev1.Pod, network, ifName string) []netip.Addr {
	t.Helper()
	var got []netip.Addr
	links := linksOf(t, pod)
	if i := slices.IndexFunc(links, func(l link) bool { return l.Name == ifName }); i >= 0 {
		for _, p := range links[i].global() {
			got = append(got, p.Addr())
		}
	}
	status := getNetworkStatus(t, pod)
	i := slices.IndexFunc(status, func(s networkStatus) bool { return s.Name == network && s.Interface == ifName })
	if i < 0 || len(got) == 0 || !slices.Equal(sorted(texts(got)), sorted(texts(status[i].IPs))) {
		t.Errorf("pod %s: %s of network %s has the addresses %v; status %+v", pod.Name, ifName, network, got, status)
	}
	return got
}

// wantPing fails unless a pod reaches an address over an interface. One of IPv6 answers when duplicate address detection is over, which may
// be a moment after the pod is ready.
func wantPing(t *testing.T, pod *corev1.Pod, ifName string, to ...netip.Addr) {
	t.Helper()
	for _, a := range to {
		execInPod(t, pod, "sh", "-c", `for i in $(seq 20); do ping -c 1 -W 1 -I "$1" "$2" && exit; done; exit 1`, "sh", ifName, a.String())
	}
}

func checkBusinessAndMgmt(t *testing.T, pods map[string]*corev1.Pod) {
	t.Helper()
	client, server := pods["default/client"], pods["default/server"]
	for _, n := range []struct{ network, ifName string }{{"default/business-net", "eth1"}, {"default/mgmt-net", "net2"}} {
		addressesOf(t, client, n.network, n.ifName)
		to := addressesOf(t, server, n.network, n.ifName)
		if len(to) != 2 {
			t.Errorf("%s is not dual-stack: %v", n.network, to)
		}
		wantPing(t, client, n.ifName, to...)
	}
}

func checkStorage(t *testing.T, pods map[string]*corev1.Pod) {
	t.Helper()
	pod := pods["default/database"]
	addressesOf(t, pod, "default/storage", "storage")
	out := onNode(t, pod.Spec.NodeName, "nsenter", "--net="+netnsOf(t, pod), "ip", "-d", "link", "show", "storage")
	if !strings.Contains(out, "vlan protocol 802.1Q id 300") || !strings.Contains(out, "mtu 9000") {
		t.Errorf("want VLAN 300 with an MTU of 9000:\n%s", out)
	}
	wantDefaultRoute(t, pod, "-4", "eth0")
}

// wantDefaultRoute fails unless a pod has one default route of a family, through the interface.
func wantDefaultRoute(t *testing.T, pod *corev1.Pod, family, ifName string) {
	t.Helper()
	out := onNode(t, pod.Spec.NodeName, "nsenter", "--net="+netnsOf(t, pod), "ip", family, "route", "show", "default")
	if strings.Count(out, "default") != 1 || !strings.Contains(out, "dev "+ifName+" ") {
		t.Errorf("pod %s: want one default route, through %s:\n%s", pod.Name, ifName, out)
	}
}

func checkExampleRoute(t *testing.T, pods map[string]*corev1.Pod) {
	t.Helper()
	pod := pods["default/gateway-user"]
	addressesOf(t, pod, "default/uplink", "net1")
	wantDefaultRoute(t, pod, "-4", "net1")
	wantDefaultRoute(t, pod, "-6", "net1")
}

func checkDualStack(t *testing.T, pods map[string]*corev1.Pod) {
	t.Helper()
	pod := pods["default/web"]
	if got := addressesOf(t, pod, "default/sites", "net1"); len(got) != 2 {
		t.Errorf("want an address of each family: %v", got)
	}
	wantPing(t, pod, "net1", netip.MustParseAddr("10.210.0.1"), netip.MustParseAddr("fd00:210::1"))
	wantDefaultRoute(t, pod, "-4", "eth0")
	for _, family := range []string{"-4", "-6"} {
		if out := onNode(t, pod.Spec.NodeName, "nsenter", "--net="+netnsOf(t, pod), "ip", family, "route"); !strings.Contains(out, "211") {
			t.Errorf("no route to the other sites:\n%s", out)
		}
	}
}

func checkBandwidth(t *testing.T, pods map[string]*corev1.Pod) {
	t.Helper()
	addressesOf(t, pods["default/greedy"], "default/capped", "net1")
	addressesOf(t, pods["default/backup"], "default/metered", "net1")
	out := onNode(t, pods["default/greedy"].Spec.NodeName, "tc", "qdisc", "show")
	for _, rate := range []string{"rate 50Mbit", "rate 10Mbit"} {
		if n := strings.Count(out, rate); n != 2 {
			t.Errorf("%d limits of %s, want one for each direction:\n%s", n, rate, out)
		}
	}
}

func checkStaticIPs(t *testing.T, pods map[string]*corev1.Pod) {
	t.Helper()
	printer, register := pods["default/printer"], pods["default/register-0"]
	if got := sorted(texts(addressesOf(t, printer, "default/office", "net1"))); !slices.Equal(got, []string{"10.208.0.42", "fd00:208::42"}) {
		t.Errorf("printer has %v", got)
	}
	want := []string{"10.208.0.43", "fd00:208::43"}
	if got := sorted(texts(addressesOf(t, register, "default/office", "net1"))); !slices.Equal(got, want) {
		t.Errorf("register has %v", got)
	}
	wantPing(t, printer, "net1", netip.MustParseAddr("10.208.0.43"))
	kubectl(t, "", "delete", "pod", register.Name, "--wait", "--grace-period=0")
	again := waitPod(t, register, "made anew and ready", func(now *corev1.Pod) bool { return now.UID != register.UID && podReady(now) })
	if got := sorted(texts(addressesOf(t, again, "default/office", "net1"))); !slices.Equal(got, want) {
		t.Errorf("register has %v after it was made anew", got)
	}
	status := getNetworkStatus(t, again)
	if !slices.ContainsFunc(status, func(s networkStatus) bool { return s.MAC == "02:00:00:00:00:43" }) {
		t.Errorf("register has not its MAC: %+v", status)
	}
}

func checkDefaultNetworks(t *testing.T, pods map[string]*corev1.Pod) {
	t.Helper()
	to := addressesOf(t, pods["default/app"], "default/telemetry", "net1")
	addressesOf(t, pods["default/gateway"], "default/telemetry", "net1")
	addressesOf(t, pods["default/gateway"], "default/upstream", "net2")
	wantPing(t, pods["default/gateway"], "net1", to...)
}

func checkIsolated(t *testing.T, pods map[string]*corev1.Pod) {
	t.Helper()
	orders, billing := pods["orders/worker"], pods["billing/worker"]
	addressesOf(t, orders, "orders/private", "net1")
	addressesOf(t, billing, "billing/private", "net1")
	wantPing(t, orders, "net2", addressesOf(t, billing, "shared/backbone", "net2")...)
	refused := createPod(t, newPod("billing", "thief", selecting("orders/private")))
	if event := waitEvent(t, refused, "NetworkForbidden"); !strings.Contains(event.Message, "orders/private") {
		t.Errorf("event NetworkForbidden: %q does not name the network", event.Message)
	}
	deletePod(t, refused)
}
