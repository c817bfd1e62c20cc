// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nad turns a reference to a network into a usable CNI configuration
// list: it parses references, decides who may use which network, gives a bare
// plugin and a list one shape, and finds configurations on disk.
//
// Everything it reads was written by somebody else, so it bounds and checks all
// of it here, once; the rest of Plexus works on a [List] and asks no more.
package nad

import (
	"errors"
	"fmt"
	"strconv"
)

// Callers tell the errors of this package apart with [errors.Is].
var (
	// ErrInvalid says that a reference or a configuration can never be used as it
	// is. To try again is of no use, somebody has to change it.
	ErrInvalid = errors.New("invalid configuration")
	// ErrNotFound says that no such network or file exists (yet).
	ErrNotFound = errors.New("not found")
	// ErrForbidden says that namespace isolation keeps a pod from a network.
	ErrForbidden = errors.New("forbidden")
)

// Definition is what Plexus reads of a NetworkAttachmentDefinition.
type Definition struct {
	Ref Ref
	// Config is spec.config: a CNI plugin configuration or a configuration list in
	// JSON. If it is empty, the configuration is a file with the definition's name.
	Config string
	// ResourceName is the device resource that each attachment consumes, of the
	// annotation k8s.v1.cni.cncf.io/resourceName; empty for none.
	ResourceName string
	// ClaimRequest binds each attachment to a request of the pod's ResourceClaim, of the annotation plexus-cni.io/claim-request; empty
	// for none. It is as it was written: see [ParseClaimRequest].
	ClaimRequest string
	// UnsupportedRequests and AllowedCNIArgs are the annotations plexus-cni.io/unsupported-requests and plexus-cni.io/allowed-cni-args, as
	// they were written; empty for none.
	UnsupportedRequests, AllowedCNIArgs string
}

// invalidf returns an error that is [ErrInvalid]. The text names the field, the
// value and the fix; callers put the object in front.
func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// shownBytes bounds what an error text shows of a value, which may be a megabyte.
const shownBytes = 80

// quote renders a string of unknown origin for an error text, on one line.
func quote(s string) string {
	if len(s) > shownBytes {
		return strconv.Quote(s[:shownBytes]) + "..."
	}
	return strconv.Quote(s)
}
