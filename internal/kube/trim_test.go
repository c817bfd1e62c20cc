// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plexus-cni/plexus/annotations"
	nadv1 "github.com/plexus-cni/plexus/nad/v1"
)

func TestOfAPodTheCacheKeepsWhatSelectsNetworksAndWhatIsAlmostThat(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	got := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
		annotations.NetworksKey: "a", annotations.NetworkStatusKey: long, "k8s.v1.cni.cncf.io/network": long, "example.com/networks": long,
	}}}
	trimPod(&got)
	want := map[string]string{annotations.NetworksKey: "a", annotations.NetworkStatusKey: "", "k8s.v1.cni.cncf.io/network": ""}
	if diff := cmp.Diff(want, got.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	many := map[string]string{}
	for i := range 100 {
		many[fmt.Sprintf("k8s.v1.cni.cncf.io/networks%d", i)] = long
	}
	got.Annotations = many
	if trimPod(&got); len(got.Annotations) != 8 {
		t.Errorf("of 100 keys that are almost one of ours, %v are kept", got.Annotations)
	}
}

func TestOfADefinitionTheCacheKeepsAllThatPlexusReads(t *testing.T) {
	t.Parallel()
	all := map[string]string{"example.com/x": "y"}
	for _, key := range annotations.DefinitionKeys() {
		all[key] = "of " + key
	}
	d := nadv1.NetworkAttachmentDefinition{ObjectMeta: metav1.ObjectMeta{Annotations: all}}
	(&Cache{}).trimDefinition(&d)
	got := definitionOf(&d)
	for want, value := range map[string]string{
		annotations.ResourceNameKey: got.ResourceName, annotations.ClaimRequestKey: got.ClaimRequest,
		annotations.UnsupportedRequestsKey: got.UnsupportedRequests, annotations.AllowedCNIArgsKey: got.AllowedCNIArgs,
	} {
		if value != "of "+want {
			t.Errorf("%s became %q", want, value)
		}
	}
}
