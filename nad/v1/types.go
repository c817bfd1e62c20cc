// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NetworkAttachmentDefinition is a network that pods of its namespace may select to
// be attached to.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=network-attachment-definitions,singular=network-attachment-definition,scope=Namespaced,shortName=nad;net-attach-def
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Resource",type=string,JSONPath=`.metadata.annotations.k8s\.v1\.cni\.cncf\.io/resourceName`,description="Device resource that each attachment consumes"
// +kubebuilder:printcolumn:name="Config",type=string,JSONPath=`.spec.config`,priority=1,description="CNI configuration of the network"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NetworkAttachmentDefinition struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the network is.
	// +optional
	Spec NetworkAttachmentDefinitionSpec `json:"spec"`
}

// NetworkAttachmentDefinitionSpec says what a network is.
type NetworkAttachmentDefinitionSpec struct {
	// config is a CNI plugin configuration or configuration list, as JSON text. If it
	// is empty, the configuration is a file on the node whose `name` is the name of
	// this object. Longer ones than 64 Ki characters are refused: the daemon of every
	// node reads all of them.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	Config string `json:"config,omitempty"`
}

// NetworkAttachmentDefinitionList is a list of NetworkAttachmentDefinitions.
//
// +kubebuilder:object:root=true
type NetworkAttachmentDefinitionList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NetworkAttachmentDefinition `json:"items"`
}
