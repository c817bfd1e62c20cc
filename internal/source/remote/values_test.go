// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"strings"
	"testing"
)

// TestValuesAreCountedBeforeTheyAreDecoded: a daemon that lies must not take the memory of the node by the plugin.
func TestValuesAreCountedBeforeTheyAreDecoded(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`{"networks":[{},{"ips":[]},null]}`:  7,
		`{"config":"{\"a\":[{}]}","b":"\\"}`: 2,
		`"{"`:                                0,
		``:                                   0,
	} {
		if got := values([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
	if got := values([]byte(`{"networks":[` + strings.Repeat("{},", maxValues) + `{}]}`)); got <= maxValues {
		t.Errorf("%d values are not too many", got)
	}
}
