// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/nad"
)

func TestWhatANetworksAuthorGrantsTravelsWithIt(t *testing.T) {
	t.Parallel()
	find := func(def nad.Definition) Definitions {
		return func(ref nad.Ref) (*nad.Definition, error) {
			def.Ref, def.Config = ref, "{}"
			return &def, nil
		}
	}
	p := web(map[string]string{annotations.NetworksKey: `[{"name":"a","ip":"x"}]`})
	sel, err := Select(Query{}, p, find(nad.Definition{UnsupportedRequests: "refuse", AllowedCNIArgs: " mac,,sysctl "}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := sel.Networks[0]; !n.RefuseUnsupported || !cmp.Equal(n.AllowedCNIArgs, []string{"mac", "sysctl"}) {
		t.Errorf("network %+v", n)
	}
	if len(sel.Warnings) != 1 || !strings.Contains(sel.Warnings[0], `did you mean "ips"?`) {
		t.Errorf("warnings %q", sel.Warnings)
	}
	if _, err = Select(Query{}, p, find(nad.Definition{UnsupportedRequests: "Refuse"}), nil); !errors.Is(err, nad.ErrInvalid) || !strings.Contains(err.Error(), annotations.UnsupportedRequestsKey) {
		t.Errorf("a value that is unknown: %v", err)
	}
}
