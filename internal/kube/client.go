// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kube is the API server and the kubelet: the pods of this node and all NetworkAttachmentDefinitions, the devices that a pod was
// given, what its networks gave it, and events about it. Nothing else speaks with them.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
	nadv1 "github.com/plexus-cni/plexus/nad/v1"
)

var (
	// ErrUnavailable says that the API server did not answer, or not yet with what is asked for; it may later.
	ErrUnavailable = errors.New("API server not available")
	// ErrPodGone says that there is no such pod, or another one in its place.
	ErrPodGone = errors.New("pod is gone")
)

// Pod is what is read of a pod.
type Pod struct {
	Ref pod.Ref
	// Annotations are those that select networks, and that which marks a static pod.
	Annotations map[string]string
}

// Client asks the API server directly.
type Client struct {
	pods   metadata.Getter
	nads   *rest.RESTClient
	core   *rest.RESTClient // events, and pods of which more than metadata is needed
	claims *rest.RESTClient // resource.k8s.io

	observer *observer
}

// ClientOptions are what a Client tells of its requests.
type ClientOptions struct {
	// Log is told when the API server goes away, and when it is back; nil for nobody.
	Log *slog.Logger
	// Count is told of each request: its verb (get, list, watch, create, update, patch) and the HTTP status code of its response, or
	// NoResponse; nil for nobody.
	Count func(verb, code string)
}

// userAgent is what audit logs of the API server show.
const userAgent = "plexusd"

// LoadConfig reads how to reach the API server: from a kubeconfig, or, for "", from what a pod's service account has. Tokens in
// files are read again when they are rotated.
func LoadConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		c, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("in-cluster configuration: %w: run as a pod with a service account, or give a kubeconfig", err)
		}
		return c, nil
	}
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return c, nil
}

// NewClient returns a Client. It connects on first use.
func NewClient(config *rest.Config, o ClientOptions) (*Client, error) {
	config = rest.CopyConfig(config)
	observer := newObserver(o.Log, o.Count)
	config.Wrap(observer.wrap)
	config.UserAgent = userAgent
	// No limit of our own: calls are bounded by the pods of one node, and the API server has its own fairness.
	config.QPS = -1
	hc, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("API client: %w", err)
	}
	scheme := runtime.NewScheme()
	if err = errors.Join(nadv1.AddToScheme(scheme), corev1.AddToScheme(scheme), resourcev1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("API types: %w", err)
	}
	// Metadata is all that is used of most pods, so the API server is asked for no more.
	pods, err := metadata.NewForConfigAndClient(config, hc)
	if err != nil {
		return nil, fmt.Errorf("API client: %w", err)
	}
	nads, nadErr := restClient(config, hc, scheme, "/apis", nadv1.GroupVersion)
	core, coreErr := restClient(config, hc, scheme, "/api", corev1.SchemeGroupVersion)
	claims, claimErr := restClient(config, hc, scheme, "/apis", resourcev1.SchemeGroupVersion)
	if err = errors.Join(nadErr, coreErr, claimErr); err != nil {
		return nil, fmt.Errorf("API client: %w", err)
	}
	return &Client{
		pods: pods.Resource(corev1.SchemeGroupVersion.WithResource(podResource)), nads: nads, core: core, claims: claims, observer: observer,
	}, nil
}

// Serving reports whether the API server served the last request: with anything but 429 and 5xx.
func (c *Client) Serving() bool { return c.observer.serving() }

func restClient(config *rest.Config, hc *http.Client, scheme *runtime.Scheme, path string, gv schema.GroupVersion) (*rest.RESTClient, error) {
	c := rest.CopyConfig(config)
	c.APIPath = path
	c.GroupVersion = &gv
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientForConfigAndClient(c, hc)
}

// Names of resources.
const (
	podResource = "pods"
	nadResource = "network-attachment-definitions"
)

// Pod gets a pod by its name, whatever its UID is. The error is an ErrPodGone, an ErrUnavailable, or final.
func (c *Client) Pod(ctx context.Context, ref pod.Ref) (Pod, error) {
	m, err := c.pods.Namespace(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Pod{}, fmt.Errorf("%w: the API server knows no pod %s", ErrPodGone, ref)
	}
	if err != nil {
		return Pod{}, fmt.Errorf("get pod %s: %w", ref, classify(err))
	}
	return podOf(m), nil
}

// Definition gets a NetworkAttachmentDefinition. The error is a [nad.ErrNotFound], an ErrUnavailable, or final.
func (c *Client) Definition(ctx context.Context, ref nad.Ref) (*nad.Definition, error) {
	var d nadv1.NetworkAttachmentDefinition
	err := c.nads.Get().Namespace(ref.Namespace).Resource(nadResource).Name(ref.Name).Do(ctx).Into(&d)
	if apierrors.IsNotFound(err) {
		return nil, noDefinition(ref)
	}
	if err != nil {
		return nil, fmt.Errorf("get NetworkAttachmentDefinition %s: %w", ref, classify(err))
	}
	return definitionOf(&d), nil
}

func noDefinition(ref nad.Ref) error {
	return fmt.Errorf("%w: there is no NetworkAttachmentDefinition %s: create it, or correct the name", nad.ErrNotFound, ref)
}

func podOf(m *metav1.PartialObjectMetadata) Pod {
	return Pod{
		Ref:         pod.Ref{Namespace: m.Namespace, Name: m.Name, UID: string(m.UID)},
		Annotations: maps.Clone(m.Annotations),
	}
}

func definitionOf(d *nadv1.NetworkAttachmentDefinition) *nad.Definition {
	def := annotations.Definition(nad.Ref{Namespace: d.Namespace, Name: d.Name}, d.Spec.Config, d.Annotations)
	return &def
}

// classify marks as ErrUnavailable what another try may get: the server busy, restarting, not reachable, or not trusting a token
// that has just been rotated.
func classify(err error) error {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok { // no answer at all: connection, TLS, timeout
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	transient := []int32{
		http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests,
	}
	if code := status.Status().Code; code >= http.StatusInternalServerError || slices.Contains(transient, code) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w: grant it, as the ClusterRole of Plexus' manifests does", err)
	}
	return err
}

// Ping asks the API server whether it serves. The error is an ErrUnavailable, or final.
func (c *Client) Ping(ctx context.Context) error {
	if err := c.core.Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return fmt.Errorf("API server: %w", classify(err))
	}
	return nil
}
