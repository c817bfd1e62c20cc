// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package faults breaks what Plexus stands on: the disk, processes, the clock, its own records; and holds the table of docs/faults.md
// to what then happens. Each row there has a test of its name here.
//
// Networks are of the plugin fabric (integration/crash/fabric), whose links and addresses are files: what is left of an attachment
// can be listed.
package faults
