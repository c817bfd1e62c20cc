// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// link is an interface as `ip -json address` prints it.
type link struct {
	Name      string   `json:"ifname"`
	MAC       string   `json:"address"`
	MTU       int      `json:"mtu"`
	State     string   `json:"operstate"`
	Flags     []string `json:"flags"`
	Addresses []struct {
		Local  netip.Addr `json:"local"`
		Prefix int        `json:"prefixlen"`
		Scope  string     `json:"scope"`
	} `json:"addr_info"`
}

// global are the link's addresses that a network gave it.
func (l link) global() []netip.Prefix {
	var prefixes []netip.Prefix
	for _, a := range l.Addresses {
		if a.Scope == "global" {
			prefixes = append(prefixes, netip.PrefixFrom(a.Local, a.Prefix))
		}
	}
	return prefixes
}

// onNode runs a program on the node of a pod.
func onNode(t *testing.T, node string, argv ...string) string {
	t.Helper()
	out, err := env.cluster.Exec(t.Context(), node, argv...)
	if err != nil {
		t.Fatalf("on node %s: %v", node, err)
	}
	return string(out)
}

// linksOf are a pod's interfaces but lo, as the kernel has them.
func linksOf(t *testing.T, pod *corev1.Pod) []link {
	t.Helper()
	out := onNode(t, pod.Spec.NodeName, "nsenter", "--net="+netnsOf(t, pod), "ip", "-json", "address")
	var links []link
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatalf("ip -json address: %v:\n%s", err, out)
	}
	return slices.DeleteFunc(links, func(l link) bool { return l.Name == "lo" })
}

// netnsOf is a path, on the node, of a pod's network namespace.
func netnsOf(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	pids := tasksOf(t, pod, "sandbox")
	if len(pids) != 1 {
		t.Fatalf("pod %s: want one sandbox that runs, got the processes %q", pod.Name, pids)
	}
	return path.Join("/proc", pids[0], "ns/net")
}

// tasksOf are the first processes, by their IDs on the node, of what runs of a pod and is of a kind: sandbox or container. After a reboot
// a pod has a sandbox that runs besides one that does not.
func tasksOf(t *testing.T, pod *corev1.Pod, kind string) []string {
	t.Helper()
	ctr := func(args ...string) string {
		return onNode(t, pod.Spec.NodeName, append([]string{"ctr", "--namespace", "k8s.io"}, args...)...)
	}
	known := strings.Fields(ctr("containers", "list", "--quiet",
		fmt.Sprintf(`labels."io.kubernetes.pod.uid"==%s,labels."io.cri-containerd.kind"==%s`, pod.UID, kind)))
	var pids []string
	for task := range strings.Lines(ctr("tasks", "list")) {
		if f := strings.Fields(task); len(f) == 3 && f[2] == "RUNNING" && slices.Contains(known, f[0]) {
			pids = append(pids, f[1])
		}
	}
	return pids
}

// leasesOf are the addresses of a network that host-local holds on a node.
func leasesOf(t *testing.T, node, network string) []netip.Addr {
	t.Helper()
	dir := path.Join("/var/lib/cni/networks", network)
	out := onNode(t, node, "sh", "-c", `test ! -d "$1" || ls "$1"`, "sh", dir)
	var leases []netip.Addr
	for name := range strings.FieldsSeq(out) {
		if address, err := netip.ParseAddr(name); err == nil { // Others are host-local's lock and its last address.
			leases = append(leases, address)
		}
	}
	return leases
}
