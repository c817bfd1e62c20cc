// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// RunsOnNode is the annotation (cobra.Command.Annotations) of commands that look at a node. Its value says what they need there:
// [NeedsFiles] or [NeedsRoot]. `kubectl plexus` runs them on the node of the pod, all others where it runs itself.
const RunsOnNode = "plexus.runs-on-node"

// What a command needs on a node.
const (
	// NeedsFiles: the records, the configuration and the log are enough, which the daemon's container has.
	NeedsFiles = "files"
	// NeedsRoot: it enters network namespaces.
	NeedsRoot = "root"
)

// HoldCommand is the name of the command that does nothing until it is told to end.
const HoldCommand = "hold"

// Flags that `kubectl plexus` sets, or takes for itself.
const (
	FlagNamespace     = "namespace"
	FlagAllNamespaces = "all-namespaces"
	FlagRoot          = "root"
	FlagUntilEOF      = "until-eof"
	FlagRecorded      = "recorded"
	FlagWrite         = "write"
	FlagDuration      = "duration"
	FlagWatch         = "watch"
)

// RecordsDir is where Plexus keeps its records unless its configuration names another folder (cniDir).
const RecordsDir = config.DefaultCNIDir

// holdCommand keeps a container alive in which `kubectl plexus` runs other commands.
func holdCommand() *cobra.Command {
	return &cobra.Command{
		Use:    HoldCommand,
		Short:  "Wait until told to end",
		Args:   arguments(0, 0),
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			<-cmd.Context().Done()
			return nil
		},
	}
}

// nodeOptions are the flags of commands that look at a node.
type nodeOptions struct {
	namespace     string
	allNamespaces bool
	stateDirs     []string
	conf          string
	root          string
	untilEOF      bool
	// recorded leaves the kernel out.
	recorded bool
}

func (o *nodeOptions) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&o.namespace, FlagNamespace, "n", "", "only pods of the Kubernetes namespace `NAME`")
	flags.StringArrayVar(&o.stateDirs, "state-dir", nil, "read the records of Plexus in `DIR`; may be repeated (default its key cniDir, else "+config.DefaultCNIDir+", and "+defaultStateDir+")")
	flags.StringVar(&o.conf, "conf", defaultConf, "read the folders of records and log from the CNI configuration `FILE`")
	flags.StringVar(&o.root, FlagRoot, "", "use `DIR` as the root of the file system: where the node's is mounted, /host in a pod of `kubectl debug node`")
	flags.BoolVar(&o.untilEOF, FlagUntilEOF, false, "end when the standard input does, as on ctrl-C")
	cobra.CheckErr(flags.MarkHidden(FlagUntilEOF)) // only a flag of another name fails
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return o.complete(args), cobra.ShellCompDirectiveNoFileComp
	}
}

// addAllNamespaces adds the flag that says what is the case without one, for who is used to kubectl.
func (o *nodeOptions) addAllNamespaces(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.allNamespaces, FlagAllNamespaces, "A", false, "pods of all Kubernetes namespaces, as without -n")
	cmd.MarkFlagsMutuallyExclusive(FlagNamespace, FlagAllNamespaces)
}

// complete offers pods, and then the interfaces of the pod, to the shell. What cannot be read offers none.
func (o *nodeOptions) complete(args []string) []cobra.Completion {
	pods, _, err := o.node(true).Pods()
	if err != nil {
		return nil
	}
	var names []cobra.Completion
	if len(args) == 0 {
		for i := range pods {
			names = append(names, pods[i].Ref())
		}
		return slices.Compact(names)
	}
	chosen, err := choosePod(pods, o.namespace, args[0])
	if err != nil || len(args) > 1 {
		return nil
	}
	for _, i := range chosen.Interfaces {
		names = append(names, i.Name)
	}
	return names
}

// enter makes the process look at the node, and returns the context for what follows, which the caller ends.
func (o *nodeOptions) enter(cmd *cobra.Command) (context.Context, context.CancelFunc, error) {
	if o.root != "" {
		err := syscall.Chroot(o.root)
		if err == nil {
			err = os.Chdir("/")
		}
		if err != nil {
			return nil, nil, withMend(fmt.Errorf("--root %s: %w", o.root, err))
		}
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	if o.untilEOF {
		go func() {
			_, _ = io.Copy(io.Discard, cmd.InOrStdin()) // however it ends, it has ended
			cancel()
		}()
	}
	return ctx, cancel, nil
}

// settings are what a node's configuration says about where things are. A node without one has the defaults.
type settings struct {
	stateDir, logFile string
	// generated is set for a configuration that plexusd writes, and would write over.
	generated bool
}

// logHint says where the key logFile is to be set.
func (s settings) logHint(conf string) string {
	if s.generated {
		return `set "logFile" in key plugin.json of ConfigMap plexus, of which plexusd makes ` + conf
	}
	return `set "logFile" in ` + conf
}

// settings reads what it can: a configuration that Plexus refuses is doctor's business.
func (o *nodeOptions) settings() (settings, error) {
	s := settings{stateDir: config.DefaultCNIDir}
	data, err := bounded.ReadFile(o.conf, config.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) && o.conf == defaultConf {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("--conf: %w", withMend(err))
	}
	type plugin struct {
		Type    string `json:"type"`
		CNIDir  string `json:"cniDir"`
		LogFile string `json:"logFile"`
		Daemon  string `json:"daemonSocketDir"`
	}
	var conf struct {
		plugin // one by itself

		Plugins []plugin `json:"plugins"`
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		return s, fmt.Errorf("--conf %s: %w", o.conf, err)
	}
	for _, p := range append(conf.Plugins, conf.plugin) {
		if p.Type != config.PluginType {
			continue
		}
		s.logFile, s.generated = p.LogFile, p.Daemon != ""
		if p.CNIDir != "" {
			s.stateDir = p.CNIDir
		}
	}
	return s, nil
}

// node is the node as the flags describe it.
func (o *nodeOptions) node(recorded bool) *inspect.Node {
	n := &inspect.Node{StateDirs: o.stateDirs, Driver: driver, Now: time.Now}
	if len(n.StateDirs) == 0 {
		s, _ := o.settings() // its callers have asked, or can do without
		n.StateDirs = []string{s.stateDir, defaultStateDir}
	}
	if !recorded {
		n.Kernel = netdev.NewLinux()
	}
	return n
}

// driver names the driver of a device.
func driver(device string) string {
	d, err := sysfs.New("/sys").Device(device)
	if err != nil {
		return "" // what is no device has none
	}
	return d.Driver
}

// pods tells of all sandboxes on record, prints what is wrong with the records themselves, and counts those that cannot be read.
func (o *nodeOptions) pods(cmd *cobra.Command) ([]inspect.Pod, int, error) {
	if _, err := o.settings(); err != nil {
		return nil, 0, err
	}
	pods, problems, err := o.node(o.recorded).Pods()
	if err != nil {
		return nil, 0, withMend(err)
	}
	for _, p := range problems {
		cmd.PrintErrln("plexusctl: " + printable(p))
	}
	return pods, len(problems), nil
}

// present makes an empty list of none, which JSON tells apart.
func present[E any](list []E) []E {
	if list == nil {
		return []E{}
	}
	return list
}

// minIDPrefix is how much of a container ID has to be given.
const minIDPrefix = 6

// filterPods picks the sandboxes of one pod, by NAME, NAMESPACE/NAME or the first digits of a container ID; or all. The namespace is "" for any.
func filterPods(pods []inspect.Pod, namespace, name string) ([]inspect.Pod, error) {
	var found []inspect.Pod
	for i := range pods {
		p := &pods[i]
		byID := len(name) >= minIDPrefix && strings.HasPrefix(p.ContainerID, name)
		if (namespace == "" || p.Namespace == namespace) && (name == "" || name == p.Ref() || name == p.Name || byID) {
			found = append(found, *p)
		}
	}
	for i := range found {
		if name != "" && found[i].Ref() != found[0].Ref() {
			return nil, fmt.Errorf("%s matches several pods: name one as %s or %s", name, found[0].Ref(), found[i].Ref())
		}
	}
	if len(found) == 0 && name != "" {
		in := ""
		if namespace != "" {
			in = " of namespace " + namespace
		}
		return nil, &missingPodError{fmt.Sprintf("no pod %s%s is on record on this node: `plexusctl status` lists those that are, and `plexusctl trace` searches the log", name, in)}
	}
	return found, nil
}

// missingPodError says that no record is of the pod that was asked for.
type missingPodError struct{ text string }

func (e *missingPodError) Error() string { return e.text }

// choosePod picks the sandbox that a pod lives in: the newest whose namespace is there.
func choosePod(pods []inspect.Pod, namespace, name string) (*inspect.Pod, error) {
	found, err := filterPods(pods, namespace, name)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(found, func(p inspect.Pod) bool { return p.State != inspect.Gone })
	if at < 0 {
		return nil, fmt.Errorf("pod %s: its network namespace is gone", found[0].Ref())
	}
	return &found[at], nil
}

// chooseInterface finds an interface of a pod that the kernel has.
func chooseInterface(p *inspect.Pod, name string) error {
	var there []string
	for _, i := range p.Interfaces {
		if i.Live == nil {
			continue
		}
		if i.Name == name {
			return nil
		}
		there = append(there, i.Name)
	}
	if name == "lo" {
		return nil
	}
	if !p.Seen {
		return fmt.Errorf("pod %s: %s", p.Ref(), strings.Join(p.Problems, "; "))
	}
	if len(there) == 0 {
		return fmt.Errorf("pod %s has no interface in its network namespace: see `plexusctl status -o wide %s`", p.Ref(), p.Ref())
	}
	return fmt.Errorf("pod %s has no interface %q: name one of %s, or lo", p.Ref(), name, strings.Join(there, ", "))
}
