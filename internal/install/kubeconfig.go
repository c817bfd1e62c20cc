// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Kubeconfig is the file for lookups without a daemon, made from a pod's service account.
type Kubeconfig struct {
	// Path is where it is written to, by the same path here and on the host. The token is written beside it.
	Path string
	// Server is the API server's URL, as the host reaches it.
	Server string
	// AccountDir is the folder with the service account's token and ca.crt, which the kubelet renews.
	AccountDir string
}

// tokenName is the name of the token's file beside the kubeconfig.
const tokenName = "token"

// Write writes kubeconfig and token if they are others than before.
func (k Kubeconfig) Write() error {
	ca, caErr := os.ReadFile(filepath.Join(k.AccountDir, "ca.crt"))
	token, tokenErr := os.ReadFile(filepath.Join(k.AccountDir, "token"))
	if err := errors.Join(caErr, tokenErr); err != nil {
		return fmt.Errorf("service account: %w", err)
	}
	dir := filepath.Dir(k.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	type object = map[string]any
	tokenFile := filepath.Join(dir, tokenName)
	config, err := json.MarshalIndent(object{ // JSON is YAML
		"apiVersion":      "v1",
		"kind":            "Config",
		"clusters":        []any{object{"name": "cluster", "cluster": object{"server": k.Server, "certificate-authority-data": ca}}},
		"users":           []any{object{"name": "plexus", "user": object{"tokenFile": tokenFile}}},
		"contexts":        []any{object{"name": "plexus", "context": object{"cluster": "cluster", "user": "plexus"}}},
		"current-context": "plexus",
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	// The token first: a kubeconfig that names none would be of no use.
	_, tokenErr = writeFile(tokenFile, token)
	_, configErr := writeFile(k.Path, append(config, '\n'))
	return errors.Join(tokenErr, configErr)
}
