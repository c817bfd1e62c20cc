// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"errors"
	"strings"
	"testing"
)

func TestParseClaimRequest(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]ClaimRequest{
		"net/vf":      {Claim: "net", Request: "vf"},
		"net/vf/fast": {Claim: "net", Request: "vf/fast"},
	} {
		if got, err := ParseClaimRequest(text); err != nil || got != want {
			t.Errorf("ParseClaimRequest(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "net", "/", "net/", "/vf", "net/vf/fast/x", "Net/vf", "net/v f", strings.Repeat("a", 64) + "/vf"} {
		if got, err := ParseClaimRequest(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseClaimRequest(%q) = %+v, %v; want an ErrInvalid", text, got, err)
		}
	}
}

func TestClaimRequestCovers(t *testing.T) {
	t.Parallel()
	bound := ClaimRequest{Claim: "net", Request: "vf"}
	for of, want := range map[[2]string]bool{
		{"net", "vf"}: true, {"net", "vf/fast"}: true, {"net", "vf2"}: false, {"other", "vf"}: false, {"", ""}: false, {"net", ""}: false,
	} {
		if got := bound.Covers(of[0], of[1]); got != want {
			t.Errorf("%v covers %v: %v", bound, of, got)
		}
	}
	if (ClaimRequest{Claim: "net", Request: "vf/fast"}).Covers("net", "vf/slow") {
		t.Error("one alternative covers the other")
	}
}

func FuzzParseClaimRequest(f *testing.F) {
	for _, s := range []string{"net/vf", "net/vf/fast", "/", "a//b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseClaimRequest(s)
		if err != nil {
			return
		}
		if c.String() != s || !c.Covers(c.Claim, c.Request) {
			t.Errorf("%q was read as %+v", s, c)
		}
	})
}
