// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/plexus-cni/plexus/internal/pod"
)

// maxEventBytes is what the API server takes as the message of an event.
const maxEventBytes = 1024

// eventTimeout bounds one request of the background.
const eventTimeout = 10 * time.Second

// Event is something that users see with their pod.
type Event struct {
	// Warning is set for what somebody should look at.
	Warning bool
	// Reason is one word in CamelCase.
	Reason string
	Text   string
}

func (e Event) kind() string {
	if e.Warning {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

func (e Event) text() string {
	if len(e.Text) > maxEventBytes {
		return strings.ToValidUTF8(e.Text[:maxEventBytes-len("…")], "") + "…" // a character may have been cut
	}
	return e.Text
}

func reference(ref pod.Ref) corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: ref.Namespace, Name: ref.Name, UID: types.UID(ref.UID)}
}

func eventSource(node string) corev1.EventSource {
	return corev1.EventSource{Component: userAgent, Host: node}
}

// StartEvents returns a function that tells events in the background, until ctx ends. It never waits: what repeats is counted in
// one event, and what is more than the API server takes is dropped.
func (c *Client) StartEvents(ctx context.Context, node string) func(pod.Ref, Event) {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(sink{ctx: ctx, events: c.core})
	recorder := broadcaster.NewRecorder(runtime.NewScheme(), eventSource(node))
	return func(ref pod.Ref, e Event) {
		target := reference(ref)
		recorder.Event(&target, e.kind(), e.Reason, e.text())
	}
}

// SendEvent tells one event now.
func (c *Client) SendEvent(ctx context.Context, node string, ref pod.Ref, e Event) error {
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: ref.Namespace,
			Name:      ref.Name + "." + strconv.FormatInt(now.UnixNano(), 16), // as client-go names them
		},
		InvolvedObject: reference(ref),
		Reason:         e.Reason,
		Message:        e.text(),
		Source:         eventSource(node),
		FirstTimestamp: now,
		LastTimestamp:  now,
		Count:          1,
		Type:           e.kind(),
	}
	if err := c.core.Post().Namespace(ref.Namespace).Resource("events").Body(event).Do(ctx).Error(); err != nil {
		return fmt.Errorf("event about pod %s: %w", ref, err)
	}
	return nil
}

// sink is where client-go's recorder writes to. Its interface has no context, so it is a field.
type sink struct {
	ctx    context.Context
	events *rest.RESTClient
}

var _ record.EventSink = sink{}

func (s sink) Create(e *corev1.Event) (*corev1.Event, error) {
	return s.do(s.events.Post().Namespace(e.Namespace).Resource("events").Body(e))
}

func (s sink) Update(e *corev1.Event) (*corev1.Event, error) {
	return s.do(s.events.Put().Namespace(e.Namespace).Resource("events").Name(e.Name).Body(e))
}

func (s sink) Patch(e *corev1.Event, patch []byte) (*corev1.Event, error) {
	return s.do(s.events.Patch(types.StrategicMergePatchType).Namespace(e.Namespace).Resource("events").Name(e.Name).Body(patch))
}

func (s sink) do(r *rest.Request) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(s.ctx, eventTimeout)
	defer cancel()
	result := &corev1.Event{}
	return result, r.Do(ctx).Into(result)
}
