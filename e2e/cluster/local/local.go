// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package local provides a cluster of one node on this machine, made of the real components in namespaces of their own.
package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/plexus-cni/plexus/e2e/cluster"
	"github.com/plexus-cni/plexus/e2e/cluster/local/node"
	"github.com/plexus-cni/plexus/e2e/components"
	"github.com/plexus-cni/plexus/e2e/image"
)

const (
	// NodeName is the name of the node.
	NodeName = "node1"
	// LAN is an interface of the node for secondary networks to be put on. Its other end, named with "-peer" added, is up too.
	LAN = "lan0"

	containerdSocket = "/run/containerd/containerd.sock"
	// bootLimit is for the node to be ready after its start. On an idle machine it takes about five seconds.
	bootLimit = 5 * time.Minute
	// answerLimit is for one component to answer after its start. The API server takes about three seconds.
	answerLimit = 2 * time.Minute
	// pollInterval is between two questions to what can only be polled: whether a component answers at all.
	pollInterval = 50 * time.Millisecond
)

// Options say what cluster to make.
type Options struct {
	Name  string // Tells clusters of one machine apart.
	Index int    // 0 to 255. Tells the networks of clusters that run at once apart.
	Dir   string // The cluster's folder. What an earlier one left there is removed. Not on tmpfs.
	Stay  bool   // Let it run when the process ends.
	Args  map[cluster.Component][]string

	Builder    components.Builder
	Components *components.Binaries
}

// SuiteOptions name the cluster of the test suite, of which a machine has one at a time.
func SuiteOptions(cache string) Options {
	return Options{Name: "suite", Dir: filepath.Join(cache, "cluster-suite")}
}

// Local is a cluster on this machine.
type Local struct {
	options Options
	node    *node.Node
	client  kubernetes.Interface
	cgroups cgroups
}

var _ cluster.Cluster = (*Local)(nil)

// Up makes a cluster and returns when its node is ready. It takes root.
func Up(ctx context.Context, o Options) (*Local, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a local cluster takes root: run the tests as root, or use the provider kind")
	}
	groups, err := findCgroups()
	if err != nil {
		return nil, err
	}
	l := &Local{options: o, cgroups: groups}
	if err := l.up(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("bring up cluster %s: %w", o.Name, err), l.halt(context.WithoutCancel(ctx)))
	}
	return l, nil
}

func (l *Local) up(ctx context.Context) error {
	if err := Remove(ctx, l.options); err != nil {
		return fmt.Errorf("remove what was there before: %w", err)
	}
	if err := l.prepare(ctx); err != nil {
		return err
	}
	return l.boot(ctx)
}

// prepare writes all files of a cluster.
func (l *Local) prepare(ctx context.Context) error {
	for _, dir := range []string{"bin", "conf", "etcd", "images", "log", "node", "pki"} {
		if err := os.MkdirAll(l.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := l.certificates(); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig())
	if err != nil {
		return err
	}
	config.QPS = -1 // No limit: the tests measure.
	if l.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	runc, err := l.options.Components.Path("runc")
	if err != nil {
		return err
	}
	for path, content := range map[string]string{
		l.path("conf", "audit-policy.yaml"):             auditPolicy,
		l.path("conf", "containerd.toml"):               containerdConfig(runc),
		l.path("conf", "kubelet.yaml"):                  kubeletConfig(l.cgroup(), l.path("pki", "ca.crt")),
		l.path("conf", "service.nft"):                   serviceRules(nodeAddress(l.options.Index)),
		l.HostPath("/etc/cni/net.d/10-bridge.conflist"): defaultNetwork,
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(l.HostPath(staticPods), 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(l.HostPath("/opt/cni/bin"), os.DirFS(l.options.Components.Plugins())); err != nil {
		return fmt.Errorf("copy CNI plugins: %w", err)
	}
	if err := l.options.Builder.Tools(ctx, l.path("bin")); err != nil {
		return fmt.Errorf("build the node's tools: %w", err)
	}
	return image.Write(l.path("images", "pause.tar"), image.Spec{
		Reference:  pauseImage,
		Platforms:  []v1.Platform{image.Machine()},
		Files:      map[string]string{"/pause": l.path("bin", "pause")},
		Entrypoint: []string{"/pause"},
		User:       "65535:65535",
	})
}

func (l *Local) certificates() error {
	ca, err := newAuthority(l.path("pki"))
	if err != nil {
		return err
	}
	address := nodeAddress(l.options.Index)
	server := fmt.Sprintf("https://%s:%d", address, apiPort)
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	client := func(name, user, group string) error {
		return ca.client(name, user, group, server, l.path("conf", name+".kubeconfig"))
	}
	return errors.Join(
		ca.server("apiserver", names, net.ParseIP(address), net.ParseIP(serviceAddress), net.IPv4(127, 0, 0, 1)),
		ca.tokenKey("tokens"),
		client("admin", "admin", "system:masters"),
		// All controllers under one name: with a service account for each, the first namespace is ready seconds later.
		client("kube-controller-manager", "system:kube-controller-manager", "system:masters"),
		client("kube-scheduler", "system:kube-scheduler", "system:authenticated"),
		client("kubelet", "system:node:"+NodeName, "system:nodes"),
	)
}

// boot starts the node and all components, and returns when the node is ready.
func (l *Local) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	if err := l.cgroups.make(l.cgroup()); err != nil {
		return err
	}
	bootID, err := newBootID()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(l.path("log", "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	l.node, err = node.Boot(ctx, l.path("bin", "node"), node.Layout{
		Root: l.path("node"),
		Dirs: []string{
			"/etc/cni", "/etc/kubernetes", "/opt/cni", "/var/lib/cni", "/var/log/plexus", "/var/lib/containerd", "/var/lib/kubelet",
			"/var/log/containers", "/var/log/pods",
		},
		Files: map[string]string{
			"/proc/sys/kernel/random/boot_id": bootID,
			// The kubelet sets these. They are the machine's, not the node's.
			"/proc/sys/kernel/panic":         "10\n",
			"/proc/sys/kernel/panic_on_oops": "1\n",
			"/proc/sys/vm/overcommit_memory": "1\n",
			"/proc/sys/vm/panic_on_oom":      "0\n",
		},
		Stay:   l.options.Stay,
		Search: l.options.Components.PATH() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}, log)
	if err != nil {
		return err
	}
	if err := l.network(ctx); err != nil {
		return fmt.Errorf("connect node: %w", err)
	}
	for _, component := range []cluster.Component{cluster.Etcd, cluster.Containerd, cluster.APIServer} {
		if err := l.start(component); err != nil {
			return err
		}
	}
	if err := l.answers(ctx, cluster.Containerd); err != nil {
		return err
	}
	if err := l.LoadImage(ctx, l.path("images", "pause.tar")); err != nil {
		return err
	}
	if err := l.answers(ctx, cluster.APIServer); err != nil {
		return err
	}
	// The controller manager waits for the API server for ten seconds, and ends.
	for _, component := range []cluster.Component{cluster.ControllerManager, cluster.Scheduler, cluster.Kubelet} {
		if err := l.start(component); err != nil {
			return err
		}
	}
	return l.ready(ctx, bootID)
}

// network makes the node's links: one to the machine, by which tests reach the API server, and one to put networks on.
func (l *Local) network(ctx context.Context) error {
	link := linkName(l.options.Index)
	machine := func(args ...string) error { return ip(ctx, args...) }
	if err := machine("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(l.node.PID())); err != nil {
		return err
	}
	if err := errors.Join(
		machine("addr", "add", machineAddress(l.options.Index)+"/24", "dev", link),
		machine("link", "set", link, "up"),
	); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "addr", "add", nodeAddress(l.options.Index) + "/24", "dev", "eth0"},
		{"ip", "link", "set", "eth0", "up"},
		{"ip", "route", "add", "default", "via", machineAddress(l.options.Index)},
		{"ip", "link", "add", LAN, "type", "veth", "peer", "name", LAN + "-peer"},
		{"ip", "link", "set", LAN, "up"},
		{"ip", "link", "set", LAN + "-peer", "up"},
		{"nft", "-f", l.path("conf", "service.nft")},
	} {
		if _, err := l.node.Exec(ctx, argv...); err != nil {
			return err
		}
	}
	return nil
}

func linkName(index int) string { return fmt.Sprintf("plexus-e2e%d", index) }

// ip runs the program ip on the machine.
func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (l *Local) start(component cluster.Component) error {
	program, err := l.options.Components.Path(string(component))
	if err != nil {
		return err
	}
	argv := append([]string{program}, l.commands()[component]...)
	return l.node.Start(node.Process{
		Name: string(component),
		Argv: append(argv, l.options.Args[component]...),
		Log:  l.path("log", string(component)+".log"),
	})
}

// answers waits until a component that others depend on answers.
func (l *Local) answers(ctx context.Context, component cluster.Component) error {
	var ask func(context.Context) error
	switch component {
	case cluster.Containerd:
		ask = func(ctx context.Context) error {
			_, err := l.ctr(ctx, "version")
			return err
		}
	case cluster.APIServer, cluster.Etcd:
		ask = func(ctx context.Context) error {
			return l.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		}
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if !l.node.Running(string(component)) {
			return fmt.Errorf("%s has ended: see %s", component, l.path("log", string(component)+".log"))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w: see %s", component, err, l.path("log", string(component)+".log"))
		}
	}
}

// Kubeconfig is the path of an administrator's kubeconfig.
func (l *Local) Kubeconfig() string { return l.path("conf", "admin.kubeconfig") }

// AuditLog is the path of the API server's audit log, one JSON object of audit.k8s.io/v1 Event on a line.
func (l *Local) AuditLog() string { return l.path("log", "audit.log") }

// ComponentLog is the path of a component's log.
func (l *Local) ComponentLog(component cluster.Component) string {
	return l.path("log", string(component)+".log")
}

// HostPath is where the machine has a file of the node, which must be in one of the folders that are the node's own and not in /run.
func (l *Local) HostPath(path string) string { return l.path("node", path) }

// Nodes is the one node.
func (l *Local) Nodes() []string { return []string{NodeName} }

// Exec runs a program on the node.
func (l *Local) Exec(ctx context.Context, _ string, argv ...string) ([]byte, error) {
	return l.node.Exec(ctx, argv...)
}

// LoadImage imports an image archive.
func (l *Local) LoadImage(ctx context.Context, archive string) error {
	if _, err := l.ctr(ctx, "images", "import", archive); err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	return nil
}

func (l *Local) ctr(ctx context.Context, args ...string) ([]byte, error) {
	return l.node.Exec(ctx, append([]string{"ctr", "--address", containerdSocket, "--namespace", "k8s.io"}, args...)...)
}

// Stop ends a component.
func (l *Local) Stop(ctx context.Context, component cluster.Component, signal syscall.Signal) error {
	return l.node.Stop(ctx, string(component), signal)
}

// Start starts a component with the arguments it had.
func (l *Local) Start(ctx context.Context, component cluster.Component) error {
	if err := l.start(component); err != nil {
		return err
	}
	return l.answers(ctx, component)
}

// Reboot halts the node as a power cut does and boots it again.
func (l *Local) Reboot(ctx context.Context, _ string) error {
	if err := l.halt(ctx); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	if err := l.boot(ctx); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return nil
}

// Logs copies the logs of all components and pods, and the node's CNI configuration and state.
func (l *Local) Logs(_ context.Context, dir string) error {
	var failed []error
	for to, from := range map[string]string{
		"components":  l.path("log"),
		"pods":        l.HostPath("/var/log/pods"),
		"etc-cni":     l.HostPath("/etc/cni"),
		"var-lib-cni": l.HostPath("/var/lib/cni"),
	} {
		// Missing, where the cluster did not get that far.
		if err := os.CopyFS(filepath.Join(dir, to), os.DirFS(from)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Down kills everything of the cluster and removes its folder.
func (l *Local) Down(ctx context.Context) error {
	return errors.Join(l.halt(ctx), os.RemoveAll(l.options.Dir))
}

// Leave lets go of a cluster that is to stay. Remove ends it.
func (l *Local) Leave() { l.node.Leave() }

func (l *Local) halt(ctx context.Context) error {
	if l.node != nil {
		l.node.Halt()
		l.node = nil
	}
	return errors.Join(unlink(ctx, l.options.Index), l.cgroups.remove(l.cgroup()))
}

func (l *Local) cgroup() string { return cgroupName(l.options.Name) }

func cgroupName(name string) string { return "plexus-e2e-" + name }

func (l *Local) path(elem ...string) string {
	return filepath.Join(append([]string{l.options.Dir}, elem...)...)
}
