// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// Kernel is what is asked of the node's kernel.
type Kernel interface {
	inspect.Kernel
	NetNSID(path string) (string, error)
	Routing(netns string) (*netdev.Routing, error)
	Neighbours(netns string) ([]netdev.Neighbour, error)
	Resolve(ctx context.Context, netns, ifName string, address netip.Addr) (netdev.NeighbourState, error)
	VF(pf string, id int) (netdev.VF, error)
}

// Doctor examines a node. Everything that it needs from outside comes in by field.
type Doctor struct {
	// Conf is the file that holds the CNI configuration of Plexus; its folder is the runtime's.
	Conf string
	// StateDirs are further folders of records, beside the configuration's (key cniDir).
	StateDirs []string
	// BinDirs are further folders of plugins, beside the configuration's (key binDir).
	BinDirs []string
	Paths   Paths
	Kernel  Kernel
	Sysfs   *sysfs.FS
	// JSON makes JSON of YAML, as kubeconfigs are written in.
	JSON func(yaml []byte) ([]byte, error)
	Now  func() time.Time
	// Choose narrows the pods on record to those that are asked for; nil for all.
	Choose func([]inspect.Pod) ([]inspect.Pod, error)
	// Pod is the pod that is asked for, as namespace/name or name; "" for all.
	Pod string
	// Probe asks gateways that nobody has sent anything to lately (ARP, neighbour discovery).
	Probe bool
	// Fix gives back what sandboxes hold that are gone.
	Fix bool
	// Ranges are the cluster's, in which no network's addresses should be.
	Ranges []Range
	// Timeout bounds each check; zero stands for five seconds.
	Timeout time.Duration
}

// Paths are the places of a node that have no key in the configuration.
type Paths struct {
	// NetNS is where the container runtime mounts network namespaces.
	NetNS string
	// Results are the folders of libcni's result cache.
	Results []string
	// Sandboxes are folders in which the container runtime has a folder for each container, by its ID.
	Sandboxes []string
	// Leases is where host-local keeps them by default.
	Leases string
	// SRIOV and LegacySRIOV hold the state of VFs.
	SRIOV, LegacySRIOV string
	// Kubelet is the kubelet's folder.
	Kubelet string
	// PodLogs is where the kubelet has a folder for each pod, named NAMESPACE_NAME_UID.
	PodLogs string
	// Proc is where the processes are.
	Proc string
	// Flannel is the file that flannel tells its subnets in, APIServer the manifest of the API server.
	Flannel, APIServer string
	// CRIO is the socket of CRI-O.
	CRIO string
}

// DefaultPaths are those of a usual node.
func DefaultPaths() Paths {
	return Paths{
		NetNS:       "/run/netns",
		Results:     []string{"/var/lib/cni/results", "/var/lib/cni/cache/results"},
		Sandboxes:   []string{"/run/containerd/io.containerd.runtime.v2.task/k8s.io", "/run/containers/storage/overlay-containers"},
		Leases:      "/var/lib/cni/networks",
		SRIOV:       "/var/lib/cni/plexus/sriov",
		LegacySRIOV: "/var/lib/cni/sriov",
		Kubelet:     "/var/lib/kubelet",
		PodLogs:     "/var/log/pods",
		Proc:        "/proc",
		Flannel:     "/run/flannel/subnet.env",
		APIServer:   "/etc/kubernetes/manifests/kube-apiserver.yaml",
		CRIO:        "/run/crio/crio.sock",
	}
}

// Range is a range of addresses that the cluster uses.
type Range struct {
	// Use says what for: pod, service, node.
	Use    string
	Prefix netip.Prefix
}

const (
	// defaultTimeout bounds a check: most need milliseconds, and who hangs is to be found out.
	defaultTimeout = 5 * time.Second
	// parallel is how many network namespaces are looked at, and plugins run, at a time.
	parallel = 8
)

// Examine runs all checks, and returns what they found, the worst first.
func (d *Doctor) Examine(ctx context.Context) []Finding {
	n := d.gather()
	var found []Finding
	if d.Choose != nil {
		chosen, err := d.Choose(n.pods)
		if err != nil {
			found = append(found, newFinding(PodUnknown, "pod "+d.Pod, err.Error(), "name a pod of this node; for one that could not be attached see its events (kubectl describe pod), or Plexus' log (key logFile)"))
		}
		n.chosen = chosen
	}
	if d.Fix {
		if fixed := d.fix(ctx, n); len(fixed) > 0 {
			found = append(found, fixed...)
			chosen := n.chosen
			n = d.gather()
			n.chosen = stillThere(chosen, n.pods)
		}
	}
	found = append(found, d.run(ctx, n, d.checks())...)
	if slices.ContainsFunc(found, func(f Finding) bool { return f.Code == AddFailed }) {
		// It is known why the pod is not on record, and the name is right.
		found = slices.DeleteFunc(found, func(f Finding) bool { return f.Code == PodUnknown })
	}
	slices.SortStableFunc(found, compareFindings)
	return grouped(found)
}

// stillThere are the pods of before that are on record, as they are now.
func stillThere(before, now []inspect.Pod) []inspect.Pod {
	return slices.DeleteFunc(slices.Clone(now), func(p inspect.Pod) bool {
		return !slices.ContainsFunc(before, func(b inspect.Pod) bool { return b.ContainerID == p.ContainerID })
	})
}

// check is one thing to look at.
type check struct {
	name string
	run  func(ctx context.Context, n *node) ([]Finding, error)
}

func (d *Doctor) checks() []check {
	return []check{
		{"configuration", d.checkConf},
		{"plugins", d.checkPlugins},
		{"status", d.checkStatus},
		{"kubeconfig", d.checkKubeconfig},
		{"log", d.checkLog},
		{"pools", d.checkPools},
		{"records", d.checkRecords},
		{"namespaces", d.checkNamespaces},
		{"host links", d.checkLinks},
		{"routes", d.checkRoutes},
		{"SR-IOV", d.checkSRIOV},
		{"devices", d.checkDevices},
	}
}

// run runs checks side by side, and keeps their order.
func (d *Doctor) run(ctx context.Context, n *node, checks []check) []Finding {
	results := make([][]Finding, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { results[i] = d.runOne(ctx, n, c) })
	}
	all.Wait()
	return slices.Concat(results...)
}

// runOne bounds a check. One that does not heed its context is left behind: the process ends soon.
func (d *Doctor) runOne(ctx context.Context, n *node, c check) []Finding {
	limit := d.Timeout
	if limit == 0 {
		limit = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan []Finding, 1)
	go func() { done <- runSafely(ctx, n, c) }()
	select {
	case found := <-done:
		return found
	case <-ctx.Done():
	}
	select {
	case found := <-done: // what it found until its time was up
		return found
	case <-time.After(limit / 10):
	}
	return []Finding{newFinding(CheckFailed, "check "+c.name, fmt.Sprintf("it did not end within %v", limit), "find out what hangs, a file system or a socket, and try again with a longer --timeout")}
}

// runSafely makes a finding of what goes wrong in a check, whatever that is: the other checks are not to suffer.
func runSafely(ctx context.Context, n *node, c check) (found []Finding) { //nolint:nonamedreturns // recover has no other way to return
	defer func() {
		if v := recover(); v != nil {
			found = append(found, newFinding(CheckFailed, "check "+c.name, fmt.Sprintf("it broke: %v", v), "report it, with this: "+firstFrames(debug.Stack())))
		}
	}()
	found, err := c.run(ctx, n)
	if err != nil {
		mend := "run as root on the node"
		if errors.Is(err, context.DeadlineExceeded) {
			mend = "try again with a longer --timeout"
		}
		found = append(found, newFinding(CheckFailed, "check "+c.name, err.Error(), mend))
	}
	return found
}

// firstFrames is as much of a stack as finds the place.
func firstFrames(stack []byte) string {
	const enough = 600
	return oneLine(string(stack[:min(len(stack), enough)]))
}

// each calls f for all items, some at a time, until ctx ends, and keeps the order of what they find.
func each[E any](ctx context.Context, items []E, f func(E) []Finding) []Finding {
	results := make([][]Finding, len(items))
	var all sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i, item := range items {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			defer func() { <-slots }()
			results[i] = f(item)
		})
	}
	all.Wait()
	return slices.Concat(results...)
}
