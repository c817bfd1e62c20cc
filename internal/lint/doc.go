// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lint finds mistakes in NetworkAttachmentDefinitions before a pod does. It looks at text alone, and touches nothing.
//
// What Plexus itself refuses is decided by the code of Plexus: manifest.Parse, nad.Normalize and sriov.Mistakes are asked, and
// their answer is an error. The other checks know the reference plugins (containernetworking/plugins v1.9), and what goes wrong with
// them in practice.
package lint
