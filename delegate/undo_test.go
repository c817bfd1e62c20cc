// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package delegate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// chain is a network of a main plugin with IPAM, and two plugins after it.
func chain(t *testing.T) Network {
	t.Helper()
	return Network{Name: "d/chain", List: list(t, `{"name":"chain","plugins":[{"type":"macvlan","ipam":{"type":"host-local"}},{"type":"tuning"},{"type":"firewall"}]}`)}
}

func expectCalls(t *testing.T, h *host, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, h.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	h.calls = nil
}

// TestEachPluginOfAListIsUndone: one that refuses does not keep those before it from their DEL, and those that were undone are not asked
// again. A plugin that the ADD did not get to gets a DEL, as CNI has it, and may refuse it.
func TestEachPluginOfAListIsUndone(t *testing.T) {
	t.Parallel()
	h := &host{fail: map[string]bool{"ADD tuning": true, "DEL tuning": true, "DEL firewall": true}}
	e, _ := executor(t, h)
	p := plan(t, chain(t))
	if err := e.Add(t.Context(), p); err == nil {
		t.Fatal("Add: no error")
	}
	expectCalls(t, h, "ADD bridge eth0", "ADD portmap eth0", "ADD macvlan net1", "ADD tuning net1")
	if err := e.Del(t.Context(), p); err == nil {
		t.Error("Del: no error")
	}
	expectCalls(t, h, "DEL firewall net1", "DEL tuning net1", "DEL macvlan net1", "DEL portmap eth0", "DEL bridge eth0")
	if len(p.Attachments) != 1 || !p.Attachments[0].Refused || !p.Attachments[0].Gone || p.Attachments[0].Tries != 1 {
		t.Fatalf("left: %+v, want d/chain, refused and gone", p.Attachments)
	}
	_ = e.Del(t.Context(), p) // it fails as before
	expectCalls(t, h, "DEL tuning net1")
	h.fail = nil
	if err := e.Del(t.Context(), p); err != nil || p.Left() {
		t.Errorf("Del: %v, left %+v", err, p.Attachments)
	}
}

// TestAddressesAreReleasedWhenTheMainPluginRefusesItsDEL, as vlan does when its master is gone.
func TestAddressesAreReleasedWhenTheMainPluginRefusesItsDEL(t *testing.T) {
	t.Parallel()
	h := &host{}
	e, k := executor(t, h)
	p := plan(t, chain(t))
	if err := e.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	h.calls, h.fail = nil, map[string]bool{"DEL macvlan": true}
	k.links = []netdev.Link{{Name: "net1"}}
	_ = e.Del(t.Context(), p) // it fails
	expectCalls(t, h, "DEL firewall net1", "DEL tuning net1", "DEL macvlan net1", "DEL portmap eth0", "DEL bridge eth0")
	k.links = nil
	_ = e.Del(t.Context(), p) // it fails
	expectCalls(t, h, "DEL macvlan net1", "DEL host-local net1")
	if conf := h.stdin["DEL host-local"]; conf != h.stdin["DEL macvlan"] {
		t.Errorf("IPAM was given %s, want what macvlan was", conf)
	}
}

// TestWhatHangsComesLast: a runtime that cuts each DEL short must not keep the others from theirs for ever.
func TestWhatHangsComesLast(t *testing.T) {
	t.Parallel()
	h := &host{}
	e, _ := executor(t, h)
	p := plan(t, lanAndWAN(t)...)
	if err := e.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	h.calls, h.errs = nil, map[string]error{"DEL wan": context.DeadlineExceeded}
	ctx, cut := context.WithCancel(t.Context())
	var progress [][]string
	e.Progress = func(left *Plan) {
		var names []string
		for _, a := range left.Attachments {
			names = append(names, a.IfName)
		}
		progress = append(progress, names)
		cut()
	}
	if err := e.Del(ctx, p); err == nil {
		t.Error("Del: no error")
	}
	expectCalls(t, h, "DEL wan net2")
	_ = e.Del(t.Context(), p) // it fails
	expectCalls(t, h, "DEL tuning net1", "DEL lan net1", "DEL portmap eth0", "DEL bridge eth0", "DEL wan net2")
	want := [][]string{
		{"eth0", "net1", "net2"}, {"eth0", "net1", "net2"}, {"eth0", "net1", "net2"}, // of the first try: nothing came about
		{"eth0", "net2"}, {"net2"}, {"net2"},
	}
	if diff := cmp.Diff(want, progress); diff != "" {
		t.Errorf("what was left after each (-want +got):\n%s", diff)
	}
}

func TestASandboxMayGoWithoutWhatCannotBeUndone(t *testing.T) {
	t.Parallel()
	now := time.Now()
	undone := []PluginUndo{{Done: true}, {Tries: 1, Released: true}}
	two := 2
	for name, tc := range map[string]struct {
		a     Attachment
		since time.Duration
		// may: the sandbox may go. never: the attachment is forgotten.
		may, never bool
	}{
		"its interface is not there":                         {Attachment{Gone: true, Tries: 2}, time.Second, false, false},
		"its interface is not there, for a moment":           {Attachment{Gone: true, Tries: 2}, time.Minute, true, false},
		"its interface is there":                             {Attachment{Tries: 2}, time.Minute, false, false},
		"its interface is there, for long":                   {Attachment{Tries: 2}, time.Hour, true, false},
		"the first try took long":                            {Attachment{Gone: true, Tries: 1}, time.Hour, false, false},
		"it was not tried":                                   {Attachment{}, time.Hour, false, false},
		"it never came about":                                {Attachment{Gone: true, Tries: 2, Refused: true, Undo: undone}, time.Minute, true, false},
		"it never came about, for long":                      {Attachment{Gone: true, Tries: 2, Refused: true, Undo: undone, Begun: &two}, time.Hour, true, true},
		"its first plugin is not undone, for long":           {Attachment{Gone: true, Tries: 2, Refused: true, Undo: []PluginUndo{{Tries: 1, Released: true}, {Tries: 1, Released: true}}}, time.Hour, true, false},
		"its addresses are not released, for long":           {Attachment{Gone: true, Tries: 2, Refused: true, Undo: []PluginUndo{{Done: true}, {Tries: 1}}}, time.Hour, true, false},
		"it never came about, and the clock was ahead":       {Attachment{Gone: true, Tries: 2, Refused: true, Undo: undone}, -time.Hour, true, true},
		"its plugins refused it, and its interface is there": {Attachment{Tries: 2, Refused: true, Undo: undone}, time.Hour, true, false},
	} {
		p := &Plan{Attachments: []Attachment{tc.a}, UndoSince: now.Add(-tc.since), Began: now.Add(-24 * time.Hour)}
		if got := p.Tolerable(now); got != tc.may {
			t.Errorf("%s: Tolerable = %v", name, got)
		}
		if got := len(p.GiveUp(now)) == 1; got != tc.never || p.Left() == tc.never {
			t.Errorf("%s: given up %v, left %v", name, got, p.Left())
		}
		p = &Plan{Leftovers: []Attachment{tc.a}, Began: now.Add(-tc.since)} // its ADD failed
		if got := p.Tolerable(now); got != tc.may {
			t.Errorf("%s, of an earlier sandbox: Tolerable = %v", name, got)
		}
	}
}

func TestLeftoversAreUndoneAfterTheSandboxAndWithoutIt(t *testing.T) {
	t.Parallel()
	h := &host{}
	e, k := executor(t, h)
	k.links = []netdev.Link{{Name: "net1"}} // of the sandbox of today
	p := plan(t)
	p.Leftovers = plan(t, chain(t)).Attachments[1:]
	h.fail = map[string]bool{"DEL macvlan": true}
	err := e.Del(t.Context(), p)
	expectCalls(t, h, "DEL portmap eth0", "DEL bridge eth0", "DEL firewall net1", "DEL tuning net1", "DEL macvlan net1", "DEL host-local net1")
	if err == nil || len(p.Attachments) != 0 || len(p.Leftovers) != 1 || !p.Leftovers[0].Gone {
		t.Errorf("Del: %v, left %+v and %+v", err, p.Attachments, p.Leftovers)
	}
}

func TestWhoRefusedAnADDIsTold(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"an error of its own":  {errors.New("no such parent"), true},
		"it was cut short":     {fmt.Errorf("x: %w", context.DeadlineExceeded), false},
		"the call ended":       {fmt.Errorf("x: %w", context.Canceled), false},
		"it was killed":        {fmt.Errorf("x: %w", ErrKilled), false},
		"it printed nonsense":  {fmt.Errorf("x: %w", ErrBadOutput), false},
		"its children live on": {withStragglers(errors.New("x"), errStragglers), false},
	} {
		if got := refused(tc.err); got != tc.want {
			t.Errorf("%s: refused = %v", name, got)
		}
	}
}

func TestMissingIPAMProgramIsFoundOutFirst(t *testing.T) {
	t.Parallel()
	for conf, looked := range map[string]bool{
		`{"name":"n","type":"macvlan","ipam":{"type":"host-lokal"}}`: true,
		// What its author means by the type, only the plugin knows: azure-vnet has no program azure-cns.
		`{"name":"n","type":"azure-vnet","ipam":{"type":"host-lokal"}}`: false,
	} {
		h := &host{missing: "host-lokal"}
		e, _ := executor(t, h)
		err := e.Add(t.Context(), plan(t, Network{Name: "d/n", List: list(t, conf)}))
		if looked != errors.Is(err, ErrInvalid) || looked != (len(h.calls) == 0) {
			t.Errorf("%s: %v, calls %q", conf, err, h.calls)
		}
	}
}

func TestCHECKAsksTheDefaultNetworkUnlessAllAreAskedFor(t *testing.T) {
	t.Parallel()
	h := &host{}
	e, _ := executor(t, h)
	var warned []string
	e.Warn = func(text string) { warned = append(warned, text) }
	p := plan(t, lanAndWAN(t)...)
	if err := e.Check(t.Context(), p, false); err != nil {
		t.Fatal(err)
	}
	expectCalls(t, h, "CHECK bridge eth0", "CHECK portmap eth0")
	h.errs = map[string]error{"CHECK lan": types.NewError(types.ErrInternal, "CNI CHECK method is not implemented", "")}
	if err := e.Check(t.Context(), p, true); err != nil {
		t.Errorf("a plugin without CHECK fails it: %v", err)
	}
	if !slices.ContainsFunc(warned, func(w string) bool { return strings.Contains(w, "d/lan") && strings.Contains(w, "disableCheck") }) {
		t.Errorf("warnings: %q", warned)
	}
}

// TestOneThatHangsLeavesTimeForTheOthers: within a list and among attachments, also when all of them have failed before.
func TestOneThatHangsLeavesTimeForTheOthers(t *testing.T) {
	t.Parallel()
	h := &host{hang: map[string]bool{"DEL tuning": true, "DEL wan": true}}
	e, _ := executor(t, h)
	p := plan(t, append(lanAndWAN(t), Network{Name: "d/last", List: list(t, `{"name":"last","plugins":[{"type":"macvlan","ipam":{"type":"host-local"}},{"type":"last"}]}`)})...)
	if err := e.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	h.calls, h.fail = nil, map[string]bool{"DEL last": true, "DEL lan": true, "DEL bridge": true, "DEL macvlan": true}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := e.Del(ctx, p); err == nil {
			t.Error("Del: no error")
		}
		cancel()
	}
	for _, want := range []string{"DEL last net3", "DEL macvlan net3", "DEL host-local net3", "DEL wan net2", "DEL tuning net1", "DEL lan net1", "DEL portmap eth0", "DEL bridge eth0"} {
		if !slices.Contains(h.calls, want) {
			t.Errorf("%q was not called: %q", want, h.calls)
		}
	}
	// All have failed once: the one that hangs is not the first again for ever.
	h.calls, h.fail, h.hang = nil, nil, map[string]bool{"DEL wan": true}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := e.Del(ctx, p); err == nil || len(p.Attachments) != 1 || p.Attachments[0].IfName != "net2" {
		t.Errorf("Del: %v, left %+v, want the network that hangs alone", err, p.Attachments)
	}
}

func TestADeviceInfoFileThatStaysFailsNoDEL(t *testing.T) {
	t.Parallel()
	e, _ := executor(t, &host{})
	p := plan(t)
	if err := e.Add(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.MkdirAll(filepath.Join(dir, "not-empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.Attachments[0].DeviceInfoFile = dir
	if err := e.Del(t.Context(), p); err != nil {
		t.Errorf("Del: %v", err)
	}
}

func TestWhatAnOlderPlexusRecordedOfAFailedADD(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]bool{
		"plugin bridge: unknown key": true,
		"":                           false,
		"plugin x: killed by a signal: signal: killed":         false,
		"plugin x: did not finish within 1m30s and was killed": false,
	} {
		p := &Plan{Attachments: []Attachment{{AddError: said}}}
		if p.Recover(); p.Attachments[0].Refused != want {
			t.Errorf("%q: refused = %v", said, !want)
		}
	}
}
