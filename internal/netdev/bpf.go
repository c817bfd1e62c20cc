// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A move to another network namespace takes a link's queueing disciplines and classic filters off, but neither its XDP programs nor those of
// TCX (Linux 6.6; seen with 6.18).

const (
	// xdpHardwareMode is XDP_FLAGS_HW_MODE of linux/if_link.h.
	xdpHardwareMode = 1 << 3
	// maxPrograms bounds those of one hook (BPF_MPROG_MAX, Linux 6.6).
	maxPrograms = 64
)

// tcxHooks are the places of a link where TCX programs are attached.
func tcxHooks() []uint32 { return []uint32{unix.BPF_TCX_INGRESS, unix.BPF_TCX_EGRESS} }

// tcxQuery is what BPF_PROG_QUERY takes, as in union bpf_attr of linux/bpf.h.
type tcxQuery struct {
	ifindex, hook uint32
	_, _          uint32 // flags
	programs      uint64
	count, _      uint32
	_             uint64 // flags of each program
	links         uint64
	_, _          uint64 // flags of each link, revision
}

// tcxProgram is a program on a hook, and the BPF link that keeps it there, 0 for none.
type tcxProgram struct {
	hook, id, link uint32
}

// programsOf lists the IDs of the BPF programs that see a link's packets, sorted. It runs in the link's network namespace.
func programsOf(index int, xdp *netlink.LinkXdp) ([]uint32, error) {
	var ids []uint32
	if xdp != nil && xdp.Attached {
		ids = append(ids, xdp.ProgId)
	}
	tcx, err := tcxPrograms(index)
	if err != nil {
		return nil, err
	}
	for _, p := range tcx {
		ids = append(ids, p.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func tcxPrograms(index int) ([]tcxProgram, error) {
	var found []tcxProgram
	for _, hook := range tcxHooks() {
		programs, links := make([]uint32, maxPrograms), make([]uint32, maxPrograms)
		var pinned runtime.Pinner
		pinned.Pin(&programs[0])
		pinned.Pin(&links[0])
		q := tcxQuery{
			ifindex: uint32(index), hook: hook, count: maxPrograms, //nolint:gosec // an ifindex has 31 bits
			programs: uint64(uintptr(unsafe.Pointer(&programs[0]))), links: uint64(uintptr(unsafe.Pointer(&links[0]))), //nolint:gosec // pinned
		}
		_, err := bpf(unix.BPF_PROG_QUERY, &q)
		pinned.Unpin()
		// A kernel without TCX, or in which only the machine's root may ask: within a user namespace nobody can have attached any either.
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
			return nil, nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) { // no program is on the hook
			return nil, fmt.Errorf("list TCX programs: %w", err)
		}
		for i := range min(q.count, maxPrograms) {
			if err == nil {
				found = append(found, tcxProgram{hook: hook, id: programs[i], link: links[i]})
			}
		}
	}
	return found, nil
}

// detachPrograms takes all programs but those in keep off a link. The error is EBUSY for XDP that a BPF link keeps, which tells no one who
// holds it. It runs in the link's network namespace.
func (s sandbox) detachPrograms(index int, keep []uint32) error {
	link, err := s.linkByIndex(index)
	if err != nil {
		return err
	}
	if xdp := link.Attrs().Xdp; xdp != nil && xdp.Attached && !slices.Contains(keep, xdp.ProgId) {
		if err = s.detachXDP(index); err != nil {
			return fmt.Errorf("detach XDP program %d: %w", xdp.ProgId, err)
		}
	}
	tcx, err := tcxPrograms(index)
	if err != nil {
		return err
	}
	for _, p := range tcx {
		if slices.Contains(keep, p.id) {
			continue
		}
		if err := p.detach(index); err != nil {
			return fmt.Errorf("detach TCX program %d: %w", p.id, err)
		}
	}
	return nil
}

// detachXDP takes XDP programs off a link, in whatever mode they are attached.
func (s sandbox) detachXDP(index int) error {
	for _, mode := range []uint32{nl.XDP_FLAGS_DRV_MODE, nl.XDP_FLAGS_SKB_MODE, xdpHardwareMode} {
		xdp := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
		xdp.AddRtAttr(nl.IFLA_XDP_FD, nl.Uint32Attr(^uint32(0))) // -1
		xdp.AddRtAttr(nl.IFLA_XDP_FLAGS, nl.Uint32Attr(mode))
		if _, err := s.linkRequest(unix.RTM_SETLINK, index, xdp).Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return err
		}
	}
	return nil
}

// detach takes the program off its hook; of one that a BPF link keeps there, the link is cut.
func (p tcxProgram) detach(index int) error {
	byID := struct{ id, next, flags, _ uint32 }{id: p.id}
	get := unix.BPF_PROG_GET_FD_BY_ID
	if p.link != 0 {
		byID.id, get = p.link, unix.BPF_LINK_GET_FD_BY_ID
	}
	fd, err := bpf(get, &byID)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if p.link != 0 {
		cut := struct{ link, _ uint32 }{link: uint32(fd)} //nolint:gosec // a descriptor
		_, err = bpf(unix.BPF_LINK_DETACH, &cut)
		return err
	}
	off := struct {
		ifindex, program, hook, flags, replace, relative uint32
		revision                                         uint64
	}{ifindex: uint32(index), program: uint32(fd), hook: p.hook} //nolint:gosec // an ifindex, a descriptor
	_, err = bpf(unix.BPF_PROG_DETACH, &off)
	return err
}

// bpf is bpf(2), which golang.org/x/sys/unix does not wrap. attr is what the command takes of union bpf_attr.
func bpf[T any](command int, attr *T) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr)) //nolint:gosec // in the call itself, as it has to be
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
