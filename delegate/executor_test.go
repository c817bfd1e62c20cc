// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/netdev"
)

// host is a scripted set of plugins: all are there and succeed, but for what a test says. It notes every call.
type host struct {
	calls   []string
	missing string            // a plugin that is not installed
	fail    map[string]bool   // "VERB type"
	errs    map[string]error  // "VERB type"
	hang    map[string]bool   // "VERB type"
	results map[string]string // by type
	stdin   map[string]string // what each "VERB type" was given
}

func (h *host) Find(plugin string, _ bool, _ []string) error {
	if plugin == h.missing {
		return fmt.Errorf("%w: no plugin %q", ErrInvalid, plugin)
	}
	return nil
}

func (h *host) RunsIPAM(plugin string, _ bool, _ []string) bool {
	return slices.Contains(runsIPAM(), plugin)
}

func (h *host) Call(ctx context.Context, c Call) ([]byte, error) {
	env := func(key string) string {
		for _, kv := range slices.Backward(c.Environ) {
			if v, ok := strings.CutPrefix(kv, key+"="); ok {
				return v
			}
		}
		return ""
	}
	call := env("CNI_COMMAND") + " " + c.Type
	h.calls = append(h.calls, call+" "+env("CNI_IFNAME"))
	if h.stdin == nil {
		h.stdin = map[string]string{}
	}
	h.stdin[call] = string(c.Stdin)
	if h.hang[call] {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err, ok := h.errs[call]; ok {
		return nil, err
	}
	if h.fail[call] {
		return nil, types.NewError(100, "scripted", "")
	}
	out := []byte(`{"cniVersion":"1.0.0"}`)
	if r, ok := h.results[c.Type]; ok {
		out = []byte(r)
	}
	return out, c.check(out)
}

// kernel notes what it is asked for.
type kernel struct {
	asked []netdev.DefaultRoutes
	err   error
	links []netdev.Link // in each sandbox
}

func (k *kernel) Links(string) ([]netdev.Link, error) { return k.links, nil }

func (k *kernel) SetDefaultRoutes(_ context.Context, _ string, r netdev.DefaultRoutes) error {
	k.asked = append(k.asked, r)
	return k.err
}

func executor(t *testing.T, h *host) (*Executor, *kernel) {
	t.Helper()
	k := &kernel{}
	return &Executor{BinDirs: []string{"/bin"}, CacheDir: t.TempDir(), Plugins: h, Kernel: k}, k
}

func plan(t *testing.T, more ...Network) *Plan {
	t.Helper()
	p, err := NewPlan(request(t, more...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// two more networks: one of a chain, one of a plugin.
func lanAndWAN(t *testing.T) []Network {
	t.Helper()
	return []Network{
		{Name: "d/lan", List: list(t, `{"name":"lan","plugins":[{"type":"lan"},{"type":"tuning"}]}`)},
		{Name: "d/wan", List: list(t, `{"name":"wan","type":"wan"}`)},
	}
}

func TestAddGoesInOrder(t *testing.T) {
	t.Parallel()
	h := &host{}
	e, _ := executor(t, h)
	p := plan(t, lanAndWAN(t)...)
	if err := e.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	want := []string{"ADD bridge eth0", "ADD portmap eth0", "ADD lan net1", "ADD tuning net1", "ADD wan net2"}
	if diff := cmp.Diff(want, h.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	for _, a := range p.Attachments {
		if a.State != Attached || len(a.Result) == 0 {
			t.Errorf("%s is %s with result %s", &a, a.State, a.Result)
		}
	}
}

func TestD1FailedAddIsUndoneInReverseWithTheFailedOne(t *testing.T) {
	t.Parallel()
	h := &host{fail: map[string]bool{"ADD tuning": true}}
	e, _ := executor(t, h)
	p := plan(t, lanAndWAN(t)...)
	err := e.Add(t.Context(), p)
	if cni, ok := errors.AsType[*types.Error](err); !ok || cni.Code != 100 || !strings.Contains(err.Error(), "network d/lan (interface net1)") {
		t.Fatalf("Add: %v, want the plugin's own error, and which network it was", err)
	}
	h.calls = nil
	if err := e.Del(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	want := []string{"DEL tuning net1", "DEL lan net1", "DEL portmap eth0", "DEL bridge eth0"}
	if diff := cmp.Diff(want, h.calls); diff != "" {
		t.Errorf("calls of the undo (-want +got):\n%s", diff)
	}
	if len(p.Attachments) != 0 {
		t.Errorf("%d attachments are left", len(p.Attachments))
	}
}

func TestAddTouchesNothingWhenAPluginIsMissing(t *testing.T) {
	t.Parallel()
	h := &host{missing: "wan"}
	e, _ := executor(t, h)
	p := plan(t, lanAndWAN(t)...)
	if err := e.Add(t.Context(), p); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "d/wan") {
		t.Errorf("Add: %v, want the network whose plugin is missing", err)
	}
	if len(h.calls) != 0 || len(p.Attachments) != 0 {
		t.Errorf("calls %q, %d attachments to undo; want neither", h.calls, len(p.Attachments))
	}
}

func TestD8DelGoesOnAndKeepsWhatFailed(t *testing.T) {
	t.Parallel()
	h := &host{fail: map[string]bool{"DEL lan": true}}
	e, _ := executor(t, h)
	p := plan(t, lanAndWAN(t)...)
	err := e.Del(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "network d/lan (interface net1)") {
		t.Errorf("Del: %v, want the network that failed", err)
	}
	want := []string{"DEL wan net2", "DEL tuning net1", "DEL lan net1", "DEL portmap eth0", "DEL bridge eth0"}
	if diff := cmp.Diff(want, h.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if len(p.Attachments) != 1 || p.Attachments[0].Network != "d/lan" || p.Attachments[0].State != UndoFailed || p.Attachments[0].Error == "" {
		t.Errorf("left: %+v, want d/lan alone, with its error", p.Attachments)
	}
	h.fail = nil
	if err := e.Del(t.Context(), p); err != nil || len(p.Attachments) != 0 {
		t.Errorf("second Del: %v, %d left", err, len(p.Attachments))
	}
}

func TestDelHandsOverTheRecordedResultWhenTheCacheIsLost(t *testing.T) {
	t.Parallel()
	h := &host{results: map[string]string{"wan": `{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5/24"}]}`}}
	e, _ := executor(t, h)
	p := plan(t, lanAndWAN(t)...)
	if err := e.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(e.CacheDir, "results")); err != nil {
		t.Fatal(err)
	}
	if err := e.Del(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got := h.stdin["DEL wan"]; !strings.Contains(got, `"prevResult"`) || !strings.Contains(got, "10.0.0.5/24") {
		t.Errorf("DEL of wan was given %s, want the result of its ADD", got)
	}
}

func TestDefaultRouteOverride(t *testing.T) {
	t.Parallel()
	const withDefault = `{"cniVersion":"1.0.0","ips":[{"address":"10.%d.0.5/24"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.%[1]d.0.1"},{"dst":"::/0","gw":"fd00::%[1]d"},{"dst":"192.0.2.0/24"}]}`
	routes := func(t *testing.T, a *Attachment) []string {
		t.Helper()
		var r struct {
			Routes []struct{ Dst, GW string }
		}
		if err := json.Unmarshal(a.Result, &r); err != nil {
			t.Fatal(err)
		}
		s := []string{}
		for _, x := range r.Routes {
			s = append(s, x.Dst+" "+x.GW)
		}
		return s
	}
	tests := map[string]struct {
		ask         []netip.Addr
		asked       netdev.DefaultRoutes
		first, last []string
	}{
		"IPv4 through the second": {
			ask:   addrs("10.2.0.9"),
			asked: netdev.DefaultRoutes{IfName: "net1", Gateways: map[netdev.Family]netip.Addr{netdev.IPv4: netip.MustParseAddr("10.2.0.9")}},
			first: []string{"::/0 fd00::1", "192.0.2.0/24 "},
			last:  []string{"::/0 fd00::2", "192.0.2.0/24 ", "0.0.0.0/0 10.2.0.9"},
		},
		"G2 both families": {
			ask: addrs("10.2.0.9", "fd00::9"),
			asked: netdev.DefaultRoutes{IfName: "net1", Gateways: map[netdev.Family]netip.Addr{
				netdev.IPv4: netip.MustParseAddr("10.2.0.9"), netdev.IPv6: netip.MustParseAddr("fd00::9"),
			}},
			first: []string{"192.0.2.0/24 "},
			last:  []string{"192.0.2.0/24 ", "0.0.0.0/0 10.2.0.9", "::/0 fd00::9"},
		},
		"G4 keep what the plugin set": {
			ask:   addrs(),
			asked: netdev.DefaultRoutes{IfName: "net1", Gateways: map[netdev.Family]netip.Addr{}, Keep: []netdev.Family{netdev.IPv4, netdev.IPv6}},
			first: []string{"192.0.2.0/24 "},
			last:  []string{"0.0.0.0/0 10.2.0.1", "::/0 fd00::2", "192.0.2.0/24 "},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &host{results: map[string]string{
				"bridge":  fmt.Sprintf(withDefault, 1),
				"portmap": fmt.Sprintf(withDefault, 1),
				"wan":     fmt.Sprintf(withDefault, 2),
			}}
			e, k := executor(t, h)
			p := plan(t, Network{Name: "d/wan", List: list(t, `{"name":"wan","type":"wan"}`), Element: annotations.Element{DefaultRoute: tc.ask}})
			if err := e.Add(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]netdev.DefaultRoutes{tc.asked}, k.asked, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("asked of the kernel (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.first, routes(t, &p.Attachments[0])); diff != "" {
				t.Errorf("G5 routes in the default network's result (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.last, routes(t, &p.Attachments[1])); diff != "" {
				t.Errorf("G5 routes in the network's result (-want +got):\n%s", diff)
			}
			// libcni hands its cached result to CHECK and DEL: it has to say the same.
			if err := e.Check(t.Context(), p, true); err != nil {
				t.Fatal(err)
			}
			var conf struct{ PrevResult json.RawMessage }
			if err := json.Unmarshal([]byte(h.stdin["CHECK wan"]), &conf); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.last, routes(t, &Attachment{Result: conf.PrevResult})); diff != "" {
				t.Errorf("routes in CHECK's prevResult (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefaultRouteThatTheKernelRefusesFailsTheAdd(t *testing.T) {
	t.Parallel()
	e, k := executor(t, &host{})
	k.err = errors.New("no route to gateway")
	p := plan(t, Network{Name: "d/wan", List: list(t, `{"name":"wan","type":"wan"}`), Element: annotations.Element{DefaultRoute: addrs("10.9.9.9")}})
	err := e.Add(t.Context(), p)
	if !errors.Is(err, k.err) || !strings.Contains(err.Error(), "d/wan") || len(p.Attachments) != 2 {
		t.Errorf("Add: %v with %d attachments to undo, want the kernel's error, the network and both", err, len(p.Attachments))
	}
}

func TestV2CheckTellsWhichNetworkFailed(t *testing.T) {
	t.Parallel()
	h := &host{fail: map[string]bool{"CHECK wan": true}}
	e, _ := executor(t, h)
	err := e.Check(t.Context(), plan(t, lanAndWAN(t)...), true)
	if err == nil || !strings.Contains(err.Error(), "network d/wan (interface net2)") {
		t.Errorf("Check: %v, want the network that failed", err)
	}
	want := []string{"CHECK bridge eth0", "CHECK portmap eth0", "CHECK lan net1", "CHECK tuning net1", "CHECK wan net2"}
	if diff := cmp.Diff(want, h.calls); diff != "" {
		t.Errorf("V1 calls (-want +got):\n%s", diff)
	}
}

func TestCheckPassesOverNetworksOlderThanTheVerb(t *testing.T) {
	t.Parallel()
	h := &host{}
	e, _ := executor(t, h)
	p := plan(t, Network{Name: "d/old", List: list(t, `{"cniVersion":"0.3.1","name":"old","type":"old"}`)})
	if err := e.Check(t.Context(), p, true); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(h.calls, func(c string) bool { return strings.Contains(c, "old") }) {
		t.Errorf("calls %q, want none of the plugin of CNI 0.3.1", h.calls)
	}
}

func TestGCTellsEachNetworkWhatIsAliveAndGoesOn(t *testing.T) {
	t.Parallel()
	h := &host{fail: map[string]bool{"GC lan": true}}
	e, _ := executor(t, h)
	lists := []string{
		`{"cniVersion":"1.1.0","name":"lan","type":"lan"}`, `{"cniVersion":"1.1.0","name":"wan","type":"wan"}`, `{"cniVersion":"1.0.0","name":"older","type":"older"}`,
	}
	p := plan(t)
	p.Attachments = nil
	for _, l := range lists {
		p.Attachments = append(p.Attachments, Attachment{List: list(t, l)})
	}
	alive := []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}, {ContainerID: "c1", IfName: "net1"}}
	var requests []GCRequest
	for _, a := range p.Attachments {
		requests = append(requests, GCRequest{List: a.List, Valid: alive})
	}
	err := e.GC(t.Context(), requests)
	if err == nil || !strings.Contains(err.Error(), "network lan") {
		t.Errorf("GC: %v, want the network that failed", err)
	}
	if diff := cmp.Diff([]string{"GC lan ", "GC wan "}, h.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if got := h.stdin["GC wan"]; !strings.Contains(got, `"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"},{"containerID":"c1","ifname":"net1"}]`) {
		t.Errorf("GC of wan was given %s", got)
	}
}
