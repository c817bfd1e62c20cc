// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plexus-cni/plexus/internal/pause"
	"github.com/plexus-cni/plexus/internal/pod"
)

// The pause before a patch is tried again doubles from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// PatchAnnotations sets annotations of the pod with ref's UID, and nothing else of it: there is no read before, so nobody else's
// change can be lost. It tries again, until ctx ends, while the API server is not available. The error is an ErrPodGone, an
// ErrUnavailable, or final.
func (c *Client) PatchAnnotations(ctx context.Context, ref pod.Ref, values map[string]string) error {
	patch, err := annotationPatch(ref.UID, values)
	if err != nil {
		return fmt.Errorf("patch pod %s: %w", ref, err)
	}
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		// Through the subresource, as the permission to patch pods/status is all that is needed: the API server takes metadata with it.
		_, err := c.pods.Namespace(ref.Namespace).Patch(ctx, ref.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		if err == nil {
			return nil
		}
		if isGone(err) {
			return fmt.Errorf("%w: %s: %w", ErrPodGone, ref, err)
		}
		err = fmt.Errorf("patch annotations of pod %s: %w", ref, classify(err))
		if !errors.Is(err, ErrUnavailable) || !pause.For(ctx, retryAfter(err, wait)) {
			return err
		}
	}
}

// annotationPatch is a JSON merge patch (RFC 7386). A UID in it is a condition: the API server refuses to change one.
func annotationPatch(uid string, values map[string]string) ([]byte, error) {
	type meta struct {
		UID         string            `json:"uid,omitempty"`
		Annotations map[string]string `json:"annotations"`
	}
	return json.Marshal(map[string]meta{"metadata": {UID: uid, Annotations: values}})
}

// isGone reports whether a patch failed because there is no pod of that name, or one with another UID.
func isGone(err error) bool {
	if apierrors.IsNotFound(err) {
		return true
	}
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.ErrStatus.Details == nil {
		return false
	}
	for _, cause := range status.ErrStatus.Details.Causes {
		if cause.Field == "metadata.uid" {
			return true
		}
	}
	return false
}

// retryAfter is the pause that the server asks for, or else ours.
func retryAfter(err error, ours time.Duration) time.Duration {
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		return max(ours, time.Duration(seconds)*time.Second)
	}
	return ours
}
