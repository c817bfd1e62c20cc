// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/wire"
)

func TestMessagesSurviveTheWire(t *testing.T) {
	t.Parallel()
	session := []wire.Message{
		{Kind: wire.Lookup, TimeoutMillis: 30000, Body: json.RawMessage(`{"pod":{"name":"web"}}`)},
		{Kind: wire.Response, Body: json.RawMessage(`{"networks":[]}`)},
		{Kind: wire.Report, Body: json.RawMessage(`[1]`)},
		{Kind: wire.Response},
		{Kind: wire.Ready},
		{Kind: wire.Response, Error: &wire.Error{Kind: wire.TryAgain, Text: "no pod \"web\" yet"}},
		{Kind: wire.Response, Error: &wire.Error{Kind: wire.Final, Reason: "notFound", Text: "no network"}},
	}
	var stream bytes.Buffer
	for _, m := range session {
		if err := wire.Write(&stream, m); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.OneByteReader(&stream) // a stream keeps no boundaries
	for _, want := range session {
		want.Version = wire.Spoken().Newest
		got, err := wire.Read(r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
	}
	if _, err := wire.Read(r); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Read at the end = %v, want EOF", err)
	}
}

func TestWriteIsOneCall(t *testing.T) {
	t.Parallel()
	calls := 0
	if err := wire.Write(writerFunc(func(p []byte) (int, error) { calls++; return len(p), nil }), wire.Message{Kind: wire.Ready}); err != nil {
		t.Fatal(err)
	}
	if calls != 1 {
		t.Errorf("%d writes: a signal between two would leave half a message", calls)
	}
}

func TestTooLargeIsNotWritten(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	body, err := json.Marshal(strings.Repeat("x", wire.MaxFrameBytes))
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.Write(&out, wire.Message{Kind: wire.Response, Body: body}); !errors.Is(err, wire.ErrTooLarge) || out.Len() != 0 {
		t.Errorf("Write = %v with %d bytes out; want ErrTooLarge and none", err, out.Len())
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	frame := func(s string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s
	}
	tests := map[string]struct {
		in   string
		kind error
		says string
	}{
		"a cut header":                      {"\x00\x00", io.ErrUnexpectedEOF, ""},
		"a cut message":                     {frame(`{"version":1,"kind":"ready"}`)[:10], io.ErrUnexpectedEOF, ""},
		"a message that ends at its header": {"\x00\x00\x00\x05", io.ErrUnexpectedEOF, ""},
		"another protocol":                  {"HTTP/1.1 400 Bad Request\r\n\r\n", wire.ErrTooLarge, "no message at all"},
		"an empty message":                  {frame(""), wire.ErrMalformed, ""},
		"no JSON":                           {frame("hello"), wire.ErrMalformed, "invalid character"},
		"no object":                         {frame("[1]"), wire.ErrMalformed, "array"},
		"two objects":                       {frame(`{"version":1,"kind":"ready"}{}`), wire.ErrMalformed, ""},
		"no version":                        {frame(`{"kind":"ready"}`), wire.ErrVersion, "version 0"},
		"a later version, whatever else":    {frame(`{"version":2,"kind":{"new":true}}`), wire.ErrVersion, "the other side speaks version 2, this one 1: install"},
		"an unknown kind":                   {frame(`{"version":1,"kind":"attach"}`), wire.ErrMalformed, `"attach"`},
		"a request with an error":           {frame(`{"version":1,"kind":"ready","error":{"kind":"final","text":""}}`), wire.ErrMalformed, "ready carries an error"},
		"a negative timeout":                {frame(`{"version":1,"kind":"ready","timeoutMillis":-1}`), wire.ErrMalformed, "negative"},
		"a response with body and error":    {frame(`{"version":1,"kind":"answer","body":1,"error":{"kind":"final","text":""}}`), wire.ErrMalformed, "body and an error"},
		"an unknown kind of error":          {frame(`{"version":1,"kind":"answer","error":{"kind":"perhaps","text":""}}`), wire.ErrMalformed, `"perhaps"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := wire.Read(strings.NewReader(tc.in))
			if m != nil || !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Read = %+v, %v; want %v saying %q", m, err, tc.kind, tc.says)
			}
		})
	}
}

func TestAClaimTakesNoMemory(t *testing.T) {
	t.Parallel()
	header := string(binary.BigEndian.AppendUint32(nil, wire.MaxFrameBytes))
	got := testing.Benchmark(func(b *testing.B) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := wire.Read(strings.NewReader(header + "x")); err == nil {
				b.Fatal("a cut message was read")
			}
		}
	})
	if got.AllocedBytesPerOp() > 64<<10 {
		t.Errorf("%d bytes allocated for a message of one byte that claims %d", got.AllocedBytesPerOp(), wire.MaxFrameBytes)
	}
}

// FuzzDecode: what is accepted can be said again, and means the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"lookup","timeoutMillis":30000,"body":{"pod":{"namespace":"default","name":"web"}}}`))
	f.Add([]byte(`{"version":1,"kind":"answer","error":{"kind":"tryAgain","text":"no"}}`))
	f.Add([]byte(`{"version":1,"kind":"answer","error":{"kind":"final","reason":"notFound","text":"\ud800"}}`))
	f.Add([]byte(`{"version":1,"kind":"answer","body":null}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.Spoken().Decode(data)
		if err != nil {
			if m != nil || (!errors.Is(err, wire.ErrMalformed) && !errors.Is(err, wire.ErrVersion)) {
				t.Fatalf("Decode = %+v, %v", m, err)
			}
			return
		}
		var stream bytes.Buffer
		if err = wire.Write(&stream, *m); err != nil {
			t.Fatalf("accepted, but cannot be written: %v", err)
		}
		again, err := wire.Read(&stream)
		if err != nil {
			t.Fatalf("written, but cannot be read: %v", err)
		}
		compact(t, m)
		compact(t, again)
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("said again (-want +got):\n%s", diff)
		}
	})
}

// compact gives a body one form: encoding/json compacts, and escapes for HTML, what it writes raw.
func compact(t *testing.T, m *wire.Message) {
	t.Helper()
	if m.Body == nil {
		return
	}
	var err error
	if m.Body, err = json.Marshal(m.Body); err != nil {
		t.Fatal(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
