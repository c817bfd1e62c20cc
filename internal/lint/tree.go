// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// kind is the type of a JSON value, worded for the author of a configuration.
type kind string

const (
	kindObject kind = "an object"
	kindList   kind = "a list"
	kindString kind = "a string"
	kindNumber kind = "a number"
	kindBool   kind = "true or false"
	kindNull   kind = "null"
)

// value is a JSON value that knows where it stands: unlike a Go map it has the keys that are there twice.
type value struct {
	kind kind
	// start and end are its offsets in the text.
	start, end int
	members    []member
	items      []*value
	// text is what a string holds, and a number as it is written.
	text string
}

type member struct {
	key string
	// at is the offset of the key.
	at    int
	value *value
}

// errDepth ends the reading of what is nested deeper than any configuration.
var errDepth = errors.New("nested too deep")

const maxDepth = 100

// parseTree reads one JSON value.
func parseTree(data []byte) (*value, error) {
	p := &treeParser{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.dec.More() {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

type treeParser struct {
	data []byte
	dec  *json.Decoder
}

// next reads a token, and where it begins.
func (p *treeParser) next() (json.Token, int, error) {
	at := int(p.dec.InputOffset())
	for at < len(p.data) && strings.IndexByte(" \t\r\n,:", p.data[at]) >= 0 {
		at++
	}
	token, err := p.dec.Token()
	return token, at, err
}

func (p *treeParser) value(depth int) (*value, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	token, at, err := p.next()
	if err != nil {
		return nil, err
	}
	v := &value{start: at}
	switch token := token.(type) {
	case json.Delim:
		err = p.fill(v, token, depth)
	case string:
		v.kind, v.text = kindString, token
	case json.Number:
		v.kind, v.text = kindNumber, token.String()
	case bool:
		v.kind, v.text = kindBool, fmt.Sprint(token)
	default:
		v.kind = kindNull
	}
	v.end = int(p.dec.InputOffset())
	return v, err
}

// fill reads an object or a list up to its end.
func (p *treeParser) fill(v *value, open json.Delim, depth int) error {
	v.kind = kindList
	if open == '{' {
		v.kind = kindObject
	}
	for p.dec.More() {
		var m member
		if v.kind == kindObject {
			token, at, err := p.next()
			if err != nil {
				return err
			}
			key, ok := token.(string)
			if !ok {
				return fmt.Errorf("key %v is no string", token)
			}
			m.key, m.at = key, at
		}
		child, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		if v.kind == kindList {
			v.items = append(v.items, child)
			continue
		}
		m.value = child
		v.members = append(v.members, m)
	}
	_, _, err := p.next() // the closing delimiter
	return err
}

// get returns the value of a key, the last one as encoding/json does; nil if there is none, or v is no object. Null is none.
func (v *value) get(key string) *value {
	if v == nil {
		return nil
	}
	for _, m := range slices.Backward(v.members) {
		if m.key == key && m.value.kind != kindNull {
			return m.value
		}
	}
	return nil
}

// fold is get for the plugins, which are Go programs: their keys match in any case.
func (v *value) fold(key string) *value {
	if found := v.get(key); found != nil || v == nil {
		return found
	}
	for _, m := range slices.Backward(v.members) {
		if strings.EqualFold(m.key, key) && m.value.kind != kindNull {
			return m.value
		}
	}
	return nil
}

// str is the text of a string under a key, "" for none.
func (v *value) str(key string) string {
	if s := v.fold(key); s != nil && s.kind == kindString {
		return s.text
	}
	return ""
}

// isTrue reports whether the key is true.
func (v *value) isTrue(key string) bool {
	b := v.fold(key)
	return b != nil && b.kind == kindBool && b.text == "true"
}

// number is that of a number, 0 for what is no whole number.
func (v *value) number() int64 {
	n, err := strconv.ParseInt(v.text, 10, 64)
	if v.kind != kindNumber || err != nil {
		return 0
	}
	return n
}

// raw is the value as it is written in text.
func (v *value) raw(text string) string { return text[v.start:v.end] }

// mentioned is the value of the key that a message begins with, or the first one that it has in quotes; v itself if it names none of
// its keys.
func (v *value) mentioned(message string) *value {
	word, _, _ := strings.Cut(message, " ")
	if found := v.fold(word); found != nil {
		return found
	}
	for i, part := range strings.Split(message, `"`) {
		if i%2 == 0 {
			continue
		}
		if found := v.fold(part); found != nil {
			return found
		}
	}
	return v
}
