// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/plexus-cni/plexus/internal/pause"
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

// text is what the API server takes as a message. Its parts come from annotations, definitions and programs, and its readers are terminals
// and browsers: what they would not show as it is, is written as an escape sequence.
func (e Event) text() string {
	var b strings.Builder
	for _, r := range e.Text {
		if unicode.IsGraphic(r) && r != utf8.RuneError {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		if b.Len() > maxEventBytes {
			return strings.ToValidUTF8(b.String()[:maxEventBytes-len("…")], "") + "…" // a character may have been cut
		}
	}
	return b.String()
}

func reference(ref pod.Ref) corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: ref.Namespace, Name: ref.Name, UID: types.UID(ref.UID)}
}

func eventSource(node string) corev1.EventSource {
	return corev1.EventSource{Component: userAgent, Host: node}
}

func (e Event) about(ref pod.Ref, node string) *corev1.Event {
	now := metav1.Now()
	return &corev1.Event{
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
}

// What becomes of events.
const (
	EventSent       = "sent"
	EventSuppressed = "suppressed" // there were too many about the pod
	EventDropped    = "dropped"    // too many waited
	EventExpired    = "expired"    // the API server was away for too long
	EventRefused    = "refused"    // the API server says no
)

const (
	// maxEventsQueued bounds the events that wait.
	maxEventsQueued = 1000
	// eventCache bounds the pods and messages that are remembered, to count what repeats. A node has some hundred pods.
	eventCache = 1024
	// eventAge is how long an event is tried. After an outage it says nothing that helps.
	eventAge = 2 * time.Minute
)

// Events sends events in the background. What repeats is counted in one event, and a pod about which there are too many has no more for a
// while; both as client-go has it.
type Events struct {
	client     *Client
	node       string
	log        *slog.Logger
	count      func(outcome string)
	queue      chan *corev1.Event
	correlator *record.EventCorrelator
}

// NewEvents returns Events that are sent once Run runs. What becomes of each is told to count.
func (c *Client) NewEvents(node string, log *slog.Logger, count func(outcome string)) *Events {
	return &Events{
		client: c, node: node, log: log, count: count, queue: make(chan *corev1.Event, maxEventsQueued),
		correlator: record.NewEventCorrelatorWithOptions(record.CorrelatorOptions{LRUCacheSize: eventCache}),
	}
}

// Emit queues an event about a pod. It never waits.
func (e *Events) Emit(ref pod.Ref, event Event) {
	select {
	case e.queue <- event.about(ref, e.node):
	default:
		e.count(EventDropped)
	}
}

// Run sends what is queued until ctx ends.
func (e *Events) Run(ctx context.Context) {
	for {
		select {
		case event := <-e.queue:
			e.count(e.send(ctx, event))
		case <-ctx.Done():
			return
		}
	}
}

// send returns what became of the event.
func (e *Events) send(ctx context.Context, event *corev1.Event) string {
	ctx, cancel := context.WithDeadline(ctx, event.LastTimestamp.Add(eventAge))
	defer cancel()
	result, err := e.correlator.EventCorrelate(event)
	if result.Skip {
		return EventSuppressed
	}
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		if err == nil {
			event, err = e.client.writeEvent(ctx, result)
		}
		if err == nil {
			e.correlator.UpdateState(event)
			return EventSent
		}
		if !errors.Is(classify(err), ErrUnavailable) {
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				e.log.Warn("event refused", "namespace", result.Event.Namespace, "pod", result.Event.InvolvedObject.Name, "reason", result.Event.Reason, "error", err)
			}
			return EventRefused
		}
		if !pause.For(ctx, retryAfter(err, wait)) {
			return EventExpired
		}
		err = nil
	}
}

// writeEvent creates an event, or adds to its count if there is one like it.
func (c *Client) writeEvent(ctx context.Context, result *record.EventCorrelateResult) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	event, written := result.Event, &corev1.Event{}
	if event.Count > 1 {
		err := c.core.Patch(types.StrategicMergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).Body(result.Patch).Do(ctx).Into(written)
		if !apierrors.IsNotFound(err) {
			return written, err
		}
		event.ResourceVersion = "" // it has been forgotten: it is made anew
	}
	err := c.core.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(ctx).Into(written)
	return written, err
}

// SendEvent sends one event now.
func (c *Client) SendEvent(ctx context.Context, node string, ref pod.Ref, e Event) error {
	if err := c.core.Post().Namespace(ref.Namespace).Resource("events").Body(e.about(ref, node)).Do(ctx).Error(); err != nil {
		return fmt.Errorf("event about pod %s: %w", ref, err)
	}
	return nil
}
