// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plexus-cni/plexus/internal/ctl"
)

const (
	// defaultNamespace is where the manifests put plexusd.
	defaultNamespace = "plexus-system"
	// program is plexusctl in the image.
	program = "/usr/bin/plexusctl"
	// hostRoot is where a pod of our own mounts the node's file system.
	hostRoot = "/host"
	// defaultNodeTimeout is what one of several nodes has, a privileged pod's start included.
	defaultNodeTimeout = 90 * time.Second
)

// options are the flags of `kubectl plexus` itself.
type options struct {
	node, namespace string
	privileged      bool
	kubeContext     string
	kubeconfig      string
	nodeTimeout     time.Duration
}

// newCommand is plexusctl's own command, of which those that look at a node run there.
func newCommand(env ctl.Environment, k kube) *cobra.Command {
	var o options
	root := ctl.Command(env)
	root.Use = "kubectl-plexus"
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl plexus"}
	root.Short = "Look at the networks of pods"
	root.Long = `Look at the networks of pods: find the node of a pod, and run plexusctl there, with your own rights in the cluster.

status and trace need only Plexus' records and log. They run in the pod of plexusd, which has no privilege on the node and sees both where the
component deploy/components/inspect is applied. What has to enter a pod's network namespace needs root on the node: with --privileged it runs
in a privileged pod of its own, which is deleted at the end.`
	flags := root.PersistentFlags()
	flags.StringVar(&o.node, "node", "", "look at the node `NAME` instead of the pod's")
	flags.BoolVar(&o.privileged, "privileged", false, "run in a privileged pod on the node, which is deleted at the end")
	flags.StringVar(&o.namespace, "plexus-namespace", defaultNamespace, "the Kubernetes namespace `NAME` that plexusd runs in")
	flags.DurationVar(&o.nodeTimeout, "node-timeout", defaultNodeTimeout, "wait this `TIME` for each node, where several are asked")
	flags.StringVar(&o.kubeContext, "context", "", "use the kubeconfig context `NAME`, as kubectl does")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "use the kubeconfig `FILE`, as kubectl does")
	for _, cmd := range slices.Clone(root.Commands()) {
		need, onNode := cmd.Annotations[ctl.RunsOnNode]
		switch {
		case slices.Contains([]string{"attach", "detach", ctl.HoldCommand}, cmd.Name()):
			root.RemoveCommand(cmd) // they are about this machine
		case onNode:
			cmd.ValidArgsFunction = nil
			cmd.Example = strings.ReplaceAll(cmd.Example, "plexusctl ", "kubectl plexus ")
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				r := &run{options: o, kube: k.with(o.kubeContext, o.kubeconfig), cmd: cmd, args: args}
				return r.run(cmd.Context(), need)
			}
		}
	}
	return root
}

// run is one run of a command on a node, or on all.
type run struct {
	options

	kube kube
	cmd  *cobra.Command
	args []string
	// program is what runs on the node, with its arguments.
	program []string
}

func (r *run) run(ctx context.Context, need string) error {
	if need == ctl.NeedsRoot && !r.privileged {
		return fmt.Errorf("%s enters the pod's network namespace, and plexusd has no privilege to: add --privileged, which runs it in a privileged pod on the node and deletes that at the end; or run `plexusctl %s` on the node, as root",
			r.cmd.Name(), r.cmd.Name())
	}
	if err := r.findPod(ctx); err != nil {
		return err
	}
	if err := r.takeNamespace(ctx, need); err != nil {
		return err
	}
	set, err := r.kube.daemonSet(ctx, r.namespace)
	if err != nil {
		return err
	}
	if set == nil {
		return fmt.Errorf("there is no DaemonSet of plexusd in namespace %s: install Plexus, or name its namespace with --plexus-namespace", r.namespace)
	}
	if err = r.checkMounts(set); err != nil {
		return err
	}
	r.program = r.remote()
	daemons, err := r.find(ctx, set)
	switch {
	case err != nil:
		return err
	case len(daemons) == 0:
		return fmt.Errorf("no pod of DaemonSet %s/%s runs on %s: see `kubectl -n %s describe pods`, or add --privileged, which needs no plexusd",
			set.namespace, set.name, cmp.Or(r.node, "any node"), set.namespace)
	case len(daemons) == 1:
		return r.runOn(ctx, set, daemons[0], r.cmd.OutOrStdout(), r.cmd.ErrOrStderr())
	}
	if err = r.checkSeveral(len(daemons)); err != nil {
		return err
	}
	return r.runOnAll(ctx, set, daemons)
}

// find finds where to run: in plexusd's own pods, or, with privilege, on any node, as why plexusd does not run may be what the command has
// to find out.
func (r *run) find(ctx context.Context, set *daemonSet) ([]daemon, error) {
	if r.privileged && r.node != "" {
		return []daemon{{node: r.node}}, nil
	}
	daemons, err := r.kube.daemons(ctx, set, r.node)
	if err != nil || len(daemons) > 0 || !r.privileged {
		return daemons, err
	}
	nodes, err := r.kube.nodeNames(ctx)
	for _, n := range nodes {
		daemons = append(daemons, daemon{node: n})
	}
	return daemons, err
}

// checkMounts tells that plexusd's container lacks the records, of which plexusctl would see as many as on a node without pods: none.
func (r *run) checkMounts(set *daemonSet) error {
	if r.privileged {
		return nil // it has the node's file system
	}
	dirs := r.list("state-dir")
	if len(dirs) == 0 {
		dirs = []string{ctl.RecordsDir}
	}
	if slices.ContainsFunc(dirs, set.sees) {
		return nil
	}
	return fmt.Errorf("DaemonSet %s/%s does not mount %s of the node, where Plexus keeps its records: apply the component deploy/components/inspect, or add --privileged; if \"cniDir\" names another folder that is mounted, name it with --state-dir",
		set.namespace, set.name, strings.Join(dirs, " or "))
}

// checkSeveral refuses what makes sense for one node only.
func (r *run) checkSeveral(n int) error {
	if format := r.flag("output"); !slices.Contains([]string{"", "table", "text", "wide"}, format) {
		return fmt.Errorf("--output %s is for one node, and plexusd runs on %d: name one with --node, or a pod", format, n)
	}
	if r.flag(ctl.FlagWatch) == "true" {
		return fmt.Errorf("--%s is for one node, and plexusd runs on %d: name one with --node, or a pod", ctl.FlagWatch, n)
	}
	return nil
}

// maxParallel is how many nodes are asked at a time: each takes a kubectl here and a connection of the API server.
const maxParallel = 16

// answer is what a node printed.
type answer struct {
	out, stderr bytes.Buffer
	err         error
}

// runOnAll asks the nodes side by side, and prints each one's answer as soon as it and those before it are there.
func (r *run) runOnAll(ctx context.Context, set *daemonSet, daemons []daemon) error {
	answers := make([]chan *answer, len(daemons))
	slots := make(chan struct{}, maxParallel)
	for i, d := range daemons {
		answers[i] = make(chan *answer, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i] <- r.ask(ctx, set, d)
		}()
	}
	var errs []error
	for i, d := range daemons {
		a := <-answers[i]
		before := ""
		if i > 0 {
			before = "\n"
		}
		_, err := fmt.Fprintf(r.cmd.OutOrStdout(), "%snode %s\n%s", before, d.node, &a.out)
		_, _ = r.cmd.ErrOrStderr().Write(a.stderr.Bytes()) // an error of standard error can be told nowhere
		errs = append(errs, err)
		if a.err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", d.node, a.err))
		}
	}
	return errors.Join(errs...)
}

// ask runs the command on one of several nodes, for a bounded time.
func (r *run) ask(ctx context.Context, set *daemonSet, d daemon) *answer {
	a := &answer{}
	limited, cancel := context.WithTimeout(ctx, r.nodeTimeout)
	defer cancel()
	a.err = r.runOn(limited, set, d, &a.out, &a.stderr)
	if errors.Is(limited.Err(), context.DeadlineExceeded) {
		a.err = fmt.Errorf("it did not answer within %v: see whether it is ready, or give it longer with --node-timeout", r.nodeTimeout)
	}
	return a
}

// takeNamespace lets status show the pods that kubectl would, without a pod and without -n: those of the current namespace. Other commands look at
// the whole node then.
func (r *run) takeNamespace(ctx context.Context, need string) error {
	f := r.cmd.Flags().Lookup(ctl.FlagNamespace)
	if need != ctl.NeedsFiles || len(r.args) > 0 || !r.has(ctl.FlagAllNamespaces) || r.flag(ctl.FlagAllNamespaces) == "true" || f.Changed {
		return nil
	}
	namespace, err := r.kube.currentNamespace(ctx)
	if err != nil {
		return err
	}
	return r.cmd.Flags().Set(ctl.FlagNamespace, namespace)
}

// findPod completes the pod's name and finds its node.
func (r *run) findPod(ctx context.Context) error {
	if len(r.args) == 0 || r.node != "" {
		return nil // all pods of a node; or one that the API server need not know any more
	}
	p, err := r.kube.pod(ctx, r.flag(ctl.FlagNamespace), r.args[0])
	if err != nil {
		return err
	}
	if p.node == "" {
		return fmt.Errorf("pod %s has no node yet: see `kubectl describe pod` for why", p.ref())
	}
	r.node = p.node
	r.args[0] = p.ref()
	// The name has it now.
	if f := r.cmd.Flags().Lookup(ctl.FlagNamespace); f != nil {
		f.Changed = false
	}
	return nil
}

// flag is the value of a flag of the command, "" if it has none of that name.
func (r *run) flag(name string) string {
	if f := r.cmd.Flags().Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// list is the value of a flag that may be repeated, nil if the command has none of that name.
func (r *run) list(name string) []string {
	f := r.cmd.Flags().Lookup(name)
	if f == nil {
		return nil
	}
	if v, ok := f.Value.(pflag.SliceValue); ok {
		return v.GetSlice()
	}
	return nil
}

// runOn runs the command on the node of a daemon.
func (r *run) runOn(ctx context.Context, set *daemonSet, d daemon, stdout, stderr io.Writer) error {
	out, err := r.output(stdout)
	if err != nil {
		return err
	}
	c := container{namespace: set.namespace, pod: d.name, name: set.container}
	if r.privileged {
		own, end, makeErr := r.kube.privileged(ctx, set, d.node, r.longest())
		if makeErr != nil {
			return errors.Join(makeErr, out.Close())
		}
		defer end()
		c = own
	}
	err = r.kube.exec(ctx, c, out, stderr, r.program...)
	return errors.Join(err, out.Close())
}

func (r *run) has(flag string) bool { return r.cmd.Flags().Lookup(flag) != nil }

const (
	// leastDeadline is how long a privileged pod lives at most, should nobody delete it; a command that takes longer extends it by as much.
	leastDeadline = time.Hour
	slack         = 5 * time.Minute
)

// longest is after what time the node ends a pod that was forgotten.
func (r *run) longest() time.Duration {
	d, err := time.ParseDuration(r.flag(ctl.FlagDuration))
	if err != nil {
		return leastDeadline // it has no such flag
	}
	return max(leastDeadline, d+slack)
}

// output is where the command's output goes: the file that it was to write is one of this machine.
func (r *run) output(stdout io.Writer) (io.WriteCloser, error) {
	file := r.flag(ctl.FlagWrite)
	if file == "" || file == "-" {
		return keptOpen{stdout}, nil
	}
	f, err := ctl.CreateFile(file)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", ctl.FlagWrite, err)
	}
	return f, nil
}

// keptOpen is a writer whose Close does nothing: the standard output is not the command's to close.
type keptOpen struct{ io.Writer }

func (keptOpen) Close() error { return nil }

// remote is plexusctl on the node, with the arguments that were given, but for what is ours.
func (r *run) remote() []string {
	var names []string
	for c := r.cmd; c.HasParent(); c = c.Parent() {
		names = append([]string{c.Name()}, names...)
	}
	args := append([]string{program}, names...)
	if r.has(ctl.FlagUntilEOF) {
		args = append(args, "--"+ctl.FlagUntilEOF)
	}
	switch {
	case r.privileged:
		args = append(args, "--"+ctl.FlagRoot+"="+hostRoot)
	case r.has(ctl.FlagRecorded):
		args = append(args, "--"+ctl.FlagRecorded)
	}
	ours := r.cmd.Root().PersistentFlags()
	r.cmd.Flags().Visit(func(f *pflag.Flag) {
		switch list, isList := f.Value.(pflag.SliceValue); {
		case ours.Lookup(f.Name) != nil || !f.Changed || f.Name == ctl.FlagAllNamespaces: // which is so without it
		case f.Name == ctl.FlagWrite:
			args = append(args, "--"+f.Name+"=-")
		case isList:
			for _, v := range list.GetSlice() {
				args = append(args, "--"+f.Name+"="+v)
			}
		default:
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return append(append(args, "--"), r.args...)
}
