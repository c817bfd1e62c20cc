// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"
)

// parseObject decodes one JSON object and leaves its values as they are. The error
// is an [ErrInvalid].
func parseObject(data []byte) (map[string]json.RawMessage, error) {
	if err := checkBounds(data); err != nil {
		return nil, err
	}
	// encoding/json would replace such bytes without a word.
	if !utf8.Valid(data) {
		return nil, invalidf("not UTF-8 text: write the JSON in UTF-8")
	}
	var object map[string]json.RawMessage
	err := json.Unmarshal(data, &object)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line, column := position(data, syntax.Offset)
		return nil, invalidf("not JSON at line %d, column %d: %v: correct it there", line, column, syntax)
	}
	if err != nil || object == nil { // nil is JSON's null
		return nil, invalidf("not a JSON object: write { ... } around it")
	}
	return object, nil
}

// position turns the offset of a JSON error, the count of bytes read including the
// offending one, into a line and a column in bytes, both from 1.
func position(data []byte, offset int64) (int, int) {
	before := data[:max(0, min(int(offset), len(data))-1)]
	return 1 + bytes.Count(before, []byte{'\n'}), len(before) - bytes.LastIndexByte(before, '\n')
}

// checkBounds checks the size and the nesting of a JSON text that need not be valid.
func checkBounds(data []byte) error {
	if len(data) > MaxConfigBytes {
		return invalidf("%d bytes are too many: make the configuration at most %d bytes", len(data), MaxConfigBytes)
	}
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++ // the escaped byte may be a quote
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if depth > maxDepth {
			return invalidf("more than %d levels of JSON: nest the configuration less deep", maxDepth)
		}
	}
	return nil
}

// encode is json.Marshal that leaves <, > and & in strings as they are.
func encode(v any) (json.RawMessage, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, invalidf("not JSON: %v: correct the value", err)
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte{'\n'}), nil
}

// show renders a valid JSON value for an error text, on one line.
func show(raw json.RawMessage) string {
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return quote(string(raw))
	}
	if line.Len() > shownBytes {
		return strings.ToValidUTF8(line.String()[:shownBytes], "") + "..."
	}
	return line.String()
}

// stringField returns "" if the key is missing or null.
func stringField(object map[string]json.RawMessage, key string) (string, error) {
	var value string
	if raw, ok := object[key]; ok && json.Unmarshal(raw, &value) != nil {
		return "", invalidf("%q is no string but %s: write it in quotes", key, show(raw))
	}
	return value, nil
}

// boolField returns false if the key is missing. Like libcni, it takes the words
// "true" and "false" as well.
func boolField(object map[string]json.RawMessage, key string) (bool, error) {
	raw, ok := object[key]
	if !ok {
		return false, nil
	}
	switch strings.ToLower(string(raw)) {
	case `true`, `"true"`:
		return true, nil
	case `false`, `"false"`:
		return false, nil
	}
	return false, invalidf("%q is %s: write true or false", key, show(raw))
}

// pluginsField returns nil if the key is missing or null.
func pluginsField(object map[string]json.RawMessage) ([]json.RawMessage, error) {
	raw, ok := object["plugins"]
	if !ok {
		return nil, nil
	}
	var plugins []json.RawMessage
	if err := json.Unmarshal(raw, &plugins); err != nil {
		return nil, invalidf(`"plugins" is no list: write "plugins": [ { "type": ... } ]`)
	}
	return plugins, nil
}
