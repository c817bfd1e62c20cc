// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bootIDPath is where the kernel shows a random UUID of the current boot.
const bootIDPath = "/proc/sys/kernel/random/boot_id"

// maxDumps is how often a listing that the kernel reports as interrupted is tried. In a sandbox hardly anything changes while
// it is set up, so that a second one is rare already.
const maxDumps = 5

// Linux is the running kernel. The zero value is ready to use.
type Linux struct {
	bootIDPath string // other than the kernel's, for tests
}

// NewLinux returns the running kernel.
func NewLinux() *Linux { return &Linux{} }

// IsNetNS reports whether path is a network namespace. It is not when the sandbox is gone: there is nothing at path then, or, where
// it was mounted, an empty file. An error means that it can't be told.
func (l *Linux) IsNetNS(path string) (bool, error) {
	f, err := openNetNS(path)
	if errors.Is(err, errNotNetNS) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// SameNetNS reports whether path is the calling thread's own network namespace: the host's, for a plugin.
func (l *Linux) SameNetNS(path string) (bool, error) {
	// Of the thread: /proc/self is the main thread, which a goroutine may have left in another namespace.
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return false, fmt.Errorf("find own network namespace: %w", err)
	}
	other, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("find network namespace: %w", err)
	}
	return os.SameFile(own, other), nil
}

// Links lists the interfaces of the sandbox, lo included, by index. Like `ip -n NETNS address show`.
func (l *Linux) Links(netnsPath string) ([]Link, error) {
	s, err := openSandbox(netnsPath)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	found, err := s.listLinks()
	if err != nil {
		return nil, fmt.Errorf("list interfaces of sandbox %s: %w", netnsPath, err)
	}
	// One listing for all links, rather than one for each.
	addrs, err := dump(func() ([]netlink.Addr, error) { return s.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of sandbox %s: %w", netnsPath, err)
	}
	links := make([]Link, 0, len(found))
	var unknown []string
	for _, each := range found {
		link := each.link()
		link.Addrs = addressesOf(link.Index, addrs)
		links = append(links, link)
		if link.Parent == "" && link.Name != "lo" && each.Type() == "device" {
			unknown = append(unknown, link.Name)
		}
	}
	if len(unknown) > 0 {
		byName := parents(netnsPath, unknown)
		for i, l := range links {
			links[i].Parent = cmp.Or(l.Parent, byName[l.Name])
		}
	}
	return links, nil
}

// BootID identifies the current boot of this machine: a UUID that the kernel draws anew each time.
func (l *Linux) BootID() (string, error) {
	path := cmp.Or(l.bootIDPath, bootIDPath)
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	id := strings.TrimSpace(string(content))
	// Two boots must never look like one because the file was empty.
	if id == "" {
		return "", fmt.Errorf("read boot ID: %s is empty", path)
	}
	return id, nil
}

// sandbox is a pair of netlink sockets in a network namespace: the library's, and one for what the library does in another way.
type sandbox struct {
	*netlink.Handle
	socket *nl.SocketHandle
}

// Close closes both sockets.
func (s sandbox) Close() {
	s.Handle.Close()
	s.socket.Close()
}

// openSandbox opens a sandbox, for the caller to close.
func openSandbox(netnsPath string) (sandbox, error) {
	f, err := openNetNS(pathOf(netnsPath))
	if err != nil {
		return sandbox{}, fmt.Errorf("open sandbox: %w", err)
	}
	defer func() { _ = f.Close() }()
	// The library opens the socket on a locked thread that it moves over and back; the socket then stays where it was made.
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return sandbox{}, fmt.Errorf("open netlink in sandbox %s: %w", netnsPath, err)
	}
	socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(f.Fd()), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return sandbox{}, fmt.Errorf("open netlink in sandbox %s: %w", netnsPath, err)
	}
	return sandbox{Handle: h, socket: &nl.SocketHandle{Socket: socket}}, nil
}

// errNotNetNS marks a path that is something else than a network namespace.
var errNotNetNS = errors.New("not a network namespace")

// openNetNS opens the network namespace at path. It opens nothing else: not even for reading is every file harmless.
func openNetNS(path string) (*os.File, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if stat.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("%s: %w", path, errNotNetNS)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	// Linux 4.11. Other kinds of namespaces are on the same file system.
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tell the kind of namespace of %s: %w", path, err), f.Close())
	}
	if kind != unix.CLONE_NEWNET {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, errNotNetNS), f.Close())
	}
	return f, nil
}

// dump lists, again when the kernel reports that something changed meanwhile and the list may be wrong.
func dump[E any](list func() ([]E, error)) ([]E, error) {
	var err error
	for range maxDumps {
		var found []E
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return found, err
		}
	}
	return nil, err
}

// addressesOf picks the addresses of one link.
func addressesOf(index int, addrs []netlink.Addr) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, a := range addrs {
		ip, ok := toAddr(a.IP)
		bits, _ := a.Mask.Size()
		if a.LinkIndex == index && ok {
			prefixes = append(prefixes, netip.PrefixFrom(ip, bits))
		}
	}
	return prefixes
}

// toAddr converts an address of the netlink library, which may have IPv4 in 16 bytes.
func toAddr(ip net.IP) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}
