// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package guest is what runs inside of the virtual machine, and how it tells the outside what it saw.
package guest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// TaskFile is where the first process finds its Task, as JSON.
	TaskFile = "/task.json"
	// WorkDir is where the work folder is mounted; the program starts there.
	WorkDir = "/work"
	// WorkTag is the name that the work folder has as a 9p share.
	WorkTag = "work"
	// Port is the name of the virtio-serial port that output and verdict leave by.
	Port = "output"

	// Wire is the guest's interface that is outside of all PFs: what it sends reaches the ports of the PFs by a wire.
	Wire = "wire0"
	// PF is what the name of each PF's interface starts with. A number follows, from 0, in the order of PCI addresses.
	PF = "pf"
)

// Task is what the guest is to do.
type Task struct {
	System  []string // Kernel modules that the first process itself needs: paths, in the order to load them.
	Modules []string // Those that the program needs, alike.
	Argv    []string // Program, relative to WorkDir or found in PATH, and its arguments.
	Env     []string // Added to the program's environment, each "NAME=value".
}

// Verdict is how a task ended.
type Verdict struct {
	Code  int    // Exit code of the program. 128 and the signal's number if one ended it.
	Error string // Why the program could not be run, else empty.
}

// A frame is its kind, the length of its body in four bytes, big-endian, and the body.
const (
	kindStart   = 's'
	kindOutput  = 'o'
	kindVerdict = 'v'
	headerSize  = 5
	maxBody     = 1 << 20
)

// ErrNoVerdict says that the stream ended before the verdict: the guest died.
var ErrNoVerdict = errors.New("the guest ended without a verdict")

// Writer writes the frames that Copy reads. What is written to it is the program's output.
type Writer struct{ w io.Writer }

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Start says that the program starts now.
func (w *Writer) Start() error { return w.frame(kindStart, nil) }

// Write writes output.
func (w *Writer) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		chunk := p[:min(len(p), maxBody)]
		if err := w.frame(kindOutput, chunk); err != nil {
			return written, err
		}
		written, p = written+len(chunk), p[len(chunk):]
	}
	return written, nil
}

// End writes the verdict, which is the last frame.
func (w *Writer) End(v Verdict) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.frame(kindVerdict, body)
}

func (w *Writer) frame(kind byte, body []byte) error {
	header := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)))
	_, err := w.w.Write(append(header, body...))
	return err
}

// Copy copies the output of a stream of frames to w as it arrives, calls started when the program starts, and returns the verdict
// at the end. If the stream ends before, the error is ErrNoVerdict.
func Copy(w io.Writer, stream io.Reader, started func()) (Verdict, error) {
	for {
		var header [headerSize]byte
		if _, err := io.ReadFull(stream, header[:]); err != nil {
			return Verdict{}, ended(err)
		}
		kind, size := header[0], int64(binary.BigEndian.Uint32(header[1:]))
		if size > maxBody {
			return Verdict{}, fmt.Errorf("frame of %d bytes from the guest: at most %d are allowed", size, maxBody)
		}
		switch kind {
		case kindStart:
			started()
		case kindOutput:
			if _, err := io.CopyN(w, stream, size); err != nil {
				return Verdict{}, ended(err)
			}
		case kindVerdict:
			body := make([]byte, size)
			if _, err := io.ReadFull(stream, body); err != nil {
				return Verdict{}, ended(err)
			}
			var v Verdict
			if err := json.Unmarshal(body, &v); err != nil {
				return Verdict{}, fmt.Errorf("parse verdict of the guest: %w", err)
			}
			return v, nil
		default:
			return Verdict{}, fmt.Errorf("frame of unknown kind %q from the guest", kind)
		}
	}
}

// ended tells the end of the stream from what else can fail, such as writing the output.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrNoVerdict
	}
	return err
}
