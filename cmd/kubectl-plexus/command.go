// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
)

// options are the flags of `kubectl plexus` itself.
type options struct {
	node, namespace string
	privileged      bool
	kubeContext     string
	kubeconfig      string
}

// newCommand is plexusctl's own command, of which those that look at a node run there.
func newCommand(env ctl.Environment, k kube) *cobra.Command {
	var o options
	root := ctl.Command(env)
	root.Use = "kubectl-plexus"
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl plexus"}
	root.Short = "Look at the networks of pods"
	root.Long = `Look at the networks of pods: find the node of a pod, and run plexusctl there, with your own rights in the cluster.

What needs only Plexus' records and log runs in the pod of plexusd, which has no privilege on the node. What has to enter a pod's network
namespace needs root there: with --privileged it runs in a privileged pod of its own, which is deleted at the end.`
	flags := root.PersistentFlags()
	flags.StringVar(&o.node, "node", "", "look at the node `NAME`, rather than find out that of the pod")
	flags.BoolVar(&o.privileged, "privileged", false, "run in a privileged pod on the node, which is deleted at the end")
	flags.StringVar(&o.namespace, "plexus-namespace", defaultNamespace, "the Kubernetes namespace `NAME` that plexusd runs in")
	flags.StringVar(&o.kubeContext, "context", "", "kubectl's")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubectl's")
	for _, cmd := range slices.Clone(root.Commands()) {
		need, onNode := cmd.Annotations[ctl.RunsOnNode]
		switch {
		case slices.Contains([]string{"attach", "detach", ctl.HoldCommand}, cmd.Name()):
			root.RemoveCommand(cmd) // they are about this machine
		case onNode:
			cmd.ValidArgsFunction = nil
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
}

func (r *run) run(ctx context.Context, need string) error {
	if need == ctl.NeedsRoot && !r.privileged {
		return fmt.Errorf("%s enters the pod's network namespace, and plexusd has no privilege to: add --privileged, which runs it in a privileged pod on the node and deletes that at the end; or run `plexusctl %s` on the node, as root",
			r.cmd.Name(), r.cmd.Name())
	}
	if err := r.findPod(ctx); err != nil {
		return err
	}
	daemons, err := r.kube.daemons(ctx, r.namespace, r.node)
	if err != nil {
		return err
	}
	if len(daemons) == 0 && r.privileged {
		// Why it does not run is what the command may have to find out.
		if daemons, err = r.kube.places(ctx, r.namespace, r.node); err != nil {
			return err
		}
	}
	if len(daemons) == 0 {
		return r.noDaemon()
	}
	if format := r.flag("output"); len(daemons) > 1 && !slices.Contains([]string{"", "table", "text", "wide"}, format) {
		return fmt.Errorf("--output %s is for one node, and plexusd runs on %d: name one with --node, or a pod", format, len(daemons))
	}
	var errs []error
	for _, d := range daemons {
		if len(daemons) > 1 {
			r.cmd.PrintErrf("node %s\n", d.node)
		}
		errs = append(errs, r.runOn(ctx, d))
	}
	return errors.Join(errs...)
}

func (r *run) noDaemon() error {
	mend := "install Plexus, or name its namespace with --plexus-namespace"
	if !r.privileged {
		mend += "; if it is installed and does not start, add --privileged, which needs no daemon"
	}
	return fmt.Errorf("no plexusd runs in namespace %s%s: %s", r.namespace, cmp.Or(on(r.node), " on any node"), mend)
}

func on(node string) string {
	if node == "" {
		return ""
	}
	return " on node " + node
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

// runOn runs the command on the node of a daemon.
func (r *run) runOn(ctx context.Context, d daemon) error {
	out, err := r.output()
	if err != nil {
		return err
	}
	c := container{namespace: r.namespace, pod: d.name, name: d.container}
	extra := []string{}
	if r.has(ctl.FlagUntilEOF) {
		extra = append(extra, "--"+ctl.FlagUntilEOF)
	}
	if r.privileged {
		extra = append(extra, "--"+ctl.FlagRoot+"="+hostRoot)
		own, end, makeErr := r.kube.privileged(ctx, r.namespace, d, r.longest())
		if makeErr != nil {
			return errors.Join(makeErr, out.Close())
		}
		defer end()
		c = own
	} else if r.has(ctl.FlagRecorded) {
		extra = append(extra, "--"+ctl.FlagRecorded)
	}
	err = r.kube.exec(ctx, c, out, append([]string{program}, r.remote(extra)...)...)
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
func (r *run) output() (io.WriteCloser, error) {
	file := r.flag(ctl.FlagWrite)
	if file == "" || file == "-" {
		return keptOpen{r.cmd.OutOrStdout()}, nil
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

// remote are the arguments for plexusctl on the node: those that were given, but for what is ours.
func (r *run) remote(extra []string) []string {
	var names []string
	for c := r.cmd; c.HasParent(); c = c.Parent() {
		names = append([]string{c.Name()}, names...)
	}
	args := append(names, extra...)
	ours := r.cmd.Root().PersistentFlags()
	r.cmd.Flags().Visit(func(f *pflag.Flag) {
		switch list, isList := f.Value.(pflag.SliceValue); {
		case ours.Lookup(f.Name) != nil || !f.Changed:
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
