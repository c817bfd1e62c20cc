// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/internal/wire"
)

// TestVersionsAreNegotiated: plugin and daemon are replaced one after the other, in either order, and back.
func TestVersionsAreNegotiated(t *testing.T) {
	t.Parallel()
	one, two, both := wire.Versions{Oldest: 1, Newest: 1}, wire.Versions{Oldest: 2, Newest: 2}, wire.Versions{Oldest: 1, Newest: 2}
	tests := map[string]struct {
		plugin, daemon wire.Versions
		sessions       int
		says           string // "" for success
	}{
		"the same release":                             {both, both, 1, ""},
		"a daemon of the release before":               {both, one, 2, ""},
		"a plugin of the release before":               {one, both, 1, ""},
		"a plugin two releases before the daemon":      {one, two, 1, "the other side speaks version 2, this one 1: install"},
		"a daemon two releases before the plugin":      {two, one, 1, "the other side speaks version 1, this one 2: install"},
		"a daemon that has dropped the version before": {both, two, 1, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := startDaemonOf(t, dir, answerWith(selection()), tc.daemon)
			c := client(t, dir)
			c.versions, c.version = tc.plugin, tc.plugin.Newest
			got, err := c.Lookup(t.Context(), web)
			if tc.says != "" {
				if !errors.Is(err, source.ErrTryAgain) || !errors.Is(err, wire.ErrVersion) || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("Lookup = %v, want an ErrVersion to be tried again, saying %q", err, tc.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(selection(), got); diff != "" {
				t.Errorf("Lookup (-want +got):\n%s", diff)
			}
			if err := c.Report(t.Context(), source.Report{Pod: web.Pod}); err != nil {
				t.Errorf("Report = %v", err)
			}
			if n := d.accepted(); n != tc.sessions {
				t.Errorf("%d sessions, want %d", n, tc.sessions)
			}
		})
	}
}

func TestADaemonThatIsReplacedByOneOfAnotherVersion(t *testing.T) {
	t.Parallel()
	one, two, three := wire.Versions{Oldest: 1, Newest: 1}, wire.Versions{Oldest: 1, Newest: 2}, wire.Versions{Oldest: 2, Newest: 3}
	for name, order := range map[string][2]wire.Versions{"an upgrade": {one, three}, "a rollback": {three, one}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first := startDaemonOf(t, dir, answerWith(selection()), order[0])
			c := client(t, dir)
			c.versions, c.version = two, two.Newest
			if _, err := c.Lookup(t.Context(), web); err != nil {
				t.Fatal(err)
			}
			first.stop()
			second := answerWith(nil)
			startDaemonOf(t, dir, second, order[1])
			if err := c.Report(t.Context(), source.Report{Pod: web.Pod}); err != nil || len(second.reported()) != 1 {
				t.Errorf("Report = %v, and the daemon has %d", err, len(second.reported()))
			}
		})
	}
}

// Below is the other side as version 1 has it. It is frozen: it stands for programs of earlier releases, so it is not changed with the
// code, nor are the files in testdata/v1. It goes when version 1 is spoken no longer.

type v1Message struct {
	Version       int             `json:"version"`
	Kind          string          `json:"kind"`
	TimeoutMillis int64           `json:"timeoutMillis,omitempty"`
	Body          json.RawMessage `json:"body,omitempty"`
	Error         *v1Error        `json:"error,omitempty"`
}

type v1Error struct {
	Kind   string `json:"kind"`
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text"`
}

// v1Read reads a message as strictly as version 1 does.
func v1Read(r io.Reader) (v1Message, error) {
	var m v1Message
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return m, err
	}
	data := make([]byte, binary.BigEndian.Uint32(header[:]))
	if _, err := io.ReadFull(r, data); err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	if m.Version != 1 {
		return m, fmt.Errorf("version mismatch: %d", m.Version)
	}
	switch m.Kind {
	case "lookup", "report", "ready":
		if m.Error == nil && m.TimeoutMillis >= 0 {
			return m, nil
		}
	case "answer":
		if m.Error == nil || m.Body == nil && (m.Error.Kind == "tryAgain" || m.Error.Kind == "final") {
			return m, nil
		}
	}
	return m, fmt.Errorf("malformed message: %s", data)
}

// v1Frame is a message of testdata/v1 as it is on the wire.
func v1Frame(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "v1", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
}

// v1Body is the body of a message of testdata/v1, as keys and values.
func v1Body(t *testing.T, name string) any {
	t.Helper()
	m, err := v1Read(strings.NewReader(string(v1Frame(t, name))))
	if err != nil {
		t.Fatal(err)
	}
	return keys(t, m.Body)
}

func keys(t *testing.T, data []byte) any {
	t.Helper()
	if data == nil {
		return nil
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// v1Has reports what of want is not in got: keys may be added within a version, and none may be lost.
func v1Has(want, got any) error {
	switch want := want.(type) {
	case map[string]any:
		other, _ := got.(map[string]any)
		for key, value := range want {
			if err := v1Has(value, other[key]); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
		return nil
	case []any:
		other, _ := got.([]any)
		if len(other) != len(want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		for i := range want {
			if err := v1Has(want[i], other[i]); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
		return nil
	}
	if !cmp.Equal(want, got) {
		return fmt.Errorf("%v, want %v", got, want)
	}
	return nil
}

// TestAPluginOfVersion1 gets from today's daemon what it got from its own.
func TestAPluginOfVersion1(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer here.Close()
	var selected source.Selection
	response, err := wire.Read(strings.NewReader(string(v1Frame(t, "selection"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(response.Body, &selected); err != nil {
		t.Fatal(err)
	}
	var asked source.Query
	src := &fake{lookup: func(_ context.Context, q source.Query) (*source.Selection, error) {
		if asked.Pod.IsZero() {
			asked = q
			return &selected, nil
		}
		return nil, fmt.Errorf("annotation x: %w: no", annotations.ErrInvalid)
	}}
	go func() { _ = Serve(t.Context(), there, src) }()
	for _, step := range []struct{ request, response string }{
		{"lookup", "selection"}, {"report", "done"}, {"ready", "done"}, {"lookup", "refusal"},
	} {
		if _, err := here.Write(v1Frame(t, step.request)); err != nil {
			t.Fatal(err)
		}
		got, err := v1Read(here)
		if err != nil {
			t.Fatalf("response to %s: %v", step.request, err)
		}
		if err := v1Has(v1Body(t, step.response), keys(t, got.Body)); err != nil {
			t.Errorf("response to %s: %v", step.request, err)
		}
		if refused := step.response == "refusal"; refused != (got.Error != nil) || refused && (got.Error.Kind != "final" || got.Error.Reason != "selection") {
			t.Errorf("response to %s: error %+v", step.request, got.Error)
		}
	}
	for name, value := range map[string]any{"lookup": asked, "report": src.reported()[0]} {
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := v1Has(v1Body(t, name), keys(t, data)); err != nil {
			t.Errorf("the %s that arrived: %v", name, err)
		}
	}
}

// TestADaemonOfVersion1 gets from today's plugin what it got from its own, and is understood.
func TestADaemonOfVersion1(t *testing.T) {
	t.Parallel()
	var query source.Query
	var report source.Report
	for name, value := range map[string]any{"lookup": &query, "report": &report} {
		m, err := v1Read(strings.NewReader(string(v1Frame(t, name))))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Body, value); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	l := listen(t, dir)
	responses := map[string]string{"lookup": "selection", "report": "done", "ready": "done"}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for {
			got, err := v1Read(conn)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			if got.Kind != "ready" {
				if err := v1Has(v1Body(t, got.Kind), keys(t, got.Body)); err != nil {
					t.Errorf("%s: %v", got.Kind, err)
				}
			}
			_, _ = conn.Write(v1Frame(t, responses[got.Kind]))
		}
	}()
	c := client(t, dir)
	got, err := c.Lookup(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if err := v1Has(v1Body(t, "selection"), keys(t, data)); err != nil {
		t.Errorf("the selection that arrived: %v", err)
	}
	if err := errors.Join(c.Report(t.Context(), report), c.Ready(t.Context())); err != nil {
		t.Error(err)
	}
}
