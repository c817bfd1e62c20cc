// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"encoding/json"
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

// appendNested appends the types of plugins that a plugin calls itself. Plugins written in Go take keys in any letters.
func appendNested(types []string, plugin map[string]json.RawMessage) []string {
	for _, key := range slices.Sorted(maps.Keys(plugin)) {
		if !slices.ContainsFunc([]string{"ipam", "delegate", "delegates", "plugins"}, func(k string) bool { return strings.EqualFold(key, k) }) {
			continue
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
				if strings.EqualFold(k, "type") && json.Unmarshal(nested[k], &text) == nil {
					types = append(types, text)
				}
			}
			types = appendNested(types, nested)
		}
	}
	return types
}
