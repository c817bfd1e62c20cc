// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pod says whose sandbox a CNI call is about. It is the only parser of CNI_ARGS.
package pod

import (
	"errors"
	"fmt"
	"strings"
)

// MaxArgsBytes bounds CNI_ARGS. A runtime sends a few hundred bytes; the kernel's own limit for one environment string is
// 128 KiB, which is more than anything sensible.
const MaxArgsBytes = 64 << 10

// ErrInvalid marks CNI_ARGS that cannot be used. Errors of this package match it with [errors.Is].
var ErrInvalid = errors.New("invalid CNI_ARGS")

// Keys of CNI_ARGS that container runtimes set for a Kubernetes pod.
const (
	keyIgnoreUnknown = "IgnoreUnknown"
	keyNamespace     = "K8S_POD_NAMESPACE"
	keyName          = "K8S_POD_NAME"
	keyInfra         = "K8S_POD_INFRA_CONTAINER_ID"
	keyUID           = "K8S_POD_UID"
)

// Ref names a pod. The zero Ref stands for a sandbox that belongs to no pod (a container of Podman or of systemd).
type Ref struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// UID tells a pod from a later one of the same name. Runtimes older than 2021 do not send it.
	UID string `json:"uid,omitempty"`
}

// IsZero reports whether r names no pod.
func (r Ref) IsZero() bool { return r == Ref{} }

// String returns "namespace/name", or "" when r names no pod.
func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	return r.Namespace + "/" + r.Name
}

// Args is a parsed CNI_ARGS (CNI 1.1.0 §2, parameters): "KEY=VALUE" pairs joined by ";".
type Args struct {
	Pod Ref
	// NamespaceAssumed is set where the runtime named a pod and no namespace: it is not Kubernetes', and its container need not be a pod.
	NamespaceAssumed bool
	// InfraContainerID is the runtime's K8S_POD_INFRA_CONTAINER_ID.
	InfraContainerID string
	// Others are the caller's remaining pairs, each key once, in the order of their first appearance.
	Others [][2]string
}

// ParseArgs reads CNI_ARGS. A value may contain "=", and a key that is given twice has its last value, as
// in an environment. A pod without namespace, as Podman sends it, is in the given one. Runtimes of no pods (nerdctl, cnitool) send neither.
func ParseArgs(s, namespace string) (Args, error) {
	if len(s) > MaxArgsBytes {
		return Args{}, fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrInvalid, len(s), MaxArgsBytes)
	}
	var args Args
	index := map[string]int{}
	for pair := range strings.SplitSeq(s, ";") {
		if pair == "" {
			continue // a trailing ";" is common and harmless
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return Args{}, fmt.Errorf("%w: %q is not KEY=VALUE; separate the pairs with \";\"", ErrInvalid, clip(pair))
		}
		if strings.ContainsFunc(pair, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return Args{}, fmt.Errorf("%w: %q has a control character", ErrInvalid, clip(pair))
		}
		switch key {
		case keyIgnoreUnknown: // Plexus always sets it for delegates
		case keyNamespace:
			args.Pod.Namespace = value
		case keyName:
			args.Pod.Name = value
		case keyInfra:
			args.InfraContainerID = value
		case keyUID:
			args.Pod.UID = value
		default:
			if i, seen := index[key]; seen {
				args.Others[i][1] = value
				continue
			}
			index[key] = len(args.Others)
			args.Others = append(args.Others, [2]string{key, value})
		}
	}
	if args.Pod.Name != "" && args.Pod.Namespace == "" {
		args.Pod.Namespace, args.NamespaceAssumed = namespace, true
	}
	return args, args.validate()
}

func (a Args) validate() error {
	switch {
	case a.Pod.IsZero():
		return nil
	case a.Pod.Name == "":
		return fmt.Errorf("%w: %s is missing or empty; the container runtime has to send it with the other K8S_POD keys", ErrInvalid, keyName)
	}
	// The names become parts of file names and of API paths.
	for _, f := range [][2]string{{keyNamespace, a.Pod.Namespace}, {keyName, a.Pod.Name}, {keyUID, a.Pod.UID}} {
		if !isObjectName(f[1]) {
			return fmt.Errorf("%w: %s %q is not the name of a Kubernetes object", ErrInvalid, f[0], clip(f[1]))
		}
	}
	return nil
}

// isObjectName reports whether s consists of the characters that names, namespaces and UIDs of Kubernetes objects have,
// in a length that they can have. "" is accepted for the optional UID.
func isObjectName(s string) bool {
	if len(s) > 253 || strings.HasPrefix(s, ".") || strings.HasPrefix(s, "-") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}

// CNIArgs returns the pairs for a delegate, in the order that the multi-network facts fix: IgnoreUnknown, the pod, the caller's
// own. Without a pod only IgnoreUnknown precedes the caller's.
func (a Args) CNIArgs() [][2]string {
	pairs := [][2]string{{keyIgnoreUnknown, "true"}}
	if !a.Pod.IsZero() {
		pairs = append(pairs,
			[2]string{keyNamespace, a.Pod.Namespace},
			[2]string{keyName, a.Pod.Name},
			[2]string{keyInfra, a.InfraContainerID},
			[2]string{keyUID, a.Pod.UID},
		)
	}
	return append(pairs, a.Others...)
}

// clip shortens a value for a message.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
