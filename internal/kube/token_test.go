// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/rest"
)

func TestTokenNode(t *testing.T) {
	t.Parallel()
	jwt := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	bound := jwt(`{"sub":"system:serviceaccount:plexus-system:plexusd","kubernetes.io":{"node":{"name":"n1","uid":"u"},"pod":{"name":"p"}}}`)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(bound+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		config rest.Config
		want   string
	}{
		"a pod's token":      {rest.Config{BearerToken: bound}, "n1"},
		"its file":           {rest.Config{BearerTokenFile: file}, "n1"},
		"no file":            {rest.Config{BearerTokenFile: file + ".none"}, ""},
		"a token of no node": {rest.Config{BearerToken: jwt(`{"kubernetes.io":{"namespace":"x"}}`)}, ""},
		"no JWT":             {rest.Config{BearerToken: "abcdef.0123456789abcdef"}, ""},
		"no token":           {rest.Config{}, ""},
		"no JSON in it":      {rest.Config{BearerToken: jwt(`[`)}, ""},
	} {
		if got := TokenNode(&tc.config); got != tc.want {
			t.Errorf("%s: node %q, want %q", name, got, tc.want)
		}
	}
}
