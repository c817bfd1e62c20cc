// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Watch calls changed after each change of links, addresses or routes in the sandbox, until ctx is done, which is no error. One call may stand for several
// changes. Like `ip -n NETNS monitor link address route`.
func (l *Linux) Watch(ctx context.Context, netnsPath string, changed func()) error {
	f, err := openNetNS(pathOf(netnsPath))
	if err != nil {
		return fmt.Errorf("open sandbox: %w", err)
	}
	s, err := nl.SubscribeAt(netns.NsHandle(f.Fd()), netns.None(), unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	_ = f.Close() // the socket has the namespace
	if err != nil {
		return fmt.Errorf("watch sandbox %s: %w", netnsPath, err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	for {
		_, _, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // which stands for changes that found no room
			return fmt.Errorf("watch sandbox %s: %w", netnsPath, err)
		}
		changed()
	}
}
