// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"fmt"
	"slices"
	"strings"
)

// Policy says which namespaces' networks a pod may use: the keys
// namespaceIsolation and globalNamespaces of the plugin's configuration. It holds
// on every path by which a pod selects a network.
type Policy struct {
	// Isolate refuses a network of another namespace than the pod's.
	Isolate bool `json:"isolate"`
	// GlobalNamespaces are exempt from Isolate: every pod may use their networks. Nil
	// (unset) means "default" alone; once set, "default" counts only if it is listed.
	GlobalNamespaces []string `json:"globalNamespaces"`
}

// Check returns an [ErrForbidden] if a pod of podNamespace may not use the network
// target.
func (p Policy) Check(podNamespace string, target Ref) error {
	if target.Namespace == podNamespace || p.IsGlobal(target.Namespace) {
		return nil
	}
	return fmt.Errorf("network %s: %w: a pod in namespace %s may not use a network of namespace %s under namespaceIsolation: "+
		"create the NetworkAttachmentDefinition in namespace %s, or add %s to globalNamespaces",
		quote(target.String()), ErrForbidden, quote(podNamespace), quote(target.Namespace), quote(podNamespace), quote(target.Namespace))
}

// IsGlobal reports whether pods of all namespaces may use the networks of a namespace.
func (p Policy) IsGlobal(namespace string) bool {
	if !p.Isolate {
		return true
	}
	if p.GlobalNamespaces == nil {
		return namespace == "default"
	}
	return slices.Contains(p.GlobalNamespaces, namespace)
}

// ParseGlobalNamespaces parses the comma separated list of the key
// globalNamespaces; items are trimmed and empty ones dropped. An empty string is
// an unset key and returns nil.
func ParseGlobalNamespaces(s string) []string {
	if s == "" {
		return nil
	}
	// Not nil even if no item is left: a key that is set withdraws "default".
	namespaces := []string{}
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			namespaces = append(namespaces, item)
		}
	}
	return namespaces
}
