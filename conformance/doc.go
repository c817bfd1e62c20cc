// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package conformance tests the built plugin from outside, as container runtimes use it: environment and configuration in, result,
// network status and calls of delegates out. Its delegates are the recording plugin in the folder recorder, and the reference CNI
// plugins where a case needs real routes.
//
// Each test is a case of the project's conformance list and begins with its id ("P1", "D15"); README.md lists them. Tests under
// other names add what the list does not have: how bad input ends, and what happens after a crash.
package conformance
