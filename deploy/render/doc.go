// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package render renders the manifests of Plexus in the ways in which they are installed, and makes the one file of a release.
package render
