// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/doctor"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// doctorOptions are the flags of doctor.
type doctorOptions struct {
	nodeOptions

	output     string
	fix, probe bool
	ranges     []string
	binDirs    []string
	timeout    time.Duration
}

func doctorCommand(env Environment) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor [POD]",
		Short: "Find out what keeps the pods of this node from their networks, and how to fix it",
		Long: `Find out what keeps the pods of this node, or one (NAME, NAMESPACE/NAME or the beginning of a container ID), from their networks: the container
runtime's configuration, plugins, daemon and credentials, address pools, records and network namespaces, links, routes, SR-IOV and devices. Each
finding has a stable code and says what is wrong and how to fix it. Equal findings about one object are reported once.

It changes nothing unless you give --fix: then it releases what sandboxes that are gone still hold, with Plexus' own DEL. It sends nothing unless
you give --probe: then it probes the gateways of the pods (ARP, neighbour discovery).

The exit status is 1 if there is an error among the findings, and 2 if there is none but a check could not be done.`,
		Example: `  plexusctl doctor
  plexusctl doctor shop/web --probe
  plexusctl doctor --fix
  plexusctl doctor --range service=10.96.0.0/12 -o json`,
		Args:        arguments(0, 1),
		Annotations: map[string]string{examines: "", RunsOnNode: NeedsRoot},
		PreRunE:     func(*cobra.Command, []string) error { return o.check() },
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop, err := o.enter(cmd)
			if err != nil {
				return err
			}
			defer stop()
			return runDoctor(ctx, cmd, &o, env, append(args, "")[0])
		},
	}
	o.addTo(cmd)
	o.addAllNamespaces(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&o.output, "output", "o", formatText, "print `FORMAT`: text, json, sarif or github (workflow commands of GitHub Actions)")
	flags.BoolVar(&o.fix, "fix", false, "release what sandboxes that are gone still hold: addresses, devices, records")
	flags.BoolVar(&o.probe, "probe", false, "probe gateways that no pod has sent anything to lately")
	flags.StringArrayVar(&o.ranges, "range", nil, "tell that the cluster uses `USE=CIDR` (USE is pod, service or node), which no network should overlap; may be repeated")
	flags.StringArrayVar(&o.binDirs, "cni-bin", nil, "look for CNI plugins in `DIR` as well; may be repeated (default only the key binDir, else "+config.DefaultBinDir+")")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Second, "give each check `DURATION`")
	completeOutput(cmd, formatText, formatJSON, formatSARIF, formatGitHub)
	return cmd
}

// formatText is the output for people.
const formatText = "text"

func (o *doctorOptions) check() error {
	if err := checkFindingsFormat(o.output); err != nil {
		return err
	}
	if o.timeout <= 0 {
		return fmt.Errorf("--timeout %v: use more than 0, such as 5s", o.timeout)
	}
	_, err := parseRanges(o.ranges)
	return err
}

// parseRanges reads USE=CIDR.
func parseRanges(texts []string) ([]doctor.Range, error) {
	var ranges []doctor.Range
	for _, text := range texts {
		use, cidr, ok := strings.Cut(text, "=")
		if !ok || !slices.Contains([]string{"pod", "service", "node"}, use) {
			return nil, fmt.Errorf("--range %q: use pod=CIDR, service=CIDR or node=CIDR", text)
		}
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, fmt.Errorf("--range %q: %w: write the CIDR like 10.96.0.0/12", text, err)
		}
		ranges = append(ranges, doctor.Range{Use: use, Prefix: prefix.Masked()})
	}
	return ranges, nil
}

func runDoctor(ctx context.Context, cmd *cobra.Command, o *doctorOptions, env Environment, name string) error {
	ranges, err := parseRanges(o.ranges)
	if err != nil {
		return err
	}
	// Without the node's own there is something to find out; a file that was named is there, or its name is wrong.
	if _, err := os.Stat(o.conf); err != nil && o.conf != defaultConf {
		return fmt.Errorf("--conf: %w", withMend(err))
	}
	d := &doctor.Doctor{
		Conf: o.conf, StateDirs: o.stateDirs, BinDirs: o.binDirs, Paths: doctor.DefaultPaths(), Kernel: netdev.NewLinux(), Sysfs: sysfs.New("/sys"),
		JSON: func(data []byte) ([]byte, error) { return yaml.YAMLToJSON(data) }, Now: time.Now,
		Probe: o.probe, Fix: o.fix, Ranges: ranges, Timeout: o.timeout,
	}
	if len(d.StateDirs) == 0 {
		d.StateDirs = []string{defaultStateDir}
	}
	o.narrow(d, name)
	findings := d.Examine(ctx)
	var out bytes.Buffer
	if err := writeFindings(&out, o.output, findings, doctorKinds(), env); err != nil {
		return err
	}
	if _, err := cmd.OutOrStdout().Write(out.Bytes()); err != nil {
		return err
	}
	if err := findingsVerdict(findings, finding.Error); err != nil {
		return err
	}
	return undone(findings)
}

// undone is an error when a check could not be done: what it looks for may be there.
func undone(findings []doctor.Finding) error {
	n := 0
	for _, f := range findings {
		if f.Code == doctor.CheckFailed {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%s could not be done", finding.Numbered(n, "check"))
}

// narrow makes the doctor look at one pod, or at those of a namespace.
func (o *doctorOptions) narrow(d *doctor.Doctor, name string) {
	switch {
	case name == "" && o.namespace == "":
		return
	case name == "":
		d.Pod = o.namespace + "/"
	case o.namespace != "" && !strings.Contains(name, "/"):
		d.Pod = o.namespace + "/" + name
	default:
		d.Pod = name
	}
	d.Choose = func(pods []inspect.Pod) ([]inspect.Pod, error) { return filterPods(pods, o.namespace, name) }
}
