// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/nad"
)

// TestDoctorAccusesNoNetworkThatWasCorrected: what the sandboxes of failed tries were attached with is history; they are told of once for a pod.
func TestDoctorAccusesNoNetworkThatWasCorrected(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, "")
	n.write(t, "manifests/nads.yaml", n.bridge("b", "", subnet))
	const bad = `{"cniVersion":"1.0.0","name":"b","type":"bridge","bridge":"br-b","ipam":{"type":"host-local","subnet":"10.202.0.0"}}`
	list, err := nad.Normalize([]byte(bad), nad.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		plan := &delegate.Plan{
			Version: 1, ConfName: "plexus", Began: time.Now(), Pod: pod.Ref{Namespace: "default", Name: "a"},
			Sandbox:     delegate.Sandbox{ContainerID: fmt.Sprintf("c%d", i), NetNS: "/nonexistent", IfName: "eth0"},
			Attachments: []delegate.Attachment{{Network: "default/b", IfName: "net1", State: delegate.UndoFailed, List: list, Error: "invalid CIDR address: 10.202.0.0"}},
		}
		if err := record.Open[delegate.Plan](n.path("state", "records")).Save(fmt.Sprintf("c%d-eth0", i), plan); err != nil {
			t.Fatal(err)
		}
	}
	wantOnly(t, n.examine(t), RecordOrphan, "pod default/a", "its network namespace is gone", "(6 times)")
}

func TestNetworksThatTakeWhatIsAnothers(t *testing.T) {
	t.Parallel()
	inNamespace := func(namespace, yaml string) string {
		return strings.Replace(yaml, "namespace: default", "namespace: "+namespace, 1)
	}
	for name, tc := range map[string]struct {
		nads func(n *testNode) string
		code string
		says []string
	}{
		"the default network's name": {
			nads: func(*testNode) string {
				return nadYAML("lo", `{"cniVersion":"1.0.0","name":"cluster","type":"loopback"}`)
			},
			code: NetworkNameTaken, says: []string{"network default/lo", `its "name" "cluster" is that of the default network`},
		},
		"another namespace's leases": {
			nads: func(n *testNode) string {
				return n.bridge("b", "", subnet) + inNamespace("shop", n.bridge("b", "", subnet))
			},
			code: PoolShared, says: []string{"network default/b and shop/b", "10.202.0.1-10.202.0.254", "/leases/b"},
		},
		"leases that it shares with its own namespace": {
			nads: func(n *testNode) string {
				return n.bridge("b", "", subnet) + strings.Replace(n.bridge("b", "", subnet), "name: b,", "name: c,", 1) // both are called b
			},
		},
		"another namespace's leases, of other addresses": {
			nads: func(n *testNode) string {
				return n.bridge("b", "", subnet) + inNamespace("shop", n.bridge("b", "", `"subnet":"10.203.0.0/24"`))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t, "")
			n.write(t, "manifests/nads.yaml", strings.ReplaceAll(tc.nads(n), `"type":"bridge"`, `"name":"b","type":"bridge"`))
			found := n.examine(t)
			if tc.code == "" {
				if codes := bad(found); codes != nil {
					t.Errorf("found %s", show(found))
				}
				return
			}
			wantOnly(t, found, tc.code, tc.says...)
		})
	}
}

func TestCRIOsGCOfThePrimarysOwnFile(t *testing.T) {
	t.Parallel()
	const primary = `{"cniVersion":"%s","name":"cluster"%s,"plugins":[{"type":"bridge"}]}`
	for name, tc := range map[string]struct {
		conf string
		crio bool
		want bool
	}{
		"CNI 1.1.0 with CRI-O":             {conf: fmt.Sprintf(primary, "1.1.0", ""), crio: true, want: true},
		"CNI 1.1.0 with another runtime":   {conf: fmt.Sprintf(primary, "1.1.0", "")},
		"an earlier version, without GC":   {conf: fmt.Sprintf(primary, "1.0.0", ""), crio: true},
		"GC is off":                        {conf: fmt.Sprintf(primary, "1.1.0", `,"disableGC":true`), crio: true},
		"GC is off, in the form of a text": {conf: fmt.Sprintf(primary, "1.1.0", `,"disableGC":"true"`), crio: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t, "")
			n.Paths.CRIO = n.path("crio.sock")
			if tc.crio {
				n.write(t, "crio.sock", "")
			}
			n.write(t, "net.d/10-primary.conflist", tc.conf)
			found := n.examine(t)
			if !tc.want {
				if codes := bad(found); codes != nil {
					t.Errorf("found %s", show(found))
				}
				return
			}
			wantOnly(t, found, ConfCRIOGC, "10-primary.conflist", "no attachment is valid")
		})
	}
}

func TestGrouped(t *testing.T) {
	t.Parallel()
	finding := func(object, text string) Finding { return newFinding(RecordOrphan, object, text, "fix") }
	var many []Finding
	for i := range 6 {
		many = append(many, finding("pod c", fmt.Sprint(i)))
	}
	got := grouped(append([]Finding{finding("pod a", "x"), finding("pod a", "x"), finding("pod a", "y"), finding("pod b", "x")}, many...))
	want := []Finding{finding("pod a", "x (2 times); y"), finding("pod b", "x"), finding("pod c", "0; 1; 2; 3; and 2 more")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestIPAMWithoutCheck(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		keys, conf string
		want       bool
	}{
		"all networks are asked":         {keys: `"checkNetworks":"all",`, conf: `{"cniVersion":"1.0.0","type":"loopback","ipam":{"type":"whereabouts"}}`, want: true},
		"only the default network is":    {conf: `{"cniVersion":"1.0.0","type":"loopback","ipam":{"type":"whereabouts"}}`},
		"CHECK is off for the network":   {keys: `"checkNetworks":"all",`, conf: `{"cniVersion":"1.0.0","disableCheck":true,"plugins":[{"type":"loopback","ipam":{"type":"whereabouts"}}]}`},
		"a version that has none":        {keys: `"checkNetworks":"all",`, conf: `{"cniVersion":"0.3.1","type":"loopback","ipam":{"type":"whereabouts"}}`},
		"an IPAM plugin that implements": {keys: `"checkNetworks":"all",`, conf: `{"cniVersion":"1.0.0","type":"loopback","ipam":{"type":"static"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t, "")
			conf, err := os.ReadFile(n.Conf)
			if err != nil {
				t.Fatal(err)
			}
			n.write(t, "net.d/00-plexus.conflist", strings.Replace(string(conf), `"manifestDir"`, tc.keys+`"manifestDir"`, 1))
			n.script(t, "whereabouts", "")
			n.write(t, "manifests/nads.yaml", nadYAML("net", tc.conf))
			found := n.examine(t)
			if codes := strings.Join(bad(found), ","); strings.Contains(codes, NetworkNoCheck) != tc.want {
				t.Errorf("found %s", show(found))
			}
		})
	}
}

func TestServiceMeshes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		behind, network, want string
	}{
		"none":                         {},
		"behind Plexus":                {behind: `,{"type":"istio-cni"}`, want: ConfMesh},
		"behind the default network":   {network: `,{"type":"istio-cni"}`},
		"behind both":                  {behind: `,{"type":"istio-cni"}`, network: `,{"type":"istio-cni"}`, want: ConfMeshTwice},
		"another plugin behind Plexus": {behind: `,{"type":"tuning"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t, "")
			n.write(t, "net.d/00-plexus.conflist", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"plexus","plugins":[{"type":"plexus","binDir":%q,"cniDir":%q,"manifestDir":%q,
				"delegates":[{"cniVersion":"1.0.0","name":"cluster","plugins":[{"type":"loopback"}%s]}]}%s]}`, n.path("bin"), n.path("state"), n.path("manifests"), tc.network, tc.behind))
			n.script(t, "istio-cni", "")
			var got []string
			for _, f := range n.examine(t) {
				if strings.HasPrefix(f.Code, "conf-mesh") {
					got = append(got, f.Code)
				}
			}
			if strings.Join(got, ",") != tc.want {
				t.Errorf("found %q; want %q", got, tc.want)
			}
		})
	}
}
