// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testenv gives tests what they can not do without: network namespaces, the privilege to make them, and built binaries.
// It is for tests only; no product code imports it.
//
// A package with kernel tests starts like this, and its tests then run as root and as an ordinary user alike:
//
//	func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }
//
//	func TestSomething(t *testing.T) {
//		testenv.RequireRoot(t)
//		sandbox := testenv.NetNS(t)
//		...
//	}
package testenv
