// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"errors"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/wire"
	"github.com/plexus-cni/plexus/nad"
)

// reasons name on the wire the kinds of final errors that the plugin tells apart.
func reasons() map[string]error {
	return map[string]error{
		"selection": annotations.ErrInvalid,
		"invalid":   nad.ErrInvalid,
		"notFound":  nad.ErrNotFound,
		"forbidden": nad.ErrForbidden,
		"noDevice":  source.ErrNoDevice,
		"args":      pod.ErrInvalid,
	}
}

// encodeError says on the wire what err is.
func encodeError(err error) *wire.Error {
	e := &wire.Error{Kind: wire.Final, Text: err.Error()}
	if errors.Is(err, source.ErrTryAgain) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		e.Kind = wire.TryAgain
		return e
	}
	for reason, kind := range reasons() {
		if errors.Is(err, kind) {
			e.Reason = reason
		}
	}
	return e
}

// decodeError is the error that was on the wire. A reason that is not known leaves a final error of no kind.
func decodeError(e *wire.Error) error {
	kind := reasons()[e.Reason]
	if e.Kind == wire.TryAgain {
		kind = source.ErrTryAgain
	}
	return &remoteError{text: e.Text, kind: kind}
}

// remoteError is an error of the other side: its words, and the kind that it was there.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error { return e.kind }
