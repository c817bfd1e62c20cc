// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"slices"
)

// ParseForUndo reads a configuration for a DEL. That needs the folders, and what it needs of networks is on record: of a configuration
// that [Parse] refuses, the keys that are not about folders are left out. The second value is what Parse says, nil if nothing. A
// configuration that names no network at all is none of Plexus, and refused as on any verb.
func ParseForUndo(data []byte) (*Config, error, error) {
	c, refused := Parse(data)
	if refused == nil {
		return c, nil, nil
	}
	if errors.Is(refused, errNoNetwork) {
		return nil, nil, refused
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(data, &all) != nil {
		return nil, nil, refused
	}
	kept := map[string]json.RawMessage{"delegates": json.RawMessage(`[{"type":"none"}]`)}
	for key, value := range all {
		if slices.Contains([]string{"cniVersion", "name", "cniDir", "legacyCNIDir", "binDir", "logFile"}, key) {
			kept[key] = value
		}
	}
	data, err := json.Marshal(kept)
	if err == nil {
		c, err = Parse(data)
	}
	if err != nil {
		return nil, nil, refused
	}
	return c, refused, nil
}
