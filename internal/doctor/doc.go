// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package doctor looks for what keeps the pods of a node from their networks: it compares the configuration, the plugins, the records,
// the leases and the devices with each other and with what the kernel has. It changes nothing, but for the records of sandboxes that are gone, and
// only when asked to: those are given back by the plugin's own DEL.
//
// Each check stands for itself: it has a limit in time, and one that fails is a finding and hides no other.
package doctor
