// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/bounded"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/netdev"
)

// Bounds of a capture.
const (
	defaultPackets  = 10_000
	maxPackets      = 100_000_000
	defaultDuration = time.Minute
	maxDuration     = 24 * time.Hour
	minSnapLen      = 14 // an Ethernet header
)

// captureOptions are the flags of capture.
type captureOptions struct {
	nodeOptions

	packets  int
	duration time.Duration
	snapLen  int
	write    string
	filter   *inspect.Filter
}

func captureCommand() *cobra.Command {
	var o captureOptions
	cmd := &cobra.Command{
		Use:   "capture POD INTERFACE [FILTER...]",
		Short: "Capture the packets of a pod's interface",
		Long: `Capture the packets that an interface of a pod (NAME, NAMESPACE/NAME or the beginning of a container ID) receives and sends: a line of text for
each, or with -w a pcap file with times in nanoseconds. Nothing is needed in the pod, and nothing changes there. It ends after the number of
packets or the time that was asked for, or on ctrl-C, always with a valid file. Then it tells how many packets the kernel had to drop.

FILTER is an expression as tcpdump takes it, of these primitives: [src|dst] [host] ADDRESS, [src|dst] net CIDR, [tcp|udp|sctp] [src|dst] port N,
proto N, tcp, udp, sctp, icmp, icmp6, arp, ip, ip6; joined by and, or, not and parentheses.

The packets of a pod may hold secrets: a file is readable by its owner only.`,
		Example: `  plexusctl capture web net1 icmp or arp
  plexusctl capture web net1 'tcp port 443 and not host 10.56.0.1' -w web.pcap
  plexusctl capture shop/web eth0 -c 100000 -d 10m -w - | wireshark -k -i -`,
		Args:        arguments(2, -1),
		Annotations: map[string]string{RunsOnNode: NeedsRoot},
		PreRunE: func(_ *cobra.Command, args []string) error {
			var err error
			if o.filter, err = inspect.ParseFilter(strings.Join(args[2:], " ")); err != nil {
				return err
			}
			return o.check()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop, err := o.enter(cmd)
			if err != nil {
				return err
			}
			defer stop()
			return runCapture(ctx, cmd, &o, args[0], args[1])
		},
	}
	o.addTo(cmd)
	flags := cmd.Flags()
	flags.IntVarP(&o.packets, "count", "c", defaultPackets, "end after `COUNT` packets")
	flags.DurationVarP(&o.duration, FlagDuration, "d", defaultDuration, "end after this `TIME`")
	flags.IntVarP(&o.snapLen, "snaplen", "s", inspect.MaxSnapLen, "keep the first `BYTES` of each packet")
	flags.StringVarP(&o.write, FlagWrite, "w", "", "write a pcap file `FILE`, - for the standard output")
	return cmd
}

func (o *captureOptions) check() error {
	switch {
	case o.packets < 1 || o.packets > maxPackets:
		return fmt.Errorf("--count %d: use 1 to %d", o.packets, maxPackets)
	case o.duration <= 0 || o.duration > maxDuration:
		return fmt.Errorf("--duration %v: use more than 0 and at most %v", o.duration, maxDuration)
	case o.snapLen < minSnapLen || o.snapLen > inspect.MaxSnapLen:
		return fmt.Errorf("--snaplen %d: use %d to %d", o.snapLen, minSnapLen, inspect.MaxSnapLen)
	}
	return nil
}

func runCapture(ctx context.Context, cmd *cobra.Command, o *captureOptions, name, ifName string) error {
	pods, _, err := o.pods(cmd)
	if err != nil {
		return err
	}
	pod, err := choosePod(pods, o.namespace, name)
	if err != nil {
		return err
	}
	if err = chooseInterface(pod, ifName); err != nil {
		return err
	}
	out, err := o.open(cmd)
	if err != nil {
		return err
	}
	var packets interface {
		netdev.PacketSink
		Written() int
	} = inspect.NewPcap(out, o.snapLen, o.packets)
	if o.write == "" {
		packets = inspect.NewPacketText(out, o.packets)
	}
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	cmd.PrintErrf("capturing on %s of pod %s, up to %s or %v; ctrl-C ends it\n", ifName, printable(pod.Ref()), finding.Numbered(o.packets, "packet"), o.duration)
	var filter netdev.PacketFilter
	if o.filter != nil {
		filter = o.filter.Program
	}
	drops, err := netdev.NewLinux().CaptureFiltered(ctx, pod.NetNS, ifName, o.snapLen, filter, packets)
	err = errors.Join(without(err, inspect.ErrEnough), out.Close())
	cmd.PrintErrf("%s captured, %d dropped by the kernel\n", finding.Numbered(packets.Written(), "packet"), drops)
	if err != nil {
		return fmt.Errorf("capture on %s of pod %s: %w", ifName, pod.Ref(), withMend(err))
	}
	return nil
}

// without takes away an error that is none here.
func without(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// open opens what the packets are written to.
func (o *captureOptions) open(cmd *cobra.Command) (io.WriteCloser, error) {
	if o.write == "" || o.write == stdinName {
		return keptOpen{cmd.OutOrStdout()}, nil
	}
	f, err := CreateFile(o.write)
	if err != nil {
		return nil, fmt.Errorf("--write: %w", err)
	}
	return f, nil
}

// CreateFile creates a file for packets, or empties the one that is there, if that is the caller's own: nobody else can read it afterwards.
func CreateFile(path string) (*os.File, error) {
	const mode = 0o600
	f, err := bounded.OpenOwn(path, os.O_WRONLY, mode)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = errors.Join(f.Chmod(mode), f.Truncate(0))
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

// keptOpen is a writer whose Close does nothing: the standard output is not the command's to close.
type keptOpen struct{ io.Writer }

func (keptOpen) Close() error { return nil }
