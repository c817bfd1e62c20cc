// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package crash kills things at random, and looks at what is left.
//
// A schedule is made from a seed: some pods, the networks that they select, the calls that a container runtime makes for them, at the
// same time, and who dies of SIGKILL meanwhile: Plexus, at a step of its own or at a moment of nobody's choice; a plugin; its IPAM
// plugin; the daemon. Plugins refuse ADD and DEL, once or for as long as they are asked. In the end the runtime does what runtimes do: it
// repeats DEL until that succeeds, or forgets a sandbox and calls GC, or starts other sandboxes some time after, whose ADDs undo what is
// left; or the machine is started again. Then the host has to be as it was before: links, addresses, routes, firewall rules, leases,
// records, caches, files, processes.
//
// Most schedules attach to networks of the plugin fabric, which costs little; the others use the reference plugins.
//
//	go test ./integration/crash -run Schedules -args -schedules 10000 -seed 7
//	go test ./integration/crash -run Schedules -args -replay 0x1f3a -schedules 50   # what failed, fifty times
//
// A seed determines all of a schedule but the clock: moments are fractions of how long a call takes, so that a schedule fails as often
// as the processes meet as they did.
package crash
