// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ctl is the command plexusctl. It does what a container runtime does for a pod's sandbox: make a network namespace, run the
// CNI configuration of Plexus for it, and undo both. Pods and networks come from a folder of manifests; no cluster is needed.
package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source/manifest"
)

const (
	// netnsDir is where `ip netns` looks for named network namespaces.
	netnsDir = "/run/netns"
	// defaultConf is where a node has the configuration of Plexus.
	defaultConf = "/etc/cni/net.d/00-plexus.conflist"
	// defaultStateDir is not the plugin's own folder: the GC of the node's container runtime, which knows nothing of these
	// sandboxes, would take them for stale.
	defaultStateDir = "/var/lib/cni/plexusctl"
	// callTimeout bounds one call of Plexus; kubelet gives a whole sandbox that long.
	callTimeout = 4 * time.Minute
	// callGrace is how long Plexus may take to roll back after ctrl-C. Its own plugins get a few seconds each.
	callGrace = 2 * time.Minute
)

// Environment is what the commands need to know of the process that they run in.
type Environment struct {
	// Version is the text for `plexusctl version`.
	Version string
	// BinDir is the folder of the program: the plugins of an unpacked release or a build lie beside it.
	BinDir string
	// Colour allows escape sequences on stdout.
	Colour bool
}

// options are the flags that attach and detach have in common, and their own.
type options struct {
	dir       string
	recursive bool
	stateDir  string
	binDirs   []string
	conf      string
	netns     string
	output    string
	force     bool
}

// Command returns plexusctl. Output goes to the command's writers; its error is for the caller to print, and may have several
// lines, one for each thing that failed.
func Command(env Environment) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "plexusctl",
		Short: "See what Plexus did for the pods of a node, and find out what is wrong",
		Long: `See what Plexus did for the pods of a node, and find out what is wrong with it (status, trace, capture, stats, doctor); write and check network
definitions (nad); move from Multus (migrate); and try networks without a cluster (attach, detach).

Exit status of status, doctor, migrate and nad lint: 0 when nothing is wrong, 1 when something is, 2 when it could not be examined. All other
commands end with 1 after an error.`,
		Version:       env.Version,
		SilenceErrors: true, // main prints them, one line each
		SilenceUsage:  true, // it would hide the error
	})
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(statusCommand(env), traceCommand(env), captureCommand(), statsCommand(env), holdCommand())
	root.AddCommand(doctorCommand(env), migrateCommand(env), nadCommand(env))
	root.AddCommand(attachCommand(env), detachCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), env.Version)
			return err
		},
	})
	return root
}

func attachCommand(env Environment) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "attach -f FILE|DIR [POD...]",
		Short: "Create a network namespace for each pod and attach it to the pod's networks",
		Long: `Create a network namespace for each pod of the manifests, or for those named (NAME or NAMESPACE/NAME), attach it to the pod's networks with
Plexus, and show what each pod was given. It succeeds as a whole: if one pod fails, or on ctrl-C, all pods of this run are detached again.
A pod that is attached already is an error. Detach it first.`,
		Example: `  plexusctl attach -f examples/business-and-mgmt
  plexusctl attach -f examples/business-and-mgmt default/client --netns test -o yaml`,
		ValidArgsFunction: func(_ *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return podNames(&o), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runAttach(cmd.Context(), cmd, &o, env, args)
		},
	}
	o.addTo(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.conf, "conf", "", "read the CNI configuration of Plexus from `FILE` (default "+confName+" beside the manifests, else "+defaultConf+")")
	flags.StringVar(&o.netns, "netns", "", "use the network namespace `NAME`, one in "+netnsDir+" or a path, instead of creating one; for exactly one pod")
	flags.StringVarP(&o.output, "output", "o", formatTable, "print `FORMAT`: table, json or yaml")
	completeOutput(cmd, formatTable, formatJSON, formatYAML)
	return cmd
}

func detachCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "detach -f FILE|DIR [POD...]",
		Short: "Undo attach",
		Long: `Detach the pods that were attached with the same -f, or those of them named (NAME or NAMESPACE/NAME), from their networks, and delete the network
namespaces that attach created. It goes on after an error, and what failed is kept for the next detach. A pod that is not attached is not an
error. The manifests may be gone: what has to be undone is on record.

With --force a pod whose networks cannot be undone is forgotten all the same: its namespace is deleted, and what its plugins could not release
is named.

What plugins leave on the node, such as bridges, stays and is named.`,
		Example: `  plexusctl detach -f examples/business-and-mgmt
  plexusctl detach -f examples/business-and-mgmt default/client --force`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDetach(cmd.Context(), cmd, &o, args)
		},
	}
	o.addTo(cmd)
	cmd.Flags().BoolVar(&o.force, "force", false, "forget a pod even if its networks cannot be undone")
	return cmd
}

func (o *options) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&o.dir, "filename", "f", "", "read the manifests of pods and networks from `FILE` or a folder (required)")
	addRecursive(cmd, &o.recursive)
	flags.StringVar(&o.stateDir, "state-dir", defaultStateDir, "keep the state of plexusctl, and that of Plexus for it, in `DIR`")
	flags.StringArrayVar(&o.binDirs, "cni-bin", nil, "look for CNI plugins in `DIR`; may be repeated (default the folder of plexusctl, its subfolder cni and "+config.DefaultBinDir+")")
	for _, err := range []error{cmd.MarkFlagDirname("state-dir"), cmd.MarkFlagDirname("cni-bin")} {
		cobra.CheckErr(err) // only a flag of another name fails
	}
}

// completeOutput offers the values of the flag output to the shell.
func completeOutput(cmd *cobra.Command, values ...cobra.Completion) {
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
}

// podNames offers pods to the shell. What cannot be read offers none.
func podNames(o *options) []cobra.Completion {
	objects, _, err := loadManifests(o.dir, o.recursive, o.stateDir)
	if err != nil {
		return nil
	}
	var names []cobra.Completion
	for _, p := range objects.Pods {
		names = append(names, p.Ref.String())
	}
	return names
}

// absolute makes the folders independent of the working directory: they go into configurations and records.
func (o *options) absolute() error {
	if o.dir == "" {
		return errors.New("no manifests: name their file or folder with -f")
	}
	for _, path := range []*string{&o.dir, &o.stateDir} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	for i, dir := range o.binDirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		o.binDirs[i] = abs
	}
	return nil
}

func (o *options) runtime(cmd *cobra.Command) *runtime {
	r := newRuntime(o.stateDir, netdev.NewLinux(), &hostPlugins{Exec: &delegate.Exec{Timeout: callTimeout, Grace: callGrace}})
	r.force, r.warn = o.force, func(text string) { cmd.PrintErrln("plexusctl: " + printable(text)) }
	return r
}

func runAttach(ctx context.Context, cmd *cobra.Command, o *options, env Environment, args []string) error {
	if err := checkFormat(o.output); err != nil {
		return err
	}
	if err := o.absolute(); err != nil {
		return err
	}
	objects, staged, err := loadManifests(o.dir, o.recursive, o.stateDir)
	if err != nil {
		return err
	}
	pods, err := choosePods(objects, o.dir, args)
	if err != nil {
		return err
	}
	netns, err := netnsPath(o.netns, len(pods))
	if err != nil {
		return err
	}
	conf, err := loadConf(o.conf, folderOf(o.dir), o.stateDir)
	if err == nil && staged != nil {
		conf, err = prepareConf(conf, staged.path, o.stateDir)
	}
	if err != nil {
		return err
	}
	if len(o.binDirs) == 0 {
		o.binDirs = []string{env.BinDir, filepath.Join(env.BinDir, "cni"), config.DefaultBinDir}
	}
	var requests []request
	for _, p := range pods {
		requests = append(requests, request{pod: p, dir: o.dir, staged: staged, conf: conf, binDirs: o.binDirs, netns: netns})
	}
	status, err := o.runtime(cmd).attach(ctx, requests)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err = render(&out, o.output, status, env.Colour); err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(out.Bytes())
	return err
}

func runDetach(ctx context.Context, cmd *cobra.Command, o *options, args []string) error {
	if err := o.absolute(); err != nil {
		return err
	}
	r := o.runtime(cmd)
	told := 0
	say := func(format string, args ...any) {
		told++
		// What cannot be shown must not keep the rest from being undone.
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	}
	before := r.bridges()
	err := r.detach(ctx, o.dir, args, o.binDirs, func(p string, attached bool) {
		if attached {
			say("pod %s detached", printable(p))
		} else {
			say("pod %s was not attached, by the records in %s", printable(p), o.stateDir)
		}
	})
	if told == 0 && err == nil {
		say("no pod is attached from %s%s", o.dir, r.elsewhere(o.dir))
	}
	if left := r.leftover(before); len(left) > 0 {
		cmd.PrintErrf("left on the node: bridge %s; `ip link delete` removes one\n", strings.Join(left, ", "))
	}
	return err
}

// folderOf is the folder that a path names, or is in.
func folderOf(path string) string {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return filepath.Dir(path)
	}
	return path
}

// choosePods picks the pods named, or all.
func choosePods(objects *manifest.Objects, dir string, names []string) ([]pod.Ref, error) {
	var all []pod.Ref
	for _, p := range objects.Pods {
		all = append(all, p.Ref)
	}
	if len(names) == 0 {
		if len(all) == 0 {
			return nil, fmt.Errorf("no Pod in %s: add the manifest of one there", dir)
		}
		return all, nil
	}
	found, err := pick(all, names)
	if err != nil {
		return nil, err
	}
	if len(found.missing) > 0 {
		return nil, fmt.Errorf("no Pod %s in %s: correct the name, or add its manifest there", found.missing[0], dir)
	}
	return found.pods, nil
}
