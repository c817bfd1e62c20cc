// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package host is the node of the benchmark: network namespaces as sandboxes, the delegates' programs and configurations, a cluster
// with its API server, and the contenders that attach pods. It needs the privilege to make network namespaces; see [Isolate].
package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/plexus-cni/plexus/bench/fakeapi"
)

const (
	nodeName     = "node"
	podNamespace = fakeapi.Namespace
)

// Custom is a contender that the user brings.
type Custom struct {
	Name string
	// Conf is a file: a CNI configuration list, as a template with [Values].
	Conf string
	// Bin is a folder with the plugin.
	Bin string
	// Daemon is a program to start before, with the environment KUBECONFIG, NODE_NAME and STATE_DIR; "" for none.
	Daemon string
}

// Options say what the node is made of.
type Options struct {
	// Bin is the folder with plexus and plexusd, Plugins that with the reference plugins.
	Bin, Plugins string
	// Dir is where a folder for all state is made.
	Dir string
	// APILatency is added to each answer of the API server.
	APILatency time.Duration
	// Customs are measured beside the contenders that are built in.
	Customs []Custom
}

// Node is the node, without a cluster.
type Node struct {
	options   Options
	dir       string
	sandboxes []string // paths of network namespaces
	clusters  int
	lastID    int
}

// NewNode makes the node. Close takes it away.
func NewNode(o Options) (*Node, error) {
	for _, need := range []struct{ dir, program, how string }{
		{o.Bin, "plexus", "make build"},
		{o.Bin, "plexusd", "make build"},
		{o.Plugins, "bridge", "make plugins"},
		{o.Plugins, "macvlan", "make plugins"},
		{o.Plugins, "host-local", "make plugins"},
	} {
		if _, err := os.Stat(filepath.Join(need.dir, need.program)); err != nil {
			return nil, fmt.Errorf("%w: build it with `%s`", err, need.how)
		}
	}
	dir, err := os.MkdirTemp(o.Dir, "plexus-bench-")
	if err != nil {
		return nil, fmt.Errorf("make the folder for all state: %w", err)
	}
	n := &Node{options: o, dir: dir}
	if err := errors.Join(addParent(), os.Mkdir(n.path("netns"), 0o700), n.linkPlugins()); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) path(name string) string { return filepath.Join(n.dir, name) }

// Dir is the folder with all state.
func (n *Node) Dir() string { return n.dir }

// Close removes all state. The links and namespaces go with the process.
func (n *Node) Close() error {
	for _, path := range n.sandboxes {
		_ = unmount(path) // the mount namespace ends with the process anyway
	}
	return os.RemoveAll(n.dir)
}

// linkPlugins makes the folder of delegates: the reference plugins, and the no-op one.
func (n *Node) linkPlugins() error {
	dir := n.path("delegates")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	plugins, err := filepath.Abs(n.options.Plugins)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(plugins)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(plugins, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "noop"), []byte(noopPlugin), 0o755)
}

// sandbox returns the path of network namespace i; they are made once, and used again and again.
func (n *Node) sandbox(i int) (string, error) {
	for len(n.sandboxes) <= i {
		path := filepath.Join(n.path("netns"), fmt.Sprintf("%d", len(n.sandboxes)))
		if err := newNetNS(path); err != nil {
			return "", err
		}
		n.sandboxes = append(n.sandboxes, path)
	}
	return n.sandboxes[i], nil
}

// Scale is the size of a cluster.
type Scale struct {
	// Pods is how many pods are on the node before any is measured.
	Pods int `json:"pods"`
	// Definitions is how many NetworkAttachmentDefinitions there are.
	Definitions int `json:"definitions"`
	// InManifests writes all definitions also to the folder of manifests, of which each call reads all; else it has those that pods
	// select.
	InManifests bool `json:"-"`
}

// Cluster is a cluster with its one node, and the contenders that know it.
type Cluster struct {
	API *fakeapi.Server
	// Contenders begin with the floor.
	Contenders []*Contender
	// Daemon is plexusd.
	Daemon *Process

	node      *Node
	scale     Scale
	dir       string
	pods      map[string]bool
	processes []*Process
}

// ready bounds the start of the contenders' daemons.
const ready = 60 * time.Second

// StartCluster starts an API server and the contenders. Each cluster has state of its own; Close it before the next.
func (n *Node) StartCluster(ctx context.Context, scale Scale) (*Cluster, error) {
	n.clusters++
	c := &Cluster{
		API: fakeapi.New(nodeName, n.options.APILatency), node: n, scale: scale,
		dir: n.path(fmt.Sprintf("cluster-%d", n.clusters)), pods: map[string]bool{},
	}
	err := c.start(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *Cluster) start(ctx context.Context) error {
	if err := errors.Join(os.MkdirAll(c.path("manifests"), 0o755), os.WriteFile(c.path("kubeconfig"), []byte(c.API.Kubeconfig()), 0o600)); err != nil {
		return err
	}
	c.API.AddDefinitions(definitions(c.path("leases"), c.scale.Definitions)...)
	for i := range c.scale.Pods {
		s := other(i)
		c.API.AddPods(fakeapi.Pod{Name: s.Pod, UID: s.UID, Networks: s.Annotation()})
	}
	if err := c.startDaemon(ctx); err != nil {
		return err
	}
	return c.addContenders(ctx)
}

// startDaemon starts plexusd and waits until it knows the cluster.
func (c *Cluster) startDaemon(ctx context.Context) error {
	var err error
	c.Daemon, err = startProcess(ctx, c.path("plexusd.log"), nil, filepath.Join(c.node.options.Bin, "plexusd"),
		"serve", "--node-name", nodeName, "--kubeconfig", c.path("kubeconfig"), "--socket-dir", c.path("socket"),
		"--listen", metricsAddress, "--log-level", "warn")
	if err != nil {
		return err
	}
	c.processes = append(c.processes, c.Daemon)
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	return eventually(ctx, func() error {
		if err := c.Daemon.failure(); err != nil {
			cancel() // waiting does not help
			return err
		}
		_, err := httpGet(ctx, "/readyz")
		return err
	})
}

func (c *Cluster) addContenders(ctx context.Context) error {
	bin, err := filepath.Abs(c.node.options.Bin)
	if err != nil {
		return err
	}
	values := Values{Plugins: c.node.path("delegates"), Kubeconfig: c.path("kubeconfig"), Manifests: c.path("manifests")}
	for _, b := range []struct{ name, conf, source string }{
		{Direct, "", ""},
		{Manifests, plexusConf, fmt.Sprintf(`"manifestDir": %q`, values.Manifests)},
		{Daemon, plexusConf, fmt.Sprintf(`"daemonSocketDir": %q`, c.path("socket"))},
		{OneShot, plexusConf, fmt.Sprintf(`"kubeconfig": %q`, values.Kubeconfig)},
	} {
		// One folder for the records of all three: what pods there are on the node is the same for each.
		values.Source, values.State = b.source, c.path("plexus")
		contender, err := newContender(b.name, b.conf, []string{bin, values.Plugins}, values, c.dir, c.path("leases"))
		if err != nil {
			return err
		}
		contender.BuiltIn = true
		c.Contenders = append(c.Contenders, contender)
	}
	values.Source, values.State = "", ""
	for _, custom := range c.node.options.Customs {
		if err := c.addCustom(ctx, custom, values); err != nil {
			return err
		}
	}
	return nil
}

// addCustom adds a contender of the user.
func (c *Cluster) addCustom(ctx context.Context, custom Custom, values Values) error {
	conf, err := os.ReadFile(custom.Conf)
	if err != nil {
		return fmt.Errorf("contender %s: configuration: %w", custom.Name, err)
	}
	contender, err := newContender(custom.Name, string(conf), []string{custom.Bin, values.Plugins}, values, c.dir, c.path("leases"))
	if err != nil {
		return err
	}
	c.Contenders = append(c.Contenders, contender)
	if custom.Daemon == "" {
		return nil
	}
	state := contender.values.State
	if err = os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	environ := append(os.Environ(), "KUBECONFIG="+values.Kubeconfig, "NODE_NAME="+nodeName, "STATE_DIR="+state)
	p, err := startProcess(ctx, c.path(custom.Name+".log"), environ, custom.Daemon)
	if err != nil {
		return fmt.Errorf("contender %s: %w", custom.Name, err)
	}
	c.processes = append(c.processes, p)
	return c.awaitCustom(ctx, contender, p)
}

// awaitCustom waits until a contender's daemon is ready: when an ADD works.
func (c *Cluster) awaitCustom(ctx context.Context, contender *Contender, p *Process) error {
	sandboxes, err := c.Sandboxes(Workload{Kind: Noop}, 1)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	return eventually(ctx, func() error {
		if err := p.failure(); err != nil {
			cancel() // waiting does not help
			return err
		}
		s := c.Renew(sandboxes[0])
		return errors.Join(contender.Add(ctx, s), contender.Del(context.WithoutCancel(ctx), s))
	})
}

// Contender finds a contender by its name.
func (c *Cluster) Contender(name string) *Contender {
	for _, contender := range c.Contenders {
		if contender.Name == name {
			return contender
		}
	}
	return nil
}

// Close ends all processes of the cluster and removes its state.
func (c *Cluster) Close() {
	for _, p := range c.processes {
		p.Stop()
	}
	c.API.Close()
	_ = os.RemoveAll(c.dir) // Node.Close removes what is left, and tells
}

// Sandboxes makes pods of a workload, known to all sources of cluster knowledge, and sandboxes for them.
func (c *Cluster) Sandboxes(w Workload, count int) ([]Sandbox, error) {
	var all []Sandbox
	for i := range count {
		netns, err := c.node.sandbox(i)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%s-%d-pod-%d", w.Kind, w.Networks, i)
		all = append(all, Sandbox{Workload: w, Pod: name, UID: uid(name), NetNS: netns})
		if !c.pods[name] {
			c.pods[name] = true
			c.API.AddPods(fakeapi.Pod{Name: name, UID: uid(name), Networks: w.Annotation()})
		}
	}
	return all, c.writeManifests(all)
}

// other is one of the pods that are on the node before any is measured.
func other(i int) Sandbox {
	name := fmt.Sprintf("other-%d", i)
	return Sandbox{Workload: Workload{Kind: Noop, Networks: i % 3}, Pod: name, UID: uid(name)}
}

// attachAtOnce is how many of the other pods are attached at a time.
const attachAtOnce = 4

// AttachOthers attaches the pods that are on the node before any is measured, for as long as the cluster is there, so that their records
// are there too.
func (c *Cluster) AttachOthers(ctx context.Context) error {
	netns, err := c.node.sandbox(0) // any: their delegates do nothing
	if err != nil {
		return err
	}
	contender := c.Contender(Daemon)
	for first := 0; first < c.scale.Pods; first += attachAtOnce {
		var some sync.WaitGroup
		errs := make([]error, attachAtOnce)
		for i := range min(attachAtOnce, c.scale.Pods-first) {
			s := c.Renew(other(first + i))
			s.NetNS = netns
			some.Go(func() { errs[i] = contender.Add(ctx, s) })
		}
		some.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// Renew is a new sandbox of the same pod.
func (c *Cluster) Renew(s Sandbox) Sandbox {
	c.node.lastID++
	s.ContainerID = fmt.Sprintf("%x", sha256.Sum256([]byte(strconv.Itoa(c.node.lastID)))) // as runtimes' look
	return s
}

// writeManifests writes the pods that are about to be attached, and all NetworkAttachmentDefinitions, as files.
func (c *Cluster) writeManifests(sandboxes []Sandbox) error {
	var pods, nads strings.Builder
	for _, s := range sandboxes {
		fmt.Fprintf(&pods, "---\nkind: Pod\nmetadata: {namespace: %s, name: %s, uid: %s, annotations: {k8s.v1.cni.cncf.io/networks: %q}}\n",
			podNamespace, s.Pod, s.UID, s.Annotation())
	}
	total := 0
	if c.scale.InManifests {
		total = c.scale.Definitions
	}
	for _, d := range definitions(c.path("leases"), total) {
		fmt.Fprintf(&nads, "---\nkind: NetworkAttachmentDefinition\nmetadata: {namespace: %s, name: %s}\nspec:\n  config: '%s'\n", podNamespace, d.Name, d.Config)
	}
	dir := c.path("manifests")
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "pods.yaml"), []byte(pods.String()), 0o600),
		os.WriteFile(filepath.Join(dir, "networks.yaml"), []byte(nads.String()), 0o600),
	)
}

// uid is the UID of a pod, in the form that the API server gives them.
func uid(name string) string {
	var sum uint64 = 14695981039346656037 // FNV-1a
	for _, b := range []byte(name) {
		sum = (sum ^ uint64(b)) * 1099511628211
	}
	return fmt.Sprintf("00000000-0000-4000-%04x-%012x", sum>>48, sum&(1<<48-1))
}
