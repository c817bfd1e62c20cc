// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stream is what a guest sends that writes texts and ends with a verdict.
func stream(tb testing.TB, verdict Verdict, texts ...string) []byte {
	tb.Helper()
	var sent bytes.Buffer
	w := NewWriter(&sent)
	if err := w.Start(); err != nil {
		tb.Fatal(err)
	}
	for _, text := range texts {
		if n, err := io.WriteString(w, text); err != nil || n != len(text) {
			tb.Fatalf("write %d bytes: %d, %v", len(text), n, err)
		}
	}
	if err := w.End(verdict); err != nil {
		tb.Fatal(err)
	}
	return sent.Bytes()
}

func TestWhatIsWrittenComesOut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		texts   []string
		verdict Verdict
	}{
		"nothing":                     {nil, Verdict{}},
		"an exit code":                {nil, Verdict{Code: 42}},
		"an error":                    {[]string{"text"}, Verdict{Error: "no such program"}},
		"several texts":               {[]string{"a", "", "b\nc\n"}, Verdict{Code: 1}},
		"more than fits into a frame": {[]string{strings.Repeat("x", 2*maxBody+1)}, Verdict{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			starts := 0
			verdict, err := Copy(&out, bytes.NewReader(stream(t, test.verdict, test.texts...)), func() { starts++ })
			if err != nil || starts != 1 {
				t.Fatalf("%d starts, %v", starts, err)
			}
			if diff := cmp.Diff(test.verdict, verdict); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(strings.Join(test.texts, ""), out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAStreamThatEndsAnywhereBeforeItsVerdictHasNone(t *testing.T) {
	t.Parallel()
	whole := stream(t, Verdict{Code: 1}, "text")
	for n := range whole {
		if _, err := Copy(io.Discard, bytes.NewReader(whole[:n]), func() {}); !errors.Is(err, ErrNoVerdict) {
			t.Errorf("after %d bytes: got %v, want %v", n, err, ErrNoVerdict)
		}
	}
}

type full struct{}

var errFull = errors.New("no space")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWhatGoesWrongIsNotTakenForTheEndOfTheGuest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stream []byte
		out    io.Writer
		want   string
	}{
		"output that can not be written": {stream(t, Verdict{}, "text"), full{}, errFull.Error()},
		"an unknown kind":                {[]byte("x\x00\x00\x00\x00"), io.Discard, `unknown kind 'x'`},
		"too large a frame":              {[]byte("o\xff\xff\xff\xff"), io.Discard, "frame of 4294967295 bytes"},
		"a verdict that is no JSON":      {[]byte("v\x00\x00\x00\x01{"), io.Discard, "parse verdict"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Copy(test.out, bytes.NewReader(test.stream), func() {})
			if err == nil || errors.Is(err, ErrNoVerdict) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzCopy(f *testing.F) {
	f.Add(stream(f, Verdict{Code: 3}, "text"))
	f.Add([]byte("o\x00\x00\x00\x02ab"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		var out bytes.Buffer
		_, err := Copy(&out, bytes.NewReader(sent), func() {})
		if err == nil && out.Len()+headerSize > len(sent) {
			t.Errorf("%d bytes of output and a verdict came out of %d bytes", out.Len(), len(sent))
		}
	})
}

func TestPFsAreNumberedByTheirAddressAndTheOtherCardIsTheWire(t *testing.T) {
	t.Parallel()
	got := nameCards([]card{
		{"eth0", "igb", "0000:02:00.0"},
		{"eth1", "e1000e", "0000:00:03.0"},
		{"eth2", "igb", "0000:01:00.0"},
	})
	if diff := cmp.Diff(map[string]string{"eth0": "pf1", "eth1": "wire0", "eth2": "pf0"}, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}
