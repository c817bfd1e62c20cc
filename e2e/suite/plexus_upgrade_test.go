// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// formerRelease is the commit that TestUpgrade starts from if no other is asked for. It has to be replaced at each release by the one before.
const formerRelease = "7a218f72a0b4de2cd012b6330bd012726db45c6a"

// TestUpgrade upgrades a node of the release before, goes back, and upgrades it again, each time while pods start and go. Pods that run keep
// their networks, whichever release gave them, and whichever is there can take them away.
func TestUpgrade(t *testing.T) {
	if env.install != installByKustomize {
		t.Skip("the release before has no chart")
	}
	former, latest := checkout(t, env.from), current(t)
	prepareNodes(t)
	// plugins are those of the two, by which the plugin of a node is known.
	plugins := map[release]string{former: former.build(t), latest: latest.build(t)}
	apply := func(t *testing.T, r release) {
		t.Helper()
		r.apply(t)
		for _, node := range env.cluster.Nodes() {
			if got := onNode(t, node, "sha256sum", "/opt/cni/bin/plexus"); !strings.HasPrefix(got, plugins[r]) {
				t.Errorf("the plugin of node %s is not that of the image %s", node, r.tag)
			}
		}
	}
	apply(t, former)
	awaitConf(t, "is there", func(conf string) bool { return conf != "" })
	keepClean(t)

	namespace := newNetworks(t)
	start := func(name string) *corev1.Pod {
		t.Helper()
		return startPod(t, newPod(namespace, name, selecting("business-net,mgmt-net")))
	}
	check := func(t *testing.T, pods ...*corev1.Pod) {
		t.Helper()
		for _, pod := range pods {
			checkNetworks(t, pod, clusterNet(t), business(namespace, "net1"), mgmt(namespace, "net2"))
		}
	}
	takeAway := func(t *testing.T, pod *corev1.Pod) {
		t.Helper()
		status := getNetworkStatus(t, pod)
		deletePod(t, pod)
		held := slices.Concat(leasesOf(t, pod.Spec.NodeName, primaryName(t)), leasesOf(t, pod.Spec.NodeName, "business-net"), leasesOf(t, pod.Spec.NodeName, "mgmt-net"))
		for _, s := range status {
			for _, ip := range s.IPs {
				if slices.Contains(held, ip) {
					t.Errorf("pod %s is gone, and its address %s of %s is held", pod.Name, ip, s.Name)
				}
			}
		}
	}
	// Pods of one release are there while the other one is.
	ofFormer := []*corev1.Pod{start("former0"), start("former1")}
	var ofLatest []*corev1.Pod
	checkChurn(t, func(t *testing.T, times int) {
		t.Helper()
		switch times {
		case 0:
			apply(t, latest)
			check(t, ofFormer...)
			ofLatest = []*corev1.Pod{start("latest0"), start("latest1")}
			takeAway(t, ofFormer[0])
		case 1:
			apply(t, former)
			check(t, ofFormer[1], ofLatest[0], ofLatest[1])
			takeAway(t, ofLatest[0])
		default:
			apply(t, latest)
			check(t, ofFormer[1], ofLatest[1])
			takeAway(t, ofFormer[1])
			takeAway(t, ofLatest[1])
		}
	})
}

// checkout is what a commit of this repository has.
func checkout(t *testing.T, commit string) release {
	t.Helper()
	if err := exec.CommandContext(t.Context(), "git", "-C", repository(t), "cat-file", "-e", commit+"^{commit}").Run(); err != nil {
		t.Skipf("the clone's history does not have the commit %s: git fetch --unshallow, or name another one by -from", commit)
	}
	dir := t.TempDir()
	runHere(t, nil, "", "sh", "-ec", `git -C "$1" archive --format=tar "$2" >"$3.tar" && tar -x -C "$3" -f "$3.tar" && rm "$3.tar"`, "sh", repository(t), commit, dir)
	return release{dir: dir, tag: "former"}
}
