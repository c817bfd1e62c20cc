// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/plexus-cni/plexus/internal/config"
)

func jwt(expires time.Time) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"none"}`)) + "." + part(fmt.Appendf(nil, `{"exp":%d}`, expires.Unix())) + ".x"
}

func TestKubeconfig(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	good := jwt(now.Add(time.Hour))
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/version" || r.Header.Get("Authorization") != "Bearer "+good {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	t.Cleanup(broken.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, tc := range map[string]struct {
		server, token, context string
		ca                     []byte
		code                   string
	}{
		"a token that is accepted":            {server: server.URL, token: good, ca: ca},
		"a token that is not":                 {server: server.URL, token: jwt(now.Add(2 * time.Hour)), ca: ca, code: APIRefused},
		"a token that has expired":            {server: server.URL, token: jwt(now.Add(-time.Second)), ca: ca, code: CredentialsExpired},
		"a server of another authority":       {server: server.URL, token: good, code: APIUnreachable},
		"a server that is not there":          {server: "https://127.0.0.1:1", token: good, ca: ca, code: APIUnreachable},
		"a server that is broken":             {server: broken.URL, token: good, code: APIUnreachable},
		"a context that is not there":         {server: server.URL, token: good, ca: ca, context: "other", code: KubeconfigInvalid},
		"an authority that is none":           {server: server.URL, token: good, ca: []byte("x"), code: KubeconfigInvalid},
		"a token that expires in two minutes": {server: server.URL, token: jwt(now.Add(2 * time.Minute)), ca: ca, code: CredentialsExpiring},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			current := "c"
			if tc.context != "" {
				current = tc.context
			}
			type object = map[string]any
			data, err := json.Marshal(object{
				"current-context": current,
				"contexts":        []any{object{"name": "c", "context": object{"cluster": "k", "user": "u"}}},
				"clusters":        []any{object{"name": "k", "cluster": object{"server": tc.server, "certificate-authority-data": tc.ca}}},
				"users":           []any{object{"name": "u", "user": object{"tokenFile": "token"}}},
			})
			for file, text := range map[string][]byte{"kubeconfig": data, "token": []byte(tc.token + "\n")} {
				if err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), text, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			d := &Doctor{Now: func() time.Time { return now }, JSON: func(data []byte) ([]byte, error) { return data, nil }}
			found, err := d.checkKubeconfig(t.Context(), &node{conf: &conf{cfg: &config.Config{Kubeconfig: filepath.Join(dir, "kubeconfig")}}})
			if err != nil {
				t.Fatal(err)
			}
			if tc.code == CredentialsExpiring { // the server does not know that token
				found = found[:1]
			}
			if tc.code == "" && len(found) > 0 || tc.code != "" && (len(found) != 1 || found[0].Code != tc.code) {
				t.Errorf("found %s; want %q", show(found), tc.code)
			}
		})
	}
}

func FuzzParseKubeconfig(f *testing.F) {
	f.Add([]byte(`{"current-context":"c","contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}],"clusters":[{"name":"k","cluster":{"server":"https://x"}}],"users":[{"name":"u","user":{"token":"a.b.c"}}]}`))
	f.Add([]byte(`{"users":[{"user":{"client-certificate-data":"eA=="}}],"clusters":[{"cluster":{"server":"x"}}],"contexts":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseKubeconfig(data, func(string) ([]byte, error) { return nil, fs.ErrNotExist })
		if err == nil && a.server == "" {
			t.Error("accepted without a server")
		}
		if err == nil {
			a.expiries("x", time.Unix(0, 0))
		}
	})
}

func TestTokenExpiry(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	if got, ok := tokenExpiry(jwt(at)); !ok || !got.Equal(at) {
		t.Errorf("%v, %v; want %v", got, ok, at)
	}
	for _, token := range []string{"", "abc", "a.b", "a.%.c", "a.e30.c"} {
		if got, ok := tokenExpiry(token); ok {
			t.Errorf("%q: %v; want none", token, got)
		}
	}
}

func TestServiceRange(t *testing.T) {
	t.Parallel()
	if got := serviceRange([]byte("spec:\n    - kube-apiserver\n    - --service-cluster-ip-range=10.96.0.0/12,fd00::/108\n")); got != "10.96.0.0/12,fd00::/108" {
		t.Errorf("%q", got)
	}
}
