// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
)

// publishTimeout bounds what is tried for one claim. Others wait for it.
const publishTimeout = 30 * time.Second

// maxPublications bounds those that wait: more than a node has pods.
const maxPublications = 1000

// Publisher writes in the background what became of devices of ResourceClaims into their status (KEP-4817), and takes it back when the
// pod is gone. What it cannot write is logged, and no pod waits for it.
//
// It remembers for whom it published. When it is restarted that is lost, and with it what only claims that outlive their pod need: of
// the others Kubernetes clears the status with the allocation.
type Publisher struct {
	// Apply writes into a claim's status; see [kube.Client.ApplyClaimStatus].
	Apply func(ctx context.Context, ref pod.Ref, claim string, attached []kube.Attached) error
	// There reports whether a pod is still there.
	There func(context.Context, pod.Ref) bool
	// Count is told what became of each write (ok, failed, dropped).
	Count func(outcome string)
	Log   *slog.Logger

	mu      sync.Mutex
	waiting []publication
	wake    chan struct{}
}

// publication is what is said of one pod; without claims, that it is gone.
type publication struct {
	pod    pod.Ref
	claims map[string][]kube.Attached
}

// NewPublisher returns a Publisher that does nothing before Run.
func NewPublisher(apply func(context.Context, pod.Ref, string, []kube.Attached) error, there func(context.Context, pod.Ref) bool, count func(outcome string), log *slog.Logger) *Publisher {
	return &Publisher{Apply: apply, There: there, Count: count, Log: log, wake: make(chan struct{}, 1)}
}

// Len is how many pods wait.
func (p *Publisher) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// Publish queues what became of a pod's devices. It does not wait.
func (p *Publisher) Publish(ref pod.Ref, interfaces []source.Interface) {
	claims := map[string][]kube.Attached{}
	for _, i := range interfaces {
		if i.Claimed != nil {
			claims[i.Claimed.Claim] = append(claims[i.Claimed.Claim], kube.Attached{
				Device: *i.Claimed, Network: i.Network, IfName: i.Name, Addresses: i.Addresses, MAC: i.MAC,
			})
		}
	}
	if len(claims) == 0 || ref.UID == "" {
		return
	}
	p.queue(publication{pod: ref, claims: claims})
}

// Gone queues that a pod is gone. It does not wait.
func (p *Publisher) Gone(ref pod.Ref) { p.queue(publication{pod: ref}) }

func (p *Publisher) queue(what publication) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(what.claims) > 0 && len(p.waiting) >= maxPublications {
		p.Count(outcomeDropped)
		p.Log.Warn("status of ResourceClaims not written: too many wait", "pod", what.pod.String())
		return
	}
	p.waiting = append(p.waiting, what)
	select {
	case p.wake <- struct{}{}:
	default: // it will look
	}
}

// Run works the queue off, in its order, until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	published := map[string][]string{} // claims by the UID of the pod
	for ctx.Err() == nil {
		what, ok := p.next()
		if ok {
			p.work(ctx, what, published)
			continue
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
		}
	}
}

func (p *Publisher) next() (publication, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		return publication{}, false
	}
	what := p.waiting[0]
	p.waiting = slices.Delete(p.waiting, 0, 1)
	return what, true
}

func (p *Publisher) work(ctx context.Context, what publication, published map[string][]string) {
	uid := what.pod.UID
	if what.claims == nil {
		for _, claim := range published[uid] {
			p.apply(ctx, what.pod, claim, nil)
		}
		delete(published, uid)
		return
	}
	if !p.There(ctx, what.pod) {
		return // it went meanwhile, and that may have been told already
	}
	names := slices.Sorted(maps.Keys(what.claims))
	published[uid] = slices.Compact(slices.Sorted(slices.Values(slices.Concat(published[uid], names))))
	for _, claim := range names {
		p.apply(ctx, what.pod, claim, what.claims[claim])
	}
}

func (p *Publisher) apply(ctx context.Context, ref pod.Ref, claim string, attached []kube.Attached) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	err := p.Apply(ctx, ref, claim, attached)
	if err == nil {
		p.Count(outcomeOK)
	} else {
		p.Count(outcomeFailed)
		p.Log.Warn("status of a ResourceClaim not written", "pod", ref.String(), "error", err)
	}
}
