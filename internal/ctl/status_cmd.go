// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
)

// Output formats of status alone.
const (
	formatWide = "wide"
	formatDOT  = "dot"
	formatSVG  = "svg"
)

func statusCommand(env Environment) *cobra.Command {
	var o nodeOptions
	var output string
	var watch bool
	cmd := &cobra.Command{
		Use:   "status [POD]",
		Short: "Show the pods of this node with all their interfaces",
		Long: `Show the pods that are on record on this node, or one (NAME, NAMESPACE/NAME or the beginning of a container ID), with all their interfaces:
what Plexus recorded of each, and what the kernel has now. What is wrong with a pod stands below it, with the fix. "?" stands for what was not
looked at, "-" for what is not there.

With --watch it shows them again after each change of a record, or of links, addresses and routes in a pod, until ctrl-C.

The exit status is 1 if something is wrong: an attachment that failed or was left midway, an interface that is missing, down or without
an address that it was given, a pod whose network namespace is gone, a record that cannot be read. It is 2 if the node could not be examined.`,
		Example: `  plexusctl status
  plexusctl status -n shop -o wide
  plexusctl status web -o svg > web.svg`,
		Args:        arguments(0, 1),
		Annotations: map[string]string{examines: "", RunsOnNode: NeedsFiles},
		PreRunE: func(*cobra.Command, []string) error {
			if watch && slices.Contains([]string{formatDOT, formatSVG}, output) {
				return fmt.Errorf("--%s with --output %s: use table, wide, json or yaml", FlagWatch, output)
			}
			return checkStatusFormat(output)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop, err := o.enter(cmd)
			if err != nil {
				return err
			}
			defer stop()
			name := append(args, "")[0]
			if watch {
				return watchStatus(ctx, cmd, &o, output, env.Colour, name)
			}
			return runStatus(cmd, &o, output, env.Colour, name)
		},
	}
	o.addTo(cmd)
	o.addAllNamespaces(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.recorded, FlagRecorded, false, "show only what is on record: do not look at network namespaces, which takes root on the node")
	flags.BoolVarP(&watch, FlagWatch, "w", false, "show the pods again after each change, until ctrl-C")
	flags.StringVarP(&output, "output", "o", formatTable, "print `FORMAT`: table, wide, json, yaml, or a drawing: dot (Graphviz) or svg")
	completeOutput(cmd, formatTable, formatWide, formatJSON, formatYAML, formatDOT, formatSVG)
	return cmd
}

func checkStatusFormat(format string) error {
	formats := []string{formatTable, formatWide, formatJSON, formatYAML, formatDOT, formatSVG}
	if !slices.Contains(formats, format) {
		return fmt.Errorf("--output %q: use %s", format, strings.Join(formats, ", "))
	}
	return nil
}

func runStatus(cmd *cobra.Command, o *nodeOptions, output string, colour bool, name string) error {
	var out bytes.Buffer
	pods, unreadable, err := showStatus(&out, cmd, o, output, colour, name)
	if err != nil {
		return err
	}
	if _, err := cmd.OutOrStdout().Write(out.Bytes()); err != nil {
		return err
	}
	if name != "" {
		unreadable = 0 // of other pods, as this one's can be read
	}
	return verdict(pods, unreadable)
}

// showStatus writes the pods that are asked for, and returns them and how many records cannot be read.
func showStatus(w io.Writer, cmd *cobra.Command, o *nodeOptions, output string, colour bool, name string) ([]inspect.Pod, int, error) {
	all, unreadable, err := o.pods(cmd)
	if err != nil {
		return nil, 0, err
	}
	pods, err := filterPods(all, o.namespace, name)
	switch {
	case err != nil:
	case len(pods) == 0 && o.namespace != "" && (output == formatTable || output == formatWide):
		_, err = fmt.Fprintf(w, "no pod of namespace %s is on record; -A shows those of all namespaces\n", printable(o.namespace))
	default:
		err = renderPods(w, output, pods, paint{on: colour}, o.recorded)
	}
	return pods, unreadable, err
}

// watchStatus shows pods until ctx is done. A pod that is not there yet may come.
func watchStatus(ctx context.Context, cmd *cobra.Command, o *nodeOptions, output string, colour bool, name string) error {
	w := &watcher{out: cmd.OutOrStdout(), stateDirs: o.node(true).StateDirs, clear: "\n"}
	if !o.recorded {
		w.kernel = netdev.NewLinux()
	}
	if colour { // a terminal
		w.clear = "\x1b[H\x1b[2J"
	}
	w.show = func(out io.Writer) ([]inspect.Pod, error) {
		pods, _, err := showStatus(out, cmd, o, output, colour, name)
		if _, missing := errors.AsType[*missingPodError](err); missing {
			err = renderPods(out, output, nil, paint{on: colour}, o.recorded)
		}
		return pods, err
	}
	return w.run(ctx)
}

// verdict is an error when something is wrong with a pod, or records cannot be read.
func verdict(pods []inspect.Pod, unreadable int) error {
	var bad, wrong []string
	for i := range pods {
		if len(pods[i].Problems) > 0 {
			bad = append(bad, pods[i].Ref())
		}
	}
	switch {
	case len(bad) == 0:
	case len(pods) == 1:
		wrong = append(wrong, "something is wrong with pod "+bad[0])
	default:
		wrong = append(wrong, fmt.Sprintf("something is wrong with %d of %d pods: %s", len(bad), len(pods), strings.Join(slices.Compact(bad), ", ")))
	}
	if unreadable > 0 {
		wrong = append(wrong, finding.Numbered(unreadable, "record")+" could not be read")
	}
	if len(wrong) == 0 {
		return nil
	}
	return &verdictError{strings.Join(wrong, "; ")}
}

// renderPods writes pods in a format.
func renderPods(w io.Writer, format string, pods []inspect.Pod, p paint, recorded bool) error {
	var text []byte
	var err error
	switch format {
	case formatJSON:
		if text, err = json.MarshalIndent(present(pods), "", "  "); err == nil {
			text = append(text, '\n')
		}
	case formatYAML:
		text, err = yaml.Marshal(present(pods))
	case formatDOT:
		text = inspect.DOT(pods)
	case formatSVG:
		text = inspect.SVG(pods)
	default:
		return podTables(w, pods, p, format == formatWide, recorded)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func podTables(w io.Writer, pods []inspect.Pod, p paint, wide, recorded bool) error {
	if len(pods) == 0 {
		_, err := fmt.Fprintln(w, "no pod is on record")
		return err
	}
	for i := range pods {
		pod := &pods[i]
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(w, podTitle(pod, p, wide)); err != nil {
			return err
		}
		if err := interfaceTable(pod, wide, recorded).write(w, p); err != nil {
			return err
		}
		for _, problem := range pod.Problems {
			if _, err := fmt.Fprintln(w, p.bold("  ! ")+printable(problem)); err != nil {
				return err
			}
		}
	}
	return nil
}

func podTitle(pod *inspect.Pod, p paint, wide bool) string {
	kind := "pod "
	if pod.Name == "" {
		kind = "container "
	}
	title := p.bold(kind+printable(pod.Ref())) + "  " + string(pod.State)
	details := "netns " + cmp.Or(printable(pod.NetNS), "-")
	if wide {
		details += "  container " + printable(pod.ContainerID) + "  since " + moment(pod.Began) + "  state " + printable(pod.StateDir)
	}
	return title + "  " + p.dim(details)
}

// moment shows a time to the second.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// unknown stands in a table for what was not looked at; "-" stands for what is not there.
const unknown = "?"

// interfaceTable shows the interfaces of a pod. What only the kernel tells has no column if it was not to be asked.
func interfaceTable(pod *inspect.Pod, wide, recorded bool) table {
	t := table{head: []string{"INTERFACE", "NETWORK", "STATE"}}
	if !recorded {
		t.head = append(t.head, "LINK")
	}
	t.head = append(t.head, "ADDRESSES")
	if !recorded {
		t.head = append(t.head, "DEFAULT ROUTE")
	}
	t.head = append(t.head, "MAC", "MTU", "DEVICE")
	if wide {
		t.head = append(t.head, "PLUGINS", "HOST LINK")
	}
	looked := pod.Seen && pod.State != inspect.Gone && !recorded
	for i := range pod.Interfaces {
		t.rows = append(t.rows, interfaceRow(&pod.Interfaces[i], looked, wide, recorded))
	}
	return t
}

func interfaceRow(i *inspect.Interface, looked, wide, recorded bool) row {
	told := looked || i.Recorded != nil // who reported nothing of an interface may have given it anything
	known := func(is bool, texts ...string) []string {
		if len(texts) == 0 && !is {
			return []string{unknown}
		}
		return texts
	}
	mac, mtu := some(i.MAC()), []string(nil)
	if n := i.MTU(); n > 0 {
		mtu = []string{strconv.Itoa(n)}
	}
	r := row{{i.Name}, {i.Network}, {string(i.State)}}
	if !recorded {
		r = append(r, known(looked || i.Driver != "", some(linkState(i, looked))...))
	}
	r = append(r, known(told, texts(i.Addresses())...))
	if !recorded {
		r = append(r, known(looked, defaultRoutes(i.Live)...))
	}
	r = append(r, known(looked, mac...), known(looked, mtu...), some(strings.TrimSpace(i.Device+" "+i.Driver)))
	if wide {
		r = append(r, i.Plugins, some(i.HostLink))
	}
	for x, cell := range r {
		r[x] = clean(cell)
	}
	return r
}

// some is a list of a text, or of none if it is empty.
func some(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// linkState is what the kernel tells of an interface in a word.
func linkState(i *inspect.Interface, looked bool) string {
	switch {
	case i.Driver != "":
		return "userspace"
	case i.Live == nil && looked && i.Recorded != nil:
		return "missing"
	case i.Live == nil:
		return ""
	case !i.Live.Up:
		return "down"
	case !i.Live.Carrier:
		return "no carrier"
	}
	return "up"
}

func texts(prefixes []netip.Prefix) []string {
	var lines []string
	for _, p := range prefixes {
		lines = append(lines, p.String())
	}
	return lines
}

func defaultRoutes(l *inspect.Live) []string {
	if l == nil {
		return nil
	}
	var lines []string
	for _, r := range l.DefaultRoutes {
		line := fmt.Sprintf("IPv%d", r.Family)
		if r.Gateway.IsValid() {
			line = "via " + r.Gateway.String()
		}
		lines = append(lines, line)
	}
	return lines
}
