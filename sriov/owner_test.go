// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov_test

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/netdev"
)

// withIPAM is a network that asks for addresses.
func withIPAM(keys map[string]any) map[string]any {
	conf := map[string]any{"ipam": map[string]any{"type": "test-ipam"}}
	maps.Copy(conf, keys)
	return conf
}

// duringADD runs f while an ADD of pod A for VF 0 is at its IPAM plugin.
func (n *node) duringADD(conf string, f func()) {
	n.t.Helper()
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.ipam.fail = func(command string) error {
		if command == "ADD" {
			once.Do(func() {
				close(asked)
				<-answer
			})
		}
		return nil
	}
	done := make(chan error, 1)
	go func() {
		_, err := n.call(n.t.Context(), "ADD", podA(), conf)
		done <- err
	}()
	<-asked
	f()
	close(answer)
	if err := <-done; err != nil {
		n.t.Errorf("ADD: %v", err)
	}
}

// TestOneCallAtATimeHasADevice has other calls while an ADD is half done. None may touch the VF, whosever it is, or look at what is half done.
func TestOneCallAtATimeHasADevice(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		command string
		args    args
		keys    map[string]any
	}{
		"ADD of another pod": {"ADD", podB(), nil},
		"DEL of the same":    {"DEL", podA(), nil},
		"GC":                 {"GC", args{}, map[string]any{"cni.dev/valid-attachments": []any{}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			conf := config(vf0, withIPAM(map[string]any{"vlan": 100, "mac": "02:00:00:00:00:aa"}))
			n.duringADD(conf, func() {
				before := n.fake.String()
				other := n.newPlugin()
				other.LockTimeout = time.Millisecond
				n2 := *n
				n2.plugin = other
				_, err := n2.call(t.Context(), tc.command, tc.args, config(vf0, tc.keys))
				wantCode(t, err, types.ErrTryAgainLater, vf0, "lock")
				if diff := cmp.Diff(before, n.fake.String()); diff != "" {
					t.Errorf("-before +after:\n%s", diff)
				}
			})
			n.must("CHECK", podA(), conf)
		})
	}
}

// TestSandboxOfTheSamePathIsAnotherOne has the path of a sandbox that ended used for another one, and its inode too, or that not.
func TestSandboxOfTheSamePathIsAnotherOne(t *testing.T) {
	t.Parallel()
	for _, inodeToo := range []bool{true, false} {
		n := newNode(t)
		n.must("ADD", podA(), config(vf0, everything()))
		was, err := n.fake.NetNSID(sandbox)
		if err != nil {
			t.Fatal(err)
		}
		n.fake.DeleteNetNS(sandbox)
		if !inodeToo {
			n.fake.SetNetNS("/run/netns/takes-the-number", nil, nil)
		}
		n.restoreSandbox()
		if is, err := n.fake.NetNSID(sandbox); err != nil || (is == was) != inodeToo {
			t.Fatalf("the sandbox has the inode %s, the former one had %s: %v", is, was, err)
		}
		n.must("ADD", podB(), config(vf0, map[string]any{"vlan": 200}))
		n.must("CHECK", podB(), config(vf0, map[string]any{"vlan": 200}))
	}
}

// TestVFOfAnotherBoot is as its administrator has made it since: a record of an earlier boot tells nothing of it, and its owner is gone, though
// the same path, inode and cookie have come again.
func TestVFOfAnotherBoot(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"DEL", "ADD"} {
		n := newNode(t)
		n.must("ADD", podA(), config(vf0, everything()))
		fresh := newNode(t)
		fresh.dir, fresh.ipam, fresh.fake.Boot = n.dir, n.ipam, "boot-2"
		fresh.plugin = fresh.newPlugin()
		fresh.fake.SetPF(pf, []netdev.FakeVF{{Device: vf0, VF: netdev.VF{
			MAC: "02:00:00:00:00:77", VLAN: netdev.VLAN{ID: 7, Proto: netdev.VLANProto8021Q}, MaxTxMbps: 70, Trust: true, LinkState: netdev.LinkStateEnable,
		}}})
		links, err := fresh.fake.Links(netdev.Host)
		if err != nil {
			t.Fatal(err)
		}
		links[2].Name, links[2].MTU, links[2].MAC = "ens3f0v0", 1400, net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
		fresh.fake.SetNetNS(netdev.Host, links, nil)
		before := fresh.fake.String()
		if verb == "ADD" { // of another pod, for which the former owner would not be dead
			fresh.must("ADD", podB(), config(vf0, nil))
			fresh.must("DEL", podB(), config(vf0, nil))
		} else {
			fresh.must("DEL", podA(), config(vf0, everything()))
		}
		if diff := cmp.Diff(before, fresh.fake.String()); diff != "" {
			t.Errorf("%s: a VF of the new boot was changed (-before +after):\n%s", verb, diff)
		}
	}
}

// reaching tells when somebody waits for it for the first time.
type reaching struct {
	context.Context
	once    *sync.Once
	reached chan struct{}
}

func (r reaching) Done() <-chan struct{} {
	r.once.Do(func() { close(r.reached) })
	return r.Context.Done()
}

// TestDelThatWaitsForTheNextOwnersADD has found its record, and is late for the device: by the time that it has the device, another pod does.
func TestDelThatWaitsForTheNextOwnersADD(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.must("ADD", podA(), config(vf0, everything()))
	n.fake.DeleteNetNS(sandbox)
	del := make(chan error, 1)
	late := n.newPlugin()
	n.plugin.Step = func(string) error {
		n.plugin.Step = nil
		// The ADD of pod B has the device, and has not undone the record of pod A yet.
		ctx := reaching{t.Context(), &sync.Once{}, make(chan struct{})}
		n2 := *n
		n2.plugin = late
		go func() {
			_, err := n2.call(ctx, "DEL", podA(), config(vf0, nil))
			del <- err
		}()
		<-ctx.reached // it waits for the lock
		return nil
	}
	n.must("ADD", podB(), config(vf0, map[string]any{"vlan": 200}))
	if err := <-del; err != nil {
		t.Errorf("DEL: %v", err)
	}
	n.must("CHECK", podB(), config(vf0, map[string]any{"vlan": 200}))
}

// TestRuntimeThatGivesUp cancels an ADD in its IPAM plugin: it is undone all the same, the lease too.
func TestRuntimeThatGivesUp(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	ctx, cancel := context.WithCancel(t.Context())
	run := n.ipam.run
	n.plugin.Run = func(ctx context.Context, plugin string, stdin []byte, environ []string) ([]byte, error) {
		if slices.Contains(environ, "CNI_COMMAND=ADD") {
			out, err := run(ctx, plugin, stdin, environ)
			cancel()
			return out, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return run(ctx, plugin, stdin, environ)
	}
	if _, err := n.call(ctx, "ADD", podA(), config(vf0, everything())); err == nil || strings.Contains(err.Error(), "could not be undone") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after the ADD (-before +after):\n%s", diff)
	}
}

// TestGCIsToldToIPAM from CNI 1.1.0 on, which has the verb.
func TestGCIsToldToIPAM(t *testing.T) {
	t.Parallel()
	for version, want := range map[string][]string{"1.1.0": {"test-ipam GC"}, "1.0.0": nil} {
		n := newNode(t)
		n.must("GC", args{}, config("", withIPAM(map[string]any{"cniVersion": version, "cni.dev/valid-attachments": []any{}})))
		if diff := cmp.Diff(want, n.ipam.calls); diff != "" {
			t.Errorf("CNI %s: IPAM was called (-want +got):\n%s", version, diff)
		}
	}
}

// TestRecordOfTheReleaseBefore lacks what this one writes besides, and is undone as far as it goes; and that release finds in a record of this
// one all that it knows.
func TestRecordOfTheReleaseBefore(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.state()
	n.must("ADD", podA(), config(vf0, everything()))
	file := filepath.Join(n.dir, "records", records(t, n)[0])
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Version  int             `json:"version"`
		Owner    json.RawMessage `json:"owner"`
		NetNS    string          `json:"netns"`
		NetNSID  string          `json:"netnsID"`
		BootID   string          `json:"bootID"`
		Device   string          `json:"device"`
		Parent   string          `json:"parent,omitempty"`
		VF       netdev.VF       `json:"vf"`
		Want     netdev.VF       `json:"want"`
		Link     formerLink      `json:"link,omitzero"`
		PodLink  formerLink      `json:"podLink,omitzero"`
		Attached bool            `json:"attached,omitempty"`
	}
	if err = json.Unmarshal(data, &record); err != nil {
		t.Fatal(err)
	}
	id, err := n.fake.NetNSID(sandbox)
	if err != nil || record.Version != 1 || record.NetNSID != id || !record.Attached || record.Link.Name != "eth4v0" || record.Want.VLAN.ID != 100 {
		t.Errorf("the release before finds %+v, %v", record, err)
	}
	former, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(file, former, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = n.call(t.Context(), "ADD", podB(), config(vf0, nil)); err == nil {
		t.Error("the VF of a live pod was given away")
	}
	n.must("DEL", podA(), config(vf0, everything()))
	if diff := cmp.Diff(before, n.state()); diff != "" {
		t.Errorf("after DEL (-before +after):\n%s", diff)
	}
}

// formerLink is what the release before keeps of an interface.
type formerLink struct {
	Name         string   `json:"name,omitempty"`
	MAC          string   `json:"mac,omitempty"`
	MTU          int      `json:"mtu,omitempty"`
	AltNames     []string `json:"altNames,omitempty"`
	Up           bool     `json:"up,omitempty"`
	Promisc      bool     `json:"promisc,omitempty"`
	AllMulticast bool     `json:"allMulticast,omitempty"`
}
