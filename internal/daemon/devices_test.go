// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/daemon"
	"github.com/plexus-cni/plexus/internal/kube"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

const resource = "intel.com/vf"

// node is a kubelet, and what the cluster knows of claims. It counts what it is asked.
type node struct {
	given    kube.Given
	claims   []kube.PodClaim
	devices  map[string][]pod.ClaimedDevice // of a claim
	slices   map[string]pod.Device          // by the name of the device in DRA
	oneShot  bool                           // nothing is watched
	err      error                          // of the kubelet
	claimErr error                          // of everything else

	asked []string
}

func (n *node) note(format string, args ...any) {
	n.asked = append(n.asked, fmt.Sprintf(format, args...))
}

func (n *node) Given(_ context.Context, ref pod.Ref) (kube.Given, error) {
	n.note("kubelet %s", ref.UID)
	return n.given, n.err
}

func (n *node) PodClaims(_ context.Context, ref pod.Ref) (*kube.PodClaims, error) {
	n.note("pod %s", ref.UID)
	return &kube.PodClaims{Node: "n1", Claims: n.claims}, n.claimErr
}

func (n *node) ClaimedDevices(_ context.Context, _ string, claim kube.PodClaim) ([]pod.ClaimedDevice, error) {
	n.note("claim %s", claim.Name)
	devices := append([]pod.ClaimedDevice{}, n.devices[claim.Name]...)
	for i := range devices {
		devices[i].PodClaim = claim.PodName
	}
	return devices, n.claimErr
}

func (n *node) SliceDevices(_ context.Context, node string, claimed []pod.ClaimedDevice) ([]pod.Device, error) {
	if len(claimed) == 0 || n.oneShot && node == "" {
		return nil, nil
	}
	n.note("slices")
	var devices []pod.Device
	for _, c := range claimed {
		if d, ok := n.slices[c.Device]; ok {
			d.Claimed = &c
			devices = append(devices, d)
		}
	}
	return devices, n.claimErr
}

// ofPlugin are device IDs of the resource.
func ofPlugin(ids ...string) kube.Given {
	var g kube.Given
	for _, id := range ids {
		g.Devices = append(g.Devices, pod.Device{ID: id, Resource: resource})
	}
	return g
}

// ofClaim are devices of claim web-net.
func ofClaim(names ...string) []pod.ClaimedDevice {
	var devices []pod.ClaimedDevice
	for _, name := range names {
		devices = append(devices, pod.ClaimedDevice{Claim: "web-net", Driver: "d", Pool: "n1", Device: name, Request: "request-" + name})
	}
	return devices
}

// TestWhatDevicesCost is what an ADD asks for the devices of its networks.
func TestWhatDevicesCost(t *testing.T) {
	t.Parallel()
	slices := map[string]pod.Device{"a": {ID: "id-a", Resource: resource}, "b": {ID: "id-b", Resource: resource}, "c": {ID: "id-c"}}
	netClaim := []kube.PodClaim{{Name: "web-net", PodName: "net"}}
	tests := map[string]struct {
		networks string
		node     node
		devices  []string // of the networks
		asked    []string
	}{
		"no network with a device":                        {"plain,plain", node{}, []string{"", ""}, nil},
		"a device that the element names, of no resource": {`[{"name":"plain","deviceID":"x"}]`, node{}, []string{""}, nil},
		"X1 one of a device plugin":                       {"vf", node{given: ofPlugin("1")}, []string{"1"}, []string{"kubelet u1"}},
		"X1 three of a device plugin":                     {"vf,vf,plain,vf", node{given: ofPlugin("1", "2", "3")}, []string{"1", "2", "", "3"}, []string{"kubelet u1"}},
		"X7 one of a claim that a container uses": {
			"vf", node{given: kube.Given{Claimed: ofClaim("gpu", "a")}, slices: slices}, []string{"id-a"}, []string{"kubelet u1", "slices"},
		},
		"X7 three, of a plugin and a claim": {
			"vf,vf,vf",
			node{given: kube.Given{Devices: ofPlugin("1").Devices, Claimed: ofClaim("a", "b")}, slices: slices},
			[]string{"1", "id-a", "id-b"},
			[]string{"kubelet u1", "slices"},
		},
		"X7 a claim that no container uses": {
			"vf",
			node{claims: netClaim, devices: map[string][]pod.ClaimedDevice{"web-net": ofClaim("a")}, slices: slices},
			[]string{"id-a"},
			[]string{"kubelet u1", "pod u1", "claim web-net", "slices"},
		},
		"X7 bound to a request": {
			"bound",
			node{claims: netClaim, devices: map[string][]pod.ClaimedDevice{"web-net": ofClaim("a", "b")}, slices: slices},
			[]string{"id-b"},
			[]string{"pod u1", "claim web-net", "slices"},
		},
		"X7 an extended resource whose driver has no name for it": {
			"vf",
			node{
				given:  kube.Given{Claimed: ofClaim("c")},
				claims: []kube.PodClaim{{Name: "web-net", Extended: map[string]string{"request-c": resource}}}, devices: map[string][]pod.ClaimedDevice{"web-net": ofClaim("c")}, slices: slices,
			},
			[]string{"id-c"},
			[]string{"kubelet u1", "slices", "pod u1", "claim web-net", "slices"},
		},
		"X7 without a daemon": {
			"vf",
			node{oneShot: true, given: kube.Given{Claimed: ofClaim("a")}, claims: netClaim, devices: map[string][]pod.ClaimedDevice{"web-net": ofClaim("a")}, slices: slices},
			[]string{"id-a"},
			[]string{"kubelet u1", "pod u1", "claim web-net", "slices"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			selection, _, err := lookupDevices(t, tc.networks, &tc.node)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, n := range selection.Networks {
				got = append(got, n.Device)
			}
			if diff := cmp.Diff(tc.devices, got); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.asked, tc.node.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDevicesThatFail(t *testing.T) {
	t.Parallel()
	forbidden := errors.New("forbidden")
	netClaim := []kube.PodClaim{{Name: "web-net", PodName: "net"}}
	for name, tc := range map[string]struct {
		networks string
		node     node
		kind     error
		says     string
	}{
		"X3 more networks than devices": {"vf,vf", node{given: ofPlugin("1")}, source.ErrNoDevice, "want 2 of it and the node gave the pod 1 (1)"},
		"a kubelet that is down":        {"vf", node{err: fmt.Errorf("%w: down", kube.ErrUnavailable)}, source.ErrTryAgain, "down"},
		"X7 a claim that is not allocated": {
			"bound", node{claims: netClaim, claimErr: fmt.Errorf("%w: not allocated yet", kube.ErrUnavailable)}, source.ErrTryAgain, "not allocated",
		},
		"a claim that may not be read": {"bound", node{claims: netClaim, claimErr: forbidden}, forbidden, "forbidden"},
		"X7 a request that has no network device": {
			"bound", node{claims: netClaim, devices: map[string][]pod.ClaimedDevice{"web-net": ofClaim("gpu")}}, source.ErrNoDevice, `request "request-b"`,
		},
		"an extended resource that the driver calls otherwise": {
			"vf", node{
				claims: []kube.PodClaim{{Name: "web-net", Extended: map[string]string{"request-a": resource}}}, devices: map[string][]pod.ClaimedDevice{"web-net": ofClaim("a")},
				slices: map[string]pod.Device{"a": {ID: "1", Resource: "other"}},
			}, nil, `"other"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, events, err := lookupDevices(t, tc.networks, &tc.node)
			if errors.Is(tc.kind, source.ErrNoDevice) && (len(events) != 1 || events[0].Event.Reason != "NoDevice") {
				t.Errorf("events %+v, want one of NoDevice", events)
			}
			if err == nil || s != nil || tc.kind != nil && !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Lookup = %+v, %v; want %v saying %q", s, err, tc.kind, tc.says)
			}
		})
	}
}

// lookupDevices looks up the networks "plain", "vf", which consumes one of the resource, and "bound", which is bound to net/request-b.
func lookupDevices(t *testing.T, networks string, n *node) (*source.Selection, []event, error) {
	t.Helper()
	c := newCluster(map[string]string{annotations.NetworksKey: networks})
	c.nads = nil
	c.definitions = map[string]nad.Definition{"plain": {}, "vf": {ResourceName: resource}, "bound": {ClaimRequest: "net/request-b"}}
	s := c.source()
	s.Devices = &daemon.Devices{Kubelet: n, Claims: n}
	selection, err := s.Lookup(t.Context(), source.Query{Pod: web, NetworksNamespace: "kube-system"})
	return selection, c.events, err
}

func TestTheKubeletIsAskedByTheSandboxsUID(t *testing.T) {
	t.Parallel()
	c := newCluster(map[string]string{annotations.NetworksKey: "vf", annotations.MirrorKey: "of the file"})
	c.definitions = map[string]nad.Definition{"vf": {ResourceName: resource}}
	s := c.source()
	n := &node{given: ofPlugin("1")}
	s.Devices = &daemon.Devices{Kubelet: n, Claims: n}
	ofFile := web
	ofFile.UID = "of the file"
	if _, err := s.Lookup(t.Context(), source.Query{Pod: ofFile}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"kubelet of the file"}, n.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// applied is what was written into claims.
type applied struct {
	mu      sync.Mutex
	written []string
}

func (a *applied) apply(_ context.Context, ref pod.Ref, claim string, attached []kube.Attached) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := ref.UID + " " + claim
	for _, d := range attached {
		text += fmt.Sprintf(" %s=%s%v%s", d.Device.Device, d.IfName, d.Addresses, d.MAC)
	}
	a.written = append(a.written, text)
	return errors.New("logged, and no more")
}

func TestPublisher(t *testing.T) {
	t.Parallel()
	on := func(claim, device, ifName string) source.Interface {
		return source.Interface{
			Network: "default/a", Name: ifName, MAC: "m", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")},
			Claimed: &pod.ClaimedDevice{Claim: claim, Device: device},
		}
	}
	other := pod.Ref{Namespace: "default", Name: "other", UID: "u2"}
	synctest.Test(t, func(t *testing.T) {
		a := &applied{}
		gone := map[string]bool{}
		p := daemon.NewPublisher(a.apply, func(_ context.Context, ref pod.Ref) bool { return !gone[ref.UID] }, func(string) {}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		expect := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			a.mu.Lock()
			defer a.mu.Unlock()
			if diff := cmp.Diff(want, a.written); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			a.written = nil
		}
		p.Publish(web, []source.Interface{{Name: "eth0"}, on("nets", "a", "net1"), on("more", "x", "net2"), on("nets", "b", "net3")})
		expect("one write for each claim", "u1 more x=net2[10.1.0.2/24]m", "u1 nets a=net1[10.1.0.2/24]m b=net3[10.1.0.2/24]m")
		p.Publish(web, []source.Interface{{Name: "eth0"}})
		p.Publish(pod.Ref{Namespace: "default", Name: "web"}, []source.Interface{on("nets", "a", "net1")})
		p.Gone(other)
		expect("nothing of who has no claim, or no UID")
		p.Publish(web, []source.Interface{on("nets", "a", "net1")}) // its sandbox was made anew
		expect("written again", "u1 nets a=net1[10.1.0.2/24]m")
		p.Gone(web)
		expect("taken back, all of it", "u1 more", "u1 nets")
		p.Gone(web)
		expect("taken back once")
		gone["u2"] = true
		p.Publish(other, []source.Interface{on("nets", "a", "net1")})
		expect("nothing of a pod that went before")
		cancel()
		running.Wait()
	})
}

func TestReportPublishesWhatWasAttached(t *testing.T) {
	t.Parallel()
	report := source.Report{Pod: web, Interfaces: []source.Interface{{Network: "a", Name: "net1", Claimed: &pod.ClaimedDevice{Claim: "nets"}}}}
	for name, tc := range map[string]struct {
		prepare func(*cluster, *daemon.Cluster)
		want    int
	}{
		"an ADD that succeeded":              {func(*cluster, *daemon.Cluster) {}, 1},
		"also for a pod that gets no status": {func(_ *cluster, s *daemon.Cluster) { s.StatusForAll = false }, 1},
		"a status that could not be written": {func(c *cluster, _ *daemon.Cluster) { c.err = kube.ErrUnavailable }, 0},
		"a pod that is gone":                 {func(c *cluster, _ *daemon.Cluster) { clear(c.pods) }, 0},
		"nobody who wants to know":           {func(_ *cluster, s *daemon.Cluster) { s.Publish = nil }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(nil)
			s := c.source()
			published := 0
			s.Publish = func(ref pod.Ref, interfaces []source.Interface) {
				published++
				if ref != web || !cmp.Equal(interfaces, report.Interfaces) {
					t.Errorf("published %+v of %+v", interfaces, ref)
				}
			}
			tc.prepare(c, s)
			_ = s.Report(t.Context(), report) // TestReport looks at its error
			if published != tc.want {
				t.Errorf("published %d times, want %d", published, tc.want)
			}
		})
	}
}
