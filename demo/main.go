// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command demo shows what Plexus is for, on the kernel of this machine: two pods on three networks each, with addresses of both
// families, a bandwidth limit that holds, and nothing left at the end. `make demo` builds what it needs and runs it as root.
//
// The node of the show is a network namespace of the process's own: this machine's links, routes, forwarding and firewall play no part
// and are left alone. All state is in /run/plexus-demo; the demo undoes what it does, also on ctrl-C, and what an earlier run that
// was killed left.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// limit bounds the whole show: it takes a quarter of a minute.
	limit = 2 * time.Minute
	// undoLimit bounds the undo, which no ctrl-C does.
	undoLimit = time.Minute
)

func main() {
	bin := flag.String("bin", "bin", "folder with plexusctl and plexus, and the reference plugins in its subfolder cni")
	example := flag.String("example", "examples/business-and-mgmt", "folder with the manifests to show")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, limit)
	err := run(ctx, newScreen(os.Stdout), *bin, *example)
	cancel()
	stop()
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(os.Stderr, "demo:", strings.TrimRight(line, "\n"))
	}
	os.Exit(1)
}

func run(ctx context.Context, scr *screen, bin, example string) error {
	bin, err := checkSetting(bin)
	if err != nil {
		return err
	}
	if err = becomeNode(); err != nil {
		return err
	}
	sc, err := loadScene(example)
	if err != nil {
		return err
	}
	scr.title("Plexus: two pods, three networks each, and nothing left behind")
	st, err := openStage(ctx, scr, bin, sc)
	if err != nil {
		return err
	}
	before, err := st.snapshot()
	if err != nil {
		return errors.Join(err, st.close())
	}
	attached, err := st.perform(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err != nil {
		scr.section("It did not get through: undo what was begun")
	} else {
		scr.section("Detach, and look for what is left")
	}
	if undoErr := st.undo(undoCtx); undoErr != nil {
		// The folder stays: the next run goes on with it.
		return errors.Join(err, undoErr)
	}
	proofErr := st.prove(undoCtx, before, attached)
	return errors.Join(err, proofErr, st.close())
}

// checkSetting says in one line what the demo needs, when it does not have it.
func checkSetting(bin string) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("network namespaces and links need root: run it as `sudo make demo`")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return "", err
	}
	for _, program := range []string{"plexus", "plexusctl", "cni/bridge", "cni/macvlan", "cni/bandwidth", "cni/host-local"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return "", fmt.Errorf("%w: build the programs with `make build plugins`, or run `make demo`, which does", err)
		}
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return "", errors.New("this kernel has no IPv6, which the networks of the demo use: boot it without ipv6.disable=1")
	}
	return bin, nil
}

// perform is the show, up to the undo. It returns what the machine holds while the pods are attached.
func (st *stage) perform(ctx context.Context) (*snapshot, error) {
	st.scr.section("The node, and the manifests of " + st.scene.dir)
	if err := st.prepare(); err != nil {
		return nil, err
	}
	st.scr.section("Attach both pods")
	if err := st.plexusctl(ctx, "attach"); err != nil {
		return nil, err
	}
	attached, err := st.snapshot()
	if err != nil {
		return nil, err
	}
	pods, err := st.pods()
	if err != nil {
		return &attached, err
	}
	a, b := pods[0], pods[1]
	st.scr.section(fmt.Sprintf("Ping from %s to %s", a.ref, b.ref))
	if err := pingAll(ctx, st.scr, a, b); err != nil {
		return &attached, err
	}
	st.scr.section(fmt.Sprintf("TCP throughput from %s to %s, %v each", a.ref, b.ref, sendFor))
	return &attached, measureAll(ctx, st.scr, a, b)
}
