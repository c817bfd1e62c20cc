// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/plexus-cni/plexus/internal/kube"
)

// TestKubeconfigsAuthenticate shows that a client made of a kubeconfig says who it is, by each way that needs no certificate.
func TestKubeconfigsAuthenticate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plugin := write("credential", `#!/bin/sh
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"secret"}}'
`, 0o700)
	tokenFile := write("token", "secret", 0o600)
	for name, user := range map[string]string{
		"token":       `{token: secret}`,
		"tokenFile":   `{tokenFile: ` + tokenFile + `}`,
		"exec plugin": `{exec: {apiVersion: client.authentication.k8s.io/v1, command: ` + plugin + `, interactiveMode: Never}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer secret" {
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			t.Cleanup(api.Close)
			file := filepath.Join(t.TempDir(), "kubeconfig")
			ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
			text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %s, certificate-authority-data: %s}}]
users: [{name: u, user: %s}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, api.URL, base64.StdEncoding.EncodeToString(ca), user)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			config, err := kube.LoadConfig(file)
			if err != nil {
				t.Fatal(err)
			}
			client, err := kube.NewClient(config, kube.ClientOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err = client.Ping(t.Context()); err != nil {
				t.Errorf("Ping: %v", err)
			}
		})
	}
}
