// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host stands, where the path of a network namespace is asked for, for that of the caller.
const Host = ""

// LinkSetting is a part of a link that is set at once.
type LinkSetting string

// The settings of a link.
const (
	LinkUp           LinkSetting = "up"
	LinkMAC          LinkSetting = "mac"
	LinkMTU          LinkSetting = "mtu"
	LinkPromisc      LinkSetting = "promisc"
	LinkAllMulticast LinkSetting = "allMulticast"
	LinkAltNames     LinkSetting = "altnames"
)

// Move says how a link shall be in the network namespace that it is moved to.
type Move struct {
	Name string
	// MTU is in bytes; 0 leaves it.
	MTU int
	// MAC is left as it is when empty.
	MAC string
}

// links is what a mover of devices asks of a kernel, real or fake.
type links interface {
	Link(netnsPath, name string) (Link, error)
	SetLink(netnsPath string, s LinkSetting, to Link) error
	MoveLink(from string, index int, to string, m Move) error
	LinkEvents(ctx context.Context, netnsPath string) (<-chan struct{}, error)
	NetNSID(path string) (string, error)
}

var (
	_ links = (*Linux)(nil)
	_ links = (*Fake)(nil)
)

// Link finds an interface by its name; alternative names do not count. The error matches [ErrNoLink] when there is none. Like
// `ip -n NETNS link show NAME`.
func (l *Linux) Link(netnsPath, name string) (Link, error) {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return Link{}, err
	}
	defer s.Close()
	found, err := s.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) || (err == nil && found.Attrs().Name != name) {
		return Link{}, fmt.Errorf("%w: %s", ErrNoLink, name)
	}
	if err != nil {
		return Link{}, fmt.Errorf("find interface %s: %w", name, err)
	}
	link := linkOf(found.Attrs())
	if link.Parent == "" {
		link.Parent = parents(netnsPath, []string{name})[name]
	}
	return link, nil
}

// linkOf translates all but the addresses.
func linkOf(a *netlink.LinkAttrs) Link {
	return Link{
		Name: a.Name, MAC: a.HardwareAddr, MTU: a.MTU, Index: a.Index, AltNames: slices.Clone(a.AltNames), Parent: a.ParentDev,
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Promisc: a.RawFlags&unix.IFF_PROMISC != 0, AllMulticast: a.RawFlags&unix.IFF_ALLMULTI != 0,
	}
}

// parents asks the drivers of interfaces for their devices, where the kernel does not tell by netlink (before Linux 5.14). Interfaces
// without one are left out. Like the bus-info of `ethtool -i`.
func parents(netnsPath string, names []string) map[string]string {
	found := map[string]string{}
	// Without an answer the caller does not find the device, and says so.
	_ = inNetNS(netnsPath, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for _, name := range names {
			if info, err := unix.IoctlGetEthtoolDrvinfo(fd, name); err == nil {
				if bus := unix.ByteSliceToString(info.Bus_info[:]); bus != "" {
					found[name] = bus
				}
			}
		}
		return nil
	})
	return found
}

// SetLink sets one part of a link, that of index to.Index, to what it is in to. Like `ip -n NETNS link set ...`.
func (l *Linux) SetLink(netnsPath string, s LinkSetting, to Link) error {
	h, err := openSandbox(netnsPath)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.setLink(s, to); err != nil {
		return fmt.Errorf("set %s of interface %s: %w", s, to.Name, err)
	}
	return nil
}

func (s sandbox) setLink(setting LinkSetting, to Link) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: to.Index}}
	either := func(on bool, yes, no func(netlink.Link) error) error {
		if on {
			return yes(link)
		}
		return no(link)
	}
	switch setting {
	case LinkUp:
		return either(to.Up, s.LinkSetUp, s.LinkSetDown)
	case LinkPromisc:
		return either(to.Promisc, s.SetPromiscOn, s.SetPromiscOff)
	case LinkAllMulticast:
		return either(to.AllMulticast, s.LinkSetAllmulticastOn, s.LinkSetAllmulticastOff)
	case LinkMAC:
		return s.LinkSetHardwareAddr(link, to.MAC)
	case LinkMTU:
		return s.LinkSetMTU(link, to.MTU)
	case LinkAltNames:
		return s.setAltNames(link, to.AltNames)
	}
	return fmt.Errorf("no setting %q", setting)
}

// setAltNames removes and adds names until they are as wanted.
func (s sandbox) setAltNames(link netlink.Link, want []string) error {
	now, err := s.LinkByIndex(link.Attrs().Index)
	if err != nil {
		return err
	}
	for _, name := range now.Attrs().AltNames {
		if !slices.Contains(want, name) {
			if err := s.LinkDelAltName(link, name); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	for _, name := range want {
		if !slices.Contains(now.Attrs().AltNames, name) {
			if err := s.LinkAddAltName(link, name); err != nil {
				return fmt.Errorf("add %s: %w", name, err)
			}
		}
	}
	return nil
}

// MoveLink moves a link from one network namespace to another, with a new name, MTU and MAC, in one message (as Linux has done since
// 2.6.33), so that there is no moment in which it is there half done, for udev or for a crash to find.
//
// It is not atomic when it fails: the kernel moves first, and what it refuses then (a name that is taken: EEXIST) leaves the link moved,
// under its old name. The caller has to look for it in both. Like `ip -n FROM link set dev NAME netns TO name NAME`.
func (l *Linux) MoveLink(from string, index int, to string, m Move) error {
	if err := moveLink(from, index, to, m); err != nil {
		return fmt.Errorf("move interface to %s as %s: %w", placeOf(to), m.Name, err)
	}
	return nil
}

func placeOf(netnsPath string) string {
	if netnsPath == Host {
		return "the host"
	}
	return "sandbox " + netnsPath
}

func moveLink(from string, index int, to string, m Move) error {
	var mac net.HardwareAddr
	if m.MAC != "" {
		var err error
		if mac, err = net.ParseMAC(m.MAC); err != nil {
			return err
		}
	}
	s, err := openSandbox(from)
	if err != nil {
		return err
	}
	defer s.Close()
	target, err := openNetNS(pathOf(to))
	if err != nil {
		return fmt.Errorf("open sandbox: %w", err)
	}
	defer func() { _ = target.Close() }()
	return s.LinkModify(&netlink.Device{LinkAttrs: netlink.LinkAttrs{
		Index: index, Name: m.Name, MTU: m.MTU, HardwareAddr: mac, Namespace: netlink.NsFd(int(target.Fd())),
		TxQLen: -1, // 0 would set it
	}})
}

// pathOf is where a network namespace can be opened.
func pathOf(netnsPath string) string {
	if netnsPath == Host {
		return "/proc/thread-self/ns/net"
	}
	return netnsPath
}

// LinkEvents tells, until ctx is done, that some link of the network namespace has appeared or changed. Events that come faster than they
// are taken are one. The channel is closed when no more can be told.
func (l *Linux) LinkEvents(ctx context.Context, netnsPath string) (<-chan struct{}, error) {
	f, err := openNetNS(pathOf(netnsPath))
	if err != nil {
		return nil, fmt.Errorf("open sandbox: %w", err)
	}
	defer func() { _ = f.Close() }()
	ns := netns.NsHandle(f.Fd())
	updates := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{Namespace: &ns}); err != nil {
		return nil, fmt.Errorf("watch links: %w", err)
	}
	events := make(chan struct{}, 1)
	go func() {
		defer close(events)
		for range updates {
			select {
			case events <- struct{}{}:
			default: // one is waiting to be taken
			}
		}
	}()
	return events, nil
}

// NetNSID identifies the network namespace at path among all that live now: a path may be used again. The error matches
// [fs.ErrNotExist] when there is none at path.
func (l *Linux) NetNSID(path string) (string, error) {
	is, err := l.IsNetNS(path)
	if err != nil {
		return "", err
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil || !is {
		return "", &fs.PathError{Op: "identify network namespace", Path: path, Err: fs.ErrNotExist}
	}
	return strconv.FormatUint(stat.Dev, 10) + ":" + strconv.FormatUint(stat.Ino, 10), nil
}

// inNetNS runs f on a thread of its own in the network namespace.
func inNetNS(netnsPath string, f func() error) error {
	file, err := openNetNS(pathOf(netnsPath))
	if err != nil {
		return fmt.Errorf("open sandbox: %w", err)
	}
	defer func() { _ = file.Close() }()
	return onThrowawayThread(func() error {
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", os.NewSyscallError("setns", err))
		}
		return f()
	})
}
