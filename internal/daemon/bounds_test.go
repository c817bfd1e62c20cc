// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

// manyTimes selects a network as often as an annotation can.
func manyTimes(network string) map[string]string {
	return map[string]string{annotations.NetworksKey: strings.TrimSuffix(strings.Repeat(network+",", annotations.MaxElements), ",")}
}

func TestADefinitionIsLookedUpOnce(t *testing.T) {
	t.Parallel()
	ref := nad.Ref{Namespace: "default", Name: "b"}
	c := newCluster(manyTimes("b"))
	c.created = map[nad.Ref]string{ref: "config-b"}
	got, err := c.source().Lookup(t.Context(), source.Query{Pod: web})
	if err != nil || len(got.Networks) != annotations.MaxElements {
		t.Fatalf("Lookup = %d networks, %v", len(got.Networks), err)
	}
	if c.asked != 1 {
		t.Errorf("the API server was asked %d times for one definition", c.asked)
	}
}

func TestANetworkOfTheConfigurationThatIsAFileIsNotAskedFor(t *testing.T) {
	t.Parallel()
	c := newCluster(nil)
	got, err := c.source().Lookup(t.Context(), source.Query{
		Pod: web, ClusterNetwork: "file", DefaultNetworks: []string{"other", "ns/third"}, NetworksNamespace: "kube-system",
	})
	if err != nil || !got.Default.Missing || len(got.DefaultNetworks) != 2 {
		t.Fatalf("Lookup = %+v, %v", got, err)
	}
	if c.asked != 0 {
		t.Errorf("the API server was asked %d times", c.asked)
	}
}

func TestConfigurationsTogetherAreBounded(t *testing.T) {
	t.Parallel()
	ref := nad.Ref{Namespace: "default", Name: "large"}
	for name, prepare := range map[string]func(*cluster){
		"of one definition that is selected many times": func(c *cluster) { c.created = map[nad.Ref]string{ref: strings.Repeat("x", 1<<20)} },
		"of definitions from memory":                    func(c *cluster) { c.nads[ref] = strings.Repeat("x", 16<<10) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(manyTimes("large"))
			prepare(c)
			_, err := c.source().Lookup(t.Context(), source.Query{Pod: web})
			if !errors.Is(err, annotations.ErrInvalid) || !strings.Contains(err.Error(), "default/large") || !strings.Contains(err.Error(), "select fewer") {
				t.Errorf("Lookup = %v", err)
			}
			want := []event{{web, kube.Event{Warning: true, Reason: "InvalidNetworkSelection", Text: err.Error()}}}
			if diff := cmp.Diff(want, c.events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestALargeLookupKeepsItsSlotUntilTheRequestEnds: until then its configurations are in memory.
func TestALargeLookupKeepsItsSlotUntilTheRequestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(map[string]string{annotations.NetworksKey: "large"})
		c.nads[nad.Ref{Namespace: "default", Name: "large"}] = strings.Repeat("x", 200<<10)
		c.pods["default/small"] = kube.Pod{Ref: pod.Ref{Namespace: "default", Name: "small"}, Annotations: map[string]string{annotations.NetworksKey: "a"}}
		src := c.source()
		src.Large = daemon.NewSlots(1)
		limit := time.Hour
		lookup := func(name string) (context.CancelFunc, error) {
			limit /= 2 // each ends before the one before
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			_, err := src.Lookup(ctx, source.Query{Pod: pod.Ref{Namespace: "default", Name: name}})
			return cancel, err
		}
		endFirst, err := lookup("web")
		if err != nil {
			t.Fatal(err)
		}
		end, err := lookup("web")
		if !errors.Is(err, source.ErrTryAgain) {
			t.Errorf("a second large lookup: %v, want it to wait in vain", err)
		}
		end()
		if end, err = lookup("small"); err != nil {
			t.Errorf("a small lookup: %v", err)
		}
		end()
		endFirst()
		synctest.Wait()
		if end, err = lookup("web"); err != nil {
			t.Errorf("a large lookup when the first has ended: %v", err)
		}
		end()
	})
}

// slow is a cluster whose patches wait.
type slow struct {
	*cluster

	asked   chan string
	proceed chan struct{}
}

func (s *slow) PatchAnnotations(_ context.Context, ref pod.Ref, _ map[string]string) error {
	s.asked <- ref.Name
	<-s.proceed
	return nil
}

// Pod waits for pods that nobody knows, as a watch does.
func (s *slow) Pod(ctx context.Context, ref pod.Ref) (kube.Pod, error) {
	if ref.Name == "unknown" {
		<-ctx.Done()
		return kube.Pod{}, kube.ErrUnavailable
	}
	return s.cluster.Pod(ctx, ref)
}

func TestRequestsAreServedInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &slow{cluster: newCluster(nil), asked: make(chan string, 10), proceed: make(chan struct{})}
		src := s.source()
		src.API, src.InFlight = s, daemon.NewSlots(1)
		names := []string{"a", "b", "c", "d"}
		var all sync.WaitGroup
		for _, name := range names {
			all.Go(func() {
				_ = src.Report(t.Context(), source.Report{Pod: pod.Ref{Namespace: "default", Name: name}, Status: []annotations.Status{{Name: "cluster"}}})
			})
			synctest.Wait() // it is in, or queued, before the next comes
		}
		if n := len(s.asked); n != 1 {
			t.Errorf("%d at once, want 1", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := src.Lookup(ctx, source.Query{Pod: web}); !errors.Is(err, source.ErrTryAgain) || !strings.Contains(err.Error(), "busy") {
			t.Errorf("a lookup that waited too long got %v, want ErrTryAgain", err)
		}
		for range names {
			s.proceed <- struct{}{}
		}
		all.Wait()
		close(s.asked)
		var got []string
		for name := range s.asked {
			got = append(got, name)
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestPodsThatNobodyKnowsHoldNoSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &slow{cluster: newCluster(nil)}
		src := s.source()
		src.API, src.InFlight = s, daemon.NewSlots(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { _, _ = src.Lookup(ctx, source.Query{Pod: pod.Ref{Namespace: "default", Name: "unknown"}}) }()
		synctest.Wait()
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := src.Lookup(short, source.Query{Pod: web}); err != nil {
			t.Errorf("Lookup of a pod that is known = %v", err)
		}
	})
}
