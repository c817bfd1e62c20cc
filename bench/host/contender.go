// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/template"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
)

// Names of the contenders that are built in. The first is the floor that the others are measured against.
const (
	Direct    = "direct"
	Manifests = "manifests"
	Daemon    = "daemon"
	OneShot   = "one-shot"
)

// Values are what the template of a contender's configuration can name.
type Values struct {
	// Plugins is the folder with the delegates' programs.
	Plugins string
	// DefaultNetwork is the CNI configuration of the default network, JSON.
	DefaultNetwork string
	// Kubeconfig is the path of a kubeconfig for the API server, which has pods and NetworkAttachmentDefinitions.
	Kubeconfig string
	// Manifests is a folder of YAML files with the same pods and NetworkAttachmentDefinitions.
	Manifests string
	// State is a folder of the contender's own.
	State string
	// Log is where and how much to log; nil for not at all.
	Log *Log

	// Source says where Plexus gets its knowledge from: a key and its value.
	Source string
}

// Log is a log file, as the keys logFile, logLevel and logOptions of Plexus' configuration describe it.
type Log struct {
	File, Level           string
	MaxSizeMB, MaxBackups int
}

//go:embed confs/plexus.conflist
var plexusConf string

// MultusConf is the configuration of a contender that the user may bring: the thin plugin of Multus.
//
//go:embed confs/multus.conflist
var MultusConf string

// Contender is one way to attach pods: network configurations that a container runtime runs.
type Contender struct {
	Name string
	// BuiltIn is set for Plexus and the floor: how they behave is known.
	BuiltIn bool

	conf    *template.Template // nil for the delegates themselves
	values  Values
	paths   []string
	runtime *libcni.CNIConfig
	leases  string
	// runtimeDir is where the container runtime keeps its own cache.
	runtimeDir string
	// confs are the configurations that a runtime calls for a pod of a workload, in order. It is complete from the start.
	confs map[Workload][]*libcni.NetworkConfigList
}

// newContender makes a contender of a configuration template; "" stands for the delegates themselves. Programs are searched for in paths.
func newContender(name, conf string, paths []string, values Values, dir, leases string) (*Contender, error) {
	c := &Contender{Name: name, values: values, paths: paths, leases: leases, runtimeDir: filepath.Join(dir, name, "runtime")}
	if c.values.State == "" {
		c.values.State = filepath.Join(dir, name, "state")
	}
	c.runtime = libcni.NewCNIConfigWithCacheDir(paths, c.runtimeDir, nil)
	if conf != "" {
		var err error
		if c.conf, err = template.New(name).Option("missingkey=error").Parse(conf); err != nil {
			return nil, fmt.Errorf("contender %s: configuration: %w", name, err)
		}
	}
	return c, c.configure()
}

// Logging returns the same contender, with a log.
func (c *Contender) Logging(log Log) (*Contender, error) {
	other := *c
	other.values.Log = &log
	return &other, other.configure()
}

// Sampling returns the same contender, with the greatest memory of each process that the runtime starts handed to peak, in KiB. It takes
// time from them: it is not for measuring that.
func (c *Contender) Sampling(peak func(kib int64)) *Contender {
	other := *c
	other.runtime = libcni.NewCNIConfigWithCacheDir(c.paths, c.runtimeDir, &samplingExec{RawExec: invoke.RawExec{Stderr: os.Stderr}, peak: peak})
	return &other
}

// configure makes the configurations for all workloads.
func (c *Contender) configure() error {
	c.confs = map[Workload][]*libcni.NetworkConfigList{}
	for _, k := range []Kind{Real, Noop} {
		for networks := range MaxNetworks + 1 {
			w := Workload{Kind: k, Networks: networks}
			texts, err := c.texts(w)
			if err != nil {
				return fmt.Errorf("contender %s: configuration: %w", c.Name, err)
			}
			for _, text := range texts {
				list, err := libcni.NetworkConfFromBytes(text)
				if err == nil && len(list.Plugins) == 0 {
					err = errors.New(`it has no "plugins": write it as a configuration list`)
				}
				if err != nil {
					return fmt.Errorf("contender %s: configuration: %w", c.Name, err)
				}
				c.confs[w] = append(c.confs[w], list)
			}
		}
	}
	return nil
}

// texts are the configurations for a workload: those of its delegates, or the one of the contender, to whom it is a matter of the
// pod's annotation.
func (c *Contender) texts(w Workload) ([][]byte, error) {
	if c.conf != nil {
		values := c.values
		values.DefaultNetwork = string(encode(w.Kind.delegate(0, c.leases)))
		var text bytes.Buffer
		err := c.conf.Execute(&text, values)
		return [][]byte{text.Bytes()}, err
	}
	var texts [][]byte
	for i := range w.Networks + 1 {
		texts = append(texts, encode(object{"cniVersion": "1.0.0", "name": w.Kind.network(i), "plugins": []any{w.Kind.delegate(i, c.leases)}}))
	}
	return texts, nil
}

// Program is the path of the program that a runtime starts first.
func (c *Contender) Program() (string, error) {
	return invoke.FindInPath(c.confs[Workload{Kind: Real}][0].Plugins[0].Network.Type, c.paths)
}

// Sandbox is a pod's sandbox at a time. A new one of the same pod has a new container ID.
type Sandbox struct {
	Workload

	Pod, UID    string
	ContainerID string
	NetNS       string
}

// runtimeConf is what a runtime tells of a sandbox, for the i-th of its interfaces that the runtime itself asks for.
func (s *Sandbox) runtimeConf(i int) *libcni.RuntimeConf {
	name := "eth0"
	if i > 0 {
		name = fmt.Sprintf("net%d", i)
	}
	return &libcni.RuntimeConf{
		ContainerID: s.ContainerID, NetNS: s.NetNS, IfName: name,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", podNamespace},
			{"K8S_POD_NAME", s.Pod},
			{"K8S_POD_INFRA_CONTAINER_ID", s.ContainerID},
			{"K8S_POD_UID", s.UID},
		},
	}
}

// Add attaches a sandbox to all its networks, as a container runtime does.
func (c *Contender) Add(ctx context.Context, s Sandbox) error {
	for i, list := range c.confs[s.Workload] {
		if _, err := c.runtime.AddNetworkList(ctx, list, s.runtimeConf(i)); err != nil {
			return fmt.Errorf("contender %s: ADD of pod %s: %w", c.Name, s.Pod, err)
		}
	}
	return nil
}

// Del takes a sandbox off its networks.
func (c *Contender) Del(ctx context.Context, s Sandbox) error {
	for i, list := range slices.Backward(c.confs[s.Workload]) {
		if err := c.runtime.DelNetworkList(ctx, list, s.runtimeConf(i)); err != nil {
			return fmt.Errorf("contender %s: DEL of pod %s: %w", c.Name, s.Pod, err)
		}
	}
	return nil
}

// Check asks whether a sandbox is as its ADD left it.
func (c *Contender) Check(ctx context.Context, s Sandbox) error {
	for i, list := range c.confs[s.Workload] {
		if err := c.runtime.CheckNetworkList(ctx, list, s.runtimeConf(i)); err != nil {
			return fmt.Errorf("contender %s: CHECK of pod %s: %w", c.Name, s.Pod, err)
		}
	}
	return nil
}

// Status asks whether an ADD could be served.
func (c *Contender) Status(ctx context.Context, k Kind) error {
	lists := c.confs[Workload{Kind: k}]
	if err := c.runtime.GetStatusNetworkList(ctx, lists[0]); err != nil {
		return fmt.Errorf("contender %s: STATUS: %w", c.Name, err)
	}
	return nil
}

// GC tells which sandboxes are alive.
func (c *Contender) GC(ctx context.Context, k Kind, alive ...Sandbox) error {
	lists := c.confs[Workload{Kind: k}]
	args := &libcni.GCArgs{}
	for _, s := range alive {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: s.ContainerID, IfName: "eth0"})
	}
	if err := c.runtime.GCNetworkList(ctx, lists[0], args); err != nil {
		return fmt.Errorf("contender %s: GC: %w", c.Name, err)
	}
	return nil
}

// Left lists what is on disk and in a sandbox when it should hold nothing any more.
func (c *Contender) Left(netns ...string) ([]string, error) {
	var left []string
	for _, dir := range []string{c.values.State, c.runtimeDir, c.leases} {
		found, err := leftovers(dir)
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	for _, path := range netns {
		links, err := linksIn(path)
		if err != nil {
			return nil, err
		}
		left = append(left, links...)
	}
	return left, nil
}
