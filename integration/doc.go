// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package integration tests the built plugin with the reference CNI plugins in real network namespaces: what the kernel has after
// an ADD, that pods reach each other over it, that result and network status say the same, and that nothing is left after a DEL.
//
// A host is a network namespace, and so is the sandbox of each pod: nothing touches the machine's own namespace, and tests do not
// meet. As root or, where the machine allows user namespaces, as any user.
package integration
