// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// stageDir holds all that the demo keeps on disk. /run is emptied by a reboot, as links and namespaces are.
const stageDir = "/run/plexus-demo"

// stage is the place of the show.
type stage struct {
	scr   *screen
	bin   string
	scene *scene
	// lock is the open stageDir, which only one demo at a time has locked.
	lock *os.File
}

// leasesDir is where host-local keeps the addresses that it gave.
const leasesDir = stageDir + "/leases"

func (st *stage) manifests() string { return filepath.Join(stageDir, "manifests") }
func (st *stage) state() string     { return filepath.Join(stageDir, "state") }

// openStage takes the place, and clears it of what an earlier run left.
func openStage(ctx context.Context, scr *screen, bin string, sc *scene) (*stage, error) {
	err := os.Mkdir(stageDir, 0o755)
	old := errors.Is(err, fs.ErrExist)
	if err != nil && !old {
		return nil, err
	}
	st := &stage{scr: scr, bin: bin, scene: sc}
	if st.lock, err = os.Open(stageDir); err != nil {
		return nil, err
	}
	if err = syscall.Flock(int(st.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another demo is running (it has %s locked): wait for its end", stageDir), st.lock.Close())
	}
	if old {
		scr.section("Clean up after an earlier run that did not come to its end")
		if err := st.undo(ctx); err != nil {
			return nil, errors.Join(err, st.lock.Close())
		}
		if err := st.empty(); err != nil {
			return nil, errors.Join(err, st.lock.Close())
		}
	}
	return st, nil
}

// empty removes what is on disk, but not the folder, which is the lock.
func (st *stage) empty() error {
	entries, err := os.ReadDir(stageDir)
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(stageDir, e.Name())))
	}
	return errors.Join(errs...)
}

// close gives the place back.
func (st *stage) close() error {
	return errors.Join(os.RemoveAll(stageDir), st.lock.Close())
}

// prepare makes the link that a macvlan network needs and writes the manifests.
func (st *stage) prepare() error {
	st.scr.done("the node is a network namespace of its own: this machine's links, routes and firewall are left alone")
	for _, master := range st.scene.masters {
		if err := makeNIC(master); err != nil {
			return fmt.Errorf("make link %s: %w", master, err)
		}
		st.scr.done("link %s is the node's NIC (one end of a veth pair)", master)
	}
	if err := st.scene.write(st.manifests()); err != nil {
		return err
	}
	st.scr.done("%d pods and %d network definitions are in %s", len(st.scene.pods), len(st.scene.definitions), st.manifests())
	st.scr.note("unchanged, but for host-local's dataDir: leases go to %s, not to /var/lib/cni", leasesDir)
	return nil
}

// makeNIC makes a link with a carrier. Its other end goes with it.
func makeNIC(name string) error {
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "veth%d"} // the kernel fills in a number
	pair.Name = name
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	other, err := netlink.LinkByIndex(link.Attrs().ParentIndex)
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(link), netlink.LinkSetUp(other))
}

// undo detaches the pods and removes the node's links.
func (st *stage) undo(ctx context.Context) error {
	if _, err := os.Stat(st.manifests()); err == nil {
		if err := st.plexusctl(ctx, "detach"); err != nil {
			return err
		}
	}
	var removed []string
	for _, name := range st.scene.links() {
		link, err := netlink.LinkByName(name)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			continue
		}
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil {
			return fmt.Errorf("remove link %s: %w", name, err)
		}
		removed = append(removed, name)
	}
	if len(removed) > 0 {
		st.scr.done("the node's own links are removed: %s", strings.Join(removed, ", "))
		st.scr.note("the bridge plugin keeps its bridges for the next pod")
	}
	return nil
}

// plexusctl runs the command in sight of the audience.
func (st *stage) plexusctl(ctx context.Context, verb string) error {
	args := []string{verb, "-f", st.manifests(), "--state-dir", st.state()}
	st.scr.command(append([]string{"plexusctl"}, args...))
	cmd := exec.CommandContext(ctx, filepath.Join(st.bin, "plexusctl"), args...)
	cmd.Stdout, cmd.Stderr = st.scr.out, os.Stderr
	// A group of its own: on ctrl-C, the terminal interrupts the demo alone, which then interrupts plexusctl once and lets it undo.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = undoLimit
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("plexusctl %s: %w", verb, err)
	}
	st.scr.done("%sed in %.1f s", verb, time.Since(start).Seconds())
	return nil
}
