// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package inspect finds out what Plexus did on a node, and what has become of it: from its records, its log, and the network namespaces
// of the pods. It changes nothing.
package inspect
