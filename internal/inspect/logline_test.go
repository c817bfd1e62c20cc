// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var handlers = map[string]func(*bytes.Buffer) slog.Handler{
	"text": func(b *bytes.Buffer) slog.Handler {
		return slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})
	},
	"json": func(b *bytes.Buffer) slog.Handler {
		return slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})
	},
}

func TestParseLineReadsWhatSlogWrites(t *testing.T) {
	t.Parallel()
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			slog.New(handler(&b)).Warn("what a \"day\"\n", "pod", "shop/web", "a key", "x=y z", "empty", "", "took", 1500*time.Millisecond,
				slog.Group("steps", "lookup", 2*time.Millisecond, slog.Group("attach", "eth0", time.Second)), "n", 7, "ok", true, "error", errors.New("é\x1b[0m"))
			l, err := parseLine(b.Bytes())
			if err != nil {
				t.Fatalf("%v: %s", err, b.String())
			}
			if l.msg != "what a \"day\"\n" || l.level != slog.LevelWarn || time.Since(l.time).Abs() > time.Minute {
				t.Errorf("%+v", l)
			}
			var keys []string
			for _, a := range l.attrs {
				keys = append(keys, a.key)
			}
			if diff := cmp.Diff([]string{"pod", "a key", "empty", "took", "steps.lookup", "steps.attach.eth0", "n", "ok", "error"}, keys); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			for key, want := range map[string]string{"pod": "shop/web", "a key": "x=y z", "empty": "", "n": "7", "ok": "true", "error": "é\x1b[0m", "absent": ""} {
				if got := l.get(key); got != want {
					t.Errorf("%s = %q; want %q", key, got, want)
				}
			}
			for key, want := range map[string]time.Duration{"took": 1500 * time.Millisecond, "steps.attach.eth0": time.Second} {
				if got, ok := duration(l.get(key)); !ok || got != want {
					t.Errorf("%s = %v, %v; want %v", key, got, ok, want)
				}
			}
		})
	}
}

func TestParseLineRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "{", "{}", "null", "[]", "panic: runtime error", `time=now level=INFO msg=x`, `time=2026-01-02T03:04:05Z level=LOUD msg=x`,
		`time=2026-01-02T03:04:05Z level=INFO`, `time=2026-01-02T03:04:05Z level=INFO msg="x`, `time=2026-01-02T03:04:05Z level=INFO msg="x"y`,
		`{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"x"`, `{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"x"} {}`,
		`{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"x","g":` + strings.Repeat(`{"g":`, 20) + "1" + strings.Repeat("}", 21),
		`time=2026-01-02T03:04:05Z level=INFO msg=x` + strings.Repeat(" a=b", maxAttrs),
	} {
		if l, err := parseLine([]byte(text)); !errors.Is(err, errNotOurs) {
			t.Errorf("parseLine(%.80q) = %+v, %v; want a refusal", text, l, err)
		}
	}
}

// FuzzParseLine: no panic, and what is accepted says the same when slog writes it again.
func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`time=2026-11-23T02:22:17.381Z level=DEBUG msg="ADD steps" verb=ADD pod=a/b took=1.9s "steps.attach eth0"=77.7ms`))
	f.Add([]byte(`time=2026-11-23T02:22:17.381+08:00 level=ERROR+2 msg="DEL failed" error="line\n\x00\"quoted\""`))
	f.Add([]byte(`{"time":"2026-11-23T02:22:17.381123456Z","level":"INFO","msg":"ADD done","took":1937715145,"steps":{"lookup":1,"":{"a":null}}}`))
	f.Add([]byte(`time=2026-01-02T03:04:05Z level=INFO msg=x msg=y time=z`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseLine(text)
		if err != nil {
			if !errors.Is(err, errNotOurs) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		if l.time.IsZero() || l.time.Year() < 0 || l.time.Year() > 9999 {
			return // slog leaves it out
		}
		var b bytes.Buffer
		r := slog.NewRecord(l.time, l.level, l.msg, 0)
		for _, a := range l.attrs {
			r.AddAttrs(slog.String(a.key, a.value))
		}
		if err = handlers["text"](&b).Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		again, err := parseLine(b.Bytes())
		if err != nil {
			t.Fatalf("%v: %q", err, b.String())
		}
		l.time, again.time = l.time.Truncate(time.Millisecond).UTC(), again.time.UTC()
		if diff := cmp.Diff(l, again, cmp.AllowUnexported(line{}, attr{})); diff != "" {
			t.Errorf("(-parsed +parsed again):\n%s", diff)
		}
	})
}
