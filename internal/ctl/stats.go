// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// Bounds of the time between two lines.
const (
	minInterval     = 100 * time.Millisecond
	maxInterval     = time.Hour
	defaultInterval = time.Second
)

// statsOptions are the flags of stats.
type statsOptions struct {
	nodeOptions

	interval time.Duration
	count    int
	output   string
}

func statsCommand(env Environment) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "stats POD",
		Short: "Show the traffic of a pod's interfaces",
		Long: `Show, each second until ctrl-C, the traffic of each interface of a pod (NAME, NAMESPACE/NAME or the beginning of a container ID): bits and
packets per second, and how many packets were dropped or bad since the previous table, by the kernel's counters in the pod's network namespace.
Of a VF that a program drives (DPDK) the PF counts, without bad packets. -o json prints the counters themselves, once.`,
		Example: `  plexusctl stats web
  plexusctl stats shop/web --interval 10s --count 6
  plexusctl stats web -o json`,
		Args:        arguments(1, 1),
		Annotations: map[string]string{RunsOnNode: NeedsRoot},
		PreRunE:     func(cmd *cobra.Command, _ []string) error { return o.check(cmd.Flags().Changed) },
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop, err := o.enter(cmd)
			if err != nil {
				return err
			}
			defer stop()
			return runStats(ctx, cmd, &o, args[0], paint{on: env.Colour})
		},
	}
	o.addTo(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&o.interval, "interval", defaultInterval, "print a table after each `TIME`")
	flags.IntVar(&o.count, "count", 0, "end after `COUNT` tables; 0 for no end")
	flags.StringVarP(&o.output, "output", "o", formatTable, "print `FORMAT`: table, or json for the counters, once")
	completeOutput(cmd, formatTable, formatJSON)
	return cmd
}

func (o *statsOptions) check(changed func(string) bool) error {
	switch {
	case o.output != formatTable && o.output != formatJSON:
		return fmt.Errorf("--output %q: use %s or %s", o.output, formatTable, formatJSON)
	case o.output == formatJSON && (changed("interval") || changed("count")):
		return fmt.Errorf("--output %s prints the counters once: omit --interval and --count, or call it again", formatJSON)
	case o.interval < minInterval || o.interval > maxInterval:
		return fmt.Errorf("--interval %v: use %v to %v", o.interval, minInterval, maxInterval)
	case o.count < 0:
		return fmt.Errorf("--count %d: use 0 for no end, or more", o.count)
	}
	return nil
}

func runStats(ctx context.Context, cmd *cobra.Command, o *statsOptions, name string, p paint) error {
	pods, _, err := o.pods(cmd)
	if err != nil {
		return err
	}
	pod, err := choosePod(pods, o.namespace, name)
	if err != nil {
		return err
	}
	kernel, devices := netdev.NewLinux(), sysfs.New("/sys")
	before, err := sample(kernel, devices, pod)
	if err != nil {
		return err
	}
	if o.output == formatJSON {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(countersOf(pod, before))
	}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	for shown := 0; o.count == 0 || shown < o.count; shown++ {
		select {
		case <-ctx.Done():
			return nil // ctrl-C is how it ends
		case <-tick.C:
		}
		now, err := sample(kernel, devices, pod)
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if shown > 0 {
			out.WriteByte('\n')
		}
		out.WriteString(p.bold("pod "+printable(pod.Ref())) + "  " + p.dim(now.Time.UTC().Format("2006-01-02 15:04:05.0 UTC")) + "\n")
		if err := rateTable(pod, inspect.Rates(before, now)).write(&out, p); err != nil {
			return err
		}
		if _, err := cmd.OutOrStdout().Write(out.Bytes()); err != nil {
			return err
		}
		before = now
	}
	return nil
}

// counter reads counters of interfaces and of VFs.
type counter interface {
	LinkStats(netns string) ([]netdev.LinkStats, error)
	VFStats(pf string, id int) (netdev.LinkStats, error)
}

// sample reads the counters of a pod's interfaces but lo. Those of a VF that a program drives, without an interface, its PF has.
func sample(k counter, devices *sysfs.FS, pod *inspect.Pod) (inspect.Sample, error) {
	stats, err := k.LinkStats(pod.NetNS)
	if err != nil {
		return inspect.Sample{}, fmt.Errorf("pod %s: %w", pod.Ref(), withMend(err))
	}
	stats = slices.DeleteFunc(stats, func(s netdev.LinkStats) bool { return s.Name == "lo" })
	for _, i := range pod.Interfaces {
		if i.Driver == "" {
			continue
		}
		vf, err := devices.VF(sysfs.Address(i.Device))
		if errors.Is(err, sysfs.ErrNotVF) {
			continue // a whole device, of which nobody else counts
		}
		var counted netdev.LinkStats
		if err == nil {
			counted, err = k.VFStats(vf.PFNetDev, vf.Index)
		}
		if err != nil {
			return inspect.Sample{}, fmt.Errorf("pod %s: interface %s: %w", pod.Ref(), i.Name, withMend(err))
		}
		counted.Name, counted.Index = i.Name, -1-vf.Index // which no interface has
		stats = append(stats, counted)
	}
	return inspect.Sample{Time: time.Now(), Stats: stats}, nil
}

// networkOf is the network of an interface, "" for none.
func networkOf(pod *inspect.Pod, ifName string) string {
	for i := range pod.Interfaces {
		if pod.Interfaces[i].Name == ifName {
			return pod.Interfaces[i].Network
		}
	}
	return ""
}

func rateTable(pod *inspect.Pod, rates []inspect.Rate) table {
	t := table{head: []string{
		"INTERFACE", "NETWORK", "RX BIT/S", "RX PKT/S", "RX DROP", "RX ERR", "TX BIT/S", "TX PKT/S", "TX DROP", "TX ERR",
	}}
	for _, r := range rates {
		cells := row{{r.Name}, {networkOf(pod, r.Name)}}
		for _, f := range []inspect.Flow{r.Rx, r.Tx} {
			cells = append(cells, row{
				{short(f.BitsPerSecond)}, {short(f.PacketsPerSecond)}, {strconv.FormatUint(f.Dropped, 10)}, {strconv.FormatUint(f.Errors, 10)},
			}...)
		}
		for x, cell := range cells {
			cells[x] = clean(cell)
		}
		t.rows = append(t.rows, cells)
	}
	return t
}

// short shows a number with three digits and a unit of thousands.
func short(v float64) string {
	for _, unit := range []string{"", "k", "M", "G"} {
		switch {
		case v < 9.995 && unit != "":
			return fmt.Sprintf("%.2f%s", v, unit)
		case v < 99.95 && unit != "":
			return fmt.Sprintf("%.1f%s", v, unit)
		case v < 999.5:
			return fmt.Sprintf("%.0f%s", v, unit)
		}
		v /= 1000
	}
	return fmt.Sprintf("%.3gT", v)
}

// counters is what -o json tells.
type counters struct {
	Pod         string              `json:"pod"`
	ContainerID string              `json:"containerID"`
	NetNS       string              `json:"netns"`
	Time        time.Time           `json:"time"`
	Interfaces  []interfaceCounters `json:"interfaces"`
}

type interfaceCounters struct {
	Name     string    `json:"name"`
	Network  string    `json:"network,omitempty"`
	Rx       direction `json:"rx"`
	Tx       direction `json:"tx"`
	RxMissed uint64    `json:"rxMissed"`
}

type direction struct {
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
	Errors  uint64 `json:"errors"`
	Dropped uint64 `json:"dropped"`
}

func countersOf(pod *inspect.Pod, s inspect.Sample) counters {
	c := counters{Pod: pod.Ref(), ContainerID: pod.ContainerID, NetNS: pod.NetNS, Time: s.Time, Interfaces: []interfaceCounters{}}
	for _, l := range s.Stats {
		c.Interfaces = append(c.Interfaces, interfaceCounters{
			Name: l.Name, Network: networkOf(pod, l.Name), Rx: direction(l.Rx), Tx: direction(l.Tx), RxMissed: l.RxMissed,
		})
	}
	return c
}
