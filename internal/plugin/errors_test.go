// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestErrorsSteerNoTerminal: what a plugin says comes with an event of the pod to whoever reads it.
func TestErrorsSteerNoTerminal(t *testing.T) {
	t.Parallel()
	const said, shown = "a\x1b[2Jb\x07c\u009bd\u202ee", `a\u001b[2Jb\u0007c\u009bd\u202ee`
	for name, err := range map[string]error{
		"an error of Plexus": errors.New(said),
		"one of a plugin":    fmt.Errorf("plugin x: %w", types.NewError(100, said, said)),
	} {
		e := Error(err)
		if got := e.Msg + e.Details; got != shown && got != "plugin x: "+shown+shown {
			t.Errorf("%s: %q", name, got)
		}
	}
	if e := Error(errors.New("one\ntwo")); e.Msg != "one; two" {
		t.Errorf("lines: %q", e.Msg)
	}
}
