// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package suite

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/plexus-cni/plexus/e2e/cluster"
)

// keepReady reports, at the test's end, each time that a node said of itself that it was not ready, and what the kubelets' logs have of the
// network being the reason: they have it also when there was no API server to be told. While a node's network is not ready its kubelet
// starts no container again that has ended.
func keepReady(t *testing.T) {
	t.Helper()
	var (
		mu    sync.Mutex
		wrong []string
	)
	see := func(object any) {
		node, ok := object.(*corev1.Node)
		if !ok {
			return
		}
		for _, c := range node.Status.Conditions {
			// Unknown is what the node controller says of a node that said nothing for long.
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionFalse {
				mu.Lock()
				wrong = append(wrong, node.Name+": "+c.Message)
				mu.Unlock()
			}
		}
	}
	informer := toolscache.NewSharedInformer(listAll("nodes", ""), &corev1.Node{}, 0)
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, now any) { see(now) }}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	kubelet, logged := newComponentLog(t, cluster.Kubelet)
	t.Cleanup(func() {
		cancel()
		<-done
		for _, w := range slices.Compact(wrong) { // It is said again and again.
			t.Errorf("a node was not ready: %s", w)
		}
		if !logged {
			return
		}
		for line := range strings.Lines(kubelet.read(t)) {
			if strings.Contains(line, "Container runtime network not ready") {
				t.Errorf("the kubelet, for the first time: %s", line)
				break
			}
		}
	})
}

// componentLog reads what a component logs from when it was made.
type componentLog struct {
	path   string
	offset int64
}

// newComponentLog reports whether the provider of the cluster has such a log.
func newComponentLog(t *testing.T, component cluster.Component) (componentLog, bool) {
	t.Helper()
	logged, ok := env.cluster.(interface {
		ComponentLog(component cluster.Component) string
	})
	if !ok {
		return componentLog{}, false
	}
	info, err := os.Stat(logged.ComponentLog(component))
	if err != nil {
		t.Fatal(err)
	}
	return componentLog{path: logged.ComponentLog(component), offset: info.Size()}, true
}

func (l componentLog) read(t *testing.T) string {
	t.Helper()
	file, err := os.Open(l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(l.offset, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data[:bytes.LastIndexByte(data, '\n')+1])
}

// awaitStatusAsked waits until the kubelet has asked the runtime for its status, and so Plexus for that of the network, from now on. It
// does so every five seconds. Of two answers the second is to a question that was asked after now.
func awaitStatusAsked(t *testing.T) {
	t.Helper()
	kubelet, ok := newComponentLog(t, cluster.Kubelet)
	if !ok {
		t.Skip("the provider of the cluster has no log of the kubelet: use the provider local")
	}
	eventually(t, "the kubelet has asked the runtime for its status", func() bool {
		return strings.Count(kubelet.read(t), "Container runtime status") >= 2
	})
}

// checkCrash ends a pod's container from outside, and waits until the kubelet has started it again. It needs no API server.
func checkCrash(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	before := tasksOf(t, pod, "container")
	if len(before) != 1 {
		t.Fatalf("pod %s: want one container that runs, got the processes %q", pod.Name, before)
	}
	onNode(t, pod.Spec.NodeName, "kill", "-KILL", before[0])
	eventually(t, "the container of pod "+pod.Name+", which crashed, is started again", func() bool {
		now := tasksOf(t, pod, "container")
		return len(now) == 1 && now[0] != before[0]
	})
}
