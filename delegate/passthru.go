// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// PassthruType is the plugin type of [Passthru].
const PassthruType = "passthru"

// Passthru is the built-in first plugin of an auxiliary chain: ADD hands the previous result on, or an empty one; all other
// verbs succeed and do nothing.
func Passthru(_ context.Context, stdin []byte, environ []string) ([]byte, error) {
	if !slices.Contains(environ, "CNI_COMMAND=ADD") {
		return nil, nil
	}
	var conf struct {
		CNIVersion string          `json:"cniVersion"`
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	if len(conf.PrevResult) > 0 {
		return conf.PrevResult, nil
	}
	empty, err := (&types100.Result{CNIVersion: version.Current()}).GetAsVersion(conf.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("empty result: %w", err)
	}
	return json.Marshal(empty)
}
