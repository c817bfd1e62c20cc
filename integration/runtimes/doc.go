// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package runtimes tests Plexus as container runtimes drive it. containerd is driven through go-cni, the library that its CRI plugin
// uses; CRI-O, nerdctl and Podman by the libcni calls that their sources make, in that order and with their reaction to errors; cnitool
// is the program itself.
//
// Each call of a runtime is a process of its own in the node's network namespace, so that nothing is kept in memory between two
// calls: a restart of the runtime changes nothing. It has a mount namespace too, in which libcni's default cache, /var/lib/cni, is the
// runtime's own, and the boot is the node's.
package runtimes
