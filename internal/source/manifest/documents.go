// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"

	"sigs.k8s.io/yaml"
)

// Documents yields the documents of a YAML or JSON stream, counted from 1, as JSON, or says why one is none. Empty ones are left out.
func Documents(data []byte) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		if isUTF16(data) {
			yield(nil, fmt.Errorf("%w: it is UTF-16: write it in UTF-8", ErrInvalid))
			return
		}
		for n, doc := range documents(data) {
			j, err := toJSON(doc)
			if err != nil {
				err = fmt.Errorf("%w: document %d: %w", ErrInvalid, n, err)
			}
			if !yield(j, err) {
				return
			}
		}
	}
}

// toJSON leaves JSON alone: YAML's reader takes many times as long for it, and what a whole cluster has is long.
func toJSON(doc []byte) (json.RawMessage, error) {
	if trimmed := bytes.TrimSpace(doc); trimmed[0] == '{' && json.Valid(trimmed) {
		return trimmed, nil
	}
	return yaml.YAMLToJSON(doc)
}
