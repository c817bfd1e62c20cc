// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plexus-cni/plexus/e2e/cluster"
	"github.com/plexus-cni/plexus/e2e/image"
)

// The devices of these tests are links of the node. A device plugin offers those of one resource, a DRA driver those of another, and the
// CNI plugin cnilink gives a pod the link that is named like the device.
const (
	devicesImage    = "e2e.plexus.local/devices:1"
	devicesPods     = "devices"
	pluginResource  = "plexus.test/link"
	claimedResource = "plexus.test/claimed"
	draDriver       = "link.plexus.test"
	linkConfig      = `{"cniVersion": "1.0.0", "type": "cnilink", "capabilities": {"deviceID": true, "CNIDeviceInfoFile": true}}`
)

func pluginDevices() []string  { return []string{"dp0", "dp1", "dp2", "dp3"} }
func claimedDevices() []string { return []string{"dra0", "dra1", "dra2"} }

// startDevices makes the links and runs the device plugin and the DRA driver, until the end of the test.
func startDevices(t *testing.T) {
	t.Helper()
	for _, node := range env.cluster.Nodes() {
		for _, name := range append(pluginDevices(), claimedDevices()...) {
			onNode(t, node, "sh", "-ec", `ip link show "$1" || ip link add "$1" type veth peer name "$1-peer"`, "sh", name)
		}
	}
	buildDevices(t)
	manifest := strings.NewReplacer(
		"NAMESPACE", devicesPods, "DAEMONS", env.namespace, "IMAGE", devicesImage, "PLUGIN_RESOURCE", pluginResource, "PLUGIN_DEVICES", strings.Join(pluginDevices(), ","),
		"DRIVER", draDriver, "CLAIMED_RESOURCE", claimedResource, "CLAIMED_DEVICES", strings.Join(claimedDevices(), ","),
	).Replace(devicesManifest)
	kubectl(t, manifest, "apply", "-f", "-")
	t.Cleanup(func() { kubectlAfter(t, manifest, "delete", "--wait=false", "-f", "-") })
	kubectl(t, "", "--namespace", devicesPods, "rollout", "status", "daemonset/devices", "--timeout="+stepLimit.String())
	awaitDevices(t, len(pluginDevices()))
}

// awaitDevices waits until the kubelet offers the devices of the device plugin.
func awaitDevices(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d devices to be offered", want), func() bool {
		node, err := env.client.CoreV1().Nodes().Get(t.Context(), env.cluster.Nodes()[0], metav1.GetOptions{})
		if err != nil {
			return false
		}
		q := node.Status.Allocatable[pluginResource]
		return q.Value() == int64(want)
	})
}

// buildDevices puts the image of the three programs on every node.
func buildDevices(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	programs := []string{"cnilink", "deviceplugin", "dradriver"}
	args := []string{"build", "-C", filepath.Join(repository(t), "e2e"), "-trimpath", "-ldflags=-s -w", "-o", bin + "/"}
	for _, p := range programs {
		args = append(args, "./cmd/"+p)
	}
	runHere(t, []string{"CGO_ENABLED=0"}, "", "go", args...)
	spec, err := image.Busybox(t.Context(), devicesImage)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		spec.Files["/usr/bin/"+p] = filepath.Join(bin, p)
	}
	archive := filepath.Join(bin, "devices.tar")
	if err := image.Write(archive, spec); err != nil {
		t.Fatal(err)
	}
	if err := env.cluster.LoadImage(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
}

const devicesManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: devices, namespace: NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: e2e-devices}
rules:
- {apiGroups: [resource.k8s.io], resources: [resourceslices], verbs: [get, list, watch, create, update, patch, delete]}
- {apiGroups: [resource.k8s.io], resources: [resourceclaims], verbs: [get]}
- {apiGroups: [""], resources: [nodes], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-devices}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-devices}
subjects: [{kind: ServiceAccount, name: devices, namespace: NAMESPACE}]
---
# What the component dra-status asks the operator to add for drivers of their own.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: e2e-plexusd-driver}
rules:
- {apiGroups: [resource.k8s.io], resources: [resourceclaims/driver], verbs: ["associated-node:patch"], resourceNames: [DRIVER]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-plexusd-driver}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-plexusd-driver}
subjects: [{kind: ServiceAccount, name: plexusd, namespace: DAEMONS}]
---
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: DRIVER}
spec:
  selectors:
  - cel: {expression: 'device.driver == "DRIVER"'}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: devices, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: devices}}
  template:
    metadata: {labels: {app: devices}}
    spec:
      serviceAccountName: devices
      hostNetwork: true
      dnsPolicy: Default
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
      - name: device-plugin
        image: IMAGE
        command: [sh, -c, "cp /usr/bin/cnilink /host/bin/cnilink.new && mv /host/bin/cnilink.new /host/bin/cnilink && exec /usr/bin/deviceplugin -resource PLUGIN_RESOURCE -devices PLUGIN_DEVICES"]
        volumeMounts:
        - {name: bin, mountPath: /host/bin}
        - {name: device-plugins, mountPath: /var/lib/kubelet/device-plugins}
        - {name: device-info, mountPath: /run/k8s.cni.cncf.io}
      - name: dra-driver
        image: IMAGE
        command: [/usr/bin/dradriver, -driver, DRIVER, -resource, CLAIMED_RESOURCE, -devices, "CLAIMED_DEVICES", -plain, gpu0]
        env: [{name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        volumeMounts:
        - {name: plugins, mountPath: /var/lib/kubelet/plugins}
        - {name: registry, mountPath: /var/lib/kubelet/plugins_registry}
      volumes:
      - {name: bin, hostPath: {path: /opt/cni/bin}}
      - {name: device-plugins, hostPath: {path: /var/lib/kubelet/device-plugins}}
      - {name: device-info, hostPath: {path: /run/k8s.cni.cncf.io, type: DirectoryOrCreate}}
      - {name: plugins, hostPath: {path: /var/lib/kubelet/plugins, type: DirectoryOrCreate}}
      - {name: registry, hostPath: {path: /var/lib/kubelet/plugins_registry, type: DirectoryOrCreate}}
`

// deviceStatus is the part of a network status that tells of a device.
type deviceStatus struct {
	Interface  string `json:"interface"`
	DeviceInfo *struct {
		Type string `json:"type"`
		PCI  struct {
			Address string `json:"pci-address"`
		} `json:"pci"`
	} `json:"device-info"`
}

// devicesOf are the devices of a pod by its network status, in order.
func devicesOf(t *testing.T, pod *corev1.Pod) []string {
	t.Helper()
	now, err := env.client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var status []deviceStatus
	if err := json.Unmarshal([]byte(now.Annotations[networkStatusAnnotation]), &status); err != nil {
		t.Fatal(err)
	}
	var devices []string
	for _, s := range status {
		if s.DeviceInfo != nil {
			devices = append(devices, s.DeviceInfo.PCI.Address)
		}
	}
	return devices
}

// wanting is a pod whose containers request this many devices each.
func wanting(namespace, name, networks string, counts ...int) *corev1.Pod {
	pod := newPod(namespace, name, selecting(networks))
	main := pod.Spec.Containers[0]
	pod.Spec.Containers = nil
	for i, n := range counts {
		c := *main.DeepCopy()
		c.Name = fmt.Sprintf("c%d", i)
		if n > 0 {
			q := resource.MustParse(fmt.Sprint(n))
			c.Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{pluginResource: q}, Requests: corev1.ResourceList{pluginResource: q}}
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	return pod
}

// checkDevices shows that each network gets a device of those that the node gave the pod, and no other.
func checkDevices(t *testing.T) {
	t.Helper()
	startDevices(t)
	t.Run("of a device plugin", checkDevicePlugin)
	t.Run("of resource claims", checkClaims)
}

func checkDevicePlugin(t *testing.T) {
	t.Helper()
	namespace := newNamespace(t)
	createAnnotated(t, namespace, "dev", linkConfig, map[string]string{"k8s.v1.cni.cncf.io/resourceName": pluginResource})
	t.Run("one device", func(t *testing.T) {
		keepClean(t)
		pod := startPod(t, wanting(namespace, "one", "dev", 1))
		wantLinks(t, pod, "eth0", "net1")
		if got := devicesOf(t, pod); len(got) != 1 || !slices.Contains(pluginDevices(), got[0]) {
			t.Errorf("devices %v", got)
		}
		deletePod(t, pod)
		wantDevicesBack(t)
	})
	t.Run("three devices of two containers", func(t *testing.T) {
		keepClean(t)
		pod := startPod(t, wanting(namespace, "three", "dev,dev,dev", 2, 1))
		wantLinks(t, pod, "eth0", "net1", "net2", "net3")
		got := devicesOf(t, pod)
		if len(got) != 3 {
			t.Fatalf("devices %v, want three", got)
		}
		for i, want := range [][]string{got[:2], got[2:]} {
			ids := strings.Split(strings.TrimSpace(execInContainer(t, pod, fmt.Sprintf("c%d", i), "sh", "-c", "echo $DEVICES_PLEXUS_TEST_LINK")), ",")
			if !slices.Equal(sorted(ids), sorted(slices.Clone(want))) {
				t.Errorf("container c%d has the devices %v, and its networks %v", i, ids, want)
			}
		}
		deletePod(t, pod)
		wantDevicesBack(t)
	})
	t.Run("more networks than devices", func(t *testing.T) {
		keepClean(t)
		pod := createPod(t, wanting(namespace, "many", "dev,dev", 1))
		event := waitEvent(t, pod, "FailedCreatePodSandBox")
		for _, text := range []string{pluginResource, "2", "1"} {
			if !strings.Contains(event.Message, text) {
				t.Errorf("%q does not say %q", event.Message, text)
			}
		}
		deletePod(t, pod)
		wantDevicesBack(t)
	})
	t.Run("the kubelet restarts", func(t *testing.T) {
		keepClean(t)
		before := startPod(t, wanting(namespace, "before", "dev", 1))
		restart(t, cluster.Kubelet)
		awaitDevices(t, len(pluginDevices()))
		after := startPod(t, wanting(namespace, "after", "dev,dev", 2))
		if all := append(devicesOf(t, before), devicesOf(t, after)...); len(slices.Compact(sorted(slices.Clone(all)))) != 3 {
			t.Errorf("devices of both pods: %v, want three distinct ones", all)
		}
		deletePod(t, before)
		deletePod(t, after)
		wantDevicesBack(t)
	})
}

// wantLinks checks a pod's interfaces by name.
func wantLinks(t *testing.T, pod *corev1.Pod, want ...string) {
	t.Helper()
	var got []string
	for _, l := range linksOf(t, pod) {
		got = append(got, l.Name)
	}
	if !slices.Equal(sorted(got), want) {
		t.Errorf("pod %s has the interfaces %v, want %v", pod.Name, got, want)
	}
}

// wantDevicesBack checks that the node has all its links again, and no file that describes one to a pod.
func wantDevicesBack(t *testing.T) {
	t.Helper()
	node := env.cluster.Nodes()[0]
	for _, name := range append(pluginDevices(), claimedDevices()...) {
		onNode(t, node, "ip", "link", "show", name)
	}
	if left := strings.TrimSpace(onNode(t, node, "sh", "-c", "ls /run/k8s.cni.cncf.io/devinfo/cni 2>/dev/null || true")); left != "" {
		t.Errorf("device-info files are left: %s", left)
	}
}

// checkClaims shows the same for ResourceClaims, and that their status says what became of the devices.
func checkClaims(t *testing.T) {
	t.Helper()
	applyPlexus(t, "dra", "dra-status")
	namespace := newNamespace(t)
	createAnnotated(t, namespace, "claimed", linkConfig, map[string]string{"k8s.v1.cni.cncf.io/resourceName": claimedResource})
	createAnnotated(t, namespace, "second", linkConfig, map[string]string{"plexus-cni.io/claim-request": "nics/second"})
	kubectl(t, fmt.Sprintf(`
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: nics, namespace: %[1]s}
spec:
  spec:
    devices:
      requests:
      - name: first
        exactly: {deviceClassName: %[2]s, selectors: [{cel: {expression: 'device.attributes["%[2]s"].kind == "link"'}}]}
      - name: second
        exactly: {deviceClassName: %[2]s, selectors: [{cel: {expression: 'device.attributes["%[2]s"].kind == "link"'}}]}
      - name: gpu
        exactly: {deviceClassName: %[2]s, selectors: [{cel: {expression: 'device.attributes["%[2]s"].kind == "plain"'}}]}
`, namespace, draDriver), "apply", "-f", "-")
	claiming := func(name, networks string) *corev1.Pod {
		pod := newPod(namespace, name, selecting(networks))
		template := "nics"
		pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "nics", ResourceClaimTemplateName: &template}}
		pod.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "nics"}}
		return pod
	}
	keepClean(t)
	pod := startPod(t, claiming("two", "claimed,second"))
	wantLinks(t, pod, "eth0", "net1", "net2")
	allocated := allocationOf(t, pod)
	for ifName, request := range map[string]string{"net1": "first", "net2": "second"} {
		if got := peerOf(t, pod, ifName); got != allocated[request] {
			t.Errorf("%s is %s, want %s, which was allocated for the request %s", ifName, got, allocated[request], request)
		}
	}
	claim := claimOf(t, pod)
	eventually(t, "the claim's status to tell of both interfaces", func() bool {
		told := networkDataOf(t, namespace, claim)
		return told[allocated["first"]] == "net1" && told[allocated["second"]] == "net2" && len(told) == 2
	})
	deletePod(t, pod)
	wantDevicesBack(t)

	kubectl(t, fmt.Sprintf(`
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: own, namespace: %[1]s}
spec:
  devices:
    requests:
    - name: second
      exactly: {deviceClassName: %[2]s, selectors: [{cel: {expression: 'device.attributes["%[2]s"].kind == "link"'}}]}
`, namespace, draDriver), "apply", "-f", "-")
	named := claiming("named", "claimed")
	own := "own"
	named.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "nics", ResourceClaimName: &own}}
	named = startPod(t, named)
	wantLinks(t, named, "eth0", "net1")
	eventually(t, "the claim's status to tell of the interface", func() bool { return len(networkDataOf(t, namespace, own)) == 1 })
	deletePod(t, named)
	eventually(t, "the claim's status to tell of no interface", func() bool { return len(networkDataOf(t, namespace, own)) == 0 })

	many := createPod(t, claiming("many", "claimed,claimed,claimed"))
	event := waitEvent(t, many, "FailedCreatePodSandBox")
	for _, text := range []string{claimedResource, "3", "2"} {
		if !strings.Contains(event.Message, text) {
			t.Errorf("%q does not say %q", event.Message, text)
		}
	}
	deletePod(t, many)
	wantDevicesBack(t)
	applyPlexus(t)
}

// claimOf is the name of the claim that was made for a pod.
func claimOf(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	now, err := env.client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil || len(now.Status.ResourceClaimStatuses) != 1 || now.Status.ResourceClaimStatuses[0].ResourceClaimName == nil {
		t.Fatalf("claims of pod %s: %+v, %v", pod.Name, now.Status.ResourceClaimStatuses, err)
	}
	return *now.Status.ResourceClaimStatuses[0].ResourceClaimName
}

// networkDataOf are the interfaces that a claim's status tells of, by device.
func networkDataOf(t *testing.T, namespace, name string) map[string]string {
	t.Helper()
	claim, err := env.client.ResourceV1().ResourceClaims(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, d := range claim.Status.Devices {
		if d.NetworkData != nil && d.NetworkData.InterfaceName != "" {
			told[d.Device] = d.NetworkData.InterfaceName
		}
	}
	return told
}

// allocationOf are the devices of a pod's claim by request.
func allocationOf(t *testing.T, pod *corev1.Pod) map[string]string {
	t.Helper()
	now, err := env.client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	allocated := map[string]string{}
	for _, s := range now.Status.ResourceClaimStatuses {
		claim, err := env.client.ResourceV1().ResourceClaims(pod.Namespace).Get(t.Context(), *s.ResourceClaimName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range claim.Status.Allocation.Devices.Results {
			allocated[r.Request] = r.Device
		}
	}
	return allocated
}

// peerOf is the device that an interface was on the node: its peer there has that name.
func peerOf(t *testing.T, pod *corev1.Pod, ifName string) string {
	t.Helper()
	index := strings.TrimSpace(onNode(t, pod.Spec.NodeName, "nsenter", "--net="+netnsOf(t, pod), "sh", "-c", "ip -json link show "+ifName))
	var links []struct {
		LinkIndex int `json:"link_index"`
	}
	if err := json.Unmarshal([]byte(index), &links); err != nil || len(links) != 1 {
		t.Fatalf("%s: %v", index, err)
	}
	var all []struct {
		Index int    `json:"ifindex"`
		Name  string `json:"ifname"`
	}
	if err := json.Unmarshal([]byte(onNode(t, pod.Spec.NodeName, "ip", "-json", "link")), &all); err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.Index == links[0].LinkIndex {
			return strings.TrimSuffix(l.Name, "-peer")
		}
	}
	t.Fatalf("no link of the node has the index %d", links[0].LinkIndex)
	return ""
}
