// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command node is the first process of a local cluster's node.
package main

import (
	"fmt"
	"os"

	"github.com/plexus-cni/plexus/e2e/cluster/local/node"
)

func main() {
	if err := node.Main(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}
