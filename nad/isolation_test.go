// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPolicyCheckAllows(t *testing.T) {
	t.Parallel()
	isolated := func(globalNamespaces string) Policy {
		return Policy{Isolate: true, GlobalNamespaces: ParseGlobalNamespaces(globalNamespaces)}
	}
	tests := map[string]struct {
		policy Policy
		target Ref
	}{
		"everything without isolation":                   {Policy{}, Ref{"kube-system", "net1"}},
		"the pod's own namespace":                        {isolated("foo"), Ref{"test", "net1"}},
		"I2 a namespace that is listed":                  {isolated("kube-system,donkey-kong"), Ref{"kube-system", "net1"}},
		"I3 default if globalNamespaces is unset":        {isolated(""), Ref{"default", "x"}},
		"I4 a namespace that is listed with white space": {isolated(" foo,bar ,default"), Ref{"bar", "x"}},
		"I4 default if it is listed":                     {isolated(" foo,bar ,default"), Ref{"default", "x"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := test.policy.Check("test", test.target); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPolicyCheckRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		globalNamespaces string
		target           Ref
		want             string
	}{
		"I1 another namespace": {
			"",
			Ref{"kube-system", "net1"},
			`network "kube-system/net1": forbidden: a pod in namespace "test" may not use a network of namespace "kube-system" under namespaceIsolation: ` +
				`create the NetworkAttachmentDefinition in namespace "test", or add "kube-system" to globalNamespaces`,
		},
		"I3 default if globalNamespaces is set without it": {"foo", Ref{"default", "x"}, `namespace "default"`},
		"default if globalNamespaces is set to nothing":    {" , ", Ref{"default", "x"}, `namespace "default"`},
		"a namespace that only begins like a listed one":   {"kube", Ref{"kube-system", "x"}, `namespace "kube-system"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := Policy{Isolate: true, GlobalNamespaces: ParseGlobalNamespaces(test.globalNamespaces)}
			checkError(t, policy.Check("test", test.target), ErrForbidden, test.want)
		})
	}
}

func TestPolicyKeepsUnsetAndEmptyApartInJSON(t *testing.T) {
	t.Parallel()
	for _, want := range []Policy{{Isolate: true}, {Isolate: true, GlobalNamespaces: []string{}}} {
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Policy
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", data, diff)
		}
	}
}

func TestParseGlobalNamespaces(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"":                   nil,
		"a":                  {"a"},
		" foo,bar ,default,": {"foo", "bar", "default"},
		" ":                  {},
	} {
		if diff := cmp.Diff(want, ParseGlobalNamespaces(in)); diff != "" {
			t.Errorf("%q: -want +got:\n%s", in, diff)
		}
	}
}
