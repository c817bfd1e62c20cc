// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/internal/bounded"
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

// errNoOutput says that a capture has nowhere to go.
var errNoOutput = errors.New("say where the packets go: -w FILE, or -w - for the standard output, as in `plexusctl capture POD INTERFACE -w - | wireshark -k -i -`")

// captureOptions are the flags of capture.
type captureOptions struct {
	nodeOptions

	packets  int
	duration time.Duration
	snapLen  int
	write    string
}

func captureCommand() *cobra.Command {
	var o captureOptions
	cmd := &cobra.Command{
		Use:   "capture POD INTERFACE -w FILE|-",
		Short: "Capture the packets of a pod's interface as a pcap file",
		Long: `Capture the packets that an interface of a pod (NAME, NAMESPACE/NAME or the beginning of a container ID) receives and sends, as a pcap file
with times in nanoseconds. Nothing is needed in the pod, and nothing changes there. It ends with the number of packets or the time that
was asked for, or on ctrl-C, always with a valid file; then it tells how many packets the kernel had to drop.

The packets of a pod may hold secrets: the file is readable by its owner only.`,
		Example: `  plexusctl capture web net1 -w web.pcap
  plexusctl capture shop/web eth0 -c 100000 -d 10m -w - | wireshark -k -i -`,
		Args:        arguments(2, 2),
		Annotations: map[string]string{RunsOnNode: NeedsRoot},
		PreRunE:     func(*cobra.Command, []string) error { return o.check() },
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
	flags.StringVarP(&o.write, FlagWrite, "w", "", "write to `FILE`, on the node; - for the standard output (required)")
	return cmd
}

func (o *captureOptions) check() error {
	switch {
	case o.write == "":
		return errNoOutput
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
	pcap := inspect.NewPcap(out, o.snapLen, o.packets)
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	cmd.PrintErrf("capturing on %s of pod %s, up to %d packets or %v; ctrl-C ends it\n", ifName, printable(pod.Ref()), o.packets, o.duration)
	drops, err := netdev.NewLinux().Capture(ctx, pod.NetNS, ifName, o.snapLen, pcap)
	err = errors.Join(without(err, inspect.ErrEnough), out.Close())
	cmd.PrintErrf("%d packets captured, %d dropped by the kernel\n", pcap.Written(), drops)
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
	if o.write == "-" {
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
