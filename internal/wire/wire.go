// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wire has the messages between plugin and daemon: bounded, versioned JSON over a stream, be it a Unix socket or the pipes of a
// child.
//
// A message is a frame: its length in four bytes, big-endian, then that many bytes of one JSON object. The plugin sends requests, the
// other side a response to each, in turns. A CNI call is one session:
//
//	lookup → response [→ report → response]
//	ready → response
//	failed → response
//
// Either side ends the session by closing the stream, which cancels the work on a request whose response nobody waits for any more. The
// two sides define the bodies.
//
// # Versions
//
// Plugin and daemon are replaced one after the other, so each speaks a range of versions. A request names its version; the response to
// it has the same. A side that does not speak the version of a request refuses it in a version of its own, the one that is nearest: who
// gets a response in another version than that of its request asks again in that one. Frames, and the key "version", are the same in all
// versions. Within a version keys may be added to a body, if a side that does not know them still does the right thing.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// MaxFrameBytes bounds a message. A configuration has at most 1 MiB, as the API server's objects do, and real ones have a
	// few hundred bytes; this leaves room for any selection that a pod could be attached to in time.
	MaxFrameBytes = 8 << 20

	headerBytes = 4
)

// Versions is a range of versions, both ends included.
type Versions struct{ Oldest, Newest int }

// Spoken is the range that this release speaks: its own version, and that of the release before.
func Spoken() Versions { return Versions{Oldest: 1, Newest: 1} }

// Nearest is the version of the range that is nearest to another side's.
func (v Versions) Nearest(theirs int) int { return min(max(theirs, v.Oldest), v.Newest) }

func (v Versions) String() string {
	if v.Oldest == v.Newest {
		return fmt.Sprint(v.Newest)
	}
	return fmt.Sprintf("%d to %d", v.Oldest, v.Newest)
}

var (
	// ErrMalformed says that the other side sent something that is no message.
	ErrMalformed = errors.New("malformed message")
	// ErrVersion says that the other side speaks another version.
	ErrVersion = errors.New("version mismatch")
	// ErrTooLarge says that a message has more than MaxFrameBytes.
	ErrTooLarge = errors.New("message too large")
)

// VersionError is an [ErrVersion]: a message in a version that this side does not speak.
type VersionError struct {
	Theirs int
	Ours   Versions
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: the other side speaks version %d, this one %v: install plexus and plexusd of the same release, or of one and the next", ErrVersion, e.Theirs, e.Ours)
}

// Is makes it an [ErrVersion].
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

// Kind says what a message is.
type Kind string

// The kinds of messages: requests, and the response to each.
const (
	Lookup Kind = "lookup"
	Report Kind = "report"
	Ready  Kind = "ready"
	// Failed tells of a CNI call that failed, for the daemon's metrics.
	Failed   Kind = "failed"
	Response Kind = "answer"
)

// Message is one message.
type Message struct {
	// Version is the version that the message is in. A message that is written with 0 is in the newest.
	Version int  `json:"version"`
	Kind    Kind `json:"kind"`
	// TimeoutMillis is, in a request, for how many milliseconds its sender waits for the response; 0 leaves it to the other side.
	TimeoutMillis int64 `json:"timeoutMillis,omitempty"`
	// Body is what is asked, told or found.
	Body json.RawMessage `json:"body,omitempty"`
	// Error is, in a response, why there is no body.
	Error *Error `json:"error,omitempty"`
}

// ErrorKind says what to do about an error.
type ErrorKind string

// The kinds of errors.
const (
	// TryAgain: the same request may be served later.
	TryAgain ErrorKind = "tryAgain"
	// Final: something has to be changed first.
	Final ErrorKind = "final"
)

// Error is an error in a response.
type Error struct {
	Kind ErrorKind `json:"kind"`
	// Reason tells final errors apart for programs; "" for none in particular.
	Reason string `json:"reason,omitempty"`
	// Text is for people.
	Text string `json:"text"`
}

// Write writes one message, in one call to w. The error is an ErrTooLarge, with nothing written, or that of w.
func Write(w io.Writer, m Message) error {
	if m.Version == 0 {
		m.Version = Spoken().Newest
	}
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.Kind, err)
	}
	if len(data) > MaxFrameBytes {
		return fmt.Errorf("%w: %s has %d bytes, at most %d are accepted", ErrTooLarge, m.Kind, len(data), MaxFrameBytes)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, headerBytes+len(data)), uint32(len(data))) //nolint:gosec // bounded above
	if _, err := w.Write(append(frame, data...)); err != nil {
		return fmt.Errorf("write %s: %w", m.Kind, err)
	}
	return nil
}

// Read reads one message in a version that this release speaks; see [Versions.Read].
func Read(r io.Reader) (*Message, error) { return Spoken().Read(r) }

// Read reads one message. The error is [io.EOF] if the stream ended before one began, [io.ErrUnexpectedEOF] if it ended within one,
// an ErrTooLarge, or as for Decode.
func (v Versions) Read(r io.Reader) (*Message, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err // the end of the stream is for the caller to word
	}
	n := binary.BigEndian.Uint32(header[:])
	if n > MaxFrameBytes {
		return nil, fmt.Errorf("%w: it claims %d bytes, at most %d are accepted; or it is no message at all", ErrTooLarge, n, MaxFrameBytes)
	}
	// ReadAll grows with what arrives: a claim alone takes no memory.
	data, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	if len(data) < int(n) {
		return nil, io.ErrUnexpectedEOF
	}
	return v.Decode(data)
}

// Decode reads the JSON of one frame. The error is a [VersionError] or an ErrMalformed.
func (v Versions) Decode(data []byte) (*Message, error) {
	// The version first: nothing else is known of a message of another version.
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if v.Nearest(head.Version) != head.Version {
		return nil, &VersionError{Theirs: head.Version, Ours: v}
	}
	var m Message
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return &m, nil
}

func (m *Message) check() error {
	switch m.Kind {
	case Lookup, Report, Ready, Failed:
		if m.Error != nil {
			return fmt.Errorf("%s carries an error", m.Kind)
		}
		if m.TimeoutMillis < 0 {
			return fmt.Errorf("%s has a negative timeout", m.Kind)
		}
		return nil
	case Response:
		if m.Error == nil {
			return nil
		}
		if m.Body != nil {
			return errors.New("a response carries a body and an error")
		}
		if k := m.Error.Kind; k != TryAgain && k != Final {
			return fmt.Errorf("unknown kind of error %.64q", k)
		}
		return nil
	}
	return fmt.Errorf("unknown kind %.64q", m.Kind)
}
