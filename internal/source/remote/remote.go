// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package remote is a [source.Source] that is somewhere else, spoken with by the messages of package wire: a Client on the plugin's
// side, Serve on the other, which is the node's daemon behind its Unix socket or a child at the end of its pipes.
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

const (
	// Timeout bounds a question and its answer, over all reconnections. A new daemon is up in less; kubelet asks again by itself.
	Timeout = 30 * time.Second
	// readyTimeout bounds the question whether a lookup could be answered now. Runtimes ask for it every few seconds, and node
	// readiness hangs on it.
	readyTimeout = 5 * time.Second
	// The pause before a daemon is tried again when nothing has changed about its socket: a safety net under the watch.
	firstPause = 20 * time.Millisecond
	maxPause   = time.Second
)

// errFinal marks a failure that no reconnection mends.
var errFinal = errors.New("not usable")

// watcher tells when it is worth to connect again.
type watcher interface {
	Wait(ctx context.Context) error
	Close()
}

// Client speaks with a source that is somewhere else. It implements [source.Source]; its calls come one after the other.
type Client struct {
	// name is what the other side is called in errors.
	name string
	// dial connects.
	dial func(ctx context.Context) (io.ReadWriteCloser, error)
	// watch starts to watch for what could make a failed dial succeed; nil when nothing could.
	watch func() (watcher, error)

	stream io.ReadWriteCloser
}

var _ source.Source = (*Client)(nil)

// Lookup implements [source.Source].
func (c *Client) Lookup(ctx context.Context, q source.Query) (*source.Selection, error) {
	var s source.Selection
	if err := c.ask(ctx, Timeout, c.watch != nil, wire.Lookup, q, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Report implements [source.Source]. To report the same twice does no harm, so it is repeated when its answer was lost.
func (c *Client) Report(ctx context.Context, r source.Report) error {
	return c.ask(ctx, Timeout, c.watch != nil, wire.Report, r, nil)
}

// Ready implements [source.Source]. A daemon that is not there is an answer: it is not waited for.
func (c *Client) Ready(ctx context.Context) error {
	return c.ask(ctx, readyTimeout, false, wire.Ready, nil, nil)
}

// Close ends the conversation.
func (c *Client) Close() error {
	if c.stream == nil {
		return nil
	}
	err := c.stream.Close()
	c.stream = nil
	return err
}

// ask puts one question and reads its answer, with as many connections as it takes if reconnect is set. An error matches
// [source.ErrTryAgain] unless the other side or its address is of no use.
func (c *Client) ask(ctx context.Context, limit time.Duration, reconnect bool, kind wire.Kind, question, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var body json.RawMessage
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return fmt.Errorf("encode %s: %w", kind, err)
		}
	}
	reply, err := c.exchange(ctx, reconnect, wire.Message{Kind: kind, Body: body})
	if errors.Is(err, errFinal) || errors.Is(err, wire.ErrTooLarge) {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", source.ErrTryAgain, c.name, err)
	}
	if reply.Error != nil {
		return decodeError(reply.Error)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(reply.Body, answer); err != nil {
		return fmt.Errorf("%w: %s: %w: answer to %s: %w", source.ErrTryAgain, c.name, wire.ErrMalformed, kind, err)
	}
	return nil
}

// exchange connects, asks and reads the answer; again and again, until ctx ends, while the other side is not there or goes away.
func (c *Client) exchange(ctx context.Context, reconnect bool, question wire.Message) (*wire.Message, error) {
	var w watcher
	pause := firstPause
	for {
		reply, err := c.try(ctx, question)
		if err == nil || !reconnect || !isTransient(err) {
			return reply, err
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if w == nil {
			w = c.startWatch()
			defer w.Close()
			continue // what changed before the watch was in place
		}
		if !waitUpTo(ctx, w, pause) {
			return nil, fmt.Errorf("no answer until the deadline: %w", err)
		}
		pause = min(2*pause, maxPause)
	}
}

// startWatch starts to watch. Nodes run out of inotify instances; then the pauses alone have to do.
func (c *Client) startWatch() watcher {
	w, err := c.watch()
	if err != nil {
		return blind{err}
	}
	return w
}

// blind is a watch that sees nothing.
type blind struct{ why error }

func (b blind) Wait(context.Context) error { return b.why }

func (blind) Close() {}

// waitUpTo returns after a change or the pause, with whether ctx goes on.
func waitUpTo(ctx context.Context, w watcher, pause time.Duration) bool {
	short, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	if err := w.Wait(short); err != nil {
		<-short.Done() // a watch that broke does not make the loop spin
	}
	return ctx.Err() == nil
}

// isTransient reports whether another connection may do better. One who answers nonsense will do so again.
func isTransient(err error) bool {
	for _, lasting := range []error{errFinal, wire.ErrMalformed, wire.ErrVersion, wire.ErrTooLarge} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	return true
}

// try asks over the connection of the question before, if it is still there, or else over a new one. A stream whose answer did not
// come is closed, which ends the work on it at the other side.
func (c *Client) try(ctx context.Context, question wire.Message) (*wire.Message, error) {
	if c.stream == nil {
		stream, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		c.stream = stream
	}
	question.TimeoutMillis = patience(ctx).Milliseconds()
	stream := c.stream                                            // c.Close may be first to end it
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() }) // wakes Write and Read; its error is theirs
	reply, err := roundTrip(stream, question)
	if stop() && err == nil {
		return reply, nil
	}
	_ = c.Close() // the stream is of no use any more, whatever it says
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, err
}

// patience is how long the other side may take: a little less than the caller does, so that what it has to say still arrives.
func patience(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline() // set by ask
	left := time.Until(deadline)
	return max(left-min(left/5, time.Second), time.Millisecond)
}

func roundTrip(stream io.ReadWriter, question wire.Message) (*wire.Message, error) {
	if err := wire.Write(stream, question); err != nil {
		return nil, err
	}
	reply, err := wire.Read(stream)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("it ended the conversation before its answer: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if reply.Kind != wire.Answer {
		return nil, fmt.Errorf("%w: %s instead of an answer", wire.ErrMalformed, reply.Kind)
	}
	return reply, nil
}
