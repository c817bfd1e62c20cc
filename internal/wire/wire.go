// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wire is what plugin and daemon say to each other: bounded, versioned JSON messages over a stream, be it a Unix socket or
// the pipes of a child.
//
// A message is a frame: its length in four bytes, big-endian, then that many bytes of one JSON object. The plugin asks, the other
// side answers, in turns; a CNI call is one conversation:
//
//	lookup → answer [→ report → answer]
//	ready → answer
//
// Either side ends the conversation by closing the stream; that cancels the work on an answer that nobody waits for any more. What
// the bodies mean is the business of the two sides.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// Version is the version of the messages. Frames, and the key "version" in them, stay what they are in every version.
	Version = 1
	// MaxFrameBytes bounds a message. A configuration has at most 1 MiB, as the API server's objects do, and real ones have a
	// few hundred bytes; this leaves room for any selection that a pod could be attached to in time.
	MaxFrameBytes = 8 << 20
)

const headerBytes = 4

var (
	// ErrMalformed says that the other side sent something that is no message.
	ErrMalformed = errors.New("malformed message")
	// ErrVersion says that the other side speaks another version.
	ErrVersion = errors.New("version mismatch")
	// ErrTooLarge says that a message has more than MaxFrameBytes.
	ErrTooLarge = errors.New("message too large")
)

// Kind says what a message is.
type Kind string

// The kinds of messages. The first three ask, and each is answered by the last.
const (
	Lookup Kind = "lookup"
	Report Kind = "report"
	Ready  Kind = "ready"
	Answer Kind = "answer"
)

// Message is one message. Its version is not a field: a message of another version is never seen as one.
type Message struct {
	Kind Kind `json:"kind"`
	// TimeoutMillis is, in a question, for how many milliseconds its sender waits for the answer; 0 leaves it to the other side.
	TimeoutMillis int64 `json:"timeoutMillis,omitempty"`
	// Body is what is asked or answered.
	Body json.RawMessage `json:"body,omitempty"`
	// Error is, in an answer, why there is no body.
	Error *Error `json:"error,omitempty"`
}

// ErrorKind says what to do about an error.
type ErrorKind string

// The kinds of errors.
const (
	// TryAgain: the same question may get an answer later.
	TryAgain ErrorKind = "tryAgain"
	// Final: somebody has to change something first.
	Final ErrorKind = "final"
)

// Error is an error as an answer.
type Error struct {
	Kind ErrorKind `json:"kind"`
	// Reason tells final errors apart for programs; "" for none in particular.
	Reason string `json:"reason,omitempty"`
	// Text is for people.
	Text string `json:"text"`
}

// framed is the JSON form of a message.
type framed struct {
	Version int `json:"version"`
	Message
}

// Write writes one message, in one call to w. The error is an ErrTooLarge, with nothing written, or that of w.
func Write(w io.Writer, m Message) error {
	data, err := json.Marshal(framed{Version: Version, Message: m})
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

// Read reads one message. The error is [io.EOF] if the stream ended before one began, [io.ErrUnexpectedEOF] if it ended within one,
// an ErrTooLarge, or as for Decode.
func Read(r io.Reader) (*Message, error) {
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
	return Decode(data)
}

// Decode reads the JSON of one frame. The error is an ErrVersion or an ErrMalformed.
func Decode(data []byte) (*Message, error) {
	// The version first: nothing else is known of a message of another version.
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if head.Version != Version {
		return nil, fmt.Errorf("%w: the other side speaks version %d, this one %d: install plexus and plexusd of the same release", ErrVersion, head.Version, Version)
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
	case Lookup, Report, Ready:
		if m.Error != nil {
			return fmt.Errorf("%s carries an error", m.Kind)
		}
		if m.TimeoutMillis < 0 {
			return fmt.Errorf("%s has a negative timeout", m.Kind)
		}
		return nil
	case Answer:
		if m.Error == nil {
			return nil
		}
		if m.Body != nil {
			return errors.New("an answer carries a body and an error")
		}
		if k := m.Error.Kind; k != TryAgain && k != Final {
			return fmt.Errorf("unknown kind of error %.64q", k)
		}
		return nil
	}
	return fmt.Errorf("unknown kind %.64q", m.Kind)
}
