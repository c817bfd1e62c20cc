// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/source/manifest"
	"github.com/plexus-cni/plexus/nad"
)

// Error makes the one CNI error (CNI 1.1.0 §5) of a failed verb. A delegate's own code and details stay; its message is kept behind
// the words that say which pod and network it was.
func Error(err error) *types.Error {
	if err == nil {
		return nil
	}
	msg := err.Error()
	if e, ok := errors.AsType[*types.Error](err); ok {
		// types.Error prints its details too, which have a field of their own.
		return types.NewError(e.Code, oneLine(strings.Replace(msg, e.Error(), e.Msg, 1)), visible(e.Details))
	}
	return types.NewError(code(err), oneLine(msg), "")
}

// unmistakable words what a plugin said so that no runtime takes an undo that failed for one that was not needed: containerd does when it
// reads "not found", or "no such file or directory" without a namespace (go-cni, Network.Remove), and then never asks again.
func unmistakable(text string) string {
	return strings.NewReplacer("not found", "missing", "no such file or directory", "does not exist").Replace(text)
}

// unmistakableError does the same with an error, and keeps its code.
func unmistakableError(err error) error {
	if err == nil {
		return nil
	}
	e := Error(err)
	return &undoError{err: err, told: types.NewError(e.Code, unmistakable(e.Msg), unmistakable(e.Details))}
}

// undoError is a failed undo, as the runtime may be told of it.
type undoError struct {
	err  error
	told *types.Error
}

func (e *undoError) Error() string { return e.told.Msg }

func (e *undoError) Unwrap() []error { return []error{e.told, e.err} }

// visible writes out what could steer a terminal or turn a line around: a plugin's words come with events to whoever reads them.
func visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r != '\n' && r != '\r' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// oneLine makes a message that an event of the pod can carry of errors that were joined, or that a plugin worded in lines.
func oneLine(msg string) string {
	const most = 4 << 10
	msg = visible(msg)
	msg = strings.Join(strings.FieldsFunc(msg, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	if len(msg) > most {
		const ellipsis = "…"
		msg = strings.ToValidUTF8(msg[:most-len(ellipsis)], "") + ellipsis
	}
	return msg
}

func code(err error) uint {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(source.ErrTryAgain):
		return types.ErrTryAgainLater
	case is(config.ErrInvalid, annotations.ErrInvalid, nad.ErrInvalid, nad.ErrNotFound, nad.ErrForbidden, delegate.ErrInvalid, manifest.ErrInvalid, source.ErrNoDevice):
		return types.ErrInvalidNetworkConfig
	case is(pod.ErrInvalid, record.ErrKey):
		return types.ErrInvalidEnvironmentVariables
	case is(context.DeadlineExceeded, context.Canceled):
		return types.ErrTryAgainLater
	case is(record.ErrCorrupt, delegate.ErrVersion, delegate.ErrBadOutput):
		return types.ErrDecodingFailure
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return types.ErrIOFailure
	}
	if _, ok := errors.AsType[*os.LinkError](err); ok { // of a rename
		return types.ErrIOFailure
	}
	return types.ErrInternal
}
