// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package remote is a [source.Source] in another process, which the messages of package wire go to: a Client on the plugin's side, Serve
// on the other, which is the node's daemon behind its Unix socket or a child at the end of its pipes.
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
	// Timeout bounds a request and its response, over all reconnections. A new daemon is up in less; the kubelet tries again by itself.
	Timeout = 30 * time.Second
	// readyTimeout bounds a request for readiness. Runtimes ask for it every few seconds, and node readiness hangs on it.
	readyTimeout = 5 * time.Second
	// failedTimeout bounds telling of a failed call, for which the runtime waits.
	failedTimeout = 100 * time.Millisecond
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

// Client is the plugin's side of a session. It implements [source.Source]; its calls come one after the other.
type Client struct {
	// name is what the other side is called in errors.
	name string
	// dial connects.
	dial func(ctx context.Context) (io.ReadWriteCloser, error)
	// watch starts to watch for what could make a failed dial succeed; nil when nothing could.
	watch func() (watcher, error)

	stream io.ReadWriteCloser
	// versions are those that this side speaks, of which the other side speaks version as far as is known.
	versions wire.Versions
	version  int
}

func newClient(name string, dial func(context.Context) (io.ReadWriteCloser, error)) *Client {
	return &Client{name: name, dial: dial, versions: wire.Spoken(), version: wire.Spoken().Newest}
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

// Report implements [source.Source]. To report the same twice does no harm, so it is repeated when its response was lost.
func (c *Client) Report(ctx context.Context, r source.Report) error {
	return c.ask(ctx, Timeout, c.watch != nil, wire.Report, r, nil)
}

// Ready implements [source.Source]. It does not wait for a daemon that is not there.
func (c *Client) Ready(ctx context.Context) error {
	return c.ask(ctx, readyTimeout, false, wire.Ready, nil, nil)
}

// Failed tells of a CNI call that failed, for the daemon's metrics. It does not wait for a daemon that is not there. One of a release before
// does not know it, and refuses.
func (c *Client) Failed(ctx context.Context, f Failure) error {
	return c.ask(ctx, failedTimeout, false, wire.Failed, f, nil)
}

// Close ends the session.
func (c *Client) Close() error {
	if c.stream == nil {
		return nil
	}
	err := c.stream.Close()
	c.stream = nil
	return err
}

// ask sends one request and reads the response, with as many connections as it takes if reconnect is set. An error matches
// [source.ErrTryAgain] unless the other side or its address is of no use.
func (c *Client) ask(ctx context.Context, limit time.Duration, reconnect bool, kind wire.Kind, request, response any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var body json.RawMessage
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
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
	if response == nil {
		return nil
	}
	// A small object becomes a large one in memory: a response of empty ones would take gigabytes before anybody could count them.
	if n := values(reply.Body); n > maxValues {
		return fmt.Errorf("%s: %w: response to %s has more than %d values", c.name, wire.ErrMalformed, kind, maxValues)
	}
	if err := json.Unmarshal(reply.Body, response); err != nil {
		return fmt.Errorf("%w: %s: %w: response to %s: %w", source.ErrTryAgain, c.name, wire.ErrMalformed, kind, err)
	}
	return nil
}

// maxValues bounds the values of a response. The networks of a pod, at most some hundred, have a few each; their configurations
// are texts.
const maxValues = 20_000

// values counts the values of a JSON text, more or less.
func values(data []byte) int {
	n, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++ // the escaped byte may be a quote
		case c == '"':
			inString = !inString
		case !inString && (c == '{' || c == '[' || c == ','):
			n++ // each element of a list but one has a comma, null among them
		}
	}
	return n
}

// exchange connects, sends the request and reads the response; again and again, until ctx ends, while the other side is not there or
// goes away.
func (c *Client) exchange(ctx context.Context, reconnect bool, request wire.Message) (*wire.Message, error) {
	var w watcher
	pause := firstPause
	for {
		reply, err := c.negotiate(ctx, request)
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
			return nil, fmt.Errorf("no response until the deadline: %w", err)
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

// isTransient reports whether another connection may do better. One that sends nonsense will do so again.
func isTransient(err error) bool {
	for _, lasting := range []error{errFinal, wire.ErrMalformed, wire.ErrVersion, wire.ErrTooLarge} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	return true
}

// negotiate sends the request in the version that the other side is known to speak. One that speaks another says which by its refusal.
func (c *Client) negotiate(ctx context.Context, request wire.Message) (*wire.Message, error) {
	for range 1 + c.versions.Newest - c.versions.Oldest {
		request.Version = c.version
		reply, err := c.try(ctx, request)
		if err != nil || reply.Version == request.Version {
			return reply, err
		}
		_ = c.Close() // the other side does so too
		c.version = reply.Version
	}
	return nil, fmt.Errorf("%w: it refuses all of %v", wire.ErrVersion, c.versions)
}

// try sends the request over the connection of the one before, if it is still there, or else over a new one. A stream whose response did
// not come is closed, which ends the work on it at the other side.
func (c *Client) try(ctx context.Context, request wire.Message) (*wire.Message, error) {
	if c.stream == nil {
		stream, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		c.stream = stream
	}
	request.TimeoutMillis = patience(ctx).Milliseconds()
	stream := c.stream                                            // c.Close may be first to end it
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() }) // wakes Write and Read; its error is theirs
	reply, err := c.roundTrip(stream, request)
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

func (c *Client) roundTrip(stream io.ReadWriter, request wire.Message) (*wire.Message, error) {
	if err := wire.Write(stream, request); err != nil {
		return nil, err
	}
	reply, err := c.versions.Read(stream)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("it ended the session before its response: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if reply.Kind != wire.Response {
		return nil, fmt.Errorf("%w: %s instead of a response", wire.ErrMalformed, reply.Kind)
	}
	return reply, nil
}
