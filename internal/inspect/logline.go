// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// attr is an attribute of a log line. Its value is text as a person reads it; in a group the key is "group.key".
type attr struct{ key, value string }

// line is one line of a log.
type line struct {
	time  time.Time
	level slog.Level
	msg   string
	attrs []attr
}

// maxAttrs bounds the attributes of one line: each takes many times the bytes that it has in the file.
const maxAttrs = 4096

// get is the value of an attribute, the first of that name, and "" without one.
func (l *line) get(key string) string {
	for _, a := range l.attrs {
		if a.key == key {
			return a.value
		}
	}
	return ""
}

// errNotOurs marks a line that slog has not written.
var errNotOurs = errors.New("not a line of a slog handler")

// parseLine reads a line of either of slog's own handlers, without its newline.
func parseLine(text []byte) (*line, error) {
	text = bytes.TrimSpace(text)
	parse := parseText
	if bytes.HasPrefix(text, []byte("{")) {
		parse = parseJSON
	}
	attrs, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOurs, err)
	}
	l := &line{}
	missing := map[string]bool{slog.TimeKey: true, slog.LevelKey: true, slog.MessageKey: true}
	for _, a := range attrs {
		if !missing[a.key] {
			l.attrs = append(l.attrs, a)
			continue
		}
		delete(missing, a.key)
		switch a.key {
		case slog.TimeKey:
			l.time, err = time.Parse(time.RFC3339Nano, a.value)
		case slog.LevelKey:
			err = l.level.UnmarshalText([]byte(a.value))
		case slog.MessageKey:
			l.msg = a.value
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNotOurs, err)
		}
	}
	for key := range missing {
		return nil, fmt.Errorf("%w: no %q", errNotOurs, key)
	}
	return l, nil
}

// parseText reads KEY=VALUE KEY="VALUE" ..., as slog.TextHandler writes them.
func parseText(text []byte) ([]attr, error) {
	var attrs []attr
	for s := string(text); s != ""; {
		key, rest, err := token(s, "=")
		if err != nil {
			return nil, err
		}
		rest, ok := strings.CutPrefix(rest, "=")
		if !ok {
			return nil, fmt.Errorf("no = after %.40q", key)
		}
		value, rest, err := token(rest, " ")
		if err != nil {
			return nil, err
		}
		if rest, ok = strings.CutPrefix(rest, " "); !ok && rest != "" {
			return nil, fmt.Errorf("no space after the value of %.40q", key)
		}
		if len(attrs) == maxAttrs {
			return nil, fmt.Errorf("more than %d attributes", maxAttrs)
		}
		attrs = append(attrs, attr{key, value})
		s = rest
	}
	return attrs, nil
}

// token takes a quoted string, or all up to the end mark, off the front of s.
func token(s, end string) (string, string, error) {
	if strings.HasPrefix(s, `"`) {
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", err
		}
		text, err := strconv.Unquote(quoted)
		return text, s[len(quoted):], err
	}
	if i := strings.Index(s, end); i >= 0 {
		return s[:i], s[i:], nil
	}
	return s, "", nil
}

// parseJSON reads an object as slog.JSONHandler writes it, in its order. Objects within are groups.
func parseJSON(text []byte) ([]attr, error) {
	p := jsonParser{dec: json.NewDecoder(bytes.NewReader(text))}
	p.dec.UseNumber()
	if _, err := p.dec.Token(); err != nil { // the "{" that brought us here
		return nil, err
	}
	if err := p.group("", 0); err != nil {
		return nil, err
	}
	if p.dec.More() {
		return nil, errors.New("more than one JSON value")
	}
	return p.attrs, nil
}

type jsonParser struct {
	dec   *json.Decoder
	attrs []attr
}

// maxDepth bounds groups within groups.
const maxDepth = 16

// group reads the rest of an object.
func (p *jsonParser) group(prefix string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("groups nested more than %d deep", maxDepth)
	}
	for p.dec.More() {
		key, err := p.dec.Token()
		if err != nil {
			return err
		}
		if err := p.value(prefix+fmt.Sprint(key), depth); err != nil {
			return err
		}
	}
	_, err := p.dec.Token() // the "}"
	return err
}

func (p *jsonParser) value(key string, depth int) error {
	var raw json.RawMessage
	if err := p.dec.Decode(&raw); err != nil {
		return err
	}
	if raw[0] == '{' {
		inner := jsonParser{dec: json.NewDecoder(bytes.NewReader(raw)), attrs: p.attrs}
		if _, err := inner.dec.Token(); err != nil {
			return err
		}
		err := inner.group(key+".", depth+1)
		p.attrs = inner.attrs
		return err
	}
	if len(p.attrs) >= maxAttrs {
		return fmt.Errorf("more than %d attributes", maxAttrs)
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
	}
	p.attrs = append(p.attrs, attr{key, text})
	return nil
}

// duration reads what slog makes of a time.Duration: text such as 1.5ms, or nanoseconds in JSON.
func duration(text string) (time.Duration, bool) {
	if d, err := time.ParseDuration(text); err == nil {
		return d, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Duration(n), err == nil
}
