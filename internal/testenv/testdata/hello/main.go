// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command hello is what the tests of testenv.Build build.
package main

import "fmt"

func main() { fmt.Println("hello") }
