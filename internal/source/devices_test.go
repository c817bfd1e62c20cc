// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/nad"
)

// dp is a device of a device plugin, dra one of a claim's request.
func dp(resource, id string) pod.Device { return pod.Device{ID: id, Resource: resource} }

func dra(resource, id, claim, request string) pod.Device {
	return pod.Device{ID: id, Resource: resource, Claimed: &pod.ClaimedDevice{
		Claim: "web-" + claim, PodClaim: claim, Request: request, Driver: "d", Pool: "n1", Device: id,
	}}
}

func shared(id, share string) pod.Device {
	d := dra("r", id, "", "")
	d.Claimed.Share = share
	return d
}

// need is of a network that needs a device: "resource", "=id", "resource=id", "claim/request", and "resource claim/request" as annotations have them.
func need(text string) Need {
	n := Need{Network: nad.Ref{Namespace: "default", Name: "n"}}
	text, n.ID, _ = strings.Cut(text, "=")
	n.Required = text != ""
	for field := range strings.FieldsSeq(text) {
		if claim, err := nad.ParseClaimRequest(field); err == nil && strings.HasPrefix(field, "claim") {
			n.Claim = claim
		} else {
			n.Resource = field
		}
	}
	return n
}

func TestDistribute(t *testing.T) {
	t.Parallel()
	const vf1, vf2, vf3 = "0000:03:02.1", "0000:03:02.2", "0000:03:02.3"
	tests := map[string]struct {
		needs string // separated by ","
		given []pod.Device
		want  string // IDs, separated by ","
	}{
		"X1 each network gets another device":       {"r,r", []pod.Device{dp("r", vf1), dp("r", vf2), dp("r", vf3)}, vf1 + "," + vf2},
		"X4 of two containers, in their order":      {"r,r", []pod.Device{dp("r", vf2), dp("r", vf1)}, vf2 + "," + vf1},
		"a device that two containers share is one": {"r,r", []pod.Device{dp("r", vf1), dp("r", vf1), dp("r", vf2)}, vf1 + "," + vf2},
		"two resources": {"s,r,s", []pod.Device{dp("r", "a"), dp("s", "b"), dp("s", "c")}, "b,a,c"},
		"one PCI function of two resources is one":    {"r,s", []pod.Device{dp("r", vf1), dp("s", vf1), dp("s", vf2)}, vf1 + "," + vf2},
		"other IDs are names within their resource":   {"r,s", []pod.Device{dp("r", "0"), dp("s", "0")}, "0,0"},
		"networks without need get none":              {",r,", []pod.Device{dp("r", vf1)}, "," + vf1 + ","},
		"a named device is spared for who names it":   {"r,r=" + vf1, []pod.Device{dp("r", vf1), dp("r", vf2)}, vf2 + "," + vf1},
		"also from a network that consumes none":      {"=" + vf1 + ",r", []pod.Device{dp("r", vf1), dp("r", vf2)}, "," + vf2},
		"the node's word goes before the pod's":       {"r=" + vf3, []pod.Device{dp("r", vf1)}, vf1},
		"X6 the pod's word grants nothing":            {"=" + vf2, nil, ""},
		"X7 devices of claims after those of plugins": {"r,r", []pod.Device{dp("r", vf1), dra("r", vf2, "", "")}, vf1 + "," + vf2},
		"X7 another device of the claim is passed by": {"r", []pod.Device{dra("gpu", "g", "claim", "gpu"), dra("r", vf1, "claim", "nic")}, vf1},
		"a claim's request": {
			"claim/fast,claim/slow", []pod.Device{dra("r", vf1, "claim", "slow"), dra("r", vf2, "claim", "fast")}, vf2 + "," + vf1,
		},
		"a request with alternatives": {"claim/nic", []pod.Device{dra("r", vf1, "claim", "nic/second")}, vf1},
		"who is bound chooses before who is not": {
			"r,claim/fast", []pod.Device{dra("r", vf1, "claim", "fast"), dra("r", vf2, "claim", "slow")}, vf2 + "," + vf1,
		},
		"a device bound and of the resource":         {"r claim/nic", []pod.Device{dra("r", vf1, "claim", "nic")}, vf1},
		"a bound device of no resource":              {"r claim/nic", []pod.Device{dra("", vf1, "claim", "nic")}, vf1},
		"shares of one device are devices, each one": {"r,r", []pod.Device{shared("eth1", "s1"), shared("eth1", "s2")}, "eth1,eth1"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var needs []Need
			for text := range strings.SplitSeq(tc.needs, ",") {
				needs = append(needs, need(text))
			}
			for range 2 { // a retry has the same answer
				got, err := Distribute(needs, tc.given)
				if err != nil {
					t.Fatal(err)
				}
				var ids []string
				for _, d := range got {
					if d == nil {
						d = &pod.Device{}
					}
					ids = append(ids, d.ID)
				}
				if diff := cmp.Diff(tc.want, strings.Join(ids, ",")); diff != "" {
					t.Errorf("IDs (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestDistributeRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		needs []Need
		given []pod.Device
		says  []string
	}{
		"X3 more networks than devices": {
			[]Need{need("r"), need("r"), need("r")},
			[]pod.Device{dp("r", "a"), dp("r", "b"), dp("r", "b")},
			[]string{"default/n", `resource "r"`, "want 3", "gave the pod 2 (a, b)", "request 3"},
		},
		"a resource that the pod has nothing of": {
			[]Need{need("r")}, []pod.Device{dp("s", "a"), dp("s", "b"), dp("t", "c")}, []string{`resource "r"`, "want 1", "gave the pod 0, only devices of s, t"},
		},
		"no device at all": {[]Need{need("r")}, nil, []string{"gave the pod 0:"}},
		"a device that the pod names and nobody gave": {[]Need{need("r=x")}, nil, []string{"gave the pod 0:"}},
		"of a resource that need not be one, too few": {
			[]Need{{Resource: "r"}, {Resource: "r"}}, []pod.Device{dp("r", "a")}, []string{"want 2", "gave the pod 1 (a)"},
		},
		"a claim that has too few": {
			[]Need{need("claim/nic"), need("claim/nic")},
			[]pod.Device{dra("r", "a", "claim", "nic"), dra("r", "b", "claim", "other")},
			[]string{`request "nic"`, `claim "claim"`, "want 2", "gave the pod 1 (a)", annotations.ClaimRequestKey},
		},
		"annotations that contradict": {
			[]Need{need("s claim/nic")}, []pod.Device{dra("r", "a", "claim", "nic")}, []string{`"s"`, `"r"`, annotations.ClaimRequestKey, annotations.ResourceNameKey},
		},
		"a named device more than there are": {
			[]Need{need("r"), need("r=b")}, []pod.Device{dp("r", "a")}, []string{"want 2", "gave the pod 1 (a)"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Distribute(tc.needs, tc.given)
			if !errors.Is(err, ErrNoDevice) {
				t.Fatalf("Distribute = %v, %v; want ErrNoDevice", got, err)
			}
			for _, text := range tc.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
		})
	}
}

func TestAResourceNeedNotBeADevice(t *testing.T) {
	t.Parallel()
	const bridge = "bridge.network.kubevirt.io/br1"
	needs := []Need{{Resource: bridge}, {Resource: "r", Required: true}}
	got, err := Distribute(needs, []pod.Device{dp("r", "a")})
	if err != nil || got[0] != nil || got[1] == nil {
		t.Errorf("Distribute = %v, %v; want a device for the second alone", got, err)
	}
	if Met(needs, []pod.Device{dp("r", "a")}) {
		t.Error("Met without a device of the first: a claim may still have one")
	}
	if !Met(needs, []pod.Device{dp("r", "a"), dp(bridge, "b")}) || !Met([]Need{{}}, nil) {
		t.Error("not Met with all there is to have")
	}
	find := func(ref nad.Ref) (*nad.Definition, error) {
		def := &nad.Definition{Ref: ref, Config: `{"type":"cnv-bridge"}`, ResourceName: bridge}
		if ref.Name == "vf" {
			def.Config = `{"plugins":[{"type":"x"},{"type":"mine","capabilities":{"deviceID":true}}]}`
		}
		return def, nil
	}
	for _, devices := range []Devices{nil, func(Pod, []Need) ([]pod.Device, error) { return nil, nil }} {
		sel, err := Select(Query{}, web(map[string]string{annotations.NetworksKey: "br1"}), find, devices)
		if err != nil || sel.Networks[0].Device != "" || sel.Networks[0].ResourceName != bridge {
			t.Errorf("Select = %+v, %v; want a network without device", sel, err)
		}
		if _, err = Select(Query{}, web(map[string]string{annotations.NetworksKey: "vf"}), find, devices); !errors.Is(err, ErrNoDevice) {
			t.Errorf("Select of a plugin that takes devices = %v, want ErrNoDevice", err)
		}
	}
}

// consumers are networks that consume, by way of each path on which a pod gets one.
func consumers(ref nad.Ref) (*nad.Definition, error) {
	def := &nad.Definition{Ref: ref, Config: "{}", ResourceName: "r"}
	switch ref.Name {
	case "plain":
		def.ResourceName = ""
	case "bound":
		def.ResourceName, def.ClaimRequest = "", "claim/nic"
	case "broken":
		def.ClaimRequest = "nic"
	case "missing":
		return nil, fmt.Errorf("%w: %s", nad.ErrNotFound, ref)
	}
	return def, nil
}

func TestSelectGivesDevices(t *testing.T) {
	t.Parallel()
	calls := 0
	devices := func(p Pod, needs []Need) ([]pod.Device, error) {
		calls++
		if p.Ref.Name != "web" || len(needs) != 6 {
			t.Errorf("asked for %v of %v", needs, p.Ref)
		}
		return []pod.Device{dp("r", "a"), dp("r", "b"), dp("r", "c"), dra("q", "d", "claim", "nic")}, nil
	}
	p := web(map[string]string{annotations.DefaultNetworkKey: "first", annotations.NetworksKey: "third,plain,bound"})
	sel, err := Select(Query{NetworksNamespace: "kube-system", DefaultNetworks: []string{"missing", "second"}}, p, consumers, devices)
	if err != nil {
		t.Fatal(err)
	}
	type device struct{ network, id, resource, claim string }
	var got []device
	for _, n := range sel.all() {
		d := device{n.Ref.Name, n.Device, n.ResourceName, ""}
		if n.Claimed != nil {
			d.claim = n.Claimed.Claim
		}
		got = append(got, d)
	}
	want := []device{
		{"first", "a", "r", ""}, {"missing", "", "", ""}, {"second", "b", "r", ""}, {"third", "c", "r", ""}, {"plain", "", "", ""}, {"bound", "d", "q", "web-claim"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(device{})); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if calls != 1 {
		t.Errorf("%d calls, want 1", calls)
	}
}

func TestSelectAsksForDevicesOnlyWhenItNeedsThem(t *testing.T) {
	t.Parallel()
	devices := func(Pod, []Need) ([]pod.Device, error) {
		t.Error("asked")
		return nil, nil
	}
	for name, networks := range map[string]string{
		"no network": "", "networks without resource": "plain,plain", "a device that the element names": `[{"name":"plain","deviceID":"x"}]`,
	} {
		if _, err := Select(Query{}, web(map[string]string{annotations.NetworksKey: networks}), consumers, devices); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// STATUS asks for the default network alone: there is no pod that has devices.
	sel, err := Select(Query{ClusterNetwork: "first", NetworksNamespace: "kube-system"}, Pod{}, consumers, devices)
	if err != nil || sel.Default == nil {
		t.Errorf("Select of no pod = %+v, %v", sel, err)
	}
}

func TestSelectFailsWithItsDevices(t *testing.T) {
	t.Parallel()
	away := fmt.Errorf("%w: the kubelet is down", ErrTryAgain)
	tests := map[string]struct {
		networks string
		given    []pod.Device
		err      error
		kind     error
		says     string
	}{
		"a kubelet that is down":             {"third", nil, away, ErrTryAgain, "devices of pod default/web"},
		"X3 too few":                         {"third,third", []pod.Device{dp("r", "a")}, nil, ErrNoDevice, "want 2"},
		"a device that cannot be used":       {"third", []pod.Device{dp("r", "a b")}, nil, pod.ErrDevice, "device plugin"},
		"a device without ID":                {"third", []pod.Device{dp("r", "")}, nil, pod.ErrDevice, "no ID"},
		"an annotation that is no request":   {"broken", nil, nil, nad.ErrInvalid, annotations.ClaimRequestKey},
		"a request of a claim that is empty": {"bound", nil, nil, ErrNoDevice, `claim "claim"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sel, err := Select(Query{}, web(map[string]string{annotations.NetworksKey: tc.networks}), consumers,
				func(Pod, []Need) ([]pod.Device, error) { return tc.given, tc.err })
			if sel != nil || !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Select = %+v, %v; want %v saying %q", sel, err, tc.kind, tc.says)
			}
		})
	}
}

// FuzzDistribute: whatever is given and wanted, nobody gets what was not given or what somebody else has.
func FuzzDistribute(f *testing.F) {
	f.Add("r,r=a,claim/nic", "r=a,r=b,claim/nic=c")
	f.Add("r,,=x,s", "s=1,r=1,r=1")
	f.Fuzz(func(t *testing.T, wants, has string) {
		var needs []Need
		for text := range strings.SplitSeq(wants, ",") {
			needs = append(needs, need(text))
		}
		var given []pod.Device
		for text := range strings.SplitSeq(has, ",") {
			n := need(text)
			d := pod.Device{ID: n.ID, Resource: n.Resource}
			if !n.Claim.IsZero() {
				d.Claimed = &pod.ClaimedDevice{PodClaim: n.Claim.Claim, Request: n.Claim.Request}
			}
			given = append(given, d)
		}
		got, err := Distribute(needs, given)
		if err != nil {
			return
		}
		taken := map[string]bool{}
		for i, d := range got {
			if needs[i].consumes() && d == nil {
				t.Fatalf("need %d has nothing", i)
			}
			if d == nil || d.ID == needs[i].ID {
				continue
			}
			if taken[identity(*d)] || !needs[i].fits(*d) {
				t.Errorf("need %+v got %+v", needs[i], d)
			}
			taken[identity(*d)] = true
		}
	})
}
