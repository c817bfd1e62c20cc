// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
	LinkTraits       LinkSetting = "traits"
	LinkPrograms     LinkSetting = "programs" // all others are detached; none is attached
)

// links is what a mover of devices asks of a kernel, real or fake.
type links interface {
	Link(netnsPath, name string) (Link, error)
	SetLink(netnsPath string, s LinkSetting, to Link) error
	MoveLink(from string, index int, to, name string) error
	LinkEvents(ctx context.Context, netnsPath string) (<-chan struct{}, error)
	NetNSID(path string) (string, error)
	NetNSCookie(path string) (uint64, error)
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
	found, err := s.linkByName(name)
	if err != nil {
		return Link{}, err
	}
	link := found.link()
	err = inNetNS(netnsPath, func() error {
		link.Programs, err = programsOf(link.Index, found.Attrs().Xdp)
		return err
	})
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: %w", name, err)
	}
	if link.Parent == "" {
		link.Parent = parents(netnsPath, []string{name})[name]
	}
	return link, nil
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
	if err := h.setLink(netnsPath, s, to); err != nil {
		return fmt.Errorf("set %s of interface %s: %w", s, to.Name, err)
	}
	return nil
}

func (s sandbox) setLink(netnsPath string, setting LinkSetting, to Link) error {
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
	case LinkTraits:
		return s.setTraits(to.Index, to.Traits)
	case LinkPrograms:
		return inNetNS(netnsPath, func() error { return s.detachPrograms(to.Index, to.Programs) })
	}
	return fmt.Errorf("no setting %q", setting)
}

// setAltNames removes and adds names until they are as wanted.
func (s sandbox) setAltNames(link netlink.Link, want []string) error {
	now, err := s.linkByIndex(link.Attrs().Index)
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

// MoveLink moves a link from one network namespace to another under a new name, in one message (as Linux has done since 2.6.33), so that
// there is no moment in which it is there half done, for udev or for a crash to find. It is down afterwards.
//
// It is not atomic when it fails: the kernel moves first, and what it refuses then (a name that is taken: EEXIST) leaves the link moved,
// under its old name. The caller has to look for it in both. Like `ip -n FROM link set dev NAME netns TO name NAME`.
func (l *Linux) MoveLink(from string, index int, to, name string) error {
	if err := moveLink(from, index, to, name); err != nil {
		return fmt.Errorf("move interface to %s as %s: %w", placeOf(to), name, err)
	}
	return nil
}

func placeOf(netnsPath string) string {
	if netnsPath == Host {
		return "the host"
	}
	return "sandbox " + netnsPath
}

// moveLink makes the message itself: the library's names a kind of link, for which the kernel may load a module each time.
func moveLink(from string, index int, to, name string) error {
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
	req := s.linkRequest(unix.RTM_SETLINK, index,
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(target.Fd()))), //nolint:gosec // a descriptor
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	return err
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

// NetNSID identifies the network namespace at path among all that live now: a path may be used again. See [Linux.NetNSCookie] for all of a
// boot. The error matches
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

// NetNSCookie is a number that the kernel gives a network namespace, and in one boot no other one (Linux 5.14; before, it is 0). The inode
// that [Linux.NetNSID] tells is used again. The error matches [fs.ErrNotExist] when there is none at path.
func (l *Linux) NetNSCookie(path string) (uint64, error) {
	if is, err := l.IsNetNS(path); err != nil || !is {
		return 0, cmp.Or(err, error(&fs.PathError{Op: "identify network namespace", Path: path, Err: fs.ErrNotExist}))
	}
	s, err := openSandbox(path)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	cookie, err := unix.GetsockoptUint64(s.socket.Socket.GetFd(), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, nil
	}
	return cookie, os.NewSyscallError("getsockopt", err)
}

// inNetNS runs f in the network namespace, on a thread of its own where that is not the caller's.
func inNetNS(netnsPath string, f func() error) error {
	if netnsPath == Host {
		return f()
	}
	file, err := openNetNS(netnsPath)
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
