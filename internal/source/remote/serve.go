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

// maxTimeout bounds what a client may ask one answer to take.
const maxTimeout = 2 * Timeout

// Serve holds one conversation over stream: it answers from src until the other side ends it, which is no error. The end of the
// stream cancels the work on an answer. The stream is closed in the end.
func Serve(ctx context.Context, stream io.ReadWriteCloser, src source.Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() }) // wakes the reader; its error is of no interest
	defer stop()
	questions := make(chan *wire.Message)
	ended := make(chan error, 1)
	// The stream is read also while an answer is being worked on: that is how its end is noticed.
	go func() {
		ended <- readQuestions(ctx, stream, questions)
		cancel()
	}()
	for {
		select {
		case q := <-questions:
			a := answer(ctx, src, q)
			if ctx.Err() != nil {
				continue // an answer cut short is none: whoever still waits asks another time
			}
			if err := wire.Write(stream, a); err != nil {
				return err
			}
		case <-ctx.Done():
			return conversationEnd(<-ended)
		}
	}
}

// readQuestions hands on each question, until the stream ends.
func readQuestions(ctx context.Context, stream io.ReadWriter, questions chan<- *wire.Message) error {
	for {
		q, err := wire.Read(stream)
		if err == nil && q.Kind == wire.Answer {
			err = fmt.Errorf("%w: an answer to no question", wire.ErrMalformed)
		}
		if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrVersion) || errors.Is(err, wire.ErrTooLarge) {
			// Whoever it was may understand this, and the end of the stream in any case.
			return errors.Join(err, wire.Write(stream, wire.Message{Kind: wire.Answer, Error: encodeError(err)}))
		}
		if err != nil {
			return err
		}
		select {
		case questions <- q:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// conversationEnd is nil if the conversation ended as conversations do.
func conversationEnd(err error) error {
	for _, usual := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, context.Canceled} {
		if errors.Is(err, usual) {
			return nil
		}
	}
	return err
}

// answer answers one question in the time that its sender waits.
func answer(ctx context.Context, src source.Source, q *wire.Message) wire.Message {
	limit := Timeout
	if q.TimeoutMillis > 0 {
		limit = time.Duration(min(q.TimeoutMillis, maxTimeout.Milliseconds())) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body, err := ask(ctx, src, q)
	if err == nil && len(body) > maxBodyBytes {
		err = tooLarge(len(body), maxBodyBytes)
	}
	if err != nil {
		return wire.Message{Kind: wire.Answer, Error: encodeError(err)}
	}
	return wire.Message{Kind: wire.Answer, Body: body}
}

const (
	// maxBodyBytes leaves room for the rest of the message.
	maxBodyBytes = wire.MaxFrameBytes - 1<<10
	// maxConfigBytes bounds the configurations of an answer before it is put into memory as a whole: a definition has up to 1 MiB, and
	// one annotation of a few hundred bytes can name it 256 times. All real networks of a pod have some KiB.
	maxConfigBytes = 2 << 20
)

// checkSize refuses what would take the daemon's memory.
func checkSize(s *source.Selection) error {
	sum := 0
	if s.Default != nil {
		sum = len(s.Default.Config)
	}
	for _, networks := range [][]source.Network{s.DefaultNetworks, s.Networks} {
		for i := range networks {
			sum += len(networks[i].Config)
		}
	}
	if sum > maxConfigBytes {
		return tooLarge(sum, maxConfigBytes)
	}
	return nil
}

func tooLarge(is, most int) error {
	return fmt.Errorf("the networks of the pod have %d bytes of configuration together, at most %d are accepted: select fewer, or smaller ones", is, most)
}

// ask puts the question to src. An answer without a body is nil.
func ask(ctx context.Context, src source.Source, q *wire.Message) (json.RawMessage, error) {
	switch q.Kind {
	case wire.Lookup:
		var query source.Query
		if err := json.Unmarshal(q.Body, &query); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", wire.ErrMalformed, q.Kind, err)
		}
		selection, err := src.Lookup(ctx, query)
		if err != nil {
			return nil, err
		}
		if err := checkSize(selection); err != nil {
			return nil, err
		}
		return json.Marshal(selection)
	case wire.Report:
		var report source.Report
		if err := json.Unmarshal(q.Body, &report); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", wire.ErrMalformed, q.Kind, err)
		}
		return nil, src.Report(ctx, report)
	case wire.Ready:
		return nil, src.Ready(ctx)
	case wire.Answer: // readQuestions hands on none
	}
	return nil, fmt.Errorf("%w: %s is no question", wire.ErrMalformed, q.Kind)
}
