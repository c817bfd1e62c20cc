// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/wire"
)

// maxTimeout bounds what a client may ask one response to take.
const maxTimeout = 2 * Timeout

// maxBodyBytes leaves room for the rest of the message.
const maxBodyBytes = wire.MaxFrameBytes - 1<<10

// Serve serves one session over stream: it responds from src until the other side ends it, which is no error. The end of the stream
// cancels the work on a request. The context of a request ends when its response has been written. The stream is closed in the end.
func Serve(ctx context.Context, stream io.ReadWriteCloser, src source.Source) error {
	return serve(ctx, stream, src, wire.Spoken())
}

func serve(ctx context.Context, stream io.ReadWriteCloser, src source.Source, versions wire.Versions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() }) // wakes the reader; its error is of no interest
	defer stop()
	requests := make(chan *wire.Message)
	ended := make(chan error, 1)
	// The stream is read also while a response is being worked on: that is how its end is noticed.
	go func() {
		ended <- readRequests(ctx, stream, versions, requests)
		cancel()
	}()
	for {
		select {
		case request := <-requests:
			if err := respond(ctx, stream, src, request); err != nil {
				return err
			}
		case <-ctx.Done():
			return sessionEnd(<-ended)
		}
	}
}

// readRequests hands on each request, until the stream ends.
func readRequests(ctx context.Context, stream io.ReadWriter, versions wire.Versions, requests chan<- *wire.Message) error {
	for {
		request, err := versions.Read(stream)
		if err == nil && request.Kind == wire.Response {
			err = fmt.Errorf("%w: a response to no request", wire.ErrMalformed)
		}
		if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrVersion) || errors.Is(err, wire.ErrTooLarge) {
			// Whoever it was may understand this, and the end of the stream in any case.
			refusal := wire.Message{Version: versions.Newest, Kind: wire.Response, Error: encodeError(err)}
			if other, ok := errors.AsType[*wire.VersionError](err); ok {
				refusal.Version = versions.Nearest(other.Theirs)
			}
			return errors.Join(err, wire.Write(stream, refusal))
		}
		if err != nil {
			return err
		}
		select {
		case requests <- request:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sessionEnd is nil if the session ended as sessions do.
func sessionEnd(err error) error {
	for _, usual := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, context.Canceled} {
		if errors.Is(err, usual) {
			return nil
		}
	}
	return err
}

// respond works on one request for as long as its sender waits, and writes the response, in the version of the request.
func respond(session context.Context, stream io.Writer, src source.Source, request *wire.Message) error {
	limit := Timeout
	if request.TimeoutMillis > 0 {
		limit = time.Duration(min(request.TimeoutMillis, maxTimeout.Milliseconds())) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(session, limit)
	defer cancel()
	body, err := dispatch(ctx, src, request)
	if err == nil && len(body) > maxBodyBytes {
		err = fmt.Errorf("the networks of the pod have %d bytes in one message, at most %d are accepted: select fewer networks, or shorten their spec.config", len(body), maxBodyBytes)
	}
	if session.Err() != nil {
		return nil // a response cut short is none: whoever still waits asks another time
	}
	response := wire.Message{Version: request.Version, Kind: wire.Response, Body: body}
	if err != nil {
		response.Body, response.Error = nil, encodeError(err)
	}
	return wire.Write(stream, response)
}

// Failure is a CNI call that failed.
type Failure struct {
	// Verb is ADD, DEL, CHECK, GC or STATUS.
	Verb string `json:"verb"`
	// Code is the CNI error code that the runtime got.
	Code uint `json:"code"`
}

// Failures is what a source that counts failed CNI calls implements.
type Failures interface{ Failed(f Failure) }

// dispatch puts the request to src. A response without a body is nil.
func dispatch(ctx context.Context, src source.Source, request *wire.Message) (json.RawMessage, error) {
	switch request.Kind {
	case wire.Lookup:
		var query source.Query
		if err := decode(request, &query); err != nil {
			return nil, err
		}
		selection, err := src.Lookup(ctx, query)
		if err != nil {
			return nil, err
		}
		return json.Marshal(selection)
	case wire.Report:
		var report source.Report
		if err := decode(request, &report); err != nil {
			return nil, err
		}
		return nil, src.Report(ctx, report)
	case wire.Ready:
		return nil, src.Ready(ctx)
	case wire.Failed:
		var f Failure
		if err := decode(request, &f); err != nil {
			return nil, err
		}
		if counts, ok := src.(Failures); ok {
			counts.Failed(f)
		}
		return nil, nil
	case wire.Response: // readRequests hands on none
	}
	return nil, fmt.Errorf("%w: %s is no request", wire.ErrMalformed, request.Kind)
}

func decode(request *wire.Message, body any) error {
	if err := json.Unmarshal(request.Body, body); err != nil {
		return fmt.Errorf("%w: %s: %w", wire.ErrMalformed, request.Kind, err)
	}
	return nil
}
