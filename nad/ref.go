// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"fmt"
	"strings"
)

// Limits of Kubernetes names (RFC 1123), in bytes.
const (
	maxLabelBytes     = 63
	maxSubdomainBytes = 253
)

// Ref names a NetworkAttachmentDefinition.
type Ref struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String returns "namespace/name". A network that is no Kubernetes object has no
// namespace and is only its name.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}

// ParseRef parses "name" or "namespace/name"; the first gets defaultNamespace. The
// namespace has to be an RFC 1123 label and the name an RFC 1123 subdomain, so it
// may have dots. Anything else is an [ErrInvalid].
func ParseRef(s, defaultNamespace string) (Ref, error) {
	namespace, name, qualified := strings.Cut(s, "/")
	if !qualified {
		namespace, name = defaultNamespace, s
	}
	if strings.Contains(name, "/") {
		return Ref{}, fmt.Errorf("network %s: %w", quote(s), invalidf(
			`more than one "/": write "name" or "namespace/name"`))
	}
	if !IsLabel(namespace) {
		return Ref{}, fmt.Errorf("network %s: %w", quote(s), invalidf(
			"namespace %s is no RFC 1123 label: use 1 to %d of a-z, 0-9 and \"-\", with a letter or digit at both ends",
			quote(namespace), maxLabelBytes))
	}
	if !IsSubdomain(name) {
		return Ref{}, fmt.Errorf("network %s: %w", quote(s), invalidf(
			"name %s is no RFC 1123 subdomain: use 1 to %d of a-z, 0-9, \"-\" and \".\", with a letter or digit at both ends of each part",
			quote(name), maxSubdomainBytes))
	}
	return Ref{Namespace: namespace, Name: name}, nil
}

// IsLabel reports whether s is an RFC 1123 label, as names of namespaces are: 1 to 63 lower-case letters, digits and "-", with a letter
// or digit at both ends.
func IsLabel(s string) bool {
	return len(s) <= maxLabelBytes && labelCharacters(s)
}

// IsSubdomain reports whether s is an RFC 1123 subdomain, as names of most objects are: labels joined by ".", at most 253 bytes together.
func IsSubdomain(s string) bool {
	if len(s) > maxSubdomainBytes {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		// Kubernetes bounds the whole of a subdomain, not its parts.
		if !labelCharacters(part) {
			return false
		}
	}
	return true
}

func labelCharacters(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && 0 < i && i < len(s)-1:
		default:
			return false
		}
	}
	return s != ""
}
