// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1 holds the API types of the group k8s.cni.cncf.io, version v1: the
// NetworkAttachmentDefinition of the NPWG multi-network standard, as it is on the
// wire in clusters today.
//
// +kubebuilder:object:generate=true
// +groupName=k8s.cni.cncf.io
package v1

//go:generate go tool -modfile=../../tools/go.mod controller-gen object:headerFile=boilerplate.go.txt crd paths=. output:crd:dir=../../deploy/crd
