// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sysfs

import (
	"strings"
	"testing"
)

func TestParsePort(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]port{
		"pf0": {kind: "pf", number: "0"}, "c1pf0": {kind: "pf", number: "0", external: true},
		"pf0vf3": {kind: "vf", number: "3"}, "pf11vf127": {kind: "vf", number: "127"},
		"c1pf0vf3": {kind: "vf", number: "3", external: true}, "c0pf0vf3": {kind: "vf", number: "3"},
		"pf0sf88": {kind: "sf", number: "88"}, "c1pf0sf88": {kind: "sf", number: "88", external: true},
		"3": {kind: "vf", number: "3"},
	} {
		if got, ok := parsePort(name); !ok || got != want {
			t.Errorf("parsePort(%q) = %+v, %t, want %+v", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "p0", "pf", "pfvf3", "pf0vf", "pf0vf3x", "pf0vf-3", "cpf0vf3", "c1", "c1p0", "xpf0vf3", "pf0vf3sf4", "p0s1", "lan", "pf0xf3", "-1"} {
		if got, ok := parsePort(name); ok || got != (port{}) {
			t.Errorf("parsePort(%q) = %+v, %t, want none", name, got, ok)
		}
	}
}

// A representor's name is made of nothing but what it was read as.
func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"p0", "pf0", "pf0vf3", "c1pf0vf3", "pf0sf88", "3", "", "cpf", "pf0vf3sf4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p, ok := parsePort(name)
		if !ok {
			if p != (port{}) {
				t.Errorf("parsePort(%q) = %+v, and no port", name, p)
			}
			return
		}
		rest, isNumber := strings.CutSuffix(name, p.number)
		if !isNumber || !isDecimal(p.number) || strings.Trim(rest, "cpfvs0123456789") != "" {
			t.Errorf("parsePort(%q) = %+v", name, p)
		}
		if rest != "" && !strings.HasSuffix(rest, p.kind) {
			t.Errorf("parsePort(%q) is of kind %q", name, p.kind)
		}
		if p.external && !strings.HasPrefix(name, "c") {
			t.Errorf("parsePort(%q) is external", name)
		}
	})
}
