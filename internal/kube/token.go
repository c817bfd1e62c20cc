// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/plexus-cni/plexus/internal/bounded"
)

// maxTokenBytes bounds a token's file; those of service accounts have about a kilobyte.
const maxTokenBytes = 64 << 10

// TokenNode is the name of the node whose pod a service account's token was given to, which the API server puts into it (Kubernetes
// 1.30); "" if the configuration has no such token. It is not verified: the API server does that.
func TokenNode(config *rest.Config) string {
	token := config.BearerToken
	if token == "" && config.BearerTokenFile != "" {
		data, err := bounded.ReadFile(config.BearerTokenFile, maxTokenBytes)
		if err != nil {
			return "" // who uses the token says so
		}
		token = string(data)
	}
	_, rest, _ := strings.Cut(strings.TrimSpace(token), ".")
	payload, _, _ := strings.Cut(rest, ".")
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return ""
	}
	var claims struct {
		Kubernetes struct {
			Node struct {
				Name string `json:"name"`
			} `json:"node"`
		} `json:"kubernetes.io"`
	}
	if err = json.Unmarshal(data, &claims); err != nil {
		return ""
	}
	return claims.Kubernetes.Node.Name
}
