// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// runtimeKey returns a key of a plugin that is the runtime's to set, "" if it has none. In a new configuration it is refused, in any spelling
// that a plugin written in Go takes for it: what a pod asked for, and was granted, comes by `runtimeConfig`, and what an earlier plugin or
// call did by `prevResult` and the keys of cni.dev (CNI 1.1.0 §1). A network's author who could write them would speak in the name of
// others: of a pod that asked for nothing, or of an ADD that never was.
func runtimeKey(plugin map[string]json.RawMessage) string {
	const domain = "cni.dev/"
	for _, key := range slices.Sorted(maps.Keys(plugin)) {
		if strings.EqualFold(key, "runtimeConfig") || strings.EqualFold(key, "prevResult") ||
			len(key) >= len(domain) && strings.EqualFold(key[:len(domain)], domain) {
			return key
		}
	}
	return ""
}

// checkOnce refuses a key that an object has twice, in any letters. Readers differ in which of two they take, and in whether a second object
// takes the place of the first or adds to it: a plugin could call another one than that which was checked here.
func checkOnce(raw json.RawMessage) error {
	type level struct {
		object, value bool // value: the next token is one
		keys          map[string]bool
	}
	var stack []level
	dec := json.NewDecoder(bytes.NewReader(raw))
	for {
		token, err := dec.Token()
		if err != nil {
			return nil //nolint:nilerr // It has ended: that it is JSON was seen before.
		}
		top := len(stack) - 1
		if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
			stack = stack[:top]
			continue
		}
		if top >= 0 && stack[top].object {
			if !stack[top].value {
				key := strings.ToLower(fmt.Sprint(token))
				if stack[top].keys[key] {
					return invalidf("key %s is there twice: keep one", quote(fmt.Sprint(token)))
				}
				stack[top].keys[key] = true
			}
			stack[top].value = !stack[top].value
		}
		if delim, ok := token.(json.Delim); ok {
			stack = append(stack, level{object: delim == '{', keys: map[string]bool{}})
		}
	}
}

// maxNested bounds how deep plugins call others: an IPAM of a delegate of a delegate is more than is known to exist.
const maxNested = 8

// appendNested appends the types of plugins that a plugin calls itself. Plugins written in Go take keys in any letters. Like the type of the
// plugin itself, each is to be the name of a file: plugins and Plexus look for it in the plugin folders.
func appendNested(types []string, plugin map[string]json.RawMessage, depth int) ([]string, error) {
	for _, key := range slices.Sorted(maps.Keys(plugin)) {
		if !slices.ContainsFunc([]string{"ipam", "delegate", "delegates", "plugins"}, func(k string) bool { return strings.EqualFold(key, k) }) {
			continue
		}
		if depth > maxNested {
			return types, invalidf("plugins call each other more than %d deep: write a flatter configuration", maxNested)
		}
		if err := checkOnce(plugin[key]); err != nil {
			return types, fmt.Errorf("%s: %w", key, err)
		}
		called := []json.RawMessage{plugin[key]}
		if strings.HasPrefix(string(plugin[key]), "[") && json.Unmarshal(plugin[key], &called) != nil {
			continue
		}
		for _, raw := range called {
			var nested map[string]json.RawMessage
			if json.Unmarshal(raw, &nested) != nil {
				continue // no object, no plugin
			}
			for _, k := range slices.Sorted(maps.Keys(nested)) {
				var text string
				if !strings.EqualFold(k, "type") {
					continue
				}
				if string(nested[k]) == "null" || json.Unmarshal(nested[k], &text) != nil {
					return types, invalidf("%s: \"type\" is no string: write the name of a plugin, or leave it out", key)
				}
				if text == "" {
					continue
				}
				if err := checkType(text); err != nil {
					return types, fmt.Errorf("%s: %w", key, err)
				}
				types = append(types, text)
			}
			var err error
			if types, err = appendNested(types, nested, depth+1); err != nil {
				return types, err
			}
		}
	}
	return types, nil
}
