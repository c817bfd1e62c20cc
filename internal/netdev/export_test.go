// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package netdev

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// PrepareSysctls is for tests: it runs in the namespaces of the calling thread.
func PrepareSysctls(name string, a Addressing) error { return prepareSysctls(name, a) }

// RemoveAndRestore removes the default routes of a family and puts them back, as a takeover that fails late does.
func RemoveAndRestore(path string, family Family) error {
	s, err := openSandbox(path)
	if err != nil {
		return err
	}
	defer s.Close()
	before, err := s.defaultRoutes([]Family{family})
	if err != nil {
		return err
	}
	for _, r := range before {
		if err := s.removeRoute(r); err != nil {
			return err
		}
	}
	if left, err := s.defaultRoutes([]Family{family}); err != nil || len(left) > 0 {
		return fmt.Errorf("left: %v, %w", left, err)
	}
	return s.restore(before, []Family{family})
}

// Lifetimes tells how long the IPv6 default routes last, in seconds; 0 is for ever.
func Lifetimes(path string) ([]uint32, error) {
	s, err := openSandbox(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	routes, err := s.defaultRoutes([]Family{IPv6})
	if err != nil {
		return nil, err
	}
	var seconds []uint32
	for _, r := range routes {
		for kind, value := range attributes(r.message[unix.SizeofRtMsg:]).all() {
			if kind == unix.RTA_CACHEINFO {
				seconds = append(seconds, lifetime(value))
			}
		}
	}
	return seconds, nil
}
