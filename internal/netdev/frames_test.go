// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev_test

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/plexus-cni/plexus/internal/testenv"
)

// frame is what a neighbour received.
type frame struct {
	protocol uint16
	payload  []byte
}

// listen returns a function that waits for the next frame that a namespace receives, and tells who sent it.
func listen(t *testing.T, netns string) func(*testing.T) (frame, string) {
	t.Helper()
	fd := -1
	testenv.Do(t, netns, func() error {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))))
		return err
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) (frame, string) {
		t.Helper()
		buf := make([]byte, 2048)
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatalf("no such frame came: %v", err)
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			t.Fatalf("frame from %T", from)
		}
		protocol := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, ll.Protocol))
		return frame{protocol: protocol, payload: buf[:n]}, net.HardwareAddr(ll.Addr[:ll.Halen]).String()
	}
}

// inTable lists the IPv4 routes of a table other than main.
func inTable(h *netlink.Handle, table int) ([]netlink.Route, error) {
	return h.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
}
