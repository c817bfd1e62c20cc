// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command vminit is the first process of the virtual machine.
package main

import (
	"fmt"
	"os"

	"github.com/plexus-cni/plexus/e2e/vm/guest"
)

func main() {
	if err := guest.Main(); err != nil {
		fmt.Fprintln(os.Stderr, "vminit:", err)
		os.Exit(1)
	}
}
