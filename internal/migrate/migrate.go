// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package migrate tells what becomes of an existing install of Multus: which configuration of Plexus is its equal, what behaves otherwise
// then, and which pods and networks ask for something that Plexus refuses. It reads, and changes nothing.
//
// [Find] and the parsers read an install, [Translate] decides about its configuration, [Examine] about pods and networks, and [ReadState]
// counts what the old plugin left for DEL.
package migrate

import (
	"encoding/json"
	"errors"
	"path/filepath"
)

// Limits of what is read.
const (
	// MaxObjectsBytes bounds one file of Kubernetes objects: all pods of a large cluster, as JSON.
	MaxObjectsBytes = 256 << 20
	// maxObjects bounds what one run examines.
	maxObjects = 1 << 20
)

// Folders and files of an install of Multus.
const (
	defaultNetDir     = "/etc/cni/net.d"
	defaultConfDir    = "/etc/cni/multus/net.d"
	daemonConfigName  = "daemon-config.json" // beside the conf, in multusDir
	kubeconfigName    = "multus.kubeconfig"
	multusDir         = "multus.d"
	defaultChrootDir  = "/hostroot"
	defaultHostPrefix = "/host"
	plexusSocketDir   = "/run/plexus" // as deploy/base has it
)

// ErrInvalid marks an input that cannot be used; its text names the file, the field and the fix.
var ErrInvalid = errors.New("not a configuration of Multus")

// Target is where the configuration of Plexus is meant for.
type Target string

// The targets.
const (
	// Kubernetes stands for key plugin.json in ConfigMap plexus: plexusd makes the node's configuration of it.
	Kubernetes Target = "kubernetes"
	// Plain stands for the configuration list itself, on a node that an administrator configures.
	Plain Target = "plain"
)

// The codes of findings. They are stable: scripts and documents go by them.
const (
	ConfKeyRefused     = "conf-key-refused"
	ConfKeyUnknown     = "conf-key-unknown"
	ConfKeyChanged     = "conf-key-changed"
	ConfInvalid        = "conf-invalid"
	ConfChained        = "conf-chained"
	ConfNoNetwork      = "conf-no-network"
	NetworkInvalid     = "network-invalid"
	NetworkMissing     = "network-missing"
	NetworkIsolated    = "network-isolated"
	AnnotationInvalid  = "annotation-invalid"
	RequestUnsupported = "request-unsupported"
	DeviceMissing      = "device-missing"
	PodRefused         = "pod-refused"
	ObjectInvalid      = "object-invalid"
	StateUnreadable    = "state-unreadable"
	AnnotationUnknown  = "annotation-unknown"
	ConfigTooLong      = "config-too-long"
	HotPlugUnsupported = "hot-plug-unsupported"
)

// Became is what became of a key.
type Became string

// What a key can become.
const (
	Kept    Became = "kept"
	Renamed Became = "renamed"
	Changed Became = "changed" // it has another value
	Ignored Became = "ignored"
	Refused Became = "refused"
	Added   Became = "added" // it was not there
)

// Key is one key of the old configuration, or one that the new one needs.
type Key struct {
	Key string `json:"key"`
	// File is where it stands, "" for one that was added.
	File   string `json:"file,omitempty"`
	Became Became `json:"became"`
	// To is the name and Value the value in the configuration of Plexus, if it has one there.
	To    string          `json:"to,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
	Why   string          `json:"why,omitempty"`
}

// Change is something that behaves otherwise with this configuration.
type Change struct {
	Topic  string `json:"topic"`
	Multus string `json:"multus"`
	Plexus string `json:"plexus"`
}

// MaxConfigBytes is what the CustomResourceDefinition of Plexus lets spec.config of a NetworkAttachmentDefinition have, in bytes.
const MaxConfigBytes = 64 << 10

// rooted is a path of the node as seen from here.
func rooted(root, path string) string { return filepath.Join(root, path) }

// IsKubernetes reports whether the configuration is that of a node of Kubernetes: Multus asks the API server there.
func (in Input) IsKubernetes() bool {
	if in.Daemon != nil || in.Conf == nil || in.Conf.Type == typeThick {
		return true
	}
	var kubeconfig string
	return json.Unmarshal(in.Conf.Keys["kubeconfig"], &kubeconfig) == nil && kubeconfig != ""
}
